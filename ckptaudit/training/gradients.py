"""What kind of gradient a tensor got, for many tensors with one synchronisation per device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

Gradient = Literal["none", "zero", "finite", "non-finite"]


def gradients(given: Mapping[str, Tensor]) -> dict[str, Gradient]:
    """Tell gradients that are all zeros from finite ones and from those with NaN or infinity."""
    found: dict[str, Gradient] = {}
    waiting: dict[torch.device, dict[str, Tensor]] = {}
    with torch.no_grad():
        for name, gradient in given.items():
            values = gradient.coalesce().values() if gradient.layout == torch.sparse_coo else gradient
            if values.numel():
                largest = torch.linalg.vector_norm(values, float("inf"))
                waiting.setdefault(values.device, {})[name] = torch.stack([largest != 0, torch.isfinite(largest)])
            else:
                found[name] = "zero"
        for told in waiting.values():
            for name, (nonzero, finite) in zip(told, torch.stack(list(told.values())).tolist(), strict=True):
                found[name] = "non-finite" if not finite else "finite" if nonzero else "zero"
    return found
