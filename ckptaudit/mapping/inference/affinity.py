"""Which modules of one side go with which of the other: by what they hold, by their rank, and by votes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from .tree import Classes, Node, Side
from .units import Unit

TRUST = 4.0  # votes that weigh as much as the first guess
OUTSIDE = 0.7  # of two units outside of any module
ASTRAY = 0.3  # of a unit outside of any module and one inside
Chain = tuple[int, ...]
Family = tuple[object, str]


class Affinity:
    """The affinity of modules, 0 to 1; ``learn`` takes secure pairs of units as votes."""

    def __init__(self, source: Side, target: Side, classes: Classes) -> None:
        self._source, self._target, self._classes = source, target, classes
        self._dice: dict[tuple[int, int], float] = {}
        self._pairs: dict[tuple[int, int], float] = {}
        self._chains: dict[tuple[Chain, Chain], float] = {}
        self._votes: dict[tuple[int, int], float] = {}
        self._cast_s: dict[int, float] = {}
        self._cast_t: dict[int, float] = {}
        self._reversed: dict[tuple[Family, Family], int] = {}

    def of(self, s: Unit, t: Unit) -> float:
        """Compare the modules around two units, the inner and the outer ones."""
        key = s.nodes, t.nodes
        found = self._chains.get(key)
        if found is None:
            found = self._chains[key] = self._chain(*key)
        return found

    def partner(self, p: int, nodes: Chain, least: float) -> int | None:
        """Return the one of the target's nodes that has most affinity to the source's node ``p``, if it is enough."""
        best, q = max(((self._pair(p, q), -q) for q in nodes), default=(0.0, 0))
        return -q if best >= least else None

    def _chain(self, a: Chain, b: Chain) -> float:
        if not a or not b:
            return OUTSIDE if a == b else ASTRAY
        pairs, pair = self._pairs, self._pair
        columns = [0.0] * len(b)
        forward = 0.0
        for p in a:
            best = 0.0
            for k, q in enumerate(b):
                value = pairs.get((p, q))
                if value is None:
                    value = pairs[p, q] = pair(p, q)
                best = max(best, value)
                columns[k] = max(columns[k], value)
            forward += best
        return (forward / len(a) + sum(columns) / len(b)) / 2

    def _pair(self, p: int, q: int) -> float:
        first, second = self._source.nodes[p], self._target.nodes[q]
        overlap = self._overlap(first.kind, second.kind)
        backwards = self._reversed.get((first.family, second.family))
        if backwards is not None:  # earlier votes in this list were for the wrong members
            return overlap * (1.0 if first.number + second.number == backwards else 0.2)
        guess = overlap * _agreement(first, second)
        cast = self._cast_s.get(p, 0.0) + self._cast_t.get(q, 0.0)
        if not cast:
            return guess
        trust = cast / (cast + TRUST)
        return trust * 2 * self._votes.get((p, q), 0.0) / cast + (1 - trust) * guess

    def _overlap(self, a: int, b: int) -> float:
        """Return the Dice coefficient of two contents."""
        if a == b:
            return 1.0
        found = self._dice.get((a, b))
        if found is None:
            first, second = self._classes.contents[a], self._classes.contents[b]
            if len(first) > len(second):
                first, second = second, first
            both = sum(min(n, second[leaf]) for leaf, n in first.items() if leaf in second)
            found = self._dice[a, b] = 2 * both / (self._classes.sizes[a] + self._classes.sizes[b])
        return found

    def learn(self, matched: Iterable[tuple[int, int, float]]) -> None:
        """Forget earlier votes and take these: source unit, target unit, weight."""
        self._votes, self._cast_s, self._cast_t = defaultdict(float), defaultdict(float), defaultdict(float)
        for i, j, weight in matched:
            s, t = self._source.units[i], self._target.units[j]
            for p in s.nodes:
                self._cast_s[p] += weight
                for q in t.nodes:
                    self._votes[p, q] += weight
            for q in t.nodes:
                self._cast_t[q] += weight
        self._reversed = self._backwards()
        self._pairs.clear()
        self._chains.clear()

    def _backwards(self) -> dict[tuple[Family, Family], int]:
        """Find lists that run backwards, by those of their members whose content no other module has."""
        points: defaultdict[tuple[Family, Family], set[tuple[int, int]]] = defaultdict(set)
        for p, q in self._votes:
            first, second = self._source.nodes[p], self._target.nodes[q]
            if first.kind == second.kind and first.count == second.count == 1 and min(first.number, second.number) >= 0:
                points[first.family, second.family].add((first.number, second.number))
        return {
            families: sum(next(iter(seen)))
            for families, seen in points.items()
            if len(seen) > 1 and len({a + b for a, b in seen}) == 1
        }


def _agreement(p: Node, q: Node) -> float:
    """Compare the ranks of two modules: of those with the same content, the n-th goes with the n-th."""
    if p.kind == q.kind:
        return closeness(p.rank, p.count, q.rank, q.count)
    return 0.8 if p.ordinal == q.ordinal else 0.5


def closeness(a: int, n: int, b: int, m: int) -> float:
    """Compare rank ``a`` of ``n`` with rank ``b`` of ``m``: from the front, from the back, and in proportion."""
    if n == m:
        return 1.0 if a == b else 0.4 / (1 + abs(a - b))
    front, back = abs(a - b), abs((n - a) - (m - b))
    share = abs(a * m // n - b) if n < m else abs(b * n // m - a)
    return max(0.9 / (1 + front), 0.85 / (1 + back), 0.85 / (1 + share))
