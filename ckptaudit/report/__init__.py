"""Report -> text. One format per file; nothing here filters, reads or writes anything."""

from __future__ import annotations

from collections.abc import Callable

from ..policy import Report
from ..records import dataclass
from ..scanning import ScanReport


@dataclass(frozen=True)
class Layout:
    """What a format may want to know of its surroundings.

    ``width`` (columns) and ``verbose`` (notes, all rows) matter to the table alone. Formats that other tools read have
    the paths below the folder ``root`` relative to it.
    """

    width: int = 100
    verbose: bool = False
    root: str = "."


def _table(report: Report, layout: Layout) -> str:
    from .table import render_table

    return render_table(report, layout.width, layout.verbose)


def _scan_table(report: ScanReport, layout: Layout) -> str:
    from .scan import render_scan

    return render_scan(report, layout.width, layout.verbose)


def _concise(report: Report, _: Layout) -> str:
    from .concise import render_concise

    return render_concise(report)


def _scan_concise(report: ScanReport, _: Layout) -> str:
    from .scan import render_scan_concise

    return render_scan_concise(report)


def _json(report: Report | ScanReport, _: Layout) -> str:
    from .json import render_json

    return render_json(report.to_json())


def _github(report: Report | ScanReport, layout: Layout) -> str:
    from .github import render_github

    table = _scan_table(report, layout) if isinstance(report, ScanReport) else _table(report, layout)
    return render_github(report, table, layout.root)


def _sarif(report: Report | ScanReport, layout: Layout) -> str:
    from .. import __version__
    from .sarif import render_sarif

    return render_sarif(report, __version__, layout.root)


def _junit(report: Report | ScanReport, _: Layout) -> str:
    from .junit import render_junit

    return render_junit(report)


def _markdown(report: Report | ScanReport, _: Layout) -> str:
    from .markdown import render_markdown

    return render_markdown(report)


# The formats of each kind of report; what --format and --output offer follows from these tables.
_REPORTS: dict[str, Callable[[Report, Layout], str]] = {
    "table": _table,
    "concise": _concise,
    "json": _json,
    "github": _github,
    "sarif": _sarif,
    "junit": _junit,
    "markdown": _markdown,
}
_SCANS: dict[str, Callable[[ScanReport, Layout], str]] = {
    "table": _scan_table,
    "concise": _scan_concise,
    "json": _json,
    "github": _github,
    "sarif": _sarif,
    "junit": _junit,
    "markdown": _markdown,
}
FORMATS = tuple(_REPORTS)
SCAN_FORMATS = tuple(_SCANS)


def render(report: Report | ScanReport, form: str, width: int = 100, verbose: bool = False, *, root: str = ".") -> str:
    """Return ``report`` in the format named ``form``, lines ended by newlines. The other arguments are a ``Layout``."""
    layout = Layout(width, verbose, root)
    if isinstance(report, ScanReport):
        return _SCANS[form](report, layout)
    return _REPORTS[form](report, layout)
