"""Steps timed in rounds: every variant once a round, in random order, until there are enough."""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Protocol

from ...benchmark.results import Clock, Round, StepTime
from ...benchmark.statistics import MIN_ROUNDS, Noise
from ...records import dataclass
from .devices import event_on, seconds_between, synchronizer

if TYPE_CHECKING:
    import torch

WARM_UP = 2  # steps of each variant before the first round: lazy optimizer state, kernels, memory
SETTLED = 1.05  # without a budget, rounds go on until this ratio can be told from 1
PATIENCE = 60.0  # seconds, after which they end all the same
_LEAST = 12


class Step(Protocol):
    """What can be timed: the three phases of a step."""

    def forward(self) -> Any:
        """Return the loss."""

    def backward(self, loss: Any) -> None:
        """Compute the gradients."""

    def update(self) -> None:
        """Apply the gradients."""


@dataclass(frozen=True)
class Budget:
    """When to stop: after so many rounds, or so many seconds; without either, once the noise is small."""

    rounds: int | None = None
    seconds: float | None = None
    clock: Clock = "wall"

    def is_spent(self, done: int, elapsed: float, noise: Callable[[], Noise]) -> bool:
        """Tell whether the rounds so far are enough."""
        if self.rounds is not None:
            return done >= self.rounds or (self.seconds is not None and elapsed >= self.seconds)
        if self.seconds is not None:
            return done >= MIN_ROUNDS and elapsed >= self.seconds
        return done >= _LEAST and (elapsed >= PATIENCE or noise().resolvable <= SETTLED)

    def total(self, done: int, elapsed: float) -> int:
        """Return how many rounds there will be at most, as far as can be said after some of them."""
        if self.rounds is not None:
            return self.rounds
        limit = PATIENCE if self.seconds is None else self.seconds
        least = _LEAST if self.seconds is None else MIN_ROUNDS
        return max(done, least, round(done * limit / elapsed) if elapsed else least)


@dataclass(eq=False)
class Clocks:
    """The clocks of a measurement, and what waits for the device; tests put their own in their place.

    ``mark`` marks the boundary between two phases without waiting, and ``between`` says how many seconds lie between
    two marks once the device has caught up.
    """

    wall: Callable[[], float] = time.perf_counter
    cpu: Callable[[], float] = time.process_time
    synchronize: Callable[[], None] = lambda: None
    mark: Callable[[], Any] = time.perf_counter
    between: Callable[[Any, Any], float] = lambda first, second: second - first

    @classmethod
    def of(cls, device: torch.device, clock: Clock = "wall") -> Clocks:
        """Return the clocks for a device; on an accelerator its own events mark the phases, else the clock chosen."""
        if device.type == "cpu":
            return cls() if clock == "wall" else cls(mark=time.process_time)
        return cls(synchronize=synchronizer(device), mark=lambda: event_on(device), between=seconds_between)


def measure(
    steps: Mapping[str, Step], clocks: Clocks, budget: Budget, pair: tuple[str, str], seed: int = 0
) -> Iterator[Round]:
    """Yield rounds until the budget is spent: each has one timed step of every variant, in an order of its own.

    ``pair`` names the two variants that are built alike. The garbage collector is off during a step and runs between
    rounds.
    """
    order, names = random.Random(seed), list(steps)
    for _ in range(WARM_UP):
        for name in names:
            _timed(steps[name], clocks)
    done: list[Round] = []
    start = clocks.wall()
    with _no_collection():
        while not budget.is_spent(len(done), clocks.wall() - start, lambda: _noise(done, pair, budget.clock)):
            times = {name: _timed(steps[name], clocks) for name in order.sample(names, len(names))}
            gc.collect(1)
            done.append(Round({name: times[name] for name in names}))
            yield done[-1]


def _noise(rounds: list[Round], pair: tuple[str, str], clock: Clock) -> Noise:
    first, second = ([getattr(one.times[name], clock) for one in rounds] for name in pair)
    return Noise.of(first, second)


def _timed(step: Step, clocks: Clocks) -> StepTime:
    clocks.synchronize()
    cpu, start = clocks.cpu(), clocks.wall()
    marks = [clocks.mark()]
    loss = step.forward()
    marks.append(clocks.mark())
    step.backward(loss)
    del loss
    marks.append(clocks.mark())
    step.update()
    marks.append(clocks.mark())
    clocks.synchronize()
    wall, spent = clocks.wall() - start, clocks.cpu() - cpu
    forward, backward, update = (clocks.between(a, b) for a, b in pairwise(marks))
    return StepTime((forward, backward, update), wall, spent)


@contextmanager
def _no_collection() -> Iterator[None]:
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
