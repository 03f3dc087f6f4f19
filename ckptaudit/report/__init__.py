"""Report -> text. One format per file; nothing here filters, reads or writes anything."""

from __future__ import annotations

from ..policy import CheckReport, Report

FORMATS = ("table", "concise", "json")


def render(report: Report | CheckReport, form: str, width: int = 100, verbose: bool = False) -> str:
    """Return ``report`` in the format named ``form``, lines ended by newlines.

    ``width`` (columns) and ``verbose`` (notes, all rows) matter to the table alone.
    """
    if form == "json":
        from .json import render_json

        return render_json(report.to_json())
    if form == "concise":
        from .concise import render_check_concise, render_concise

        return render_check_concise(report) if isinstance(report, CheckReport) else render_concise(report)
    if isinstance(report, CheckReport):
        from .check import render_check

        return render_check(report, width, verbose)
    from .table import render_table

    return render_table(report, width, verbose)
