"""``ckptaudit diff``."""

from __future__ import annotations

import argparse
from typing import Any

from ..audit import diff
from ..errors import CkptauditError, FormatError, UsageError
from ..policy import SCHEMA, Report
from ..report import FORMATS, render
from ..textfile import refuse_input, write_text
from ..words import shell_word
from .limits import parse_limits
from .mapping import parse_mapping
from .streams import byte_progress, terminal_width, write_report


def run(options: argparse.Namespace) -> int:
    """Compare, write the report to standard output and to every --output, return the exit status."""
    if (options.rtol or options.atol) and not options.values:
        raise UsageError("--rtol and --atol", "are tolerances of values, which are not compared", "add --values")
    outputs = [_output(text) for text in options.output]
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
            values=options.values,
            rtol=options.rtol,
            atol=options.atol,
            progress=byte_progress() if options.values else None,
        )
    except CkptauditError as error:
        if options.format == "json":
            from ..report.json import render_json

            write_report(render_json(_failure(error, _contract(options))))
        raise
    width = terminal_width(options.width)
    for form, path in outputs:
        write_text(path, render(report, form, width, options.verbose))
    write_report(render(report, options.format, width, options.verbose), options.color)
    return _status(report, options.exit_zero)


def _contract(options: argparse.Namespace) -> str:
    return options.contract or ("exact" if options.values else "strict")


def _status(report: Report, exit_zero: bool) -> int:
    return 0 if exit_zero and report.verdict == "broken" else report.exit_status


def _output(text: str) -> tuple[str, str]:
    form, equals, path = text.partition("=")
    if not (equals and path and form in FORMATS):
        reason = f"is not FORMAT=PATH; FORMAT is one of {', '.join(FORMATS)}"
        raise UsageError(f"--output {shell_word(text)}", reason, "write it as --output json=report.json")
    return form, path


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
