"""Rows put into findings, the same way by all checks."""

from __future__ import annotations

from collections.abc import Iterable

from ...rules import Contract, Finding, Rule
from .setup import Setup

Row = tuple[str, str, str]


def finding(
    setup: Setup,
    rule: Rule,
    rows: Iterable[Row],
    *,
    case: str = "",
    breaks: Contract | None = None,
    explains: bool = True,
) -> Finding:
    """Return a finding about what its rows name; where it ``explains`` them, later checks pass over these."""
    rows = tuple(rows)
    keys = tuple(dict.fromkeys(row[0] for row in rows))
    if explains:
        setup.explained.update(keys)
    return Finding(rule, keys, case=case, rows=rows, breaks=breaks)
