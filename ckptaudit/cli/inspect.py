"""``ckptaudit inspect``."""

from __future__ import annotations

import argparse

from ..errors import CkptauditError
from ..inspection import inspect
from .streams import terminal_width, write_error, write_report


def run(options: argparse.Namespace) -> int:
    """Show each file; one that cannot be read does not hide the others."""
    status, gap = 0, ""
    for path in options.files:
        try:
            inspection = inspect(path)
        except CkptauditError as error:
            write_error(error, debug=options.debug)
            status = 2
            continue
        if options.format == "json":
            from ..report.json import render_json

            write_report(render_json(inspection.to_json()))
        else:
            from ..report.inspection import render_inspection

            text = render_inspection(inspection, terminal_width(options.width), options.verbose)
            write_report(gap + text, options.color)
            gap = "\n"
        status = max(status, 0 if inspection.ok else 1)
    return status
