"""One benchmark from its variants to its rounds: planned, built, measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from ...benchmark.plan import FreezePlan, PlannedVariant
from ...benchmark.results import AGAIN, Clock, Round
from ...errors import CkptauditError, UsageError, first_line
from .devices import peak_bytes
from .environment import describe
from .rounds import Budget, Clocks, measure
from .step import TrainStep
from .subject import Subject

Progress = Callable[[int, int, str], None]
Makers = Mapping[str, Callable[[], TrainStep]]


class Session:
    """A benchmark while it is made. Threads are pinned inside its ``with`` blocks, and what was set is set again.

    ``subject`` is a model with its variants; ``makers`` are steps that somebody else makes, the baseline first. Without
    ``device`` it is that of the parameters in the first step's optimizer.
    """

    def __init__(
        self,
        subject: Subject | None = None,
        makers: Makers | None = None,
        *,
        device: torch.device | None = None,
        threads: int | None = None,
        clocks: Clocks | None = None,
        clock: Clock = "wall",
    ) -> None:
        self._subject, self._makers = subject, dict(makers or {})
        self._device, self._threads = device or torch.device("cpu"), threads
        self._is_known, self._clock = clocks is not None or device is not None, clock
        self._clocks = clocks or Clocks.of(self._device, clock)
        self._before = 0
        self.steps: dict[str, TrainStep] = {}
        self.left_out: dict[str, str] = {}

    def __enter__(self) -> Session:
        self._before = torch.get_num_threads()
        if self._threads is not None:
            torch.set_num_threads(self._threads)
        return self

    def __exit__(self, *exception: object) -> None:
        torch.set_num_threads(self._before)

    def plan(self, *, timed: bool = True, progress: Progress | None = None) -> FreezePlan:
        """Return what every variant will cost; ``timed`` has each of their operations timed on its own."""
        if self._subject is not None:
            return self._subject.plan(timed=timed, now=getattr(self._clocks, self._clock), progress=progress)
        names = list(self._makers)
        variants = [PlannedVariant(name, "own", "", None, note="made by its own function") for name in names]
        again = PlannedVariant(AGAIN, "again", "", None)
        return FreezePlan("", "steps of their own makers", (variants[0], again, *variants[1:]))

    def build(self, plan: FreezePlan, progress: Progress | None = None) -> None:
        """Build the step of every variant. What cannot be run is in ``left_out``, with the reason."""
        for index, variant in enumerate(plan.variants):
            if progress is not None:
                progress(index, len(plan.variants), "building")
            try:
                self.steps[variant.name] = self._make(variant.name)
            except UsageError as error:
                if variant.kind in ("full", "again", "own"):
                    raise
                self.left_out[variant.name] = error.reason
        if not self._is_known:
            self._device = _device_of(next(iter(self.steps.values())))
            self._clocks = Clocks.of(self._device, self._clock)

    def _make(self, name: str) -> TrainStep:
        if self._subject is not None:
            return self._subject.build(name)
        make = self._makers[name] if name in self._makers else next(iter(self._makers.values()))
        step = make()
        if not isinstance(step, TrainStep):
            raise UsageError(
                name, f"returned a {type(step).__name__} and no TrainStep", "return ckptaudit.TrainStep(...)"
            )
        return step

    def peaks(self) -> dict[str, int | None]:
        """Run two steps of each variant; return the bytes that the second needs at its peak."""
        found: dict[str, int | None] = {}
        for name, step in self.steps.items():
            try:
                step.run()
                found[name] = peak_bytes(step.run, self._device)
            except CkptauditError:
                raise
            except Exception as error:
                raise UsageError(f"the step of {name}", f"raised {first_line(error)}") from error
        return found

    def timed(self, name: str) -> Callable[[], None]:
        """Return what runs a step of a variant and waits for the device, for a clock of somebody else's."""
        step = self.steps[name]

        def run() -> None:
            step.run()
            self._clocks.synchronize()

        return run

    def rounds(
        self, rounds: int | None = None, seconds: float | None = None, progress: Progress | None = None
    ) -> Iterator[Round]:
        """Yield rounds as they are measured."""
        baseline, budget = next(iter(self.steps)), Budget(rounds, seconds, self._clock)
        start = self._clocks.wall()
        for done, one in enumerate(measure(self.steps, self._clocks, budget, (baseline, AGAIN)), 1):
            if progress is not None:
                progress(done, budget.total(done, self._clocks.wall() - start), "measuring")
            yield one

    def environment(self) -> dict[str, Any]:
        """Return what the figures depend on."""
        dtype = "" if self._subject is None else self._subject.dtype_name
        return describe(self._device, dtype)

    @property
    def samples(self) -> dict[str, int]:
        """The batch size of each variant that runs."""
        return {name: step.samples for name, step in self.steps.items()}


def _device_of(step: TrainStep) -> torch.device:
    groups = step.optimizer.param_groups
    return next((parameter.device for group in groups for parameter in group["params"]), torch.device("cpu"))
