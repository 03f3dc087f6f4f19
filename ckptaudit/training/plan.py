"""What freezing would buy, for every depth, worked out in seconds without weights and without running a step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..benchmark.plan import FreezePlan
from .bench import freeze_variants
from .bench.step import MakeStep
from .select import Patterns

if TYPE_CHECKING:
    import torch
    from torch import nn

_KINDS = ("full", "depth", "frozen", "frozen eval", "norms+biases")


def plan_freeze(
    model: nn.Module,
    inputs: Sequence[Sequence[int] | str] = (),
    *,
    freeze: Patterns | None = None,
    make_step: MakeStep | None = None,
    optimizer: str = "adamw",
    device: str = "cpu",
    dtype: torch.dtype | None = None,
    timed: bool = False,
) -> FreezePlan:
    """Return FLOPs and memory of a training step at every freeze depth of ``model``, which may be on the meta device.

    Args:
        model: not touched.
        inputs: the shapes of its positional arguments, as ``(8, 3, 224, 224)`` or ``"8,128:int64"``.
        freeze: patterns for what is frozen at most; without them all stages are but the last.
        make_step: as for ``freeze_variants``, in the place of ``inputs`` and ``optimizer``.
        optimizer: ``adamw``, ``adam`` or ``sgd``.
        device: whose kernels are assumed; torch has to be built for it.
        dtype: of parameters and batch; default: the model's own.
        timed: time each kind of operation on this machine, and predict the speed-up from that as well.

    Raises UsageError.

    """
    subject = freeze_variants(
        model,
        inputs,
        freeze=freeze,
        make_step=make_step,
        optimizer=optimizer,
        depths=None,
        only=_KINDS,
        device=device,
        dtype=dtype,
    )
    return subject.plan(timed=timed)
