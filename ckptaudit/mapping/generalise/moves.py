"""Assignments as what a mapping does: tensors that are renamed, operations with all that they take and make, ties."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from ...manifest import TensorSpec
from ...records import dataclass, field
from ..assignment import Assignment
from ..ops import Op
from ..ops.chain import Chain, read_steps, write_steps
from ..ops.joins import Split
from ..ops.layout import Copy
from ..ops.values import Part, Slice

Names = tuple[str, ...]
Steps = tuple[Op, ...]


@dataclass(frozen=True)
class Move:
    """An operation on tensors, with the names of what it takes and of what it makes."""

    op: Op
    sources: Names
    targets: Names


@dataclass
class Moves:
    """``renamed`` maps keys of the checkpoint to keys of the model; ``ties`` map second names to first ones."""

    renamed: dict[str, str] = field(default_factory=dict)
    moves: list[Move] = field(default_factory=list)
    ties: dict[str, str] = field(default_factory=dict)


def moves_of(assigned: Iterable[Assignment], tensors: Mapping[str, TensorSpec]) -> Moves:
    """Sort assignments by what a mapping does for them. Raises ValueError for an operation that is none."""
    result = Moves()
    made: defaultdict[tuple[Names, Steps], list[str]] = defaultdict(list)
    for each in assigned:
        made[each.sources, read_steps(each.op)].append(each.target)
    firsts: dict[Names, dict[Steps, str]] = {}
    for (sources, steps), targets in made.items():
        first = sources[0] if sources[0] in targets and not steps else targets[0]
        result.ties |= {target: first for target in targets if target != first}
        firsts.setdefault(sources, {})[steps] = first
    taken = {source for sources, ways in firsts.items() if len(sources) > 1 or any(ways) for source in sources}
    for sources, ways in firsts.items():
        if () in ways and sources[0] not in taken:
            result.renamed[sources[0]] = ways.pop(())
        result.moves += _moves(sources, ways, tensors[sources[0]].shape)
    return result


def _moves(sources: Names, ways: dict[Steps, str], shape: tuple[int, ...]) -> list[Move]:
    """Return the operations on the same tensors, with the parts of one that is cut up together."""
    parts: defaultdict[Steps, list[tuple[Op, str]]] = defaultdict(list)
    for steps, target in ways.items():
        if steps and isinstance(steps[0], (Part, Slice)):
            parts[steps[1:]].append((steps[0], target))
    found = []
    for rest, pieces in parts.items():
        cut = _cut(pieces, shape)
        if cut is not None:
            split, targets = cut
            found.append(Move(_one((split, *rest)), sources, targets))
            ways = {steps: target for steps, target in ways.items() if target not in targets}
    return found + [Move(_one(steps), sources, (target,)) for steps, target in ways.items()]


def _cut(pieces: Sequence[tuple[Op, str]], shape: tuple[int, ...]) -> tuple[Split, Names] | None:
    """Return the cut that makes exactly these pieces of a tensor, and their names in its order."""
    found: list[tuple[int, int, int, str]] = []
    for op, target in pieces:
        each = op.cut(shape) if isinstance(op, Part) else op
        assert isinstance(each, Slice)
        found.append((each.dim, each.start, shape[each.dim] if each.stop is None else each.stop, target))
    found.sort()
    dims = {dim for dim, _, _, _ in found}
    edges = [0, *(stop for _, _, stop, _ in found)]
    ends = edges.pop(), shape[found[0][0]]
    if len(found) < 2 or len(dims) > 1 or edges != [start for _, start, _, _ in found] or ends[0] != ends[1]:
        return None
    sizes = tuple(stop - start for _, start, stop, _ in found)
    split = Split(found[0][0], (), len(sizes)) if len(set(sizes)) == 1 and sizes[0] else Split(found[0][0], sizes)
    return split, tuple(target for _, _, _, target in found)


def _one(steps: Steps) -> Op:
    if len(steps) > 1:
        return Chain(write_steps(steps))
    return steps[0] if steps else Copy()
