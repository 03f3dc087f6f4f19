"""The fixture ``train_step_benchmark``: a paired comparison of training steps, handed to pytest-benchmark.

pytest-benchmark runs one test after the other and so cannot take turns between variants; what is compared here is
compared within rounds. It gets the steps of one variant for its tables, its storage and ``--benchmark-compare``, and
the comparison as ``extra_info``, which its JSON keeps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import pytest

from .benchmark.statistics import MIN_ROUNDS
from .cli.streams import terminal_width
from .errors import CkptauditError, UsageError
from .training.bench import Subject, TrainStep, measure_steps

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture

    from .benchmark.results import StepBenchmark


class TrainStepBenchmark:
    """Measures variants against each other, and holds one of them to a speed-up."""

    def __init__(self, benchmark: BenchmarkFixture, test: str) -> None:
        self._benchmark = benchmark
        self._again = f"pytest {test} --benchmark-only"

    def __call__(
        self,
        variants: Subject | Mapping[str, Callable[[], TrainStep]],
        *,
        variant: str | None = None,
        min_speedup: float | None = None,
        min_of_predicted: float | None = None,
        **options: Any,
    ) -> StepBenchmark:
        """Measure ``variants`` as ``ckptaudit.bench_train_step`` does, with its ``options``; return what it returns.

        ``variant`` is the one that pytest-benchmark gets; default: ``frozen eval``, or the last of your own. The test
        fails where the whole 95 % interval of its speed-up is below ``min_speedup``, or below ``min_of_predicted`` of
        the predicted one (0.6, say); it is skipped where that cannot be said, because the machine is too noisy. Under
        ``--benchmark-disable`` there is one round, and nothing is held.
        """
        __tracebackhide__ = True
        try:
            return self._measured(variants, variant, min_speedup, min_of_predicted, options)
        except CkptauditError as error:
            sentence = f"{error}\nhint: {error.hint}" if error.hint else str(error)
        pytest.fail(sentence, pytrace=False)

    def _measured(
        self, variants: Any, variant: str | None, least: float | None, share: float | None, options: dict[str, Any]
    ) -> StepBenchmark:
        __tracebackhide__ = True
        if not self._benchmark.enabled:
            options |= {"rounds": 1, "seconds": None, "predict": False}
            least = share = None
        held = least is not None or share is not None
        rounds = options.get("rounds")
        if held and rounds is not None and rounds < MIN_ROUNDS:
            raise UsageError(f"{rounds} rounds", "are too few to hold a speed-up to anything", f"at least {MIN_ROUNDS}")
        name = variant or ("frozen eval" if isinstance(variants, Subject) else list(variants)[-1])
        result, session = measure_steps(variants, needed=(name,), **options)
        with session:
            self._benchmark.pedantic(session.timed(name), rounds=len(result.rounds))
        self._benchmark.extra_info["ckptaudit"] = facts(result, name)
        if held and result.trouble:
            pytest.skip(f"{name} was not measured: {result.trouble}")
        for words, bound in _bounds(result, name, least, share):
            if result.speed_up(name).high < bound:
                self._miss(result, name, words)
        return result

    def _miss(self, result: StepBenchmark, name: str, words: str) -> None:
        __tracebackhide__ = True
        ratio = result.speed_up(name)
        interval = f"{ratio.low:.2f} to {ratio.high:.2f}"
        text = f"{name} is {ratio.point:.2f} times as fast as {result.baseline} ({interval}); {words}"
        pytest.fail(f"{text}\n\n{result.text(terminal_width(None))}\nreproduce: {self._again}", pytrace=False)


def facts(result: StepBenchmark, variant: str) -> dict[str, Any]:
    """Return what is kept beside pytest-benchmark's own figures, in JSON's types; ``noise`` is the A/A pair's."""
    ratio, predicted = result.speed_up(variant), result.plan.predicted(variant)
    return {
        "variant": variant,
        "baseline": result.baseline,
        "speed_up": ratio.to_json(),
        "predicted": None if predicted is None else float(f"{predicted:.5g}"),
        "noise": result.noise.to_json(),
        "trouble": result.trouble,
        "samples_per_second": float(f"{result.samples_per_second(variant):.5g}"),
        "peak_bytes": result.peaks.get(variant),
        "clock": result.clock,
        "environment": dict(result.environment),
    }


def _bounds(result: StepBenchmark, name: str, least: float | None, share: float | None) -> list[tuple[str, float]]:
    """Return what is asked for, in words and as a speed-up."""
    bounds = [] if least is None else [(f"min_speedup asks for {least:.2f}", least)]
    if share is not None:
        predicted = result.plan.predicted(name)
        if predicted is None:
            raise UsageError(name, "has no prediction that min_of_predicted could be a share of", "min_speedup=...")
        bound = share * predicted
        bounds.append(
            (f"min_of_predicted asks for {bound:.2f}, {100 * share:.0f} % of the predicted {predicted:.2f}", bound)
        )
    return bounds
