"""One line per finding, for logs and grep."""

from __future__ import annotations

from ..policy import CheckReport, Graded, Report
from ..words import visible
from .layout import check_words, folded_keys, witness_words

MAX_PATTERNS = 3


def render_concise(report: Report) -> str:
    """Return ``FILE: level CODE name: message: keys`` per finding, notes too.

    The last line is the verdict, before it the witness's word where there is one.
    """
    name = report.checkpoint.name
    lines = [f"{name}: {_line(graded)}" for graded in report.findings]
    lines += [f"{name}: {witness_words(report.hearing)}"] if report.hearing else []
    lines.append(f'{name}: contract "{report.contract.name}": {report.verdict}')
    return "".join(f"{visible(line)}\n" for line in lines)


def render_check_concise(check: CheckReport) -> str:
    """Return the same for every report of a check, and for the findings on its configuration; the verdict is last."""
    lines = [f"{check.config}: {_line(graded)}" for graded in check.findings]
    lines.append(f"{check.config}: {check_words(check)}")
    return "".join(map(render_concise, check.reports)) + "".join(f"{visible(line)}\n" for line in lines)


def _line(graded: Graded) -> str:
    """Return one finding: its safe fix says what it is about; without one the keys do."""
    finding = graded.finding
    text = f"{graded.level} {finding.rule.code} {finding.rule.name}: {finding.message}"
    safe = next((fix.do for fix in finding.fixes if fix.safety == "safe"), None)
    if safe:
        return f"{text} [safe fix: {safe}]"
    patterns = folded_keys(finding)
    more = f" and {len(patterns) - MAX_PATTERNS} more" if len(patterns) > MAX_PATTERNS else ""
    return f"{text}: {', '.join(patterns[:MAX_PATTERNS])}{more}" if patterns else text
