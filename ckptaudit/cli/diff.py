"""``ckptaudit diff``."""

from __future__ import annotations

import argparse

from ..audit import diff, parse_contract
from ..errors import CkptauditError
from ..policy import Report, Side, failed
from .limits import parse_limits
from .mapping import parse_mapping
from .outputs import emit, parse_outputs
from .streams import write_report


def run(options: argparse.Namespace) -> int:
    """Compare, write the report to standard output and to every --output, return the exit status."""
    inputs = [options.model, options.checkpoint, *(text for _, text in options.rules or ())]
    outputs = parse_outputs(options.output, inputs)
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
    emit(report, options, outputs)
    return _status(report, options.exit_zero)


def _status(report: Report, exit_zero: bool) -> int:
    return 0 if exit_zero and report.verdict == "broken" else report.exit_status
