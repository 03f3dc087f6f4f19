"""What follows from a benchmark: freezing that frees nothing, and steps slower than their operations explain."""

from __future__ import annotations

from collections.abc import Iterator

from ..policy import Graded
from ..rules import Contract, Finding
from ..rules.freezing import FREEZE_SAVES_NOTHING, SPEED_UP_BELOW_PREDICTION, SPEED_UP_MISSED
from .plan import PHASES, PlannedVariant
from .results import StepBenchmark

FAR_BELOW = 0.75  # of the predicted speed-up: the tests hold predictions to 25 %
PSEUDO = ("lr-zero", "left-out")


def findings(benchmark: StepBenchmark) -> list[Graded]:
    """Return what follows from the figures, worst first."""
    found = (
        [*_pseudo(benchmark)] if benchmark.trouble else [*_missed(benchmark), *_pseudo(benchmark), *_below(benchmark)]
    )
    return [Graded(finding.level(Contract.exact), finding) for finding in found]


def _missed(benchmark: StepBenchmark) -> Iterator[Finding]:
    """Yield speed-ups that were asked for and that even the interval's upper end does not reach."""
    for name, least in benchmark.minimum.items():
        ratio = benchmark.speed_up(name)
        if ratio.high < least:
            words = {"least": f"{least:.2f}", "ratio": f"{ratio.point:.2f}", "high": f"{ratio.high:.2f}"}
            yield Finding(SPEED_UP_MISSED, keys=(name,), data={"variant": name, **words})


def _pseudo(benchmark: StepBenchmark) -> Iterator[Finding]:
    """Yield ways of freezing that keep every gradient: by their kind and plan, the measured ratio beside it."""
    rows = []
    for variant in benchmark.measured:
        if variant.kind in PSEUDO:
            ratio = benchmark.speed_up(variant.name)
            rows.append((variant.name, f"{ratio.point:.2f}", _WHY[variant.kind]))
    if rows:
        yield Finding(FREEZE_SAVES_NOTHING, keys=tuple(row[0] for row in rows), rows=tuple(rows))


_WHY = {
    "lr-zero": "every gradient is computed, and multiplied by zero",
    "left-out": "every gradient is computed, and nobody applies it: the optimizer alone has less to do",
}


def _below(benchmark: StepBenchmark) -> Iterator[Finding]:
    for variant in benchmark.measured:
        expected = benchmark.plan.predicted(variant.name)
        if expected is None or variant.kind in ("full", "again", "cached"):
            continue
        ratio = benchmark.speed_up(variant.name)
        if ratio.high < FAR_BELOW * expected:
            row = (variant.name, f"{ratio.point:.2f}", f"{expected:.2f}", probable_cause(benchmark, variant))
            yield Finding(SPEED_UP_BELOW_PREDICTION, keys=(variant.name,), data={"variant": variant.name}, rows=(row,))


def probable_cause(benchmark: StepBenchmark, variant: PlannedVariant) -> str:
    """Name the phase that takes longest beyond what its operations explain, relative to the baseline's own excess."""
    base, cost = benchmark.plan.variants[0].cost, variant.cost
    assert base is not None
    assert cost is not None
    if cost.uncounted:
        return f"{', '.join(cost.uncounted)} cannot be predicted"
    full, mine = benchmark.split(benchmark.baseline), benchmark.split(variant.name)
    pace = sum(full.values()) / sum(base.seconds.values())
    excess = {phase: mine[phase] - pace * cost.seconds.get(phase, 0.0) for phase in PHASES}
    worst = max(PHASES, key=lambda phase: excess[phase])
    took, due = 1000 * mine[worst], 1000 * pace * cost.seconds.get(worst, 0.0)
    return f"{worst} takes {milliseconds(took)} ms where its operations take {milliseconds(due)}: {_HINTS[worst]}"


def milliseconds(value: float) -> str:
    """Return a time with three digits or so: ``0.12``, ``3.45``, ``1,234``."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


_HINTS = {
    "forward": "code between the operations (Python, hooks, copies), or a slower kernel in this mode",
    "backward": "gradients that are computed though nobody needs them, or work in hooks",
    "optimizer": "the optimizer has more to do than its trainable parameters",
}
