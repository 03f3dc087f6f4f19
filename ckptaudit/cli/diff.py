"""``ckptaudit diff``."""

from __future__ import annotations

import argparse

from ..audit import diff, parse_contract
from ..errors import CkptauditError
from ..policy import Report, Side, failed
from ..report import render
from ..textfile import refuse_input, write_text
from .limits import parse_limits
from .mapping import parse_mapping
from .outputs import parse_outputs
from .streams import terminal_width, write_report


def run(options: argparse.Namespace) -> int:
    """Compare, write the report to standard output and to every --output, return the exit status."""
    outputs = parse_outputs(options.output)
    for _, path in outputs:
        refuse_input(path, [options.model, options.checkpoint, *(text for _, text in options.rules or ())])
    limits = parse_limits(options.limit)
    try:
        report = diff(
            options.model,
            options.checkpoint,
            contract=options.contract,
            mapping=parse_mapping(options.rules or ()),
            arguments=options.arg,
            limits=limits,
            witness=options.witness,
        )
    except CkptauditError as error:
        if options.format == "json":
            from ..report.json import render_json

            sides = Side("checkpoint", "", options.checkpoint, 0, 0, 0), Side("model", "", options.model, 0, 0, 0)
            write_report(render_json(failed(error, "diff", parse_contract(options.contract), *sides).to_json()))
        raise
    width = terminal_width(options.width)
    for form, path in outputs:
        write_text(path, render(report, form, width, options.verbose))
    write_report(render(report, options.format, width, options.verbose), options.color)
    return _status(report, options.exit_zero)


def _status(report: Report, exit_zero: bool) -> int:
    return 0 if exit_zero and report.verdict == "broken" else report.exit_status
