"""``ckptaudit diff``."""

from __future__ import annotations

import argparse
from typing import Any

from ..audit import diff
from ..errors import CkptauditError, FormatError
from ..policy import SCHEMA, Report
from ..report import FORMATS
from .limits import parse_limits
from .mapping import parse_mapping
from .outputs import emit, parse_outputs
from .streams import write_report


def run(options: argparse.Namespace) -> int:
    """Compare, write the report to standard output and to every --output, return the exit status."""
    inputs = [options.model, options.checkpoint, *(text for _, text in options.rules or ())]
    outputs = parse_outputs(options.output, FORMATS, inputs)
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

            write_report(render_json(_failure(error, options.contract)))
        raise
    emit(report, options, outputs)
    return _status(report, options.exit_zero)


def _status(report: Report, exit_zero: bool) -> int:
    return 0 if exit_zero and report.verdict == "broken" else report.exit_status


def _failure(error: CkptauditError, contract: str) -> dict[str, Any]:
    """Return the report of a comparison that could not be made."""
    findings = []
    if isinstance(error, FormatError):
        from ..rules import RULES, Finding

        findings.append(Finding(RULES[error.code], data={"reason": error.reason}).to_json("error"))
    return {
        "schema": SCHEMA,
        "command": "diff",
        "contract": contract,
        "verdict": "unchecked",
        "exit_status": 2,
        "error": {"subject": error.subject, "reason": error.reason, "hint": error.hint},
        "inputs": {},
        "alignment": None,
        "loads": None,
        "mapping": None,
        "findings": findings,
        "accepted": [],
        "skipped_rules": [],
        "witness": None,
    }
