"""Modes: modules of the frozen part that do in train mode what freezing was to stop."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.modules.instancenorm import _InstanceNorm

from ...rules import Finding
from ...rules.training_flags import EVAL_MODE_ENDS, FROZEN_NORM_IN_TRAIN_MODE
from ...rules.training_modules import DROPOUT_IN_FROZEN, FROZEN_REPARAMETRIZED
from ...rules.verdicts import is_statistic
from ..causes import POWER_ITERATION
from ..freezing import wholly_frozen
from ..names import NamedTensor
from .findings import Row, finding
from .setup import Setup

_DROPPING = ("DropPath", "StochasticDepth")  # of timm and torchvision, and of those made after them


def check_modes(setup: Setup) -> Iterator[Finding]:
    """Find frozen running statistics that a forward pass will move, and frozen spectral norms that iterate."""
    moving: list[Row] = []
    ending: list[Row] = []
    iterating: list[Row] = []
    for name in setup.frozen:
        named = setup.tensors[name]
        if named.kind != "buffer":
            continue
        module = named.modules[-1]
        if isinstance(module, _NormBase):
            if is_statistic(name) and _updates(module):
                moving.append((name, f"{type(module).__name__} in train mode", "each forward pass updates it"))
            elif not module.training and not _is_held(named) and is_statistic(name):
                ending.append((name, f"{type(module).__name__} in eval mode", "model.train() will end it"))
        elif module.training and named.attribute in POWER_ITERATION and _iterates(named):
            iterating.append((name, f"{type(module).__name__} in train mode", "each forward pass iterates it"))
    if moving:
        yield finding(setup, FROZEN_NORM_IN_TRAIN_MODE, moving)
    if ending:
        yield finding(setup, EVAL_MODE_ENDS, ending)
    if iterating:
        yield finding(setup, FROZEN_REPARAMETRIZED, iterating, case="iterates")


def _updates(norm: _NormBase) -> bool:
    """Tell whether a forward pass writes the running statistics; InstanceNorm asks for its mode alone."""
    return norm.training and (norm.track_running_stats or isinstance(norm, _InstanceNorm))


def _is_held(named: NamedTensor) -> bool:
    """Tell whether somebody has seen to it that ``model.train()`` does not reach the module."""
    return any("train" in vars(one) or type(one).train is not nn.Module.train for one in reversed(named.modules))


def _iterates(named: NamedTensor) -> bool:
    hooks = (type(hook).__name__ for hook in named.module._forward_pre_hooks.values())
    return type(named.module).__name__ == "_SpectralNorm" or "SpectralNorm" in hooks


def check_dropout(setup: Setup) -> Iterator[Finding]:
    """Find layers that drop values, in modules that are frozen with all below them."""
    dropping = {name: module for name, module in setup.modules if module.training and _drops(module)}
    whole = wholly_frozen(setup.tensors, setup.frozen) if dropping else {}
    rows = [
        (name, f"{type(module).__name__} in train mode", f"it drops {_drops(module):.3g} of the values")
        for name, module in dropping.items()
        if id(module) in whole
    ]
    if rows:
        yield finding(setup, DROPOUT_IN_FROZEN, rows, explains=False)


def _drops(module: nn.Module) -> float:
    if isinstance(module, _DropoutNd):
        return float(module.p)
    if isinstance(module, (nn.MultiheadAttention, nn.RNNBase)):
        return float(module.dropout)
    if type(module).__name__ in _DROPPING:
        rate = getattr(module, "drop_prob", getattr(module, "p", 0.0))
        return float(rate or 0.0)
    return 0.0
