"""``ckptaudit scan``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable

from ..errors import UsageError
from ..scanning import scan
from .limits import parse_limits
from .streams import terminal_width, write_error, write_report


def run(options: argparse.Namespace) -> int:
    """Judge every file; a path that is not there does not hide the others."""
    limits = parse_limits(options.limit)
    there, status = [], 0
    for path in options.paths:
        if os.path.lexists(path):
            there.append(path)
        else:
            write_error(UsageError(path, "no such file or folder"))
            status = 2
    report = scan(
        *there, integrity=options.integrity, exclude=options.exclude, limits=limits, progress=_progress(options)
    )
    if options.format == "json":
        from ..report.json import render_json as render

        write_report(render(report.to_json()))
    elif options.format == "concise":
        from ..report.scan import render_scan_concise

        write_report(render_scan_concise(report))
    else:
        from ..report.scan import render_scan

        write_report(render_scan(report, terminal_width(options.width), options.verbose), options.color)
    return max(status, report.exit_status)


def _progress(options: argparse.Namespace) -> Callable[[int, int], None] | None:
    """Return what shows how far a file is read: a bar, where somebody is there to see it."""
    if not options.integrity or not sys.stderr.isatty():
        return None
    from .progress import bar

    return bar()
