"""What freezing buys: training steps of one model in several variants, planned and measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from ...benchmark.results import Clock, StepBenchmark
from ...errors import UsageError
from ..select import Patterns
from .devices import default_device
from .rounds import Clocks
from .session import Session
from .step import InputSpec, MakeStep, TrainStep, default_step
from .subject import Subject

__all__ = ["Subject", "TrainStep", "bench_train_step", "freeze_variants", "measure_steps"]

Shape = Sequence[int] | str


def freeze_variants(  # noqa: PLR0913  (options, each given by its name)
    model: nn.Module,
    inputs: Sequence[Shape] = (),
    *,
    freeze: Patterns | None = None,
    make_step: MakeStep | None = None,
    optimizer: str = "adamw",
    depths: int | None = 3,
    only: Sequence[str] | None = None,
    device: str | None = None,
    dtype: torch.dtype | None = None,
    name: str = "",
) -> Subject:
    """Return the ways in which a model can be fine-tuned, for ``bench_train_step`` and ``plan_freeze``.

    Args:
        model: moved to ``device`` and ``dtype`` when steps are measured.
        inputs: the shapes of its positional arguments, as ``(8, 3, 224, 224)`` or ``"8,128:int64"``.
        freeze: patterns for what is frozen; without them all stages are but the last.
        make_step: ``make_step(model, parameters)`` returns the ``TrainStep`` of a variant, in the place of ``inputs``
            and ``optimizer``. It is called with ``device`` as torch's default; a plan has no values in its tensors.
        optimizer: ``adamw``, ``adam`` or ``sgd``.
        depths: how many freeze depths between none and all; None is every one.
        only: names or kinds of the variants that are wanted; full fine-tuning always is one.
        device: default: the accelerator where there is one, else the CPU.
        dtype: of parameters and batch; default: the model's own.
        name: of the model, for reports.

    Raises UsageError.

    """
    specs = [InputSpec.parse(i) if isinstance(i, str) else InputSpec(tuple(i)) for i in inputs]
    if make_step is None and not specs:
        raise UsageError("the step", "has no batch", "give the shape of the input, or a function that makes the step")
    words = f"batch {', '.join('x'.join(map(str, spec.shape)) for spec in specs)}, {optimizer}"
    return Subject(
        model,
        make_step or default_step(specs, optimizer),
        freeze=freeze,
        depths=depths,
        only=only,
        device=torch.device(device) if device else default_device(),
        dtype=dtype,
        name=name,
        describe_step=words if make_step is None else f"of {getattr(make_step, '__qualname__', 'its maker')}",
    )


def bench_train_step(  # noqa: PLR0913  (options, each given by its name)
    variants: Subject | Mapping[str, Callable[[], TrainStep]],
    *,
    rounds: int | None = None,
    seconds: float | None = None,
    threads: int | None = None,
    clock: Clock = "wall",
    minimum: Mapping[str, float] | None = None,
    predict: bool = True,
    clocks: Clocks | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> StepBenchmark:
    """Measure training steps against each other: built once, run in turn, compared within each round.

    Args:
        variants: ``freeze_variants(...)``, or names with functions that make a ``TrainStep``, the baseline first; that
            one is built twice, and the pair says how small a ratio can be told from 1.
        rounds: how many; without it and ``seconds`` until a ratio of 1.05 can be told from 1, for a minute at most.
        seconds: how long, at least eight rounds.
        threads: of torch's CPU kernels, during the measurement.
        clock: ``wall``, or ``cpu`` for the time of the processor, which other work on the machine disturbs less.
        minimum: speed-ups to hold variants to; one that is missed makes the verdict ``broken``.
        predict: whether operations are timed on their own to predict each variant, which takes some seconds.
        clocks: in the place of the real ones.
        progress: told (done, total, what).

    Raises UsageError for variants that cannot be built or run.

    """
    benchmark, _ = measure_steps(
        variants,
        rounds=rounds,
        seconds=seconds,
        threads=threads,
        clock=clock,
        minimum=minimum,
        predict=predict,
        clocks=clocks,
        progress=progress,
    )
    return benchmark


def measure_steps(  # noqa: PLR0913  (options, each given by its name)
    variants: Subject | Mapping[str, Callable[[], TrainStep]],
    *,
    rounds: int | None = None,
    seconds: float | None = None,
    threads: int | None = None,
    clock: Clock = "wall",
    minimum: Mapping[str, float] | None = None,
    predict: bool = True,
    clocks: Clocks | None = None,
    progress: Callable[[int, int, str], None] | None = None,
    needed: Sequence[str] = (),
) -> tuple[StepBenchmark, Session]:
    """Do as ``bench_train_step``, and return the session with the steps as well; ``needed`` are names to be sure of."""
    if isinstance(variants, Subject):
        subject, makers, device = variants, None, variants.device
    else:
        subject, makers, device = None, variants, None
        if not variants:
            raise UsageError("variants", "are empty", "give at least the baseline")
    with Session(subject, makers, device=device, threads=threads, clocks=clocks, clock=clock) as session:
        plan = session.plan(timed=predict, progress=progress)
        for name in (*needed, *(minimum or {})):
            plan[name]
        session.build(plan, progress)
        peaks: dict[str, Any] = session.peaks()
        environment = session.environment()
        measured = list(session.rounds(rounds, seconds, progress))
    facts = (session.samples, peaks, environment, clock, session.left_out, dict(minimum or {}))
    return StepBenchmark(plan, tuple(measured), *facts), session
