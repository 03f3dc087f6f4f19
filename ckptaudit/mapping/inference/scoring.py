"""How well a unit of the checkpoint answers a unit of the model: affinity of the modules around them, names, order."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise

from .affinity import Affinity, closeness
from .naming import Names, tail
from .tree import Classes, Side
from .units import Unit
from .words import stem

AFFINITY = 3.0
NAMES = 2.0
TAIL = 1.0
NUMBER = 0.6
ORDER = 0.8
ORDINAL = 0.4
BESIDE = 0.4
ANCHORED = 0.8
VOTE = 1.5
BARE = 0.3
EARLY = 2  # rounds before the order of the files counts

Votes = defaultdict[tuple[str, ...], float]


class Scorer:
    """Scores of pairs of units, from what is known in a round. ``trust`` is how far the orders of both sides agree."""

    def __init__(self, source: Side, target: Side, classes: Classes) -> None:
        self.source, self.target = source, target
        self.names = Names([*source.units, *target.units])
        self.affinity = Affinity(source, target, classes)
        self.trust = 1.0
        self.rounds = 0
        self.match: dict[int, int] = {}
        self._together: defaultdict[tuple[tuple[str, ...], tuple[str, ...]], float] = defaultdict(float)
        self._ends_s: Votes = defaultdict(float)
        self._ends_t: Votes = defaultdict(float)

    def static(self, i: int, j: int) -> float:
        """Score source unit ``i`` for target unit ``j`` by what does not change: names and numbers."""
        s, t = self.source.units[i], self.target.units[j]
        total = NAMES * self.names.alike(s.stem, t.stem) + TAIL * tail(s.path, t.path)
        if self.source.kinds[i] == self.target.kinds[j]:
            total += NUMBER * closeness(*self.source.numbered[i], *self.target.numbered[j])
        return total + ORDINAL * self._ordinal(i, j) - BARE * (s.bare != t.bare)

    def _ordinal(self, i: int, j: int) -> float:
        """Compare the ranks among numbered siblings: ``norm1`` of two is the first of two."""
        if self.source.units[i].path[-1] == self.target.units[j].path[-1]:
            return 1.0
        (a, n), (b, m) = self.source.ordinals[i], self.target.ordinals[j]
        if n < 2 or m < 2:
            return 0.0
        agree = 1.0 if a == b else -1.0
        return agree if n == m else 0.3 * agree

    def score(self, i: int, j: int, static: float) -> float:
        """Score a pair by everything known in this round but the order of the files."""
        s, t = self.source.units[i], self.target.units[j]
        total = static + AFFINITY * self.affinity.of(s, t)
        return total + VOTE * self._voted(s, t) if self.rounds else total

    def order(self, i: int, j: int) -> float:
        """Score a pair by where it stands in both files: a hint, which comes late and never votes alone."""
        if not self.rounds:
            return 0.0
        total = self._nearby(i, j)
        return total + ORDER * self.trust * self._order(i, j) if self.rounds >= EARLY else total

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

    def _nearby(self, i: int, j: int) -> float:
        """Score neighbours: of a secure pair of units, the next ones are likely a pair.

        A norm that is named after its sibling (``self_attn_norm``) belongs to that one, wherever it stands.
        """
        s, t, match = self.source.units, self.target.units, self.match
        total = 0.0
        before = match.get(j - 1) == i - 1 and _beside(t[j - 1], t[j]) and _beside(s[i - 1], s[i])
        after = match.get(j + 1) == i + 1 and _beside(t[j], t[j + 1]) and _beside(s[i], s[i + 1])
        if (before or after) and not self.source.runs[i] and not self.target.runs[j]:
            total += BESIDE
        anchor = self.target.anchors.get(j)
        if anchor is not None and match.get(anchor) == i - 1 and _beside(s[i - 1], s[i]):
            total += ANCHORED
        anchor = self.source.anchors.get(i)
        if anchor is not None and match.get(j - 1) == anchor and _beside(t[j - 1], t[j]):
            total += ANCHORED
        return total

    def _voted(self, s: Unit, t: Unit) -> float:
        """Score how often secure pairs had these ends of their paths: 0 to 1."""
        together = self._together.get((s.end, t.end))
        if not together:
            return 0.0
        return together / (self._ends_s[s.end] + 1) / 2 + together / (self._ends_t[t.end] + 1) / 2

    def learn(self, matched: list[tuple[int, int, float]]) -> None:
        """Take the secure pairs of a round (source, target, weight) as votes for the next."""
        self.rounds += 1
        self.match = {j: i for i, j, _ in matched}
        self.affinity.learn(matched)
        self._together, self._ends_s, self._ends_t = defaultdict(float), defaultdict(float), defaultdict(float)
        for i, j, weight in matched:
            a, b = self.source.units[i].end, self.target.units[j].end
            self._together[a, b] += weight
            self._ends_s[a] += weight
            self._ends_t[b] += weight
        self.trust = _concordance([(j, i) for i, j, _ in matched if not self.target.runs[j]])


def _concordance(pairs: list[tuple[int, int]]) -> float:
    """Return how far the order of one side is that of the other: 1 for the same, 0 for none."""
    places = [i for _, i in sorted(pairs)]
    if len(places) < 5:
        return 1.0
    rising = sum(b > a for a, b in pairwise(places)) / (len(places) - 1)
    return max(0.0, 2 * rising - 1) ** 2


def _beside(a: Unit, b: Unit) -> bool:
    """Tell whether two units are in one block, and not in two of a list of blocks."""
    n = 0
    for x, y in zip(a.path, b.path, strict=False):
        if x != y:
            break
        n += 1
    first, second = a.path[n:], b.path[n:]
    if not first or not second or len(first) == len(second) == 1:
        return True
    listed = stem(first[0]) == stem(second[0]) != first[0]
    return not (listed and max(len(first), len(second)) > 2)
