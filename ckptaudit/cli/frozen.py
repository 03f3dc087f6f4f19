"""``ckptaudit frozen``."""

from __future__ import annotations

import argparse

from ..frozen import compare_frozen
from .limits import parse_limits
from .mapping import parse_mapping
from .outputs import emit, parse_outputs
from .streams import byte_progress


def run(options: argparse.Namespace) -> int:
    """Compare two checkpoints of one run, write the report, return the exit status."""
    outputs = parse_outputs(options, [options.base, options.tuned, *(text for _, text in options.rules or ())])
    report = compare_frozen(
        options.base,
        options.tuned,
        options.patterns,
        trainable=options.trainable or None,
        mapping=parse_mapping(options.rules or ()),
        limits=parse_limits(options.limit),
        progress=byte_progress(),
    )
    emit(report, options, outputs)
    return report.exit_status
