"""Small models of different build, with the shapes of their inputs."""

from __future__ import annotations

import torch
from torch import nn
from torchvision.models import VisionTransformer, mobilenet_v3_small, resnet18


class Words(nn.Module):
    """An embedding, an LSTM and a head: nothing like a stack of convolutions."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(50, 32)
        self.encoder = nn.LSTM(32, 64, 2, batch_first=True)
        self.norm = nn.LayerNorm(64)
        self.head = nn.Linear(64, 7)

    def forward(self, words):
        return self.head(self.norm(self.encoder(self.embedding(words))[0].mean(1)))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.body = nn.Sequential(nn.Conv2d(8, 16, 3, stride=2), nn.BatchNorm2d(16), nn.ReLU(), nn.Dropout(0.5))
        self.fc = nn.Linear(16, 5)

    def forward(self, images):
        return self.fc(self.body(self.stem(images)).mean((2, 3)))


def small_vit():
    return VisionTransformer(image_size=32, patch_size=8, num_layers=3, num_heads=4, hidden_dim=64, mlp_dim=128)


NETS = {
    "resnet18": (resnet18, "2,3,64,64"),
    "vit": (small_vit, "4,3,32,32"),
    "mobilenet": (mobilenet_v3_small, "4,3,64,64"),
    "lstm": (Words, "4,12:int64"),
    "net": (Net, "4,3,16,16"),
}


def make(name):
    torch.manual_seed(0)
    build, shape = NETS[name]
    return build(), shape
