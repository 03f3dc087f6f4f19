"""``ckptaudit diff``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..audit import diff
from ..errors import CkptauditError, FormatError, UsageError
from ..policy import SCHEMA, Report
from ..report import FORMATS, render
from ..textfile import refuse_input, write_text
from ..words import shell_word
from .limits import parse_limits
from .streams import terminal_width, write_report

if TYPE_CHECKING:
    from ..mapping.mapping import KeyMapping
    from ..mapping.rules import Rule


def run(options: argparse.Namespace) -> int:
    """Compare, write the report to standard output and to every --output, return the exit status."""
    outputs = [_output(text) for text in options.output]
    for _, path in outputs:
        refuse_input(path, [options.model, options.checkpoint, *(text for _, text in options.rules or ())])
    limits = parse_limits(options.limit)
    try:
        report = diff(
            options.model,
            options.checkpoint,
            contract=options.contract,
            mapping=_mapping(options.rules or ()),
            arguments=options.arg,
            limits=limits,
            witness=options.witness,
        )
    except CkptauditError as error:
        if options.format == "json":
            from ..report.json import render_json

            write_report(render_json(_failure(error, options.contract)))
        raise
    width = terminal_width(options.width)
    for form, path in outputs:
        write_text(path, render(report, form, width, options.verbose))
    write_report(render(report, options.format, width, options.verbose), options.color)
    return _status(report, options.exit_zero)


def _status(report: Report, exit_zero: bool) -> int:
    return 0 if exit_zero and report.verdict == "broken" else report.exit_status


def _mapping(rules: Sequence[tuple[str, str]]) -> KeyMapping | None:
    """Read --map, a line or a TOML file, and --drop in their order; an error names the option as it was written."""
    if not rules:
        return None
    from ..keys import KeyPattern
    from ..mapping.mapping import KeyMapping, is_toml_path
    from ..mapping.rules import Drop, parse_rule

    parsed: list[Rule] = []
    for option, text in rules:
        if option == "--map" and is_toml_path(text):
            parsed += KeyMapping.load(text).rules
            continue
        try:
            parsed.append(Drop(KeyPattern.parse(text)) if option == "--drop" else parse_rule(text))
        except UsageError as error:
            raise UsageError(f"{option} {shell_word(text)}", error.reason, error.hint) from None
    return KeyMapping(tuple(parsed))


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
