"""GPT-2 twice: as transformers writes it, with Conv1D, and with nn.Linear. Same arithmetic, same names but for the prefix."""

from __future__ import annotations

import math

import torch
from torch import nn

VOCABULARY, CONTEXT, WIDTH, HEADS, DEPTH = 50, 12, 16, 2, 2


class Conv1D(nn.Module):
    """transformers.pytorch_utils.Conv1D: a linear layer whose weight is (in, out)."""

    def __init__(self, outputs: int, inputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(inputs, outputs))
        self.bias = nn.Parameter(torch.zeros(outputs))
        nn.init.normal_(self.weight, std=0.02)

    def forward(self, x):
        return torch.addmm(self.bias, x.reshape(-1, x.shape[-1]), self.weight).view(*x.shape[:-1], -1)


def linear(outputs: int, inputs: int) -> nn.Module:
    return nn.Linear(inputs, outputs)


class Attention(nn.Module):
    def __init__(self, layer, masks: bool) -> None:
        super().__init__()
        self.c_attn, self.c_proj = layer(3 * WIDTH, WIDTH), layer(WIDTH, WIDTH)
        mask = torch.ones(CONTEXT, CONTEXT, dtype=torch.bool).tril().view(1, 1, CONTEXT, CONTEXT)
        self.register_buffer("bias", mask, persistent=masks)
        self.register_buffer("masked_bias", torch.tensor(-1e4), persistent=masks)

    def forward(self, x):
        batch, length, _ = x.shape
        query, key, value = (
            part.view(batch, length, HEADS, WIDTH // HEADS).transpose(1, 2) for part in self.c_attn(x).split(WIDTH, 2)
        )
        scores = query @ key.transpose(2, 3) / math.sqrt(WIDTH // HEADS)
        scores = torch.where(self.bias[:, :, :length, :length], scores, torch.finfo(scores.dtype).min)
        return self.c_proj((scores.softmax(-1) @ value).transpose(1, 2).reshape(x.shape))


class MLP(nn.Module):
    def __init__(self, layer) -> None:
        super().__init__()
        self.c_fc, self.c_proj = layer(4 * WIDTH, WIDTH), layer(WIDTH, 4 * WIDTH)

    def forward(self, x):
        return self.c_proj(nn.functional.gelu(self.c_fc(x), approximate="tanh"))


class Block(nn.Module):
    def __init__(self, layer, masks: bool) -> None:
        super().__init__()
        self.ln_1, self.attn = nn.LayerNorm(WIDTH), Attention(layer, masks)
        self.ln_2, self.mlp = nn.LayerNorm(WIDTH), MLP(layer)

    def forward(self, x):
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class GPT2Model(nn.Module):
    """The bare model, whose keys are those of the published files; ``masks``: of the older ones."""

    def __init__(self, layer=Conv1D, masks: bool = False) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(VOCABULARY, WIDTH), nn.Embedding(CONTEXT, WIDTH)
        self.h = nn.ModuleList(Block(layer, masks) for _ in range(DEPTH))
        self.ln_f = nn.LayerNorm(WIDTH)

    def forward(self, tokens):
        x = self.wte(tokens) + self.wpe(torch.arange(tokens.shape[1]))
        for block in self.h:
            x = block(x)
        return self.ln_f(x)


class LinearGPT2(nn.Module):
    """The language model on nn.Linear, its head tied to the embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.transformer = GPT2Model(linear)
        self.lm_head = nn.Linear(WIDTH, VOCABULARY, bias=False)
        self.lm_head.weight = self.transformer.wte.weight

    def forward(self, tokens):
        return self.lm_head(self.transformer(tokens))


class PublishedLM(nn.Module):
    """transformers' GPT2LMHeadModel around the bare model: logits by the embedding."""

    def __init__(self, model: GPT2Model) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens):
        return self.model(tokens) @ self.model.wte.weight.T
