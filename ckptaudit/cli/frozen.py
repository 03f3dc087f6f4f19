"""``ckptaudit frozen``."""

from __future__ import annotations

import argparse

from ..frozen import compare_frozen
from ..report import render
from .limits import parse_limits
from .mapping import parse_mapping
from .streams import byte_progress, terminal_width, write_report


def run(options: argparse.Namespace) -> int:
    """Compare two checkpoints of one run, write the report, return the exit status."""
    report = compare_frozen(
        options.base,
        options.tuned,
        options.patterns,
        trainable=options.trainable or None,
        mapping=parse_mapping(options.rules or ()),
        limits=parse_limits(options.limit),
        progress=byte_progress(),
    )
    write_report(render(report, options.format, terminal_width(options.width), options.verbose), options.color)
    return report.exit_status
