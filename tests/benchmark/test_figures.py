"""The figures are files of their format, say what was measured, and no text of theirs lies on another."""

from __future__ import annotations

import itertools
import xml.etree.ElementTree as ET

import pytest

from benchmarks import benchmark, cost

pytest.importorskip("matplotlib")
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ckptaudit import UsageError
from ckptaudit.benchmark import figures
from ckptaudit.benchmark.results import StepBenchmark

ROWS = [
    ("full", "full", cost(10, 20, 5), (10, 20, 5)),
    ("last 2", "depth", cost(10, 10, 3), (10, 11, 3)),
    ("frozen eval", "frozen-eval", cost(10, 0, 0), (10, 0.1, 0.1)),
    ("norms+biases", "norm-bias", cost(10, 12, 0), (10, 12, 1)),
    ("cached features", "cached", cost(0.1, 0.1, 0), (0.1, 0.1, 0.1)),
    ("lr=0", "lr-zero", cost(10, 20, 5), (10, 21, 5)),
    ("not optimized", "left-out", cost(10, 20, 0), (10, 21, 0.5)),
]


def drawn(rows=ROWS, **parts):
    return benchmark(rows, depths={"full": 0, "last 2": 1, "frozen eval": 2}, **parts)


def test_files_are_of_their_format():
    assert figures.draw(drawn(), ".png").startswith(b"\x89PNG\r\n")
    assert figures.draw(drawn(), ".PNG").startswith(b"\x89PNG\r\n")
    assert figures.draw(drawn(), ".pdf").startswith(b"%PDF-")
    texts = set(ET.fromstring(figures.draw(drawn(), ".svg")).itertext())
    assert {"Speed-up by freeze depth", "Where the time goes", "What is in memory", "frozen eval", "3.43x"} <= texts
    assert {"forward", "saved activations", "peak, measured", "predicted", "by FLOPs alone"} <= texts


def test_the_same_benchmark_gives_the_same_file():
    assert figures.draw(drawn(), ".svg") == figures.draw(drawn(), ".svg")


def test_lines_are_the_figures(monkeypatch):
    page = kept_page(monkeypatch, drawn())
    axes = page.subfigs[0].axes[0]
    by_label = {line.get_label(): list(line.get_ydata()) for line in axes.lines}
    assert by_label["predicted"] == pytest.approx([1, 35 / 23, 3.5])
    assert by_label["by FLOPs alone"] == pytest.approx([1, 1.5, 3])
    (bars,) = axes.containers
    assert list(bars.lines[0].get_ydata()) == pytest.approx([1, 35 / 24, 35 / 10.2])


@pytest.mark.parametrize(
    "rows", [ROWS, ROWS[:3], ROWS * 1 + [(f"last {n}", "depth", ROWS[1][2], ROWS[1][3]) for n in range(3, 15)]]
)
def test_no_text_lies_on_another(monkeypatch, rows):
    page = kept_page(monkeypatch, drawn(rows))
    canvas = FigureCanvasAgg(page)
    canvas.draw()
    renderer = canvas.get_renderer()
    hidden = set(unseen_labels(page))
    texts = list(page.findobj(lambda a: hasattr(a, "get_text") and a.get_visible()))
    texts = [text for text in texts if text.get_text().strip() and text not in hidden]
    boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in texts]
    assert len(boxes) > 20
    for (first, one), (second, other) in itertools.combinations(boxes, 2):
        apart = one.x1 <= other.x0 or other.x1 <= one.x0 or one.y1 <= other.y0 or other.y1 <= one.y0
        assert apart or first == second, (first, second)
    width, height = page.bbox.width, page.bbox.height
    assert all(b.x0 >= 0 and b.x1 <= width and b.y0 >= 0 and b.y1 <= height for _, b in boxes)


def unseen_labels(page):
    """Yield the labels of ticks beyond the ends of their axis, which are not drawn."""
    for axes in (axes for part in page.subfigs for axes in part.axes):
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            for tick in axis.get_major_ticks():
                if not low <= tick.get_loc() <= high:
                    yield from (tick.label1, tick.label2)


def kept_page(monkeypatch, result: StepBenchmark):
    """Draw, and return the page that was drawn."""
    pages = []
    monkeypatch.setattr(Figure, "savefig", lambda page, *_, **__: pages.append(page))
    figures.draw(result, ".png")
    return pages[0]


def test_other_files_are_refused_before_anything_is_measured():
    with pytest.raises(UsageError, match="is no figure"):
        figures.check_path("out.txt")
    figures.check_path("out.svg")
