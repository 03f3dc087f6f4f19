"""Layout that several formats share: folded rows and wrapped lines."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ..keys import fold
from ..rules import Finding
from ..words import plural, visible

if TYPE_CHECKING:
    from ..compare.hearing import Hearing
    from ..outcome import LoadOutcome
    from ..policy import CheckReport, MappingUse, Report


def folded_rows(finding: Finding) -> list[tuple[str, ...]]:
    """Return a finding's rows with equal values and keys of one shape folded; the last cell counts tensors."""
    columns = len(finding.rule.columns)
    if finding.rows and len(finding.rows[0]) > columns:
        return list(finding.rows)
    groups: dict[tuple[str, ...], list[str]] = {}
    for key, *values in finding.rows:
        groups.setdefault(tuple(values), []).append(key)
    return [(str(pattern), *values, f"{pattern.count:,}") for values, keys in groups.items() for pattern in fold(keys)]


_NO_KEYS = (("rule",), ("accept",), ("finding",), ("target",), ("pattern",))


def folded_keys(finding: Finding) -> list[str]:
    """Return a finding's keys as patterns; what is no key of a tensor as it is."""
    if finding.rule.columns[:1] in _NO_KEYS:
        return list(finding.keys)
    return [str(pattern) for pattern in fold(finding.keys)]


def mapping_words(use: MappingUse) -> str:
    """Say which rules are in force: ``with the mapping``, ``with the mapping and the safe fix``."""
    parts = [("the mapping", use.given), (use.fix, use.proposed)]
    return f"with {' and '.join(name for name, rules in parts if rules)}"


def load_rows(report: Report) -> list[list[str]]:
    """Return a table of what ``load_state_dict`` does, its heads first; nothing where nothing was to be loaded."""
    if report.alignment is None or report.outcome is None or report.outcome_as_is is None:
        return []
    total = len(report.alignment.model.all_keys)
    headers, outcomes = ["load_state_dict", "as is"], [report.outcome_as_is]
    if report.mapping is not None:
        headers.append(mapping_words(report.mapping))
        outcomes.append(report.outcome)
    return [
        headers,
        ["strict=False", *(_non_strict(outcome, total) for outcome in outcomes)],
        ["strict=True", *("returns" if outcome.strict else "raises" for outcome in outcomes)],
    ]


def _non_strict(outcome: LoadOutcome, total: int) -> str:
    if not outcome.non_strict:
        return "raises"
    return f"returns, loads {outcome.loaded:,} of {total:,}"


def wrap(text: str, width: int, indent: str = "", hanging: str = "") -> list[str]:
    """Break a sentence into lines of at most ``width`` columns at blanks; longer words break at dots and commas."""
    return wrap_words(visible(text).split(" "), width, indent, hanging)


_OPTION = re.compile(r"--\S+ '[^']*'|\S+")


def wrap_command(text: str, width: int, indent: str = "", hanging: str = "") -> list[str]:
    """Break a line of command-line options, leaving each option whole with its quoted value."""
    return wrap_words(_OPTION.findall(visible(text)), width, indent, hanging)


def wrap_words(words: Iterable[str], width: int, indent: str, hanging: str) -> list[str]:
    """Set words into lines of at most ``width`` columns, the first after ``indent``, the rest after ``hanging``."""
    lines, line = [], indent
    room = width - max(len(indent), len(hanging))
    for word in (piece for whole in words for piece in break_word(whole, room)):
        start = line in (indent, hanging)
        if not start and len(line) + 1 + len(word) > width:
            lines.append(line)
            line, start = hanging, True
        line += word if start else f" {word}"
    return [*lines, line]


def break_word(word: str, width: int) -> Iterable[str]:
    """Split a long key after a comma, dot or slash so that no piece is wider than ``width``; lose nothing."""
    while len(word) > width > 0:
        at = max(word.rfind(mark, 0, width) for mark in ",./}") + 1
        at = at if at > width // 3 else width
        yield word[:at]
        word = word[at:]
    yield word


def witness_words(hearing: Hearing) -> str:
    """Return the witness's word in one sentence."""
    if hearing.unheard:
        return "witness: the load could not be performed"
    if hearing.disagreements:
        return "witness: torch's own load did otherwise"
    source = "from memory" if hearing.reader == "memory" else f"read by {hearing.reader}"
    because = f": {hearing.note}" if hearing.note else ""
    partly = "; the mapping could not be carried out" if hearing.partly else ""
    hooks = "" if hearing.prediction else "; a manifest in place of the model's code would not have foretold it"
    return f"witness: torch's own load did the same ({source}{because}){partly}{hooks}"


def check_words(check: CheckReport) -> str:
    """Return the verdict of a check in one sentence, its counts first."""
    verdicts = [report.verdict for report in check.reports]
    parts = [f"{verdicts.count(one):,} {one}" for one in ("kept", "broken", "unchecked") if one in verdicts]
    levels = [plural(check.count(level), level) for level in ("error", "warning") if check.count(level)]
    accepted = sum(len(report.accepted) for report in check.reports)
    counts = ", ".join([*levels, *([f"{accepted:,} accepted"] if accepted else [])]) or "no findings"
    return f"{plural(len(verdicts), 'check')}: {', '.join(parts)}; {counts}. Verdict: {check.verdict}."
