"""What names and shapes cannot tell, so that no lead over alternatives makes it sure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from itertools import accumulate

from .affinity import Affinity
from .rounds import Pair
from .tree import Side, numbers_of
from .units import Unit
from .words import VOCABULARY, number, stem, words

UNKNOWN = 0.4  # not said at all
AKIN = 0.5  # affinity of modules that are taken for one
DOUBTFUL = 0.8  # said, and not proposed without a question


class Doubts:
    """Finds the reasons to doubt a pair of units, whatever its score."""

    def __init__(self, source: Side, target: Side, affinity: Affinity, pairs: Iterable[Pair]) -> None:
        self._source, self._target, self._affinity = source, target, affinity
        self._families = [_families(side) for side in (source, target)]
        self._siblings = [_siblings(side) for side in (source, target)]
        self._crossed = _crossed(source, target, pairs)
        self._rotary = all(_gated_without_positions(side.units) for side in (source, target))

    def about(self, i: int, j: int) -> tuple[float, str]:
        """Return the greatest confidence a pair may have, and why; 1.0 without a doubt."""
        a, b = self._source.units[i], self._target.units[j]
        if self._rotary and _is_renamed_query(a, b):
            return UNKNOWN, "rotary embeddings may need its rows in another order"
        if self._renumbered(a, b):
            return UNKNOWN, "a list of equal members with new numbers may run either way"
        if _is_renamed_fused(a, b):
            return DOUBTFUL, "the order of its rows may differ"
        if j in self._crossed:
            return DOUBTFUL, "it changes places with a member of its list that has the same shape"
        if self._among_strangers(i, j):
            return DOUBTFUL, "what is beside it was renamed, so that an equal name may be chance"
        return 1.0, ""

    def _among_strangers(self, i: int, j: int) -> bool:
        """Tell whether siblings of one shape share names with the other side's, and no more of them than do not.

        A word of the field is no chance.
        """
        mine = self._siblings[0][self._source.units[i].path[:-1], self._source.kinds[i]]
        theirs = self._siblings[1][self._target.units[j].path[:-1], self._target.kinds[j]]
        if len(mine) < 2 or len(theirs) < 2:
            return False
        shared = set().union(*mine) & set().union(*theirs)
        friends = sum(not shared.isdisjoint(one) for one in mine)
        return shared.isdisjoint(VOCABULARY) and 0 < friends <= len(mine) - friends

    def _renumbered(self, a: Unit, b: Unit) -> bool:
        """Tell whether a pair is inside of lists of equal members whose numbers differ."""
        for p in a.nodes:
            first = self._source.nodes[p]
            if first.number < 0 or not _is_list(self._families[0][first.family]):
                continue
            q = self._affinity.partner(p, b.nodes, AKIN)
            second = self._target.nodes[q] if q is not None else None
            if second is None or second.number < 0 or second.number == first.number:
                continue
            if _is_list(self._families[1][second.family]):
                return True
        return False


def _crossed(source: Side, target: Side, pairs: Iterable[Pair]) -> set[int]:
    """Return the target units of pairs that cross another one: of one shape and one name, but for their numbers."""
    lists: defaultdict[object, list[tuple[tuple[int, ...], tuple[int, ...], int]]] = defaultdict(list)
    for pair in pairs:
        a, b, kind = source.units[pair.source], target.units[pair.target], source.kinds[pair.source]
        name = tuple(map(stem, a.path)), tuple(map(stem, b.path))
        lists[name, kind].append((numbers_of(a.path, False), numbers_of(b.path, False), pair.target))
    found = set()
    for members in lists.values():
        members.sort()
        places = [numbers for _, numbers, _ in members]
        before, after = accumulate(places, max), [*accumulate(reversed(places), min)][::-1]
        for (_, numbers, j), most, least in zip(members, before, after, strict=True):
            if numbers < most or numbers > least:
                found.add(j)
    return found


def _siblings(side: Side) -> defaultdict[object, list[tuple[str, ...]]]:
    """Return the last names, as words, of the units of one shape in one module; those without a word left out."""
    found: defaultdict[object, list[tuple[str, ...]]] = defaultdict(list)
    for unit, kind in zip(side.units, side.kinds, strict=True):
        if named := words(unit.path[-1]):
            found[unit.path[:-1], kind].append(named)
    return found


def _families(side: Side) -> defaultdict[object, Counter[int]]:
    """Count the contents of the members of each list, those that are single units included."""
    found: defaultdict[object, Counter[int]] = defaultdict(Counter)
    for node in side.nodes:
        if node.number >= 0:
            found[node.family][node.kind] += 1
    for unit, kind in zip(side.units, side.kinds, strict=True):
        if number(unit.path[-1]) is not None:
            found[unit.path[:-1], stem(unit.path[-1])][kind] += 1
    return found


def _is_list(kinds: Counter[int]) -> bool:
    return len(kinds) == 1 and kinds.total() > 1


def _gated_without_positions(units: Iterable[Unit]) -> bool:
    """Tell whether a model has the gated blocks of language models and no table of positions: it rotates."""
    gated = False
    for unit in units:
        last = words(unit.path[-1])
        if "position" in last or "convolution" in last:
            return False
        gated = gated or "gate" in last
    return gated


def _is_renamed_query(a: Unit, b: Unit) -> bool:
    for unit in (a, b):
        if not {"query", "key"} & set(words(unit.path[-1])) or unit.main.op != "copy":
            return False
    return a.end != b.end and a.main.shape == b.main.shape


def _is_renamed_fused(a: Unit, b: Unit) -> bool:
    """Tell whether a fused projection has another name, and not three equal parts, which all libraries stack alike."""
    if not all({"qkv", "kv"} & set(words(unit.path[-1])) for unit in (a, b)) or a.path[-1] == b.path[-1]:
        return False
    shape = b.main.shape
    return len(shape) == 2 and shape[0] != 3 * shape[1]
