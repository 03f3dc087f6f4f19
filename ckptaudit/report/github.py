"""Annotations for GitHub: workflow commands on standard output, below the whole report in a folded group.

The commands: https://docs.github.com/actions/reference/workflows-and-actions/workflow-commands
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import sha256

from ..rules import Level
from ..words import plural, visible
from .parts import Judged, Located, Part, counted, inside, parts_of, plain_lines

MOST = 10  # of one level and step; GitHub drops the rest
MAX_ROWS = 10
_COMMANDS: dict[Level, str] = {"error": "error", "warning": "warning", "note": "notice"}


def render_github(judged: Judged, table: str, root: str) -> str:
    """Return ``table``, the report for people, in a group, and one annotation per finding.

    An annotation stands at the first place of its finding that lies below ``root``; where a level has more than ten,
    the tenth counts the rest.
    """
    parts = parts_of(judged)
    what = f"{parts[0].headline}: " if len(parts) == 1 else ""
    lines = list(_group(f"ckptaudit: {what}{counted(parts)}", table))
    for level in _COMMANDS:
        lines += _annotations(level, [(part, one) for part in parts for one in part.of_level(level)], root)
    return "".join(f"{line}\n" for line in lines)


def _group(title: str, table: str) -> Iterator[str]:
    """Yield the table with workflow commands switched off: it shows names that are a stranger's.

    The word that switches them on again comes from the text, so that no text can hold it and output stays the same.
    """
    word = f"ckptaudit-{sha256(table.encode('utf-8', 'surrogatepass')).hexdigest()[:32]}"
    yield f"::group::{_data(title)}"
    yield f"::stop-commands::{word}"
    yield from table.splitlines()
    yield f"::{word}::"
    yield "::endgroup::"


def _annotations(level: Level, found: Sequence[tuple[Part, Located]], root: str) -> Iterator[str]:
    shown = found if len(found) <= MOST else found[: MOST - 1]
    for part, one in shown:
        yield _annotation(level, part, one, root)
    if hidden := len(found) - len(shown):
        what = plural(hidden, f"more {_COMMANDS[level]}")
        yield f"::{_COMMANDS[level]} title=ckptaudit::{what}: see the log of this step"


def _annotation(level: Level, part: Part, one: Located, root: str) -> str:
    rule = one.graded.finding.rule
    properties = {}
    for place in one.places:
        if (path := inside(place, root)) is not None:
            properties = {"file": path, "line": str(place.line)}
            break
    properties["title"] = f"{rule.code} {rule.name}"
    words = ",".join(f"{name}={_property(value)}" for name, value in properties.items())
    text = "\n".join([*plain_lines(one.graded, MAX_ROWS), visible(f"in {part.subject}")])
    return f"::{_COMMANDS[level]} {words}::{_data(text)}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
