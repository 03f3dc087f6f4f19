"""Plans and benchmarks for people: tables for a terminal, and for Markdown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..report.json import render_json
from ..report.layout import wrap
from ..report.table import finding_lines, grid
from ..words import binary_size, decimal_count, plural
from .plan import FreezePlan, PlannedVariant

if TYPE_CHECKING:
    from ..policy import Graded
    from .results import StepBenchmark

FORMATS = ("table", "json", "markdown")

Rows = list[list[str]]
Layout = Callable[[Rows, Sequence[str]], list[str]]


def render_bench(benchmark: StepBenchmark, form: str = "table", width: int = 100) -> str:
    """Return a benchmark in one of ``FORMATS``, lines ended by newlines."""
    if form == "json":
        return render_json(benchmark.to_json())
    layout = _markdown if form == "markdown" else _terminal(width)
    lines = _head(benchmark.plan, benchmark.environment, width, form)
    if benchmark.rounds:
        rows = [_speed_row(benchmark, variant) for variant in benchmark.measured]
        lines += ["", *layout(rows, ("variant", "speed-up", "95 % interval", "predicted", "samples/s", "peak"))]
        rows = [_split_row(benchmark, variant) for variant in benchmark.measured]
        heads = ("variant", "forward", "backward", "optimizer", "activations", "grads+state")
        lines += ["", *layout(rows, heads)]
    for graded in benchmark.findings if benchmark.rounds else ():
        lines += ["", *(_finding(graded) if form == "markdown" else finding_lines(graded, width, True))]
    lines += ["", *_verdict(benchmark, width)]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def render_plan(plan: FreezePlan, environment: Mapping[str, Any], form: str = "table", width: int = 100) -> str:
    """Return a plan in one of ``FORMATS``, lines ended by newlines."""
    if form == "json":
        data = {"schema": "ckptaudit.plan/1", "command": "bench", "environment": dict(environment)}
        return render_json(data | plan.to_json())
    layout = _markdown if form == "markdown" else _terminal(width)
    timed = any(plan.predicted(v.name) is not None for v in plan.variants)
    shown = [v for v in plan.variants if v.kind != "again"]
    rows = [_plan_row(plan, variant, timed) for variant in shown]
    heads = ["variant", "FLOPs", "by FLOPs", *(["predicted"] if timed else []), "activations", "gradients", "state"]
    lines = [*_head(plan, environment, width, form), "", *layout(rows, heads), ""]
    for variant in shown:
        if variant.cost is None:
            lines += wrap(f"{variant.name}: {variant.note}", width, hanging="  ")
    uncounted = {name for v in shown if v.cost for name in v.cost.uncounted}
    if uncounted:
        words = f"Not counted, though they may be heavy: {', '.join(sorted(uncounted))}."
        lines += wrap(words, width)
    lines += wrap(_MEANS_TIMED if timed else _MEANS, width)
    return "\n".join(line.rstrip() for line in lines) + "\n"


_MEANS = "By FLOPs: full over this, as if every operation took its FLOPs' share of the time; nothing was run."
_MEANS_TIMED = "Predicted: from the time that each operation takes on this machine on its own; no step was run."


def _terminal(width: int) -> Layout:
    return lambda rows, heads: grid(rows, heads, width, figures=True)


def _markdown(rows: Rows, heads: Sequence[str]) -> list[str]:
    lines = [f"| {' | '.join(heads)} |", f"|---|{'---:|' * (len(heads) - 1)}"]
    return lines + [f"| {' | '.join(row)} |" for row in rows]


def _head(plan: FreezePlan, environment: Mapping[str, Any], width: int, form: str) -> list[str]:
    machine = (
        f"torch {str(environment['torch']).partition('+')[0]}, {environment['device_name'] or environment['device']}"
    )
    machine += f", {plural(int(environment['threads']), 'thread')}"
    machine += f", {environment['dtype']}" if environment["dtype"] else ""
    rows = [["model", plan.model], ["step", plan.step], ["machine", machine]][0 if plan.model else 1 :]
    if form == "markdown":
        return [f"{name}: {text}  " for name, text in rows]
    lines = grid(rows, (), width)
    labels = f"stages: {' | '.join(plan.stages)}"
    return [*lines, *(wrap(labels, width, "  ", "  ") if plan.stages else [])]


def _speed_row(benchmark: StepBenchmark, variant: PlannedVariant) -> list[str]:
    name = variant.name
    ratio, expected = benchmark.speed_up(name), benchmark.plan.predicted(name)
    is_base = name == benchmark.baseline
    interval = "" if is_base else f"{figure(ratio.low)} to {figure(ratio.high)}"
    peak = benchmark.peaks.get(name)
    return [
        name,
        figure(ratio.point),
        interval,
        "" if expected is None or is_base else figure(expected),
        f"{benchmark.samples_per_second(name):,.1f}",
        "" if peak is None else binary_size(peak),
    ]


def _split_row(benchmark: StepBenchmark, variant: PlannedVariant) -> list[str]:
    split, cost = benchmark.split(variant.name), variant.cost
    sizes = [] if cost is None else [cost.activations, cost.gradients + cost.optimizer_state]
    cells = [binary_size(size) for size in sizes] or ["", ""]
    return [variant.name, *(f"{1000 * seconds:,.1f} ms" for seconds in split.values()), *cells]


def _plan_row(plan: FreezePlan, variant: PlannedVariant, timed: bool) -> list[str]:
    cost = variant.cost
    if cost is None:
        return [variant.name, *([""] * (6 if timed else 5))]
    by_flops, predicted = plan.by_flops(variant.name), plan.predicted(variant.name)
    figures = [by_flops, predicted] if timed else [by_flops]
    sizes = (cost.activations, cost.gradients, cost.optimizer_state)
    ratios = ["" if ratio is None else figure(ratio) for ratio in figures]
    return [variant.name, decimal_count(cost.total_flops), *ratios, *map(binary_size, sizes)]


def figure(ratio: float) -> str:
    """Return a ratio with three digits or so: ``3.51``, ``84.2``, ``512``."""
    return f"{ratio:.2f}" if ratio < 10 else f"{ratio:.1f}" if ratio < 100 else f"{ratio:.0f}"


def _finding(graded: Graded) -> list[str]:
    """Write a finding as a paragraph and a table of Markdown."""
    finding, rule = graded.finding, graded.finding.rule
    lines = [f"**{graded.level} {rule.code}** {rule.name}: {finding.message}; {finding.detail}", ""]
    return lines + (_markdown([list(row) for row in finding.rows], rule.columns) if finding.rows else [])


def _verdict(benchmark: StepBenchmark, width: int) -> list[str]:
    sentences = [f"{name}: not run; {reason}" for name, reason in benchmark.left_out.items()]
    lines = [line for sentence in sentences for line in wrap(sentence, width, hanging="  ")]
    clock = "wall time" if benchmark.clock == "wall" else "processor time"
    words = f"{plural(len(benchmark.rounds), 'round')} in random order, {clock}, medians of paired ratios."
    if benchmark.interrupted:
        words = f"Interrupted. {words}"
    if not benchmark.trouble:
        words += f" Told apart from 1: ratios from {benchmark.noise.resolvable:.3f} up."
    lines += wrap(words, width)
    if benchmark.trouble:
        advice = (
            "less else on the machine, or --clock cpu" if benchmark.clock == "wall" else "or less else on the machine"
        )
        lines += wrap(f"Not measured: {benchmark.trouble}. More --seconds, {advice}.", width)
    return lines
