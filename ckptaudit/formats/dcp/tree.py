"""The nested state dict that a distributed checkpoint was saved from, as nodes."""

from __future__ import annotations

from collections.abc import Iterable

from ..pickles.nodes import PDict
from .metadata import Path

_NOTHING = object()


class PlaceTakenError(Exception):
    """Two paths are the same, or one goes on where another ends; the argument is the last part of one."""


def nested(leaves: Iterable[tuple[Path, object]]) -> PDict:
    """Put values at their paths: names lead into dicts, and indices without a hole into lists."""
    root: dict[str | int, object] = {}
    branches: list[tuple[dict[str | int, object], str | int, dict[str | int, object]]] = []
    for path, leaf in leaves:
        place = root
        for part in path[:-1]:
            below = place.get(part, _NOTHING)
            if below is _NOTHING:
                below = place[part] = {}
                branches.append((place, part, below))
            if not isinstance(below, dict):
                raise PlaceTakenError(part)
            place = below
        if path[-1] in place:
            raise PlaceTakenError(path[-1])
        place[path[-1]] = leaf
    for place, part, below in reversed(branches):
        place[part] = _container(below)
    return _dict(root)


def _container(children: dict[str | int, object]) -> object:
    if all(isinstance(name, int) for name in children) and max(children) == len(children) - 1:
        return [child for _, child in sorted(children.items(), key=lambda pair: pair[0])]
    return _dict(children)


def _dict(children: dict[str | int, object]) -> PDict:
    return PDict(children.items())
