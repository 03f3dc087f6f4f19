"""The rounds: candidates by shape, scores, one assignment problem, and votes of what is secure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from ...records import dataclass
from .forms import Forms
from .scoring import Scorer
from .shelf import Shelf
from .solving import assign
from .tree import Side
from .units import Unit

ROUNDS = 6
UNORDERED = 3  # rounds in which only what is secure without order votes
FLOOR = 1.2  # scores below this are no evidence
REST_FLOOR = 1.7  # the same for tensors that their unit's partner left over
SECURE = 0.5  # lead from which a pair votes
NEAR = 3.6  # candidates that are further behind the best are dropped after the first round
NOTHING = 0.0  # score of a unit that would stay alone
ALONE = 3.0  # lead of a pair without an alternative

Row = dict[int, float]
Table = dict[int, Row]  # target unit -> source unit -> score


@dataclass(frozen=True, slots=True)
class Pair:
    """Units that go together. ``lead`` is the distance to the best alternative, ``free`` the same without order.

    ``late`` pairs share only tensors that earlier pairs left over. ``rivals`` are source units that are about as good.
    """

    target: int
    source: int
    lead: float
    free: float
    late: bool
    candidates: int
    rivals: tuple[int, ...]


class Used:
    """The tensors of units that are in a pair already, by role."""

    def __init__(self) -> None:
        self.source: defaultdict[int, set[str]] = defaultdict(set)
        self.target: defaultdict[int, set[str]] = defaultdict(set)

    def take(self, pair: Pair, a: Unit, b: Unit, forms: Forms) -> None:
        """Mark what a pair settles."""
        for role in a.leaves.keys() & b.leaves.keys():
            if forms.between(role, a, b):
                self.source[pair.source].add(role)
                self.target[pair.target].add(role)


def solve(s: Side, t: Side, forms: Forms, scorer: Scorer) -> list[Pair]:
    """Pair the units of both sides; in a second go, the tensors that are left."""
    used = Used()
    pairs: list[Pair] = []
    for late in (False, True):
        fits = _candidates(s, t, forms, used)
        static = {j: {i: scorer.static(i, j) + fit for i, fit in row.items()} for j, row in fits.items()}
        found = _settle(static, scorer, late)
        for pair in found:
            used.take(pair, s.units[pair.source], t.units[pair.target], forms)
        pairs += found
    return pairs


def _settle(static: Table, scorer: Scorer, late: bool) -> list[Pair]:
    floor = REST_FLOOR if late else FLOOR
    chosen: dict[int, int] = {}
    leads: dict[int, float] = {}
    frees: dict[int, float] = {}
    scores: Table = {}
    free: Table = {}
    for turn in range(1 if late else ROUNDS):
        plain = {j: {i: scorer.score(i, j, value) for i, value in row.items()} for j, row in static.items()}
        scores = {j: {i: value + scorer.order(i, j) for i, value in row.items()} for j, row in plain.items()}
        chosen = assign(scores, floor)
        leads = _leads(scores, chosen)
        if turn < UNORDERED:
            free, frees = plain, _leads(plain, chosen)
            worth = {j: min(leads[j], frees[j]) for j in chosen}
        else:
            worth = leads
        if not late:
            scorer.learn([(i, j, min(1.0, worth[j])) for j, i in chosen.items() if worth[j] > SECURE])
        if not turn:
            static = _near(static, scores)
    frees = _leads(free, chosen)
    return [
        Pair(j, i, leads[j], frees[j], late, len(scores[j]), _rivals(scores[j], i)) for j, i in sorted(chosen.items())
    ]


def _rivals(row: Row, chosen: int) -> tuple[int, ...]:
    close = [i for i, value in row.items() if i != chosen and value > row[chosen] - SECURE]
    return tuple(sorted(close, key=lambda i: (-row[i], i))[:3])


def _candidates(s: Side, t: Side, forms: Forms, used: Used) -> Table:
    """Return which source units have tensors for a target unit, and how they fit: 0 for all of them."""
    shelf = Shelf(s, used.source)
    result: Table = {}
    for j, unit in enumerate(t.units):
        row: dict[int, float | None] = {}
        home = t.home(j)
        for role, leaf in unit.leaves.items():
            if role in used.target[j]:
                continue
            for shape in forms.partners(role, leaf.shape):
                for i in shelf.find(role, shape, unit, home):
                    if i not in row:
                        row[i] = _fit(s.units[i], unit, forms, used.source[i], used.target[j])
        kept = {i: fit for i, fit in row.items() if fit is not None}
        if kept:
            result[j] = kept
    return result


def _fit(a: Unit, b: Unit, forms: Forms, used_a: set[str], used_b: set[str]) -> float | None:
    """Score how the open tensors of two units fit: 0 for all, less for each that is alone or clashes, or None."""
    open_a, open_b = a.leaves.keys() - used_a, b.leaves.keys() - used_b
    same = clash = 0
    cost = 0.0
    for role in open_a & open_b:
        known = forms.between(role, a, b)
        if known:
            same += 1
            cost += known[1]
        elif role == "weight":
            return None
        else:
            clash += 1
    if not same or clash > same:
        return None
    extra = len(open_a) + len(open_b) - 2 * same - 2 * clash
    alone = ("weight" in open_a) != ("weight" in open_b)
    return -1.5 * clash - 0.4 * extra - 1.0 * alone - cost


def _near(static: Table, scores: Table) -> Table:
    """Drop the candidates that are far behind, both for their target and for their source."""
    best: dict[int, float] = {}
    for row in scores.values():
        for i, value in row.items():
            if value > best.get(i, -9.0):
                best[i] = value
    result: Table = {}
    for j, row in scores.items():
        top = max(row.values())
        result[j] = {i: static[j][i] for i, v in row.items() if v >= top - NEAR or v >= best[i] - NEAR}
    return result


def _leads(scores: Mapping[int, Row], chosen: Mapping[int, int]) -> dict[int, float]:
    """Return what each chosen pair is worth above the best other choice: another partner, or an exchange of two.

    An exchange changes two pairs, so each of them has half of the difference.
    """
    owner = {i: j for j, i in chosen.items()}
    leads = dict.fromkeys(chosen, ALONE)
    for j, row in scores.items():
        i = chosen.get(j)
        mine = None if i is None else row[i]
        for k, value in row.items():
            if k == i:
                continue
            other = owner.get(k)
            if other is None:  # the source unit is free
                if mine is not None:
                    leads[j] = min(leads[j], mine - value)
            elif mine is None or i is None:  # the target unit is free
                leads[other] = min(leads[other], scores[other][k] - value)
            else:
                theirs = scores[other]
                back = theirs.get(i, NOTHING)
                difference = (mine + theirs[k] - value - back) / 2
                leads[j] = min(leads[j], difference)
                leads[other] = min(leads[other], difference)
    return leads
