"""How well a unit of the checkpoint answers a unit of the model: affinity of the modules around them, names, order."""

from __future__ import annotations

import math
from collections import Counter, defaultdict

from .tree import Classes, Node, Side
from .units import Unit
from .words import EXCLUSIVE, stem, words

AFFINITY = 3.0
NAMES = 2.0
EXCLUSION = 0.8
TAIL = 1.0
ORDER = 0.8
NUMBER = 0.6
ORDINAL = 0.4
ADJACENT = 0.4
VOTE = 1.5
BARE = 0.3

_GROUPS: defaultdict[str, list[tuple[int, str]]] = defaultdict(list)
for _i, _group in enumerate(EXCLUSIVE):
    for _word in _group:
        _GROUPS[_word].append((_i, _word))


class Scorer:
    """Scores of pairs of units, from what is known in a round."""

    def __init__(self, source: Side, target: Side, classes: Classes) -> None:
        self.source, self.target, self.classes = source, target, classes
        self._dice: dict[tuple[int, int], float] = {}
        self._affinity: dict[tuple[int, int], float] = {}
        self._chains: dict[tuple[tuple[int, ...], tuple[int, ...]], float] = {}
        self._names: dict[tuple[tuple[str, ...], tuple[str, ...]], float] = {}
        self._bags: dict[tuple[str, ...], dict[str, float]] = {}
        self._votes: dict[tuple[int, int], float] = {}
        self._weights_s: dict[int, float] = {}
        self._weights_t: dict[int, float] = {}
        self._tails: dict[tuple[tuple[str, ...], tuple[str, ...]], float] = {}
        self._tail_s: Counter[tuple[str, ...]] = Counter()
        self._tail_t: Counter[tuple[str, ...]] = Counter()
        self.match: dict[int, int] = {}
        self.back: dict[int, int] = {}
        self.rounds = 0
        self.trust = 1.0
        self._rare = _rarity(source, target)

    # evidence that does not change -------------------------------------------------------------------

    def static(self, i: int, j: int) -> float:
        """Score source unit ``i`` for target unit ``j`` by names and order alone."""
        s, t = self.source.units[i], self.target.units[j]
        total = NAMES * self.names(s.path, t.path)
        total += TAIL * _tail(s.path, t.path)
        total += NUMBER * self._number(i, j)
        total += ORDINAL * self._ordinal(i, j)
        if s.bare != t.bare:
            total -= BARE
        return total

    def names(self, a: tuple[str, ...], b: tuple[str, ...]) -> float:
        """Compare the words of two paths: 1 for the same, minus what excludes each other."""
        a, b = tuple(map(_stem, a)), tuple(map(_stem, b))
        found = self._names.get((a, b))
        if found is None:
            found = self._names[a, b] = self._compare(self._bag(a), self._bag(b))
        return found

    def _bag(self, path: tuple[str, ...]) -> dict[str, float]:
        bag = self._bags.get(path)
        if bag is None:
            bag = self._bags[path] = {}
            weight = 3.0
            for segment in reversed(path):
                named = words(segment)
                for word in named:
                    bag[word] = max(bag.get(word, 0.0), weight)
                if named:
                    weight = max(1.0, weight - 1)
        return bag

    def _compare(self, a: dict[str, float], b: dict[str, float]) -> float:
        rare = self._rare
        both = sum(min(weight, b[word]) * rare.get(word, 1.0) for word, weight in a.items() if word in b)
        total = sum(w * rare.get(word, 1.0) for word, w in a.items()) + sum(w * rare.get(word, 1.0) for word, w in b.items())
        alike = 2 * both / total if total else 0.0
        return alike - EXCLUSION * _excluded(a, b)

    def _order(self, i: int, j: int) -> float:
        s, t = self.source, self.target
        if s.kinds[i] != t.kinds[j]:
            return 0.0
        if s.counts[i] == t.counts[j]:
            distance = abs(s.ranks[i] - t.ranks[j])
            return 1.0 if not distance else 0.4 / (1 + distance)
        front = abs(s.ranks[i] - t.ranks[j])
        back = abs((s.counts[i] - s.ranks[i]) - (t.counts[j] - t.ranks[j]))
        return max(0.5 / (1 + front), 0.4 / (1 + back))

    def _number(self, i: int, j: int) -> float:
        if self.source.kinds[i] != self.target.kinds[j]:
            return 0.0
        return _closeness(*self.source.numbered[i], *self.target.numbered[j])

    def _ordinal(self, i: int, j: int) -> float:
        if self.source.units[i].path[-1] == self.target.units[j].path[-1]:
            return 1.0
        (a, n), (b, m) = self.source.ordinals[i], self.target.ordinals[j]
        if n < 2 or m < 2:
            return 0.0
        if n == m:
            return 1.0 if a == b else -1.0
        return 0.3 if a == b else -0.3

    # affinity of modules ---------------------------------------------------------------------------------

    def affinity(self, s: Unit, t: Unit) -> float:
        """Compare the modules around two units, the inner and the outer ones: 0 to 1."""
        key = s.nodes, t.nodes
        found = self._chains.get(key)
        if found is None:
            found = self._chains[key] = self._chain(*key)
        return found

    def _chain(self, a: tuple[int, ...], b: tuple[int, ...]) -> float:
        if not a and not b:
            return 0.7
        if not a or not b:
            return 0.3
        rows = [[self._pair(p, q) for q in b] for p in a]
        forward = sum(max(row) for row in rows) / len(a)
        backward = sum(max(row[k] for row in rows) for k in range(len(b))) / len(b)
        return (forward + backward) / 2

    def _pair(self, p: int, q: int) -> float:
        found = self._affinity.get((p, q))
        if found is None:
            first, second = self.source.nodes[p], self.target.nodes[q]
            found = self._overlap(first.kind, second.kind) * _agreement(first, second)
            seen = self._weights_s.get(p, 0.0) + self._weights_t.get(q, 0.0)
            if seen:
                voted = 2 * self._votes.get((p, q), 0.0) / seen
                trust = seen / (seen + 4)
                found = trust * voted + (1 - trust) * found
            self._affinity[p, q] = found
        return found

    def _overlap(self, a: int, b: int) -> float:
        if a == b:
            return 1.0
        found = self._dice.get((a, b))
        if found is None:
            first, second = self.classes.contents[a], self.classes.contents[b]
            if len(first) > len(second):
                first, second = second, first
            both = sum(min(n, second[leaf]) for leaf, n in first.items() if leaf in second)
            found = self._dice[a, b] = 2 * both / (self.classes.sizes[a] + self.classes.sizes[b])
        return found

    # what earlier rounds taught --------------------------------------------------------------------------

    def score(self, i: int, j: int, static: float) -> float:
        """Score a pair by everything known in this round."""
        s, t = self.source.units[i], self.target.units[j]
        total = static + AFFINITY * self.affinity(s, t)
        if self._tail_s:
            total += VOTE * self._tail_vote(s, t)
            total += ADJACENT * self._adjacent(i, j)
        if self.rounds >= 2:
            total += ORDER * self.trust * self._order(i, j)
        return total

    def _adjacent(self, i: int, j: int) -> float:
        total = 0.0
        s, t = self.source.units, self.target.units
        anchor = self.target.anchors.get(j)
        if anchor is not None and self.match.get(anchor) == i - 1 and _beside(s[i - 1], s[i]):
            total += 2.0
        anchor = self.source.anchors.get(i)
        if anchor is not None and self.match.get(j - 1) == anchor and _beside(t[j - 1], t[j]):
            total += 2.0
        if self.source.runs[i] or self.target.runs[j]:
            return total
        if self.match.get(j - 1) == i - 1 and _beside(t[j - 1], t[j]) and _beside(s[i - 1], s[i]):
            total += 1.0
        if self.match.get(j + 1) == i + 1 and _beside(t[j], t[j + 1]) and _beside(s[i], s[i + 1]):
            total += 1.0
        return total

    def _tail_vote(self, s: Unit, t: Unit) -> float:
        a, b = s.path[-2:], t.path[-2:]
        together = self._tails.get((a, b), 0.0)
        seen_a, seen_b = self._tail_s[a], self._tail_t[b]
        if not seen_a and not seen_b:
            return 0.0
        return together / (seen_a + 1) / 2 + together / (seen_b + 1) / 2

    def learn(self, matched: list[tuple[int, int, float]]) -> None:
        """Take the secure pairs of a round (source, target, weight) as votes for the next."""
        self.rounds += 1
        self._votes, self._weights_s, self._weights_t = defaultdict(float), defaultdict(float), defaultdict(float)
        self._tails, self._tail_s, self._tail_t = defaultdict(float), Counter(), Counter()
        self.match = {j: i for i, j, _ in matched}
        for i, j, weight in matched:
            s, t = self.source.units[i], self.target.units[j]
            for p in s.nodes:
                self._weights_s[p] += weight
                for q in t.nodes:
                    self._votes[p, q] += weight
            for q in t.nodes:
                self._weights_t[q] += weight
            a, b = s.path[-2:], t.path[-2:]
            self._tails[a, b] += weight
            self._tail_s[a] += weight  # type: ignore[assignment]
            self._tail_t[b] += weight  # type: ignore[assignment]
        self._affinity.clear()
        self._chains.clear()
        self.trust = _concordance([(j, i) for i, j, _ in matched if not self.target.runs[j]])


def _concordance(pairs: list[tuple[int, int]]) -> float:
    """Return how far the order of one side is that of the other: 1 for the same, 0 for none."""
    places = [i for _, i in sorted(pairs)]
    steps = list(zip(places, places[1:], strict=False))
    if len(steps) < 4:
        return 1.0
    rising = sum(b > a for a, b in steps) / len(steps)
    return max(0.0, 2 * rising - 1) ** 2


def _beside(a: Unit, b: Unit) -> bool:
    """Tell whether two units are in one block, and not in two of a list of blocks."""
    n = 0
    for x, y in zip(a.path, b.path, strict=False):
        if x != y:
            break
        n += 1
    rest = a.path[n:], b.path[n:]
    if not rest[0] or not rest[1] or min(map(len, rest)) == 1 and max(map(len, rest)) == 1:
        return True
    x, y = rest[0][0], rest[1][0]
    return not (stem(x) == stem(y) and stem(x) != x and max(map(len, rest)) > 2)


def _stem(segment: str) -> str:
    return "".join(c for c in segment if not c.isdigit())


def _rarity(source: Side, target: Side) -> dict[str, float]:
    seen: Counter[str] = Counter()
    for side in (source, target):
        for unit in side.units:
            seen.update({word for segment in unit.path for word in words(segment)})
    total = len(source.units) + len(target.units)
    return {word: math.log(1.5 + total / n) for word, n in seen.items()}


def _excluded(a: dict[str, float], b: dict[str, float]) -> float:
    """Count the roles that two bags of words have differently, heavier towards the end of the paths."""
    total = 0.0
    for word, weight in a.items():
        for group, _ in _GROUPS.get(word, ()):
            names = EXCLUSIVE[group]
            if word in b:
                continue
            others = [name for name in names if name in b and name not in a]
            if others:
                total += min(weight, max(b[name] for name in others)) / 3
    return min(total, 2.0)


def _tail(a: tuple[str, ...], b: tuple[str, ...]) -> float:
    n = _common_tail(a, b)
    whole = n >= min(len(a), len(b))
    return 1 - 0.5**n + (0.5 if whole else 0.0)


def _common_tail(a: tuple[str, ...], b: tuple[str, ...]) -> int:
    n = 0
    for x, y in zip(reversed(a), reversed(b), strict=False):
        if x != y:
            break
        n += 1
    return n


def _agreement(p: Node, q: Node) -> float:
    """Compare the ranks of two modules: of those with the same content, the n-th goes with the n-th."""
    if p.kind == q.kind:
        return _closeness(p.rank, p.count, q.rank, q.count)
    return 0.8 if p.ordinal == q.ordinal else 0.5


def _closeness(a: int, n: int, b: int, m: int) -> float:
    """Compare rank ``a`` of ``n`` with rank ``b`` of ``m``: from the front, from the back, and in proportion."""
    if n == m:
        return 1.0 if a == b else 0.4 / (1 + abs(a - b))
    front, back = abs(a - b), abs((n - a) - (m - b))
    share = abs(a * m // n - b) if n < m else abs(b * n // m - a)
    return max(0.9 / (1 + front), 0.85 / (1 + back), 0.85 / (1 + share))
