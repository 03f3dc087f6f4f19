"""The fixture ``train_step_benchmark``: a paired comparison of training steps, handed to pytest-benchmark.

pytest-benchmark runs one test after the other and so cannot take turns between variants; what is compared here is
compared within rounds. It gets the steps of one variant for its tables, its storage and ``--benchmark-compare``, and
the comparison as ``extra_info``, which its JSON keeps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import pytest

from .training.bench import Subject, TrainStep, measure_steps

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture

    from .benchmark.results import StepBenchmark


class TrainStepBenchmark:
    """Measures variants against each other, and holds one of them to a speed-up."""

    def __init__(self, benchmark: BenchmarkFixture) -> None:
        self._benchmark = benchmark

    def __call__(
        self,
        variants: Subject | Mapping[str, Callable[[], TrainStep]],
        *,
        variant: str = "frozen eval",
        min_speedup: float | None = None,
        min_of_predicted: float | None = None,
        **options: Any,
    ) -> StepBenchmark:
        """Measure ``variants`` as ``ckptaudit.bench_train_step`` does, with its ``options``; return what it returns.

        ``variant`` is the one that pytest-benchmark gets. The test fails where the whole 95 % interval of its speed-up
        is below ``min_speedup``, or below ``min_of_predicted`` of the predicted one (0.6, say); it is skipped where
        that cannot be said, because the machine is too noisy. Under ``--benchmark-disable`` each step runs once, and
        nothing is held.
        """
        __tracebackhide__ = True
        if not self._benchmark.enabled:
            options |= {"rounds": 1, "seconds": None, "predict": False}
        result, steps = measure_steps(variants, **options)
        step = steps[result.plan[variant].name]
        self._benchmark.pedantic(step.run, rounds=max(1, len(result.rounds)), warmup_rounds=0)
        self._benchmark.extra_info["ckptaudit"] = facts(result, variant)
        if self._benchmark.enabled:
            _hold(result, variant, min_speedup, min_of_predicted)
        return result


def facts(result: StepBenchmark, variant: str) -> dict[str, Any]:
    """Return what is kept beside pytest-benchmark's own figures, in JSON's types."""
    ratio, predicted = result.speed_up(variant), result.plan.predicted(variant)
    return {
        "variant": variant,
        "baseline": result.baseline,
        "speed_up": ratio.to_json(),
        "predicted": None if predicted is None else float(f"{predicted:.5g}"),
        "resolvable": float(f"{result.noise.resolvable:.5g}"),
        "trouble": result.trouble,
        "samples_per_second": float(f"{result.samples_per_second(variant):.5g}"),
        "peak_bytes": result.peaks.get(variant),
        "clock": result.clock,
        "environment": dict(result.environment),
    }


def _hold(result: StepBenchmark, variant: str, least: float | None, share: float | None) -> None:
    __tracebackhide__ = True
    if least is None and share is None:
        return
    if result.trouble:
        pytest.skip(f"{variant} was not measured: {result.trouble}")
    predicted = result.plan.predicted(variant)
    if share is not None and predicted is None:
        pytest.fail(f"{variant} has no prediction that min_of_predicted could be a share of", pytrace=False)
    wanted = {
        "min_speedup": least,
        f"{share} of the predicted {predicted or 0:.2f}": share and share * (predicted or 0),
    }
    ratio = result.speed_up(variant)
    for name, bound in wanted.items():
        if bound is not None and ratio.high < bound:
            interval = f"{ratio.low:.2f} to {ratio.high:.2f}"
            words = f"{variant} is {ratio.point:.2f} times as fast as {result.baseline} ({interval})"
            pytest.fail(f"{words}, and {name} asks for {bound:.2f}\n\n{result}", pytrace=False)
