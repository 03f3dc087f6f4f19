"""One side of a mapping: its units in order, and the modules above them with what they hold."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Mapping
from itertools import pairwise
from math import prod

from ...keys import natural_key
from .units import Leaf, Path, Shape, Unit
from .words import DIGITS, number, stem, words

APART = ("bias", "running_mean")  # roles that count apart from weights of the same shape
SMALL = 3  # units of a module like a convolution with its norm
MOST = 0.75  # of all units: a module that holds more tells nothing apart


class Classes:
    """Numbers for contents, the same for both sides: equal contents, equal number."""

    def __init__(self) -> None:
        self.numbers: dict[object, int] = {}
        self.contents: list[Counter[tuple[str, Shape]]] = []
        self.sizes: list[int] = []

    def number(self, leaves: Iterable[tuple[str, Shape]]) -> int:
        """Return the number of a multiset of leaves."""
        content = Counter(leaves)
        key = frozenset(content.items())
        found = self.numbers.get(key)
        if found is None:
            found = self.numbers[key] = len(self.contents)
            self.contents.append(content)
            self.sizes.append(content.total())
        return found


class Node:
    """A module with more than one unit below it: its content's class, and its rank among all of its class."""

    __slots__ = ("count", "family", "kind", "number", "ordinal", "path", "rank", "units")

    def __init__(self, path: Path, units: list[int]) -> None:
        self.path = path
        self.units = units
        self.kind = self.rank = 0
        self.count = 1
        self.number = self.ordinal = -1
        self.family: tuple[object, str] = (), ""

    def widen(self, path: Path, steps: Mapping[Path, int]) -> None:
        """Take the number of a path that holds the same units: the outermost number is the one of a list."""
        value = number(path[-1])
        if value is not None:
            self.number, self.ordinal = value, steps.get(path, -1)
            self.family = path[:-1], stem(path[-1])


class Side:
    """Units and nodes of a manifest. ``kinds`` are the classes of single units; ranks count within a class."""

    def __init__(self, units: list[Unit], classes: Classes, common: Container[Shape]) -> None:
        self.units = units
        self._common = common
        self.nodes: list[Node] = []
        self._make_nodes()
        for node in self.nodes:
            node.kind = classes.number(pair for i in node.units for pair in self._content(units[i]))
        self.kinds = [classes.number(self._content(unit)) for unit in units]
        _rank(self.nodes)
        self.ranks, self.counts = _ranks_of(self.kinds)
        self.ordinals = _ordinals(units)
        self.anchors = _anchors(units)
        around = [-1, *self.kinds, -1]
        self.runs = [kind in (around[i], around[i + 2]) for i, kind in enumerate(self.kinds)]
        self.numbered = dense_ranks(
            [(kind, numbers_of(unit.path, True)) for kind, unit in zip(self.kinds, units, strict=True)]
        )

    def home(self, i: int) -> int:
        """Return the class of what the module around a unit holds, or -1 for a unit of no module."""
        nodes = self.units[i].nodes
        return self.nodes[nodes[0]].kind if nodes else -1

    def _content(self, unit: Unit) -> list[tuple[str, Shape]]:
        """Return the shapes of a unit, those that the other side lacks as their number of elements."""
        return [
            (
                role if role in APART else "",
                leaf.shape if leaf.shape in self._common else (-prod(leaf.shape),),
            )
            for role, leaf in unit.leaves.items()
        ]

    def _make_nodes(self) -> None:
        members: defaultdict[Path, list[int]] = defaultdict(list)
        for i, unit in enumerate(self.units):
            for depth in range(1, len(unit.path)):
                members[unit.path[:depth]].append(i)
        numbers: dict[Path, int] = {}
        steps = _steps(members)
        for unit in self.units:
            chain: list[int] = []
            size = 0
            for depth in range(len(unit.path) - 1, 0, -1):
                path = unit.path[:depth]
                inside = members[path]
                if len(inside) == size and chain:
                    self.nodes[chain[-1]].widen(path, steps)
                if len(inside) in (size, 1) or len(inside) > MOST * len(self.units):
                    continue
                size = len(inside)
                if path not in numbers:
                    numbers[path] = len(self.nodes)
                    self.nodes.append(Node(path, inside))
                    self.nodes[-1].widen(path, steps)
                chain.append(numbers[path])
            unit.nodes = tuple(chain)


def _rank(nodes: list[Node]) -> None:
    ranks = dense_ranks([(node.kind, numbers_of(node.path, len(node.units) <= SMALL)) for node in nodes])
    for node, (rank, count) in zip(nodes, ranks, strict=True):
        node.rank, node.count = rank, count


def numbers_of(path: Path, small: bool) -> tuple[int, ...]:
    """Return the numbers in a path, in order.

    Without that of a last name like ``conv2`` if the module is ``small``: it is no place in a list.
    """
    if path and not path[-1].isdigit() and small:
        path = path[:-1]
    return tuple(int(text) for segment in path for text in DIGITS.findall(segment))


def dense_ranks(members: list[tuple[int, tuple[int, ...]]]) -> list[tuple[int, int]]:
    """Return for each (kind, numbers) the rank of its numbers among the different ones of its kind, and their count."""
    different: defaultdict[int, set[tuple[int, ...]]] = defaultdict(set)
    for kind, numbers in members:
        different[kind].add(numbers)
    ranks = {kind: {numbers: rank for rank, numbers in enumerate(sorted(found))} for kind, found in different.items()}
    return [(ranks[kind][numbers], len(different[kind])) for kind, numbers in members]


def _ranks_of(kinds: list[int]) -> tuple[list[int], list[int]]:
    seen: Counter[int] = Counter()
    ranks = []
    for kind in kinds:
        ranks.append(seen[kind])
        seen[kind] += 1
    return ranks, [seen[kind] for kind in kinds]


def _steps(paths: Iterable[Path]) -> dict[Path, int]:
    """Return for each path with a number in its last segment its rank among its siblings of the same stem."""
    siblings: defaultdict[tuple[Path, str], set[tuple[int, Path]]] = defaultdict(set)
    for path in paths:
        value = number(path[-1])
        if value is not None:
            siblings[path[:-1], stem(path[-1])].add((value, path))
    return {path: rank for family in siblings.values() for rank, (_, path) in enumerate(sorted(family))}


def _ordinals(units: list[Unit]) -> list[tuple[int, int]]:
    """Return for each unit its rank among its numbered siblings and their number, or (-1, 0)."""
    siblings: defaultdict[tuple[Path, str], set[tuple[int, Path]]] = defaultdict(set)
    for unit in units:
        value, name = number(unit.path[-1]), stem(unit.path[-1])
        if value is None:
            sided = [(rank, word) for rank, word in enumerate(("before", "after")) if word in words(unit.path[-1])]
            if not sided:
                continue
            value, name = sided[0][0], " ".join(word for word in words(unit.path[-1]) if word != sided[0][1])
        siblings[unit.path[:-1], name].add((value, unit.path))
    ranks = {path: (rank, len(family)) for family in siblings.values() for rank, (_, path) in enumerate(sorted(family))}
    return [ranks.get(unit.path, (-1, 0)) for unit in units]


def _anchors(units: list[Unit]) -> dict[int, int]:
    """Return for units named after a sibling module (``self_attn_layer_norm``) the last unit of that module."""
    last: dict[Path, int] = {}
    for i, unit in enumerate(units):
        for depth in range(1, len(unit.path)):
            last[unit.path[:depth]] = i
    found = {}
    for i, unit in enumerate(units):
        name = unit.path[-1]
        cut = name.find("_", 2)
        while cut > 0:
            anchor = last.get((*unit.path[:-1], name[:cut]))
            if anchor is not None:
                found[i] = anchor
            cut = name.find("_", cut + 1)
    return found


def restore_order(leaves: list[Leaf]) -> list[Leaf]:
    """Return tensors in the natural order of their names where they are sorted as text, else as they are."""
    keys = [leaf.key for leaf in leaves]
    if len(keys) > 2 and all(a <= b for a, b in pairwise(keys)):
        return sorted(leaves, key=lambda leaf: natural_key(leaf.key))
    return leaves
