"""State-dict keys as units: the leaf modules of a model, each with its few tensors.

A unit is what a person would call one layer: weight and bias of one linear module, the five tensors of a batch norm, or
a lone parameter. Its tensors go the same way, so a mapping is found for units and not for keys.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

from ...records import dataclass
from .words import words

Shape = tuple[int, ...]
Path = tuple[str, ...]

ROLES = {
    "weight": "weight",
    "weights": "weight",
    "kernel": "weight",
    "w": "weight",
    "scale": "weight",
    "gamma": "weight",
    "bias": "bias",
    "b": "bias",
    "beta": "bias",
    "running_mean": "running_mean",
    "moving_mean": "running_mean",
    "running_var": "running_var",
    "moving_variance": "running_var",
    "moving_var": "running_var",
    "num_batches_tracked": "num_batches_tracked",
    "weight_g": "weight_g",
    "weight_v": "weight_v",
}
_COLLECTIONS = {"params": {}, "batch_stats": {"mean": "running_mean", "var": "running_var"}}  # flax: one tree each
_PARAMETRIZED = {"original0": "weight_g", "original1": "weight_v"}
_SUFFIXED = re.compile(r"(.+)_(weight|bias)$")
_PREFIXED = re.compile(r"_?([WbwB])_([A-Za-z]\w*)$")
_RECURRENT = re.compile(r"(weight|bias)_(ih|hh|hr)_(l\d+)(_reverse)?$")


@dataclass(frozen=True, slots=True)
class Leaf:
    """One tensor of a unit: its key, the shape it gives, and the operation that makes that shape of the stored one.

    ``part`` is the place among the parts of a fused tensor of the model, or -1.
    """

    key: str
    shape: Shape
    op: str = "copy"
    part: int = -1


class Unit:
    """A leaf module: where it is and its tensors by role.

    ``stem`` is its path as words, without numbers, ``end`` the last two segments, ``nodes`` the modules above it, the
    inner first.
    """

    __slots__ = ("_stem", "bare", "end", "leaves", "nodes", "path")

    def __init__(self, path: Path, bare: bool = False) -> None:
        self.path = path
        self.bare = bare
        self.leaves: dict[str, Leaf] = {}
        self._stem: tuple[tuple[str, ...], ...] | None = None
        self.end = path[-2:]
        self.nodes: tuple[int, ...] = ()

    @property
    def stem(self) -> tuple[tuple[str, ...], ...]:
        """The path as words, found when first asked for: most units are folded away before."""
        if self._stem is None:
            self._stem = tuple(words(segment) for segment in self.path)
        return self._stem

    @property
    def main(self) -> Leaf:
        """The tensor that is most telling: the weight, else the first."""
        leaves = self.leaves
        return leaves.get("weight") or leaves.get("weight_v") or next(iter(leaves.values()))

    def __repr__(self) -> str:
        return f"<{'.'.join(self.path)} {', '.join(self.leaves)}>"


def locate(key: str) -> tuple[Path, str, bool]:
    """Return the path of a key's unit, the tensor's role in it, and whether the tensor is a lone parameter."""
    segments = key.split(".")
    roles = ROLES
    if len(segments) > 2 and segments[0] in _COLLECTIONS:
        roles = ROLES | _COLLECTIONS[segments.pop(0)]
    last = segments[-1]
    if len(segments) > 3 and segments[-3:-1] == ["parametrizations", "weight"] and last in _PARAMETRIZED:
        return tuple(segments[:-3]), _PARAMETRIZED[last], False
    if last in roles and len(segments) > 1:
        return tuple(segments[:-1]), roles[last], False
    inside, role = _parted(last)
    return (*segments[:-1], *inside), role, inside == (last,)


@lru_cache(maxsize=65536)
def _parted(name: str) -> tuple[Path, str]:
    """Part a name that holds both a unit and a role, as in ``in_proj_weight``; a lone parameter's stays whole."""
    if found := _RECURRENT.match(name):
        role, kind, layer, reverse = found.groups()
        return (kind, layer, *(("reverse",) if reverse else ())), role
    if found := _SUFFIXED.match(name):
        return (found[1],), found[2]
    if found := _PREFIXED.match(name):
        return (found[2],), "weight" if found[1] in "Ww" else "bias"
    return (name,), "weight"


def gather(tensors: Iterable[tuple[str, Shape]]) -> list[Unit]:
    """Group tensors, in the order they have, into units."""
    units: dict[tuple[Path, bool], Unit] = {}
    for key, shape in tensors:
        path, role, bare = locate(key)
        unit = units.get((path, False))
        if bare or unit is None or role in unit.leaves:
            if unit is not None and not bare:  # a second tensor of the same role: a unit of its own
                path, role, bare = tuple(key.split(".")), "weight", True
            unit = units.get((path, bare))
            if unit is None:
                unit = units[path, bare] = Unit(path, bare)
        unit.leaves[role if role not in unit.leaves else key] = Leaf(key, shape)
    return list(units.values())
