"""``ckptaudit convert``."""

from __future__ import annotations

import argparse

from ..conversion import convert
from .limits import parse_limits
from .mapping import parse_mapping
from .streams import byte_progress, terminal_width, write_report


def run(options: argparse.Namespace) -> int:
    """Convert one checkpoint, and say what became of it."""
    result = convert(
        options.source,
        options.destination,
        mapping=parse_mapping(options.rules or ()),
        dtype=options.dtype,
        shard_size=options.shard_size,
        verify=options.verify,
        drop_non_tensors=options.drop_non_tensors,
        dry_run=options.dry_run,
        limits=parse_limits(options.limit),
        progress=byte_progress(),
    )
    if options.format == "json":
        from ..report.json import render_json

        write_report(render_json(result.to_json()))
    else:
        from ..report.conversion import render_conversion

        write_report(render_conversion(result, terminal_width(options.width), options.verbose), options.color)
    return 0
