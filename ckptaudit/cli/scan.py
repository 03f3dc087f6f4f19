"""``ckptaudit scan``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable

from ..errors import UsageError
from ..report import SCAN_FORMATS
from ..scanning import scan
from .limits import parse_limits
from .outputs import emit, parse_outputs
from .streams import write_error


def run(options: argparse.Namespace) -> int:
    """Judge every file; a path that is not there does not hide the others."""
    outputs = parse_outputs(options, options.paths, SCAN_FORMATS)
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
    emit(report, options, outputs)
    return max(status, report.exit_status)


def _progress(options: argparse.Namespace) -> Callable[[int, int], None] | None:
    """Return what shows how far a file is read: a bar, where somebody is there to see it."""
    if not options.integrity or not sys.stderr.isatty():
        return None
    from .progress import bar

    return bar()
