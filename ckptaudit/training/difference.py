"""How far a tensor moved: its largest change, in ULPs too, and the rows; from a whole old tensor, or a sample of it."""

from __future__ import annotations

from collections.abc import Iterable
from math import isnan

import torch
from torch import Tensor

from ..records import dataclass
from ..words import plural
from .select import Rows

# Values of a tensor that are kept: all of a small one (norms, biases), every n-th of a larger one.
SAMPLE = 4096
_SHOWN_ROWS = 4
_SHOWN_ULPS = 1000  # more says no more than the absolute change
_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_WITH_ULPS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@dataclass(frozen=True)
class Difference:
    """What is known of a change. ``changed`` of the ``looked`` values that were compared differ, of ``total``.

    ``max_abs`` is the largest absolute change (NaN where a NaN came or went), ``max_ulp`` the same in units in the
    last place, None for other dtypes than float16, bfloat16, float32 and float64. ``rows`` are the first few
    indices of the first dimension that changed.
    """

    changed: int
    looked: int
    total: int
    max_abs: float | None = None
    max_ulp: int | None = None
    rows: tuple[int, ...] = ()

    @property
    def text(self) -> str:
        """The change in a few words, as ``by up to 0.012 (10,066 ULPs), in 3 of 64 values``."""
        sampled = " sampled" if self.looked < self.total else ""
        if not self.changed:
            return f"in none of {plural(self.looked, 'sampled value')}"
        ulps = f" ({plural(self.max_ulp, 'ULP')})" if self.max_ulp is not None and self.max_ulp < _SHOWN_ULPS else ""
        size = "to NaN" if self.max_abs is None or isnan(self.max_abs) else f"by up to {self.max_abs:.3g}{ulps}"
        share = "" if self.changed == self.looked else f", in {self.changed:,} of {self.looked:,}{sampled} values"
        rows = f", rows {', '.join(map(str, self.rows[:_SHOWN_ROWS]))}" if share and self.rows else ""
        return f"{size}{share}{rows}" + (" ..." if rows and len(self.rows) > _SHOWN_ROWS else "")


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
        hit = tuple(torch.unique(place // (after.numel() // shape[0]))[: _SHOWN_ROWS + 1].tolist())
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
    """Count the floats that lie between: sign and magnitude bits, read as integers, are in the floats' order."""
    if old.dtype not in _WITH_ULPS or not bool(torch.isfinite(old).all() and torch.isfinite(new).all()):
        return None
    floor = -(1 << (8 * old.element_size() - 1))
    first, second = _bits(old).to(torch.int64), _bits(new).to(torch.int64)
    ordered = [torch.where(bits < 0, floor - bits, bits) for bits in (first, second)]
    return int((ordered[0] - ordered[1]).abs().max())
