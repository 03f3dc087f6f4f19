"""Source units by the shapes of their tensors; of a shape that has too many, only those with something in common."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping

from .tree import Side
from .units import Path, Shape, Unit

WIDE = 300  # units of one shape that are all compared
LARGE = 5000  # units of a side whose crowds are cut down, as there is no time to compare all
CROWD = 24  # units of one shape there of which those come first whose modules hold the same, if they are ...
FEW = 8  # ... no more than this
NARROW = 60  # units that are compared of those that share one trait, where a shape has more
FITTING = ("weight", "bias", "weight_v")

_NO_DIGIT = re.compile(r"\D+")

Slot = tuple[str, Shape]
Trait = tuple[str, Path]


class Shelf:
    """Finds candidates. The work is bounded: a hundred thousand tensors of one shape are not all compared."""

    def __init__(self, side: Side, used: Mapping[int, set[str]]) -> None:
        self._side = side
        self._slots: defaultdict[Slot, list[int]] = defaultdict(list)
        self._homes: dict[Slot, defaultdict[int, list[int]]] = {}
        self._traits: dict[Slot, defaultdict[Trait, list[int]]] = {}
        for i, unit in enumerate(side.units):
            for role, leaf in unit.leaves.items():
                if role in FITTING and role not in used[i]:
                    self._slots[role, leaf.shape].append(i)

    def find(self, role: str, shape: Shape, unit: Unit, home: int) -> Iterable[int]:
        """Return the units with such a tensor, for a unit of the other side whose module has contents ``home``."""
        slot = role, shape
        members = self._slots.get(slot, ())
        if len(members) <= (CROWD if len(self._side.units) >= LARGE else WIDE):
            return members
        if slot not in self._homes:
            homes = self._homes[slot] = defaultdict(list)
            for i in members:
                homes[self._side.home(i)].append(i)
        at_home = self._homes[slot].get(home, ())
        if home >= 0 and 0 < len(at_home) <= FEW:
            return at_home
        return members if len(members) <= WIDE else self._alike(slot, members, unit)

    def _alike(self, slot: Slot, members: Iterable[int], unit: Unit) -> Iterable[int]:
        if slot not in self._traits:
            traits = self._traits[slot] = defaultdict(list)
            for i in members:
                for trait in _traits(self._side.units[i]):
                    traits[trait].append(i)
        traits = self._traits[slot]
        found: dict[int, None] = {}
        for trait in _traits(unit):
            alike = traits.get(trait, ())
            if len(alike) <= NARROW:
                found.update(dict.fromkeys(alike))
        return found


def _traits(unit: Unit) -> Iterable[Trait]:
    """Yield what makes two units comparable among many: the end of the path, its numbers, both."""
    path = unit.path
    numbers = tuple(text for segment in path if (text := _NO_DIGIT.sub("", segment)))
    yield "path", path
    for n in (2, 3, 4, 5):
        if len(path) > n:
            yield "end", path[-n:]
    if numbers:
        yield "numbers", numbers
        yield "last", (*numbers, path[-1])
