"""The two checks that read values: updates that round away (a few values), averaged copies (those that are given)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ...model.memory import why_not
from ...rules import Finding
from ...rules.training_optimizers import AVERAGED_COPY_DIFFERS, UPDATE_BELOW_PRECISION
from ..fingerprint import take
from ..names import NamedTensor, named_tensors
from .findings import Row, finding
from .setup import Place, Setup

_SIXTEEN_BITS = (torch.bfloat16, torch.float16)
_TENSORS, _VALUES = 16, 64  # looked at: tensors of a group, and values of each


def check_precision(setup: Setup) -> Iterator[Finding]:
    """Find 16-bit parameters whose updates are below half a step of their values."""
    rows: list[Row] = []
    looked: dict[tuple[int, int], int] = {}
    for named in setup.left(setup.moving):
        place = setup.place(named)
        if named.tensor.dtype not in _SIXTEEN_BITS or place is None or not named.tensor.requires_grad:
            continue
        key = (id(place.optimizer), place.index)
        looked[key] = looked.get(key, 0) + 1
        if looked[key] <= _TENSORS and not why_not(named.tensor):
            rows += _too_small(named, place)
    if rows:
        yield finding(setup, UPDATE_BELOW_PRECISION, rows, explains=False)


def _too_small(named: NamedTensor, place: Place) -> Iterator[Row]:
    """Hold the update that an optimizer of torch would make against half the distance between neighbouring values."""
    if not type(place.optimizer).__module__.startswith("torch.optim") or not place.lr:
        return  # others may keep a copy in float32
    gradient = 1.0
    if "betas" not in place.group and named.tensor.grad is not None and not why_not(named.tensor.grad):
        gradient = _typical(named.tensor.grad)
    value, update = _typical(named.tensor), place.lr * gradient
    half = value * torch.finfo(named.tensor.dtype).eps / 4  # the nearer neighbour, just below a power of two
    if 0 < update < half:
        kind = str(named.tensor.dtype).removeprefix("torch.")
        why = f"updates of {update:.2g} are lost below {half:.2g}, half a step at values around {value:.2g}"
        yield named.name, f"{kind} at lr={place.lr:.3g}", why


def _typical(tensor: Tensor) -> float:
    """Return the median size of some values, zeros left out; 0 where all are."""
    flat = tensor.detach().reshape(-1)[:_VALUES].float().abs()
    return float(flat[flat > 0].median()) if bool((flat > 0).any()) else 0.0


def check_averaged(setup: Setup) -> Iterator[Finding]:
    """Hold the frozen tensors of the averaged copies that were given against those of the model, bit for bit."""
    for copy in setup.averaged:
        theirs = named_tensors(copy)
        names = [name for name in setup.frozen if name in theirs and setup.tensors[name].kind != "attribute"]
        ranges: dict[str, Any] = {name: setup.frozen.tensors[name] for name in names}
        own, _ = take({name: (setup.tensors[name].tensor, ranges[name]) for name in names})
        other, _ = take({name: (theirs[name].tensor, ranges[name]) for name in names}, own)
        rows = [(name, type(copy).__name__, "other bits") for name in names if own.get(name) != other.get(name)]
        if rows:
            yield finding(setup, AVERAGED_COPY_DIFFERS, rows, explains=False)
