"""Learning rates of 0, and schedulers that do not fit their optimizers."""

from __future__ import annotations

from collections.abc import Iterator

from ...rules import Contract, Finding
from ...rules.training_flags import LEARNING_RATE_ZERO
from ...rules.training_optimizers import SCHEDULE_OUT_OF_DATE
from ..names import NamedTensor
from .findings import Row, finding
from .schedule import Raised, raised, refusal, runs_ahead
from .setup import Place, Setup


def check_rates(setup: Setup) -> Iterator[Finding]:
    """Find parameters in groups whose learning rate is 0, and whether a schedule raises it."""
    zero = {(id(place.optimizer), place.index): place for place in setup.groups() if place.lr == 0}
    if not zero:
        return
    rates = _raised(setup)
    held: list[Row] = []
    raising: list[Row] = []
    idle: list[Row] = []
    for named, place in _at_zero(setup, setup.still, zero):
        found, rate = f"lr=0 in {place.who}", rates.get((id(place.optimizer), place.index))
        if rate is not None:
            raising.append((named.name, found, f"{_schedule(setup, place)} makes it {rate.lr:.3g} at step {rate.step}"))
        else:
            held.append((named.name, found, _unknown(setup, place) or "nothing that was given raises it"))
    for named, place in _at_zero(setup, setup.moving, zero):
        if (id(place.optimizer), place.index) not in rates and not _unknown(setup, place):
            idle.append((named.name, f"lr=0 in {place.who}", "it does not move"))
    if raising:
        yield finding(setup, LEARNING_RATE_ZERO, raising, case="raised", breaks=Contract.exact)
    if held:
        yield finding(setup, LEARNING_RATE_ZERO, held)
    if idle:
        yield finding(setup, LEARNING_RATE_ZERO, idle, case="trainable", breaks=setup.if_declared)


def _at_zero(
    setup: Setup, among: list[NamedTensor], zero: dict[tuple[int, int], Place]
) -> Iterator[tuple[NamedTensor, Place]]:
    for named in setup.left(among):
        place = setup.place(named)
        if named.tensor.requires_grad and place is not None and (id(place.optimizer), place.index) in zero:
            yield named, place


def _raised(setup: Setup) -> dict[tuple[int, int], Raised]:
    found: dict[tuple[int, int], Raised] = {}
    for optimizer in {id(place.optimizer): place.optimizer for place in setup.groups() if place.lr == 0}.values():
        mine = [one for one in setup.schedulers if getattr(one, "optimizer", None) is optimizer]
        if mine:
            found |= {(id(optimizer), index): rate for index, rate in raised(optimizer, mine).items()}
    return found


def _schedule(setup: Setup, place: Place) -> str:
    mine = [type(one).__name__ for one in setup.schedulers if getattr(one, "optimizer", None) is place.optimizer]
    return " and ".join(mine)


def _unknown(setup: Setup, place: Place) -> str:
    """Say that a schedule drives the group which was not given, or is not one of torch's."""
    mine = [one for one in setup.schedulers if getattr(one, "optimizer", None) is place.optimizer]
    if not mine and "initial_lr" in place.group:
        return "a scheduler drives it that was not given"
    strange = [type(one).__name__ for one in mine if not hasattr(one, "step") or not runs_ahead(one)]
    return f"{strange[0]} was not run ahead" if strange else ""


def check_schedulers(setup: Setup) -> Iterator[Finding]:
    """Find schedulers of other optimizers, and those that a group was added after."""
    late: list[Row] = []
    other: list[Row] = []
    for scheduler in setup.schedulers:
        optimizer, kind = getattr(scheduler, "optimizer", None), type(scheduler).__name__
        if optimizer is None or not setup.optimizers:
            continue
        if not any(optimizer is one for one in setup.optimizers):
            other.append((kind, f"drives a {type(optimizer).__name__}", "it is not one of the optimizers given"))
        elif runs_ahead(scheduler):
            new = [i for i, group in enumerate(optimizer.param_groups) if "initial_lr" not in group]
            refused = refusal(scheduler) if new else ""
            late += [
                (Place(optimizer, index, {}).text, f"added after {kind}", f"its step() raises {refused}")
                for index in new
                if refused
            ]
    if late:
        yield finding(setup, SCHEDULE_OUT_OF_DATE, late)
    if other:
        yield finding(setup, SCHEDULE_OUT_OF_DATE, other, case="other", breaks=Contract.resume)
