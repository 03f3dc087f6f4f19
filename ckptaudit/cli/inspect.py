"""``ckptaudit inspect``."""

from __future__ import annotations

import argparse

from ..collector import CollectorPaused
from ..errors import CkptauditError
from ..inspection import inspect
from .limits import parse_limits
from .streams import terminal_width, write_error, write_pieces, write_report


def run(options: argparse.Namespace) -> int:
    """Show each file; one that cannot be read does not hide the others."""
    status, gap = 0, ""
    limits = parse_limits(options.limit)
    for path in options.files:
        try:
            inspection = inspect(path, limits=limits)
        except CkptauditError as error:
            write_error(error, debug=options.debug)
            status = 2
            continue
        if options.format == "json":
            from ..report.json import json_pieces

            with CollectorPaused():
                write_pieces(json_pieces(inspection.to_json(rows=iter)))
        else:
            from ..report.inspection import render_inspection

            text = render_inspection(inspection, terminal_width(options.width), options.verbose)
            write_report(gap + text, options.color)
            gap = "\n"
        status = max(status, 0 if inspection.ok else 1)
    return status
