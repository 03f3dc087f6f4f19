"""What names and shapes do not tell: values that a cast would lose, and different values for what is tied."""

from __future__ import annotations

import torch
from torch import nn

from ..dtypes import cast_effect
from ..mapping.ranges import out_of_range
from .contents import Contents
from .forecast import Forecast
from .result import LoadError


def check_values(model: nn.Module, contents: Contents, expected: Forecast, *, cast: bool, exact: bool) -> None:
    """Read what has to be looked at, one tensor at a time. Raises LoadError."""
    name = type(model).__name__
    if cast:
        for key, (saved, wanted) in expected.result.casts.items():
            _check_cast(contents, key, saved, wanted, exact, expected)
    for keys in expected.ties():
        for other in keys[1:]:
            if not _same(contents, keys[0], other):
                reason = f"has other values under {other} than under {keys[0]}, which {name} has tied"
                hint = f"keep one of them: mapping=['drop {other}', 'tie {other} = {keys[0]}']"
                raise LoadError(contents.name, reason, hint, result=expected.result)


def _check_cast(contents: Contents, key: str, saved: str, wanted: str, exact: bool, expected: Forecast) -> None:
    effect = cast_effect(saved, wanted)
    hint = f"cast it yourself, if that is meant: mapping=['cast {key}: {wanted}']"
    what = f"holds {key} as {saved}, the model as {wanted}"
    if exact:
        raise LoadError(contents.name, what, "load it with contract='strict'", result=expected.result)
    if effect == "kind-changed":
        raise LoadError(contents.name, f"{what}: a cast would change what the values are", hint, result=expected.result)
    if effect == "narrowed":
        before = in_memory(contents, key)
        lost = int(out_of_range(before, before.to(getattr(torch, wanted))).sum())
        if lost:
            reason = f"{what}, whose range {lost:,} of {before.numel():,} values are out of"
            raise LoadError(contents.name, reason, "build the model with a wider dtype", result=expected.result)


def _same(contents: Contents, one: str, other: str) -> bool:
    """Compare two tensors of the checkpoint bit for bit; views of the same memory need not be read."""
    first, second = contents.manifest.tensors.get(one), contents.manifest.tensors.get(other)
    if first is None or second is None:
        return first is second
    if first.same_view(second) or contents.sources(one) == contents.sources(other):
        return True
    if (first.shape, first.dtype) != (second.shape, second.dtype):
        return False
    bits = [in_memory(contents, key).contiguous().reshape(-1).view(torch.uint8) for key in (one, other)]
    return bool(torch.equal(*bits))


def in_memory(contents: Contents, key: str) -> torch.Tensor:
    """Return a tensor of the checkpoint, under its name after the mapping, with its values."""
    value = contents.value(key)
    made: torch.Tensor = value.make() if hasattr(value, "make") else value.detach()
    return made.resolve_conj().resolve_neg()
