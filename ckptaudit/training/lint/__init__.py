"""The static lint of a training setup: model, optimizers and schedulers, before the first step. Nothing is run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from torch import nn

from ...collector import CollectorPaused
from ...policy import Report, grade, verdict_of
from ...rules import Contract, Finding
from ...words import plural
from ..membership import optimizers_of
from ..select import Patterns
from ..sides import optimizers_side, selected, side_of
from . import distributed, flags, gradients, groups, modes, modules, rates, sharing, values
from .setup import Setup

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler

# In the order of causes: a finding accounts for what later checks would say of the same tensors.
CHECKS: tuple[Callable[[Setup], Iterator[Finding]], ...] = (
    flags.check_patterns,
    sharing.check_ties,
    flags.check_effectless,
    rates.check_rates,
    rates.check_schedulers,
    flags.check_computed,
    flags.check_wrapper,
    groups.check_missing,
    groups.check_twice,
    gradients.check_loose_gradients,
    flags.check_frozen_flags,
    flags.check_trainable_flags,
    sharing.check_memory,
    gradients.check_frozen_gradients,
    gradients.check_frozen_state,
    modes.check_modes,
    modes.check_dropout,
    modules.check_embeddings,
    modules.check_observers,
    modules.check_attributes,
    modules.check_values,
    values.check_precision,
    values.check_averaged,
    distributed.check_reducers,
)


def lint_training(
    model: nn.Module,
    optimizers: Optimizer | Iterable[Optimizer] = (),
    *,
    frozen: Patterns,
    trainable: Patterns | None = None,
    schedulers: LRScheduler | Iterable[LRScheduler] | Any = (),
    averaged: nn.Module | Iterable[nn.Module] = (),
) -> Report:
    """Find what will move frozen tensors, or keep trainable ones from training, without a step. By contract ``exact``.

    ``frozen`` and ``trainable`` are patterns (see ``select``); without ``trainable`` all other parameters are meant,
    and what would keep them from training is a warning instead of an error. Without ``optimizers``, groups are not
    looked at. The schedule of a group at lr=0 is run ahead, up to 1,000 steps, on copies. ``averaged`` are copies of
    the model (EMA), whose frozen tensors are held against its own.

    Call it where training starts, in the mode that the loop trains in. Nothing is changed, run or drawn at random. Of
    values it reads 64 each of some 16-bit parameters, and those of ``averaged``.

    Patterns that match nothing, or claim a tensor twice, are findings. Raises UsageError for a pattern that cannot be
    read, and for optimizers without parameter groups.
    """
    given = optimizers_of(optimizers)
    schedules = list(schedulers) if isinstance(schedulers, Iterable) else [schedulers]
    with CollectorPaused():
        setup = Setup(model, given, schedules, [averaged] if isinstance(averaged, nn.Module) else list(averaged))
        setup.declare(frozen, trainable)
        graded = grade((finding for check in CHECKS for finding in check(setup)), Contract.exact)
    return Report(
        command="lint",
        contract=Contract.exact,
        verdict=verdict_of(graded),
        checkpoint=optimizers_side(given),
        model=side_of("model", model, setup.tensors, selected(setup.frozen, setup.trainable)),
        alignment=None,
        outcome_as_is=None,
        outcome=None,
        mapping=None,
        findings=graded,
        remarks=_remarks(setup),
    )


def _remarks(setup: Setup) -> tuple[str, ...]:
    looked = f"Looked at {plural(len(setup.tensors), 'tensor')}"
    if not setup.optimizers:
        return (f"{looked}; without an optimizer, at no parameter group.",)
    return (f"{looked} and {plural(sum(1 for _ in setup.groups()), 'parameter group')}; nothing was run.",)
