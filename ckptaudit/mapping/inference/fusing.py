"""Fused tensors: query, key and value in one, gate and up in one. Found by what shapes one side lacks."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable

from ...records import dataclass
from .units import Leaf, Path, Shape, Unit
from .words import number, stem, words

# The parts that are fused, in the order in which they are.
ATTENTION = ("query", "key", "value")
GROUPS = (ATTENTION, ("key", "value"), ("gate", "up"))


@dataclass(frozen=True)
class Group:
    """Sibling units that could be the parts of a fused one. ``shape`` is that of the fused weight."""

    parent: Path
    names: tuple[str, ...]
    units: tuple[Unit, ...]
    shape: Shape
    sizes: tuple[int, ...]


def groups_of(units: Iterable[Unit], flipped: bool = False) -> list[Group]:
    """Return the groups of siblings whose weights, one above the other, are a fused weight."""
    numbered = defaultdict(list)
    families: defaultdict[Path, dict[str, Unit]] = defaultdict(dict)
    units = list(units)
    near = defaultdict(list)
    for unit in units:
        if "weight" in unit.leaves:
            near[unit.path[:-1]].append(unit)
        named = [word for word in words(unit.path[-1]) if word in ("query", "key", "value", "gate", "up")]
        if len(named) == 1 and "weight" in unit.leaves:
            families[unit.path[:-1]].setdefault(named[0], unit)
        if number(unit.path[-1]) is not None and "weight" in unit.leaves:
            numbered[unit.path[:-1], stem(unit.path[-1])].append(unit)
    pairs = {}
    for (parent, _), members in numbered.items():
        if len(members) == 2 and members[0].leaves["weight"].shape == members[1].leaves["weight"].shape and len(members[0].leaves["weight"].shape) == 2:
            pairs[parent] = members
            families[parent]
    found = []
    for parent, members in families.items():
        if parent in pairs and "gate" not in members:
            members |= dict(zip(("gate", "up"), pairs[parent], strict=True))
        if "gate" in members and "up" not in members:
            shape = members["gate"].leaves["weight"].shape
            others = [u for u in near[parent] if u is not members["gate"] and u.leaves["weight"].shape == shape]
            if len(others) == 1:
                members["up"] = others[0]
        for names in GROUPS:
            if all(name in members for name in names):
                parts = tuple(members[name] for name in names)
                shapes = [part.leaves["weight"].shape for part in parts]
                if flipped:
                    shapes = [shape[::-1] for shape in shapes if len(shape) == 2]
                if shapes and all(shape and shape[1:] == shapes[0][1:] for shape in shapes):
                    sizes = tuple(shape[0] for shape in shapes)
                    found.append(Group(parent, names, parts, (sum(sizes), *shapes[0][1:]), sizes))
    return found


def plan(fused: list[Unit], parts: list[Unit]) -> dict[int, Group]:
    """Tell which units of one side the other side has in parts: index in ``fused`` -> the kind of group.

    A shape is split where the one side has more of it than the other, and the other has more groups of that sum.
    """
    surplus: Counter[Shape] = Counter(u.leaves["weight"].shape for u in fused if "weight" in u.leaves)
    surplus.subtract(Counter(u.leaves["weight"].shape for u in parts if "weight" in u.leaves))
    there = Counter((g.shape, g.names) for g in groups_of(fused))
    kinds: defaultdict[tuple[Shape, tuple[str, ...]], list[Group]] = defaultdict(list)
    for group in groups_of(parts) + groups_of(parts, flipped=True):
        kinds[group.shape, group.names].append(group)
    result: dict[int, Group] = {}
    for key in sorted(kinds, key=lambda k: (-len(k[1]), k)):
        groups = kinds[key]
        wanted = min(surplus[key[0]], len(groups) - there[key])
        if wanted < 1:
            continue
        open_ = [i for i, u in enumerate(fused) if i not in result and "weight" in u.leaves and u.leaves["weight"].shape == key[0]]
        for i in _likeliest(fused, open_, groups, wanted):
            result[i] = groups[0]
            surplus[key[0]] -= 1
    return result


HINTS = {("query", "key", "value"): {"qkv", "attn"}, ("key", "value"): {"kv"}, ("gate", "up"): {"gate", "up", "fc"}}


def _likeliest(fused: list[Unit], open_: list[int], groups: list[Group], wanted: int) -> list[int]:
    def liking(i: int) -> tuple[float, int]:
        mine = {w for seg in fused[i].path for w in words(seg)}
        last = set(words(fused[i].path[-1]))
        theirs = {w for g in groups[:1] for seg in g.parent for w in words(seg)}
        names = set(groups[0].names)
        hint = 2.0 * bool(last & (HINTS[groups[0].names] | names)) - 2.0 * bool(last & {"out", "fc2"})
        return (-(hint + len(mine & theirs) / (1 + len(mine | theirs))), i)

    if len(open_) <= wanted:
        return open_
    return sorted(sorted(open_, key=liking)[:wanted])


def part_op(sizes: tuple[int, ...], part: int) -> str:
    """Return the operation that takes one part out of a fused tensor."""
    total, start, size = sum(sizes), sum(sizes[:part]), sizes[part]
    if total % size == 0 and start % size == 0:
        return f"chunk(0,{start // size},{total // size})"
    return f"slice(0,{start},{start + size})"


def divide(units: list[Unit], planned: dict[int, Group]) -> list[Unit]:
    """Replace planned units by one unit for each part, with the tensors that its counterpart has beside.

    A checkpoint may have ``attn.qkv.weight`` and ``attn.q_bias`` where the model has ``query.weight`` and ``query.bias``.
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
    leaves = {}
    total = sum(group.sizes)
    for role, leaf in unit.leaves.items():
        if leaf.shape and leaf.shape[0] == total:
            op = part_op(group.sizes, part)
            leaves[role] = Leaf(leaf.key, (group.sizes[part], *leaf.shape[1:]), op, part)
    return leaves
