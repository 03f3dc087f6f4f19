"""Report -> text. One format per file; nothing here filters, reads or writes anything."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ..errors import UsageError
from ..policy import CheckReport, Report
from ..records import dataclass

if TYPE_CHECKING:
    from .parts import One  # and with it scans, which a comparison does without


@dataclass(frozen=True)
class Layout:
    """What a format may want to know of its surroundings.

    ``width`` (columns) and ``verbose`` (notes, all rows) matter to the table alone. Formats that other tools read have
    the paths below the folder ``root`` relative to it.
    """

    width: int = 100
    verbose: bool = False
    root: str = "."


def _table(report: One, layout: Layout) -> str:
    if isinstance(report, CheckReport):
        from .check import render_check

        return render_check(report, layout.width, layout.verbose)
    if isinstance(report, Report):
        from .table import render_table

        return render_table(report, layout.width, layout.verbose)
    from .scan import render_scan

    return render_scan(report, layout.width, layout.verbose)


def _concise(report: One, _: Layout) -> str:
    if isinstance(report, (Report, CheckReport)):
        from .concise import render_check_concise, render_concise

        return render_check_concise(report) if isinstance(report, CheckReport) else render_concise(report)
    from .scan import render_scan_concise

    return render_scan_concise(report)


def _json(report: One, _: Layout) -> str:
    from .json import render_json

    return render_json(report.to_json())


def _github(report: One, layout: Layout) -> str:
    from .github import render_github

    return render_github(report, _table(report, layout), layout.root)


def _sarif(report: One, layout: Layout) -> str:
    from .. import __version__
    from .sarif import render_sarif

    return render_sarif(report, __version__, layout.root)


def _junit(report: One, _: Layout) -> str:
    from .junit import render_junit

    return render_junit(report)


def _markdown(report: One, _: Layout) -> str:
    from .markdown import render_markdown

    return render_markdown(report)


def _html(report: One, _: Layout) -> str:
    check_installed("html")
    from .. import __version__
    from .html import render_html

    assert isinstance(report, (Report, CheckReport))
    return render_html(report, __version__)


# The formats; what --format and --output offer follows from this table.
_RENDERERS: dict[str, Callable[[One, Layout], str]] = {
    "table": _table,
    "concise": _concise,
    "json": _json,
    "github": _github,
    "sarif": _sarif,
    "junit": _junit,
    "markdown": _markdown,
    "html": _html,
}
FORMATS = tuple(_RENDERERS)
SCAN_FORMATS = tuple(form for form in FORMATS if form != "html")  # whose page is a tree of tensors


def check_installed(form: str) -> None:
    """Raise UsageError where a format needs a package that is not there."""
    if form == "html":
        from importlib.util import find_spec

        if find_spec("jinja2") is None:
            raise UsageError("html", "needs jinja2, which is not installed", "pip install 'ckptaudit[html]'")


def render(report: One, form: str, width: int = 100, verbose: bool = False, *, root: str = ".") -> str:
    """Return ``report`` in the format named ``form``, lines ended by newlines. The other arguments are a ``Layout``."""
    return _RENDERERS[form](report, Layout(width, verbose, root))
