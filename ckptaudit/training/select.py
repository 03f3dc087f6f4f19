"""Selections: which tensors of a model are meant, in one language for Python, tests and the command line."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from ..errors import UsageError
from ..selection import LANGUAGE, Pattern, Rows, Selection, apply, matches_nothing, overlap
from .names import NamedTensor, named_tensors

__all__ = ["Patterns", "Predicate", "Rows", "Selection", "claims", "select"]

# Given: one pattern, or several; a callable takes (name, tensor, module) and says whether the tensor is meant.
Predicate = Callable[[str, Tensor, nn.Module], bool]
Patterns = str | Predicate | Iterable["str | Predicate"]


def select(model: nn.Module | Mapping[str, NamedTensor], patterns: Patterns, *, role: str = "") -> Selection:
    """Return the parameters and buffers of ``model`` that ``patterns`` mean; the last one that matches decides.

    A list that begins with an exclusion begins with everything. ``role`` is what the patterns were given as.
    Raises UsageError for a pattern that cannot be read or that matches no tensor.
    """
    tensors = model if isinstance(model, Mapping) else named_tensors(model)
    selection, unmatched = select_leniently(tensors, patterns, role=role)
    if unmatched:
        raise unmatched[0]
    return selection


def select_leniently(
    tensors: Mapping[str, NamedTensor], patterns: Patterns, *, role: str = ""
) -> tuple[Selection, list[UsageError]]:
    """Return what ``select`` does, and one error for each pattern that matches nothing, instead of raising it."""
    parsed = [_parse(pattern) for pattern in _listed(patterns, role)]
    if not parsed:
        return Selection({}), []
    first, unmatched = parsed[0], []
    found: dict[str, Rows | None] = dict.fromkeys(tensors) if isinstance(first, Pattern) and first.excludes else {}
    for pattern in parsed:
        hits = [named for named in tensors.values() if _means(pattern, named)]
        if not hits:
            unmatched.append(matches_nothing(_text(pattern), tensors))
        for named in hits:
            written = pattern if isinstance(pattern, Pattern) else None
            shape = tuple(named.tensor.shape) if written is not None and written.kind == "rows" else ()  # or it is lazy
            apply(written, named.name, shape, found)
    chosen = {name: found[name] for name in tensors if name in found}
    return Selection(chosen, ", ".join(map(_text, parsed))), unmatched


def rest(tensors: Mapping[str, NamedTensor], frozen: Selection) -> Selection:
    """Return the parameters that are not frozen under any name, nor in part."""
    taken = {id(tensors[name].tensor) for name in frozen}
    names = [n for n, named in tensors.items() if named.kind == "parameter" and id(named.tensor) not in taken]
    return Selection(dict.fromkeys(names))


def claims(tensors: Mapping[str, NamedTensor], selections: Mapping[str, Selection]) -> None:
    """Raise UsageError where two selections mean the same tensor, be it under two names."""
    owners: dict[int, list[tuple[str, str, Rows | None]]] = {}
    for role, selection in selections.items():
        for name, rows in selection.tensors.items():
            mine = owners.setdefault(id(tensors[name].tensor), [])
            for other_role, other, other_rows in mine:
                if other_role != role and overlap(rows, other_rows):
                    raise _claimed_twice(name, role, other, other_role)
            mine.append((role, name, rows))


def _claimed_twice(name: str, role: str, other: str, other_role: str) -> UsageError:
    if name == other:
        hint = f"take it out of one of them with !{name}"
        return UsageError(name, f"is selected twice, as {other_role} and as {role}", hint)
    reason = f"is the same tensor as {other} (tied weights), and {other_role} and {role} cannot both hold"
    return UsageError(name, reason, "select both names for one side, or untie the weights")


def _listed(patterns: Patterns, role: str) -> list[Any]:
    if isinstance(patterns, str) or callable(patterns):
        return [patterns]
    if isinstance(patterns, Iterable):
        return list(patterns)
    raise UsageError(role or "patterns", f"is of type {type(patterns).__name__} and no pattern", LANGUAGE)


def _parse(pattern: Any) -> Pattern | Predicate:
    if isinstance(pattern, str):
        return Pattern.parse(pattern)
    if callable(pattern):
        return pattern  # type: ignore[no-any-return]
    raise UsageError(repr(pattern), "is no pattern", LANGUAGE)


def _text(pattern: Pattern | Predicate) -> str:
    return pattern.text if isinstance(pattern, Pattern) else getattr(pattern, "__qualname__", repr(pattern))


def _means(pattern: Pattern | Predicate, named: NamedTensor) -> bool:
    if not isinstance(pattern, Pattern):
        return bool(pattern(named.name, named.tensor, named.module))
    if pattern.kind != "module":
        return pattern.matches(named.name)
    types = (base.__name__ for module in named.modules for base in type(module).__mro__)
    return pattern.matches(named.name, types, named.kind)
