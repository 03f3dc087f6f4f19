"""What kind of gradient a tensor got, for many tensors with one synchronisation per device."""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Literal

import torch
from torch import Tensor

Gradient = Literal["none", "zero", "finite", "non-finite"]


# Values that are looked at first: a gradient that is finite and not zero there needs no look at the rest.
_FIRST = 1024


def gradients(given: Mapping[str, Tensor], thorough: Container[str] = ()) -> dict[str, Gradient]:
    """Tell gradients that are all zeros from finite ones and from those with NaN or infinity.

    A NaN or infinity behind finite values is looked for only in those named in ``thorough``.
    """
    with torch.no_grad():
        values = {name: _values(gradient) for name, gradient in given.items()}
        found = _kinds({name: v[:: 1 + v.numel() // _FIRST] for name, v in values.items() if name not in thorough})
        return found | _kinds({name: v for name, v in values.items() if found.get(name) != "finite"})


def _values(gradient: Tensor) -> Tensor:
    return (gradient.coalesce().values() if gradient.layout == torch.sparse_coo else gradient).reshape(-1)


def _kinds(given: Mapping[str, Tensor]) -> dict[str, Gradient]:
    found: dict[str, Gradient] = {}
    waiting: dict[torch.device, dict[str, Tensor]] = {}
    for name, values in given.items():
        if values.numel():
            largest = torch.linalg.vector_norm(values, float("inf"))
            waiting.setdefault(values.device, {})[name] = torch.stack([largest != 0, torch.isfinite(largest)])
        else:
            found[name] = "zero"
    for told in waiting.values():
        for name, (nonzero, finite) in zip(told, torch.stack(list(told.values())).tolist(), strict=True):
            found[name] = "non-finite" if not finite else "finite" if nonzero else "zero"
    return found
