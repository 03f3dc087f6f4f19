"""``ckptaudit diff``."""

from __future__ import annotations

import argparse
from typing import Any

from ..audit import diff
from ..errors import CkptauditError, FormatError, UsageError
from ..policy import SCHEMA, Report
from ..report import FORMATS, render
from .streams import terminal_width, write_report


def run(options: argparse.Namespace) -> int:
    """Compare, write the report to standard output and to every --output, return the exit status."""
    outputs = [_output(text) for text in options.output]
    try:
        report = diff(
            options.model,
            options.checkpoint,
            contract=options.contract,
            mapping=options.rules or (),
            arguments=options.arg,
        )
    except CkptauditError as error:
        if options.format == "json":
            from ..report.json import render_json

            write_report(render_json(_failure(error, options.contract)))
        raise
    width = terminal_width(options.width)
    for form, path in outputs:
        _write(path, render(report, form, width, options.verbose))
    write_report(render(report, options.format, width, options.verbose), options.color)
    return _status(report, options.exit_zero)


def _status(report: Report, exit_zero: bool) -> int:
    return 0 if exit_zero and report.verdict == "broken" else report.exit_status


def _output(text: str) -> tuple[str, str]:
    form, equals, path = text.partition("=")
    if not (equals and path and form in FORMATS):
        raise UsageError(f"--output {text}", f"is not FORMAT=PATH with one of {', '.join(FORMATS)}")
    return form, path


def _write(path: str, text: str) -> None:
    try:
        with open(path, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
    except OSError as error:
        raise UsageError(path, f"cannot be written: {error.strerror}") from None


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
    }
