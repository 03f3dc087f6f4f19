"""Selections: which tensors are meant, in one language for Python, tests and the command line; by names and shapes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from ..errors import UsageError
from ..records import dataclass
from .patterns import LANGUAGE, Pattern, closest_name, matches_nothing

__all__ = [
    "LANGUAGE",
    "Pattern",
    "Rows",
    "Selection",
    "apply",
    "closest_name",
    "matches_nothing",
    "overlap",
    "select_names",
]

# Rows of the first dimension, as sorted ranges that do not touch; None stands for the whole tensor.
Rows = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Selection:
    """The tensors that patterns select, by canonical name, each whole (None) or by some rows of it."""

    tensors: Mapping[str, Rows | None]
    text: str = ""

    def __contains__(self, name: object) -> bool:
        return name in self.tensors

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)


def select_names(shapes: Mapping[str, tuple[int, ...]], patterns: Iterable[str]) -> tuple[Selection, tuple[str, ...]]:
    """Return what patterns mean where names and shapes are all that is known, and the patterns that match nothing.

    The last pattern that matches decides, and a list that begins with an exclusion begins with everything. Raises
    UsageError for a pattern that cannot be read, or that goes by the type of a module.
    """
    parsed = [Pattern.parse(text) for text in patterns]
    found: dict[str, Rows | None] = dict.fromkeys(shapes) if parsed and parsed[0].excludes else {}
    unmatched = []
    for pattern in parsed:
        if pattern.needs_modules:
            reason = "goes by the type of a module, which no checkpoint records"
            raise UsageError(pattern.text, reason, "write a glob (backbone.*) or re:REGEX")
        hits = [name for name in shapes if pattern.matches(name)]
        if not hits:
            unmatched.append(pattern.text)
        for name in hits:
            apply(pattern, name, shapes[name], found)
    kept = {name: found[name] for name in shapes if name in found}
    return Selection(kept, ", ".join(pattern.text for pattern in parsed)), tuple(unmatched)


def apply(pattern: Pattern | None, name: str, shape: tuple[int, ...], found: dict[str, Rows | None]) -> None:
    """Put a tensor that a pattern means into ``found``, or take it out; without a pattern all of it is put in."""
    if pattern is None or pattern.kind != "rows":
        if pattern is not None and pattern.excludes:
            found.pop(name, None)
        else:
            found[name] = None
        return
    rows = _ranges(pattern, shape)
    if pattern.excludes:
        if name not in found:
            return
        left = _without(found[name] or ((0, shape[0]),), rows)
        found.pop(name)
        if left:
            found[name] = left
    elif found.get(name, ()) is not None:
        found[name] = _union((*(found.get(name) or ()), *rows))


def overlap(first: Rows | None, second: Rows | None) -> bool:
    """Tell whether two selections of rows have one in common."""
    if first is None or second is None:
        return True
    return any(a < d and c < b for a, b in first for c, d in second)


def _ranges(pattern: Pattern, shape: tuple[int, ...]) -> Rows:
    if not shape:
        raise UsageError(pattern.text, f"means a scalar, which has no rows ({pattern.body})")
    ranges = []
    for start, stop in pattern.rows:
        last = shape[0] if stop is None else stop
        if not start < last <= shape[0]:
            raise UsageError(pattern.text, f"goes beyond the {shape[0]:,} rows of the tensor")
        ranges.append((start, last))
    return _union(ranges)


def _union(ranges: Iterable[tuple[int, int]]) -> Rows:
    merged: list[tuple[int, int]] = []
    for start, stop in sorted(ranges):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(stop, merged[-1][1]))
        else:
            merged.append((start, stop))
    return tuple(merged)


def _without(ranges: Rows, holes: Rows) -> Rows:
    for start, stop in holes:
        pieces = [piece for a, b in ranges for piece in ((a, min(b, start)), (max(a, stop), b))]
        ranges = tuple((a, b) for a, b in pieces if a < b)
    return ranges
