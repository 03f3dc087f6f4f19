"""Long runs of identical blocks: a few stand for all, and what is found for them is extrapolated.

A language model of 100,000 tensors has perhaps 200 different ones. Runs are folded where the other side has a run of
the same length, so that first goes with first and last with last.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from math import prod
from typing import Protocol, TypeVar

from ...records import dataclass
from .units import Path, Shape, Unit
from .words import number, stem

SHORTEST = 6  # members of a run that is folded
ALIKE = 0.6  # share of equal sizes in two runs that may be one
ENDS = 2  # members that stay at each end: two, so that a direction shows


@dataclass(frozen=True)
class Run:
    """Consecutive children of ``parent`` with the same content: their segments, and the units of each, in order.

    ``inside`` are the paths of a member's units below the member's own.
    """

    parent: Path
    segments: tuple[str, ...]
    inside: tuple[Path, ...]

    @property
    def kept(self) -> tuple[int, ...]:
        """Places of the members that stand for all."""
        n = len(self.segments)
        return (*range(ENDS), *range(n - ENDS, n))

    def path(self, k: int, inside: Path = ()) -> Path:
        """Return the path of the k-th member, or of a unit inside of it."""
        return (*self.parent, self.segments[k], *inside)


def _content(run: Run, shapes: Mapping[Path, list[Shape]]) -> tuple[int, Counter[int]]:
    """Return the length of a run, and the sizes of the tensors of its first member."""
    sizes: Counter[int] = Counter()
    for inside in run.inside:
        sizes.update(map(prod, shapes[run.path(0, inside)]))
    return len(run.segments), sizes


def _alike(a: tuple[int, Counter[int]], b: tuple[int, Counter[int]]) -> bool:
    return a[0] == b[0] and 2 * (a[1] & b[1]).total() >= ALIKE * (a[1].total() + b[1].total())


class _Branch:
    """A node of the tree of paths."""

    __slots__ = ("children", "units")

    def __init__(self) -> None:
        self.children: dict[str, _Branch] = {}
        self.units: list[Unit] = []


def fold(source: list[Unit], target: list[Unit]) -> tuple[list[Unit], list[Unit], list[Run], list[Run]]:
    """Return both sides' units without those that others stand for, and the runs, the deepest first."""
    found = [_runs(units) for units in (source, target)]
    contents = [{u.path: [leaf.shape for leaf in u.leaves.values()] for u in units} for units in (source, target)]
    holds = [[_content(run, shapes) for run in side] for side, shapes in zip(found, contents, strict=True)]
    runs = [
        [
            run
            for run, mine in zip(found[k], holds[k], strict=True)
            if any(_alike(mine, other) for other in holds[1 - k])
        ]
        for k in range(2)
    ]
    return _without(source, runs[0]), _without(target, runs[1]), runs[0], runs[1]


def _runs(units: Iterable[Unit]) -> list[Run]:
    root = _Branch()
    for unit in units:
        branch = root
        for segment in unit.path:
            child = branch.children.get(segment)
            if child is None:
                child = branch.children[segment] = _Branch()
            branch = child
        branch.units.append(unit)
    runs: list[Run] = []
    _walk(root, runs)
    return sorted(runs, key=lambda run: -len(run.parent))


def _walk(root: _Branch, runs: list[Run]) -> None:
    """Collect runs: number the branches by their contents, the inner first and without recursion."""
    numbers: dict[object, int] = {}
    done: dict[int, int] = {}
    inner: list[tuple[_Branch, Path]] = [(root, ())]
    for branch, here in inner:
        for segment, child in branch.children.items():
            if child.children:
                inner.append((child, (*here, segment)))
            else:
                done[id(child)] = numbers.setdefault(_tensors(child), len(numbers))
    for branch, here in reversed(inner):
        below = tuple(sorted([(segment, done[id(child)]) for segment, child in branch.children.items()]))
        done[id(branch)] = numbers.setdefault((below, _tensors(branch)), len(numbers))
        if len(below) >= SHORTEST:
            runs.extend(_runs_among(branch, here, done))


def _tensors(branch: _Branch) -> tuple[object, ...]:
    return tuple([tuple([(role, leaf.shape, leaf.op) for role, leaf in unit.leaves.items()]) for unit in branch.units])


def _runs_among(branch: _Branch, here: Path, done: Mapping[int, int]) -> Iterable[Run]:
    families: defaultdict[str, list[tuple[int, str]]] = defaultdict(list)
    for segment in branch.children:
        value = number(segment)
        if value is not None:
            families[stem(segment)].append((value, segment))
    for family in families.values():
        if len(family) < SHORTEST:
            continue
        family.sort()
        start = 0
        for k in range(1, len(family) + 1):
            first = done[id(branch.children[family[start][1]])]
            if k < len(family) and done[id(branch.children[family[k][1]])] == first:
                continue
            if k - start >= SHORTEST:
                segments = tuple(segment for _, segment in family[start:k])
                yield Run(here, segments, tuple(_paths(branch.children[segments[0]])))
            start = k


def _paths(branch: _Branch) -> Iterable[Path]:
    stack: list[tuple[_Branch, Path]] = [(branch, ())]
    while stack:
        here, path = stack.pop()
        if here.units:
            yield path
        stack.extend((child, (*path, segment)) for segment, child in here.children.items())


def _without(units: list[Unit], runs: list[Run]) -> list[Unit]:
    gone: set[Path] = set()
    for run in runs:
        gone.update(run.path(k) for k in range(ENDS, len(run.segments) - ENDS))
    if not gone:
        return units
    deep = {len(path) for path in gone}
    return [u for u in units if not any(u.path[:d] in gone for d in deep if d <= len(u.path))]


class Weighed(Protocol):
    """What is known of a pair: of several, the one with the least confidence holds."""

    @property
    def confidence(self) -> float:
        """Return how sure a pair is, 0 to 1."""


Known = TypeVar("Known", bound=Weighed)


def unfold(
    pairs: dict[Path, tuple[Path, Known]], source: list[Run], target: list[Run]
) -> dict[Path, tuple[Path, Known]]:
    """Extrapolate pairs of paths (target -> source) to all members of the target's runs."""
    members: dict[Path, tuple[Run, int]] = {}
    for run in source:
        members.update((run.path(k), (run, k)) for k in range(len(run.segments)))
    result = dict(pairs)
    for run in target:
        for inside in run.inside:
            seen = [result.get(run.path(k, inside)) for k in run.kept]
            ends = [one for one in seen if one is not None]
            found = _common(run, [path for path, _ in ends], members) if len(ends) == len(seen) else None
            if found is None:
                continue
            known = min((one for _, one in ends), key=lambda one: one.confidence)
            other, below, forward = found
            last = len(run.segments) - 1
            for k in range(last + 1):
                result.setdefault(run.path(k, inside), (other.path(k if forward else last - k, below), known))
    return result


def _common(run: Run, paths: list[Path], members: Mapping[Path, tuple[Run, int]]) -> tuple[Run, Path, bool] | None:
    """Find the source's run through which the kept members go, in which direction."""
    for depth in range(1, len(paths[0]) + 1):
        seen = [members.get(path[:depth]) for path in paths]
        if any(one is None for one in seen):
            continue
        places = tuple(one[1] for one in seen if one)
        others = {(one[0].parent, one[0].segments[0]) for one in seen if one}
        below = {path[depth:] for path in paths}
        if len(others) == 1 and len(below) == 1 and seen[0] and len(seen[0][0].segments) == len(run.segments):
            if places == run.kept:
                return seen[0][0], below.pop(), True
            if places == run.kept[::-1]:
                return seen[0][0], below.pop(), False
    return None
