"""Fused tensors: query, key and value in one, gate and up in one. Found by what shapes one side lacks."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from functools import lru_cache

from ...records import dataclass
from .units import Leaf, Path, Shape, Unit
from .words import number, stem, words

# The parts that are fused, in the order in which they are.
ATTENTION = ("query", "key", "value")
GATED = ("gate", "up")
GROUPS = (ATTENTION, ("key", "value"), GATED)
_PARTS = frozenset(name for names in GROUPS for name in names)
# Words in the name of a fused unit that speak for parts.
_HINTS = {ATTENTION: {"qkv", "attention"}, ("key", "value"): {"kv"}, GATED: {"gate", "up", "dense"}}

Family = dict[str, Unit]


@dataclass(frozen=True)
class Group:
    """Sibling units that could be the parts of a fused one. ``shape`` is that of the fused weight."""

    parent: Path
    names: tuple[str, ...]
    units: tuple[Unit, ...]
    shape: Shape
    sizes: tuple[int, ...]


def groups_of(units: Iterable[Unit]) -> list[Group]:
    """Return the groups of siblings whose weights, one above the other or side by side, are a fused weight."""
    found = []
    for parent, siblings in _siblings(units).items():
        family = _family(siblings) if len(siblings) > 1 else {}
        for names in GROUPS if len(family) > 1 else ():
            if all(name in family for name in names):
                parts = tuple(family[name] for name in names)
                shapes = tuple(part.leaves["weight"].shape for part in parts)
                found += [Group(parent, names, parts, *fused) for fused in _stacked(shapes)]
    return found


def _siblings(units: Iterable[Unit]) -> dict[Path, list[Unit]]:
    """Return the units of each module that have a weight of two dimensions or more."""
    found: defaultdict[Path, list[Unit]] = defaultdict(list)
    for unit in units:
        weight = unit.leaves.get("weight")
        if weight and len(weight.shape) > 1:
            found[unit.path[:-1]].append(unit)
    return found


def _family(siblings: list[Unit]) -> Family:
    """Return the siblings that are parts by their names, or that can only be.

    A gate's part without a name of its own is the only other one of its shape; two that are numbered and alike, as in
    ``fc_1`` and ``fc_2``, are a gate and its part.
    """
    family: Family = {}
    for unit in siblings:
        part = part_of(unit.path[-1])
        if part:
            family.setdefault(part, unit)
    if "gate" in family and "up" not in family:
        gate = family["gate"]
        others = [u for u in siblings if u is not gate and u.main.shape == gate.main.shape]
        if len(others) == 1:
            family["up"] = others[0]
    if "gate" not in family and (pair := _numbered_pair(siblings)):
        family |= dict(zip(GATED, pair, strict=True))
    return family


@lru_cache(maxsize=65536)
def part_of(name: str) -> str:
    """Return the part that a name says a unit is, or nothing."""
    named = [word for word in words(name) if word in _PARTS]
    return named[0] if len(named) == 1 else ""


def _numbered_pair(siblings: list[Unit]) -> list[Unit]:
    numbered: defaultdict[str, list[Unit]] = defaultdict(list)
    for unit in siblings:
        if number(unit.path[-1]) is not None:
            numbered[stem(unit.path[-1])].append(unit)
    pairs = [pair for pair in numbered.values() if len(pair) == 2 and pair[0].main.shape == pair[1].main.shape]
    return pairs[0] if pairs else []


@lru_cache(maxsize=4096)
def _stacked(shapes: tuple[Shape, ...]) -> list[tuple[Shape, tuple[int, ...]]]:
    """Return what the shapes make, one above the other and side by side, and their sizes in it."""
    found = []
    for turned in (shapes, tuple(shape[::-1] for shape in shapes)):
        if all(shape[1:] == turned[0][1:] and 0 not in shape for shape in turned):
            sizes = tuple(shape[0] for shape in turned)
            found.append(((sum(sizes), *turned[0][1:]), sizes))
    return found


def plans(source: list[Unit], target: list[Unit]) -> tuple[dict[int, Group], dict[int, Group]]:
    """Tell which units of each side the other side has in parts: the index of the unit -> the kind of group."""
    groups_s, groups_t = groups_of(source), groups_of(target)
    return _plan(source, target, groups_s, groups_t), _plan(target, source, groups_t, groups_s)


def _plan(fused: list[Unit], parts: list[Unit], theirs: list[Group], groups: list[Group]) -> dict[int, Group]:
    """Plan what to split of ``fused``, which has ``theirs`` in parts itself, for ``parts`` and its ``groups``.

    A shape is split where the one side has more of it than the other, and the other has more groups of that sum.
    """
    surplus = Counter(u.leaves["weight"].shape for u in fused if "weight" in u.leaves)
    surplus.subtract(u.leaves["weight"].shape for u in parts if "weight" in u.leaves)
    there = Counter((group.shape, group.names) for group in theirs)
    kinds: defaultdict[tuple[Shape, tuple[str, ...]], list[Group]] = defaultdict(list)
    for group in groups:
        kinds[group.shape, group.names].append(group)
    result: dict[int, Group] = {}
    for (shape, names), alike in sorted(kinds.items(), key=lambda kind: (-len(kind[0][1]), kind[0])):
        wanted = min(surplus[shape], len(alike) - there[shape, names])
        if wanted < 1:
            continue
        free = [i for i, u in enumerate(fused) if i not in result and _weight_shape(u) == shape]
        for i in _likeliest(fused, free, alike[0], wanted):
            result[i] = alike[0]
            surplus[shape] -= 1
    return result


def _weight_shape(unit: Unit) -> Shape | None:
    weight = unit.leaves.get("weight")
    return weight.shape if weight else None


def _likeliest(fused: list[Unit], free: list[int], group: Group, wanted: int) -> list[int]:
    """Return the units that are split where only some of their shape are: by their names."""

    def liking(i: int) -> tuple[float, int]:
        mine = {word for segment in fused[i].path for word in words(segment)}
        theirs = {word for segment in group.parent for word in words(segment)}
        hint = bool(_HINTS[group.names].union(group.names).intersection(words(fused[i].path[-1])))
        return -(2.0 * hint + len(mine & theirs) / (1 + len(mine | theirs))), i

    return free if len(free) <= wanted else sorted(sorted(free, key=liking)[:wanted])


def part_op(sizes: tuple[int, ...], part: int) -> str:
    """Return the operation that takes one part out of a fused tensor."""
    total, start, size = sum(sizes), sum(sizes[:part]), sizes[part]
    if total % size == 0 and start % size == 0:
        return f"chunk(0,{start // size},{total // size})"
    return f"slice(0,{start},{start + size})"


def divide(units: list[Unit], planned: dict[int, Group]) -> list[Unit]:
    """Replace planned units by one unit for each part, with the tensors that its counterpart has beside.

    A checkpoint may have ``attn.qkv.weight`` and ``attn.q_bias`` where the model has ``query.weight`` and
    ``query.bias``.
    """
    spare = {unit.path: unit for i, unit in enumerate(units) if i not in planned}
    gone: set[int] = set()
    pieces: dict[int, list[Unit]] = {}
    for i, group in planned.items():
        unit = units[i]
        pieces[i] = []
        for k, name in enumerate(group.names):
            piece = Unit((*unit.path, name))
            piece.leaves.update(_part_leaves(unit, group, k))
            beside = spare.get((*unit.path[:-1], name[0] if name in ATTENTION else name))
            lacks = group.units[k].leaves.keys() - piece.leaves.keys()
            if beside is not None and beside.leaves.keys() <= lacks:
                piece.leaves.update(beside.leaves)
                gone.add(id(beside))
            pieces[i].append(piece)
    return [one for i, unit in enumerate(units) if id(unit) not in gone for one in pieces.get(i, (unit,))]


def _part_leaves(unit: Unit, group: Group, part: int) -> dict[str, Leaf]:
    total = sum(group.sizes)
    op = part_op(group.sizes, part)
    return {
        role: Leaf(leaf.key, (group.sizes[part], *leaf.shape[1:]), op, part)
        for role, leaf in unit.leaves.items()
        if leaf.shape and leaf.shape[0] == total
    }
