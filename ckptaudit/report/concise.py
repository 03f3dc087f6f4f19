"""One line per finding, for logs and grep."""

from __future__ import annotations

from ..keys import fold
from ..policy import Graded, Report

MAX_PATTERNS = 3


def render_concise(report: Report) -> str:
    """Return ``FILE: level CODE name: message: keys`` per finding, notes too; the verdict is the last line."""
    name = report.checkpoint.name
    lines = [f"{name}: {_line(graded)}" for graded in report.findings]
    lines.append(f'{name}: contract "{report.contract.name}": {report.verdict}')
    return "\n".join(lines) + "\n"


def _line(graded: Graded) -> str:
    """A safe fix says what it is about; without one the keys do."""
    finding = graded.finding
    text = f"{graded.level} {finding.rule.code} {finding.rule.name}: {finding.message}"
    safe = next((fix.do for fix in finding.fixes if fix.safety == "safe"), None)
    if safe:
        return f"{text} [safe fix: {safe}]"
    patterns = [str(pattern) for pattern in fold(finding.keys)]
    more = f" and {len(patterns) - MAX_PATTERNS} more" if len(patterns) > MAX_PATTERNS else ""
    return f"{text}: {', '.join(patterns[:MAX_PATTERNS])}{more}" if patterns else text
