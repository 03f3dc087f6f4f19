"""Two models that compute the same under other names or layouts, and the mapping file between their checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from gpt2 import CONTEXT, VOCABULARY, GPT2Model, LinearGPT2, PublishedLM
from timm.models.convnext import ConvNeXt as TimmConvNeXt
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer as TimmViT
from torch import nn
from torchvision.models import VisionTransformer
from torchvision.models.convnext import CNBlockConfig, ConvNeXt

MAPPINGS = Path(__file__).parents[2] / "fixtures" / "mappings"


def as_it_is(model: nn.Module) -> nn.Module:
    return model


@dataclass(frozen=True)
class Pair:
    """``source``'s checkpoint goes into ``target`` by the file ``mapping``; ``runs`` makes the source answer alike.

    ``tolerance`` is that of the outputs in float64, relative to the largest; 0 is bit for bit. The weights themselves
    are always exact.
    """

    mapping: str
    source: Callable[[], nn.Module]
    target: Callable[[], nn.Module]
    inputs: Callable[[], torch.Tensor]
    tolerance: float
    runs: Callable[[nn.Module], nn.Module] = as_it_is

    @property
    def path(self) -> Path:
        return MAPPINGS / f"{self.mapping}.toml"


def images() -> torch.Tensor:
    return torch.randn(2, 3, 32, 32, dtype=torch.float64)


def tokens() -> torch.Tensor:
    return torch.randint(VOCABULARY, (2, CONTEXT - 2))


VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2, "num_classes": 5}


def torchvision_vit() -> nn.Module:
    return VisionTransformer(32, 8, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=64, num_classes=5)


def torchvision_convnext() -> nn.Module:
    sizes = [(8, 16, 2), (16, 24, 1), (24, 32, 3), (32, None, 1)]
    return ConvNeXt([CNBlockConfig(*size) for size in sizes], num_classes=5)


PAIRS = {
    pair.mapping: pair
    for pair in (
        # Other kernels: torchvision's encoder adds and multiplies in another order.
        Pair("torchvision-vit-to-timm", torchvision_vit, lambda: TimmViT(**VIT), images, 1e-14),
        # timm takes the mean over positions in another order.
        Pair(
            "torchvision-convnext-to-timm",
            torchvision_convnext,
            lambda: TimmConvNeXt(depths=(2, 1, 3, 1), dims=(8, 16, 24, 32), num_classes=5),
            images,
            1e-14,
        ),
        # One product of matrices instead of three.
        Pair("timm-eva-split-qkv", lambda: Eva(**VIT), lambda: Eva(**VIT, qkv_fused=False), images, 1e-14),
        # A product with a transposed matrix may be summed in another order.
        Pair("gpt2-to-linear", GPT2Model, LinearGPT2, tokens, 1e-14, PublishedLM),
    )
}


def seeded(build: Callable[[], nn.Module], seed: int) -> nn.Module:
    """Build a model in float64 whose every parameter and buffer of floats is random, so that no two are alike."""
    torch.manual_seed(seed)
    model = build().double().eval()
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                tensor.normal_(std=0.2)
                if name.endswith("running_var"):
                    tensor.abs_().add_(0.5)
    return model
