"""Rules for second names, as few and as general as give exactly these."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping

from ..keyrules import Tie
from ..pattern import escape
from .changes import MARK, Change, Numbers, changes, sides

Rows = list[tuple[Numbers, Numbers]]


def tie_rules(ties: Mapping[str, str], names: Collection[str]) -> list[Tie]:
    """Return rules that give ``ties``, second names with first ones, among all the ``names`` of the result."""
    left = dict(ties)
    rules: list[Tie] = []
    for rule in _candidates(ties):
        made = {alias: name for name in names if (alias := rule.alias_of(name)) is not None}
        if made and made.items() <= left.items():
            rules.append(rule)
            left = {alias: name for alias, name in left.items() if alias not in made}
    return rules + [Tie(escape(alias, "="), escape(name, "=")) for alias, name in left.items()]


def _candidates(ties: Mapping[str, str]) -> Iterator[Tie]:
    """Yield rules, those of the most places first."""
    places: defaultdict[Change, Rows] = defaultdict(list)
    for alias, name in ties.items():
        if not any(mark in alias + name for mark in (MARK, "=")):
            for change, before, after in changes(name, alias):
                if change.before:
                    places[change].append((before, after))
    for change, rows in sorted(places.items(), key=lambda item: -len(item[1])):
        for name, alias in sides(change, rows):
            yield Tie(alias, name)
