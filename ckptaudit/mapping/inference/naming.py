"""How much two names say the same: shared words, roles that exclude each other, equal ends."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable
from functools import lru_cache

from .units import Path, Unit
from .words import EXCLUSIVE

EXCLUSION = 0.8
HEAVY = 3.0  # weight of the last segment's words; each segment outwards has 1 less, and 1 at least
PARTS = ("query", "key", "value")
WHOLE = ("qkv", "kv")

_GROUPS: defaultdict[str, list[tuple[str, ...]]] = defaultdict(list)
for _group in EXCLUSIVE:
    for _word in _group:
        _GROUPS[_word].append(_group)

Bag = dict[str, float]
Stem = tuple[tuple[str, ...], ...]


class Names:
    """Compares paths by their words; words that are everywhere on both sides count less."""

    def __init__(self, units: Iterable[Unit]) -> None:
        seen: Counter[str] = Counter()
        total = 0
        for unit in units:
            total += 1
            seen.update({word for named in unit.stem for word in named})
        self._rare = {word: math.log(1.5 + total / n) for word, n in seen.items()}
        self._bags: dict[Stem, Bag] = {}
        self._worth: dict[Stem, float] = {}
        self._known: dict[tuple[Stem, Stem], float] = {}

    def alike(self, a: Stem, b: Stem) -> float:
        """Return 1 for the same words, 0 for none in common, less where roles exclude each other.

        ``a`` and ``b`` are paths as words (``Unit.stem``).
        """
        found = self._known.get((a, b))
        if found is None:
            found = self._known[a, b] = self._compare(a, b)
        return found

    def shared(self, a: Stem, b: Stem) -> list[str]:
        """Return the words that two paths share, the most telling first."""
        x, y = self._bag(a), self._bag(b)
        return sorted(x.keys() & y.keys(), key=lambda word: (-min(x[word], y[word]) * self._rare[word], word))

    def _bag(self, path: Stem) -> Bag:
        bag = self._bags.get(path)
        if bag is None:
            bag = self._bags[path] = {}
            weight = HEAVY
            for named in reversed(path):
                for word in named:
                    bag[word] = max(bag.get(word, 0.0), weight)
                if named:
                    weight = max(1.0, weight - 1)
            self._worth[path] = sum(weight * self._rare.get(word, 1.0) for word, weight in bag.items())
        return bag

    def _compare(self, a: Stem, b: Stem) -> float:
        x, y = self._bag(a), self._bag(b)
        both = sum(min(weight, y[word]) * self._rare.get(word, 1.0) for word, weight in x.items() if word in y)
        total = self._worth[a] + self._worth[b]
        return (2 * both / total if total else 0.0) - EXCLUSION * _excluded(x, y)


def _excluded(a: Bag, b: Bag) -> float:
    """Count the roles that two bags of words have differently, heavier towards the end of the paths."""
    total = 0.0
    for word, weight in a.items():
        if word in b:
            continue
        for group in _GROUPS.get(word, ()):
            others = [b[name] for name in group if name in b and name not in a]
            if others:
                total += min(weight, max(others)) / HEAVY
    for x, y in ((a, b), (b, a)):
        if any(x.get(word, 0) >= HEAVY for word in PARTS) and not any(word in y for word in (*PARTS, *WHOLE)):
            total += 0.5
    return min(total, 2.0)


@lru_cache(maxsize=65536)
def _pieces(path: Path) -> tuple[str, ...]:
    return tuple("_".join(path).split("_"))


def tail(a: Path, b: Path) -> float:
    """Compare the ends of two paths word by word, however they are cut: ``ffn1_norm`` ends like ``ffn1.norm``."""
    x, y = _pieces(a), _pieces(b)
    n = 0
    for p, q in zip(reversed(x), reversed(y), strict=False):
        if p != q:
            break
        n += 1
    return 1 - 0.6**n + (min(1.0, 0.5 * n) if n >= min(len(x), len(y)) else 0.0)
