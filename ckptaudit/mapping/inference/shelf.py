"""Source units by the shapes of their tensors; of a shape that has too many, only those with something in common."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from .units import Path, Shape, Unit

WIDE = 300  # units of one shape that are all compared
NARROW = 60  # units that are compared of those that share one trait, where a shape has more
FITTING = ("weight", "bias", "weight_v")

Slot = tuple[str, Shape]


class Shelf:
    """Finds candidates. The work is bounded: a hundred thousand tensors of one shape are not all compared."""

    def __init__(self, units: Sequence[Unit], used: Mapping[int, set[str]]) -> None:
        self._units = units
        self._slots: defaultdict[Slot, list[int]] = defaultdict(list)
        self._traits: dict[Slot, defaultdict[tuple[str, Path], list[int]]] = {}
        for i, unit in enumerate(units):
            for role, leaf in unit.leaves.items():
                if role in FITTING and role not in used[i]:
                    self._slots[role, leaf.shape].append(i)

    def find(self, role: str, shape: Shape, unit: Unit) -> Iterable[int]:
        """Return the units with such a tensor, for a unit of the other side."""
        slot = role, shape
        members = self._slots.get(slot, ())
        if len(members) <= WIDE:
            return members
        if slot not in self._traits:
            traits = self._traits[slot] = defaultdict(list)
            for i in members:
                for trait in _traits(self._units[i]):
                    traits[trait].append(i)
        traits = self._traits[slot]
        found: dict[int, None] = {}
        for trait in _traits(unit):
            alike = traits.get(trait, ())
            if len(alike) <= NARROW:
                found.update(dict.fromkeys(alike))
        return found


def _traits(unit: Unit) -> Iterable[tuple[str, Path]]:
    """Yield what makes two units comparable among many: the end of the path, its numbers, both."""
    path = unit.path
    numbers = tuple("".join(c for c in segment if c.isdigit()) for segment in path)
    numbers = tuple(text for text in numbers if text)
    yield "path", path
    for n in (2, 3, 4, 5):
        if len(path) > n:
            yield "end", path[-n:]
    if numbers:
        yield "numbers", numbers
        yield "last", (*numbers, path[-1])
