"""``ckptaudit diff``."""

from __future__ import annotations

import argparse

from ..audit import diff, parse_contract
from ..errors import CkptauditError, UsageError
from ..policy import Report, Side, failed
from .limits import parse_limits
from .mapping import parse_mapping
from .outputs import emit, parse_outputs
from .streams import byte_progress, write_report


def run(options: argparse.Namespace) -> int:
    """Compare, write the report to standard output and to every --output, return the exit status."""
    if (options.rtol or options.atol) and not options.values:
        raise UsageError("--rtol and --atol", "are tolerances of values, which are not compared", "add --values")
    inputs = [options.model, options.checkpoint, *(text for _, text in options.rules or ())]
    outputs = parse_outputs(options, inputs)
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
            values=options.values,
            rtol=options.rtol,
            atol=options.atol,
            progress=byte_progress() if options.values else None,
        )
    except CkptauditError as error:
        if options.format == "json":
            from ..report.json import render_json

            sides = Side("checkpoint", "", options.checkpoint, 0, 0, 0), Side("model", "", options.model, 0, 0, 0)
            write_report(render_json(failed(error, "diff", parse_contract(_contract(options)), *sides).to_json()))
        raise
    emit(report, options, outputs)
    return _status(report, options.exit_zero)


def _contract(options: argparse.Namespace) -> str:
    return options.contract or ("exact" if options.values else "strict")


def _status(report: Report, exit_zero: bool) -> int:
    return 0 if exit_zero and report.verdict == "broken" else report.exit_status
