"""The figures of a benchmark: speed-up by depth, memory, and where the time goes. The only importer of matplotlib."""

from __future__ import annotations

import os
from io import BytesIO
from typing import TYPE_CHECKING, Any

from ..errors import UsageError
from ..words import plural
from .plan import PHASES
from .results import AGAIN, StepBenchmark
from .text import figure

if TYPE_CHECKING:
    from .plan import PlannedVariant

FORMATS = (".png", ".svg", ".pdf")

# Okabe and Ito's palette, which people with any colour vision tell apart.
_BLUE, _ORANGE, _GREEN, _VERMILION, _SKY, _GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#8A8A8A"
_PHASE_COLOURS = dict(zip(PHASES, (_BLUE, _ORANGE, _GREEN), strict=True))
_SIZE_COLOURS = {
    "parameters": _GREY,
    "gradients": _ORANGE,
    "optimizer state": _GREEN,
    "saved activations": _BLUE,
}
_STYLE = {
    "font.size": 10,
    "font.family": "sans-serif",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.axisbelow": True,
    "svg.hashsalt": "ckptaudit",
    "svg.fonttype": "none",
}


def check_path(path: str) -> None:
    """Raise UsageError for a path that no figure can be written to, before anything is measured."""
    if os.path.splitext(path)[1].lower() not in FORMATS:
        raise UsageError(f"--plot {path}", "is no figure", f"name a file that ends in {', '.join(FORMATS)}")
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise UsageError(f"--plot {path}", "needs matplotlib", "pip install 'ckptaudit[plot]'") from None


def draw(benchmark: StepBenchmark, form: str) -> bytes:
    """Return the figures as a file in the format of a name that ends in ``form``; needs no display.

    Above, the speed-up by freeze depth with the interval of each, and the predicted line; below, for every variant,
    where the time goes and what has to be in memory.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    shown = [variant for variant in benchmark.measured if variant.name != AGAIN]
    with mpl.rc_context(_STYLE):
        height = 5.2 + 0.34 * len(shown)
        page = Figure(figsize=(10, height), layout="constrained")
        rows: Any = page.subfigures(2, 1, height_ratios=(3.6, height - 3.6))
        _depths(rows[0].subplots(), benchmark)
        left, right = rows[1].subplots(1, 2, sharey=True)
        _split(left, benchmark, shown)
        _memory(right, benchmark, shown)
        page.suptitle(_title(benchmark), x=0.01, ha="left", fontsize=12)
        file = BytesIO()
        metadata = {"Date": None} if form.lower() == ".svg" else None
        page.savefig(file, format=form.lstrip(".").lower(), dpi=160, metadata=metadata)
    return file.getvalue()


def _title(benchmark: StepBenchmark) -> str:
    environment = benchmark.environment
    device = environment.get("device_name") or environment["device"]
    threads = f", {plural(environment['threads'], 'thread')}" if environment["device"] == "cpu" else ""
    return f"{benchmark.plan.model}: {benchmark.plan.step}, {environment['dtype']} on {device}{threads}"


def _depths(axes: Any, benchmark: StepBenchmark) -> None:
    """Draw the speed-up over the number of stages that are frozen, from the input on."""
    depths = sorted((v for v in benchmark.measured if v.frozen_stages is not None), key=lambda v: v.frozen_stages or 0)
    places = [variant.frozen_stages for variant in depths]
    ratios = [benchmark.speed_up(variant.name) for variant in depths]
    predicted = [benchmark.plan.predicted(variant.name) for variant in depths]
    by_flops = [benchmark.plan.by_flops(variant.name) for variant in depths]
    if None not in by_flops:
        axes.plot(places, by_flops, color=_GREY, linestyle=":", marker=".", label="by FLOPs alone")
    if None not in predicted:
        axes.plot(places, predicted, color=_ORANGE, linestyle="--", marker="s", markersize=4, label="predicted")
    points = [ratio.point for ratio in ratios]
    below = [ratio.point - ratio.low for ratio in ratios]
    above = [ratio.high - ratio.point for ratio in ratios]
    label = "measured, with the 95 % interval"
    axes.errorbar(places, points, (below, above), color=_BLUE, marker="o", capsize=4, linewidth=1.8, label=label)
    resolvable = benchmark.noise.resolvable
    axes.axhspan(1 / resolvable, resolvable, color=_SKY, alpha=0.25, linewidth=0, label="cannot be told from 1")
    axes.set_xticks(places, [_trained(benchmark, variant) for variant in depths])
    axes.set_xlabel("trains (what is before it is frozen)")
    axes.set_ylabel("times as fast")
    axes.set_ylim(bottom=0)
    axes.set_title("Speed-up by freeze depth")
    axes.grid(axis="y", color="#DDDDDD", linewidth=0.6)
    axes.legend(frameon=False, loc="upper left")


def _trained(benchmark: StepBenchmark, variant: PlannedVariant) -> str:
    """Return a tick of two lines at most: the first stage that trains, by the end of its name."""
    frozen = variant.frozen_stages or 0
    if frozen == 0:
        return "everything"
    stages = benchmark.plan.stages
    label = stages[frozen].partition(",")[0] if frozen < len(stages) else variant.trains
    short = label.rpartition(".")[2] if len(label) > 14 else label
    return short if frozen == len(stages) - 1 else f"{short}\nto {stages[-1].rpartition('.')[2]}"


def _split(axes: Any, benchmark: StepBenchmark, shown: list[PlannedVariant]) -> None:
    """Draw the median milliseconds of each phase as stacked bars."""
    names = [variant.name for variant in shown]
    left = [0.0] * len(shown)
    for phase in PHASES:
        widths = [1000 * benchmark.split(name)[phase] for name in names]
        axes.barh(names, widths, left=left, color=_PHASE_COLOURS[phase], label=phase, height=0.7)
        left = [a + b for a, b in zip(left, widths, strict=True)]
    for place, (total, name) in enumerate(zip(left, names, strict=True)):
        ratio = benchmark.speed_up(name).point
        axes.text(total + 0.012 * max(left), place, f"{figure(ratio)}x", va="center", fontsize=9)
    axes.set_xlim(right=1.16 * max(left))
    axes.invert_yaxis()
    axes.set_xlabel("ms a step")
    axes.set_title("Where the time goes")
    axes.tick_params(axis="y", length=0)
    _legend_below(axes, 3)


def _memory(axes: Any, benchmark: StepBenchmark, shown: list[PlannedVariant]) -> None:
    """Draw what the plan says is in memory at the end of the forward pass, and the peak that was measured."""
    names = [variant.name for variant in shown]
    left = [0.0] * len(shown)
    parts: dict[str, list[int]] = {
        "parameters": [(v.cost.parameters + v.cost.buffers) if v.cost else 0 for v in shown],
        "gradients": [v.cost.gradients if v.cost else 0 for v in shown],
        "optimizer state": [v.cost.optimizer_state if v.cost else 0 for v in shown],
        "saved activations": [v.cost.activations if v.cost else 0 for v in shown],
    }
    for part, held in parts.items():
        widths = [size / 2**20 for size in held]
        axes.barh(names, widths, left=left, color=_SIZE_COLOURS[part], label=part, height=0.7)
        left = [a + b for a, b in zip(left, widths, strict=True)]
    peaks = [_total_peak(benchmark, variant) for variant in shown]
    known = [(peak / 2**20, name) for peak, name in zip(peaks, names, strict=True) if peak is not None]
    if known:
        sizes, places = zip(*known, strict=True)
        axes.plot(sizes, places, "|", color=_VERMILION, markersize=15, markeredgewidth=2, label="peak, measured")
    axes.set_xlim(left=0)
    axes.set_xlabel("MiB")
    axes.set_title("What is in memory")
    axes.tick_params(axis="y", length=0)
    _legend_below(axes, 2)


def _legend_below(axes: Any, columns: int) -> None:
    """Put the legend under the axes and their label, where no bar can be."""
    from matplotlib.transforms import ScaledTranslation

    down = ScaledTranslation(-0.08, -0.55, axes.figure.dpi_scale_trans)  # inches
    place = {"bbox_to_anchor": (0, 0), "bbox_transform": axes.transAxes + down}
    axes.legend(frameon=False, loc="upper left", ncols=columns, columnspacing=1.2, borderaxespad=0, **place)


def _total_peak(benchmark: StepBenchmark, variant: PlannedVariant) -> int | None:
    """Return the measured peak of the step with what was there before it."""
    peak, cost = benchmark.peaks.get(variant.name), variant.cost
    if peak is None or cost is None:
        return None
    return peak + cost.parameters + cost.buffers + cost.optimizer_state
