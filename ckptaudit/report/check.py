"""The terminal report of a whole project's check: one line a check, then what was found."""

from __future__ import annotations

from itertools import groupby

from ..keys import fold
from ..policy import CheckReport, Graded, Report
from ..rules import UNCHECKED_CODES
from ..tomlfile import quoted
from ..words import plural, visible
from .layout import check_words, wrap
from .table import finding_lines, grid

_MOST_PATTERNS = 3


def render_check(check: CheckReport, width: int, verbose: bool) -> str:
    """Return the report for people: what was checked, every finding under its check, and one sentence of verdict."""
    lines = _head(check, width)
    for report in check.reports:
        shown = _shown(report.findings, verbose)
        title = f"{report.target}: {report.checkpoint.name}"
        lines += _section(title, shown, width, verbose)
    lines += _section(check.config, _shown(check.findings, verbose), width, verbose)
    lines += _snippet(check, width)
    lines += ["", *wrap(check_words(check), width)]
    worst = _worst(check)
    if worst is not None:
        lines.append(f"next: ckptaudit explain {worst.finding.rule.code}")
    return "\n".join(visible(line).rstrip() for line in lines) + "\n"


def _head(check: CheckReport, width: int) -> list[str]:
    """Say per target which file was compared with its model, by which contract, and what came out."""
    lines = wrap(f"the measure is what is committed at {check.against}", width, "", "") if check.against else []
    for target, group in groupby(check.reports, key=lambda report: report.target):
        reports = list(group)
        first = reports[0]
        lines += wrap(f'{target}  {first.model.name}, contract "{first.contract.name}"', width, "", "  ")
        rows = [[report.checkpoint.name, ", ".join(report.checkpoint.facts), _outcome(report)] for report in reports]
        lines += grid(rows if any(row[1] for row in rows) else [[row[0], row[2]] for row in rows], (), width)
    return lines


def _outcome(report: Report) -> str:
    words = report.verdict if report.verdict == "kept" else report.verdict.upper()
    if report.verdict == "unchecked" and report.error is not None:
        return "NOT CHECKED"
    extras = [plural(report.count("warning"), "warning")] if report.count("warning") else []
    extras += [f"{len(report.accepted):,} accepted"] if report.accepted else []
    return ", ".join([words, *extras])


def _section(title: str, shown: list[Graded], width: int, verbose: bool) -> list[str]:
    lines = ["", title] if shown else []
    mapped = False
    for number, graded in enumerate(shown):
        if graded.finding.mapped and not mapped:
            lines += ["", "With that fix:"]
            mapped = True
        lines += ["", *finding_lines(graded, width, verbose)] if number else finding_lines(graded, width, verbose)
    return lines


def _snippet(check: CheckReport, width: int) -> list[str]:
    """Return what accepts the first error, to be copied, where that is short; its reason is left to a person."""
    errors = [(report, one) for report in check.reports for one in report.findings if one.level == "error"]
    errors = [
        (report, one) for report, one in errors if one.finding.rule.code not in UNCHECKED_CODES and not report.error
    ]
    if not errors:
        return []
    report, graded = errors[0]
    patterns = [str(pattern) for pattern in fold(graded.finding.keys)] or ["*"]
    table = "accept" if check.config.endswith("ckptaudit.toml") else "tool.ckptaudit.accept"
    lines = []
    for pattern in patterns:
        rule, target = quoted(graded.finding.rule.code), quoted(report.target)
        lines += ["", f"[[{table}]]", f"rule = {rule}", f"key = {quoted(pattern)}", f"target = {target}", 'reason = ""']
    if len(patterns) > _MOST_PATTERNS or max(map(len, lines)) > width - 2:
        return []
    return [
        "",
        *wrap(f"If it is meant, accept it in {check.config}, and say why:", width),
        *(f"  {line}" for line in lines),
    ]


def _shown(findings: tuple[Graded, ...], verbose: bool) -> list[Graded]:
    return [graded for graded in findings if verbose or graded.level != "note"]


def _worst(check: CheckReport) -> Graded | None:
    every = [graded for report in check.reports for graded in report.findings] + list(check.findings)
    return next((graded for graded in every if graded.level == "error"), None)
