"""Which values a cast loses; imports torch when it is called."""

from __future__ import annotations

from math import frexp
from typing import TYPE_CHECKING, Any

from ..dtypes import DTYPES

if TYPE_CHECKING:
    from torch import Tensor


def out_of_range(before: Tensor, after: Tensor) -> Tensor:
    """Return which values became infinite, or another integer, when ``before`` was cast to ``after``: a bool tensor."""
    import torch

    if after.is_complex():
        before = before if before.is_complex() else torch.complex(before, torch.zeros_like(before))
        return out_of_range(torch.view_as_real(before), torch.view_as_real(after)).any(-1)
    if not after.is_floating_point():
        return after.to(before.dtype) != before
    values = before.double()
    return torch.isfinite(values) & (~torch.isfinite(after.double()) | (values.abs() > _end_of_range(after.dtype)))


def _end_of_range(dtype: Any) -> float:
    """Return the largest value that is rounded to a finite one: half a step beyond the largest finite one.

    What is beyond becomes infinite or NaN, but torch may also make it the largest finite value of eight bits.
    """
    import torch

    largest = torch.finfo(dtype).max
    precision = DTYPES[str(dtype).removeprefix("torch.")].precision  # torch's eps of float8_e5m2fnuz is half a step
    step = 2.0 ** (1 - precision)
    return float(largest + 2.0 ** (frexp(largest)[1] - 1) * step / 2)
