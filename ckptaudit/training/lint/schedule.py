"""A learning-rate schedule run ahead, on copies: the real scheduler and optimizer stay as they are."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from copy import deepcopy
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from ...records import dataclass

# How far to look; most schedules that raise a rate of 0 do so in their first step, and those by epochs in a hundred.
HORIZON = 1000


@dataclass(frozen=True)
class Raised:
    """The first step of the schedulers after which a group's learning rate is not 0, and the rate then."""

    step: int
    lr: float


def runs_ahead(scheduler: Any) -> bool:
    """Tell whether a scheduler can be run ahead: those of torch; one that waits for a metric never raises a rate."""
    return isinstance(scheduler, LRScheduler) and not isinstance(scheduler, ReduceLROnPlateau)


def raised(optimizer: Optimizer, schedulers: Iterable[Any]) -> dict[int, Raised]:
    """Return when the schedulers raise the groups that are at 0 now, by the index of the group.

    Functions of a LambdaLR are called with the epochs to come. A schedule that ends, or cannot go on, ends the run.
    """
    stand_in = _stand_in(optimizer)
    zero = {index for index, group in enumerate(stand_in.param_groups) if not float(group.get("lr", 0.0))}
    found: dict[int, Raised] = {}
    for step, _ in zip(range(1, HORIZON + 1), _steps(stand_in, optimizer, schedulers), strict=False):
        for index in sorted(zero):
            rate = float(stand_in.param_groups[index]["lr"])
            if rate:
                found[index] = Raised(step, rate)
                zero.discard(index)
        if not zero:
            break
    return found


def refusal(scheduler: LRScheduler) -> str:
    """Return what the next step of a scheduler raises, or the empty string."""
    optimizer = scheduler.optimizer
    try:
        next(_steps(_stand_in(optimizer), optimizer, [scheduler], quiet=False), None)
    except Exception as error:  # whatever torch's schedulers, or functions of the user's, raise
        return f"{type(error).__name__}: {error}"
    return ""


def _steps(stand_in: Optimizer, optimizer: Optimizer, schedulers: Iterable[Any], quiet: bool = True) -> Iterator[None]:
    try:
        copies = [deepcopy(one, _kept(one, {id(optimizer): stand_in})) for one in schedulers if runs_ahead(one)]
        while copies:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that the optimizer made no step
                for copy in copies:
                    copy.step()
            yield
    except Exception:
        if not quiet:
            raise


def _stand_in(optimizer: Optimizer) -> Optimizer:
    """Return an optimizer with the same groups, and no parameters in them."""
    made = SGD([torch.zeros(())], lr=0.0)
    made.defaults = dict(optimizer.defaults)
    made.param_groups = [
        {name: value.clone() if isinstance(value, Tensor) else value for name, value in group.items()} | {"params": []}
        for group in optimizer.param_groups
    ]
    return made


def _kept(scheduler: Any, memo: dict[int, Any]) -> dict[int, Any]:
    """Enter into the memo of a deepcopy what must not be copied: methods drag their objects along, models weigh."""
    for value in vars(scheduler).values():
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, LRScheduler):
                _kept(one, memo)
            elif isinstance(one, (nn.Module, Tensor)) or _is_foreign(one, scheduler):
                memo[id(one)] = one
    return memo


def _is_foreign(value: Any, scheduler: Any) -> bool:
    return isinstance(value, MethodType) and value.__self__ is not scheduler
