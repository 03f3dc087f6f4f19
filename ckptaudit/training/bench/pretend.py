"""Models without memory that behave as on a device: torch's fake tensors, which are meta tensors that name a device.

On the meta device itself torch chooses other kernels (attention falls apart into matrix products, and keeps other
activations); under a fake tensor of the CPU it chooses those of the CPU.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.parameter import is_lazy

from ...errors import UsageError, first_line
from ..names import named_tensors


@contextmanager
def pretending() -> Iterator[None]:
    """Within the block, tensors are made without memory. What fails is raised; torch's log of it is not wanted."""
    log = logging.getLogger("torch._subclasses.fake_tensor")
    was = log.disabled
    log.disabled = True
    try:
        with FakeTensorMode(allow_non_fake_inputs=True):
            yield
    finally:
        log.disabled = was


def pretend(model: nn.Module, device: torch.device, dtype: torch.dtype | None = None) -> nn.Module:
    """Return a copy of ``model`` whose tensors are fake ones on ``device``; inside ``pretending``.

    Ties, strides and ``requires_grad`` are kept; ``dtype`` replaces floating-point dtypes. Raises UsageError for a
    module whose shapes are not known yet.
    """
    made: dict[int, Any] = {}
    for name, named in named_tensors(model).items():
        if is_lazy(named.tensor):
            raise UsageError(name, "has no shape before the first batch", "run a batch through the model first")
        if id(named.tensor) not in made:
            made[id(named.tensor)] = _fake(named.tensor, device, dtype)
    return copied(model, made)


def sibling(model: nn.Module) -> nn.Module:
    """Return a copy of ``model`` that shares the memory of its parameters, with buffers of its own.

    Steps of many variants fit into memory that way; what one of them makes of the values changes no time.
    """
    made: dict[int, Any] = {}
    for parameter in model.parameters():
        made[id(parameter)] = nn.Parameter(parameter.detach(), requires_grad=parameter.requires_grad)
    return copied(model, made)


def copied(model: nn.Module, made: dict[int, Any]) -> nn.Module:
    """Return a deep copy with the tensors of ``made`` in the place of those with their ids. Raises UsageError."""
    keep = dict(made)  # deepcopy adds to it
    try:
        return copy.deepcopy(model, keep)
    except Exception as error:
        reason = f"cannot be copied for each variant: {first_line(error)}"
        raise UsageError(type(model).__name__, reason, "keep what cannot be copied out of the module") from error


def _fake(tensor: Tensor, device: torch.device, dtype: torch.dtype | None) -> Tensor:
    own = dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype
    blank = torch.empty_strided(tensor.shape, tensor.stride(), dtype=own, device=device)
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(blank, requires_grad=tensor.requires_grad)
    return blank
