"""How far a tensor moved: its largest change, in ULPs too, and the rows; from a whole old tensor, or a sample of it."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from ..compare.difference import SHOWN_ROWS, Difference
from .select import Rows

# Values of a tensor that are kept: all of a small one (norms, biases), every n-th of a larger one.
SAMPLE = 4096
_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_WITH_ULPS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def sample(tensor: Tensor, rows: Rows | None) -> Tensor:
    """Return a copy of the values at ``positions``, one-dimensional, on the tensor's device."""
    tensor = tensor.detach()
    if rows is None and tensor.is_contiguous():
        return tensor.view(-1)[:: max(1, -(-tensor.numel() // SAMPLE))].clone()
    at = positions(tuple(tensor.shape), rows)
    if at is None or not tensor.dim():
        return tensor.reshape(-1).clone()
    return tensor[torch.unravel_index(at.to(tensor.device), tensor.shape)].clone()


def positions(shape: tuple[int, ...], rows: Rows | None) -> Tensor | None:
    """Return which values of a tensor, counted in logical order, are kept; None stands for all."""
    total = 1
    for size in shape:
        total *= size
    if rows is None:
        return None if total <= SAMPLE else torch.arange(0, total, -(-total // SAMPLE))
    width = total // shape[0]
    count = sum(stop - start for start, stop in rows) * width
    within = torch.arange(0, count, max(1, -(-count // SAMPLE)))
    chosen = torch.cat([torch.arange(start, stop) for start, stop in rows])
    return chosen[within // width] * width + within % width


def compare(before: Tensor, after: Tensor, rows: Rows | None) -> Difference:
    """Compare a whole old tensor, or what ``sample`` kept of it, with the tensor as it is now."""
    shape = tuple(after.shape)
    total = after.numel() if rows is None else sum(stop - start for start, stop in rows) * (after.numel() // shape[0])
    if before.shape == after.shape:
        old, new, at = _whole(before, rows), _whole(after, rows), None
    else:
        old, new, at = before, sample(after, rows), positions(shape, rows)
    if old.shape != new.shape or old.dtype != new.dtype or not len(old):
        return Difference(0, 0, total)
    old, new = old.cpu(), new.cpu()
    index = _differ(old, new).nonzero().squeeze(1)
    if not len(index):
        return Difference(0, len(old), total)
    hit: tuple[int, ...] = ()
    if rows is None and len(shape) > 1:
        place = index if at is None else at[index]
        hit = tuple(torch.unique(place // (after.numel() // shape[0]))[: SHOWN_ROWS + 1].tolist())
    return Difference(len(index), len(old), total, _max_abs(old, new), _max_ulp(old, new), hit)


def _whole(tensor: Tensor, rows: Rows | None) -> Tensor:
    tensor = tensor.detach()
    parts: Iterable[Tensor] = [tensor] if rows is None else [tensor[start:stop] for start, stop in rows]
    return torch.cat([part.reshape(-1) for part in parts])


def _bits(values: Tensor) -> Tensor:
    """Return the bits as integers, one row per value."""
    size = values.element_size()
    return values.resolve_conj().resolve_neg().contiguous().view(_BITS[min(size, 8)]).reshape(len(values), -1)


def _differ(old: Tensor, new: Tensor) -> Tensor:
    return (_bits(old) != _bits(new)).any(dim=1)


def _max_abs(old: Tensor, new: Tensor) -> float:
    wide = torch.complex128 if old.is_complex() else torch.float64
    difference = (new.to(wide) - old.to(wide)).abs()
    return float(difference[_differ(old, new)].max())


def _max_ulp(old: Tensor, new: Tensor) -> int | None:
    """Count the floats that lie between: of one sign the difference of the magnitudes, of two their sum."""
    if old.dtype not in _WITH_ULPS or not bool(torch.isfinite(old).all() and torch.isfinite(new).all()):
        return None
    bits = [_bits(side).to(torch.int64) for side in (old, new)]
    floor = -(1 << (8 * old.element_size() - 1))
    sizes = [torch.where(side < 0, side - floor, side) for side in bits]
    opposite = (bits[0] < 0) != (bits[1] < 0)
    apart = torch.where(opposite, 0, (sizes[0] - sizes[1]).abs())
    if not opposite.any():
        return int(apart.max())
    one, other = (side[opposite] for side in sizes)
    most = int((one.double() + other.double()).argmax())  # the sum of two may be too large for int64
    return max(int(apart.max()), int(one[most]) + int(other[most]))
