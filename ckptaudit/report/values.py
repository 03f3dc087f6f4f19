"""The table of compared values: tensors in groups that have one fate, named by as few patterns as name them exactly."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import isnan

from ..compare.summary import Compared, State, Values
from ..keys import fold
from ..mapping.cover import cover
from ..words import binary_size, plural

_STATES: tuple[State, ...] = ("changed", "close", "equal", "identical")
_SAID = {"close": "within the tolerance", "equal": "equal in another dtype"}
_HEADERS = ("key", "tensors", "values", "max abs", "max rel", "ULPs", "cosine")
_FEW = 3  # rows of what is identical
_SHOWN_ULPS = 1000  # more say no more than the other figures


def value_table(values: Values, every: bool) -> list[tuple[str, ...]]:
    """Return the table, headers first: what changed, each group by its largest figures (and smallest cosine).

    Nothing where all is identical. What is, and needs many patterns, is one row where not ``every`` row is wanted.
    """
    universe = [one.key for one in values.tensors]
    rows = []
    for state in _STATES:
        members = {one.key: one for one in values.of(state)}
        groups = grouped(members, universe)
        if state == "identical" and len(groups) > _FEW and not every:
            groups = [("(all others)", list(members))]
        for pattern, keys in groups:
            figures = _figures([members[key] for key in keys])
            rows.append((pattern, f"{len(keys):,}", _SAID.get(state, state), *figures))
    if not rows or rows[0][2] == "identical":
        return []
    used = [column for column in range(len(_HEADERS)) if any(row[column] for row in rows)]
    return [tuple(row[column] for column in used) for row in (_HEADERS, *rows)]


def _figures(group: list[Compared]) -> tuple[str, ...]:
    found = [one.difference for one in group if one.difference is not None]
    if not found:
        return ("",) * 4
    sizes = [one.max_abs for one in found if one.max_abs is not None]
    largest = "NaN" if any(map(isnan, sizes)) else f"{max(sizes):.3g}" if sizes else ""
    ratios = [one.max_rel for one in found if one.max_rel is not None]
    ulps = [one.max_ulp for one in found if one.max_ulp is not None]
    cosines = [one.cosine for one in found if one.cosine is not None]
    return (
        largest,
        f"{max(ratios):.3g}" if ratios else "",
        f"{max(ulps):,}" if len(ulps) == len(found) and max(ulps) < _SHOWN_ULPS else "",
        cosine_text(min(cosines)) if cosines else "",
    )


def cosine_text(cosine: float) -> str:
    """Write a cosine; close to 1 by what it lacks, which is what tells two of them apart."""
    lacking = 1 - cosine
    return f"{cosine:.4f}" if lacking > 0.001 else f"1 - {lacking:.1e}" if lacking > 0 else "1"


def value_sentences(values: Values) -> list[str]:
    """Say how many tensors were compared, and how."""
    if values.absent or not values.tensors:
        return []
    counts = [(len(values.of(state)), _SAID.get(state, state)) for state in reversed(_STATES)]
    compared = plural(len(values.tensors), "tensor")
    if counts[0][0] == len(values.tensors):
        return [f"The values of all {compared} ({binary_size(values.nbytes)}) are equal, bit for bit."]
    parts = ", ".join(f"{count:,} {said}" for count, said in counts if count)
    return [f"Of the values of {compared} ({binary_size(values.nbytes)}): {parts}."]


def grouped(keys: Iterable[str], universe: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Return patterns that name exactly ``keys`` among ``universe``, each with the keys that it names.

    Whole modules are named as such, and modules alike together: ``layer{1..4}.*``; ``*`` is everything.
    """
    keys = list(keys)
    if not keys:
        return []
    if len(keys) == len(universe) > 1:
        return [("*", keys)]
    names = set(keys)
    modules = [pattern[:-2] for pattern in cover(keys, universe) if pattern not in names]
    whole = [(f"{pattern}.*", set(pattern.expand())) for pattern in fold(modules)]
    inside = {module: text for text, members in whole for module in members}
    groups: dict[str, list[str]] = {}
    loose = []
    for key in keys:
        text = next((inside[module] for module in _above(key) if module in inside), None)
        if text is None:
            loose.append(key)
        else:
            groups.setdefault(text, []).append(key)
    for pattern in fold(loose):
        groups[str(pattern)] = list(pattern.expand())
    first = {key: number for number, key in enumerate(keys)}
    return sorted(groups.items(), key=lambda group: first[group[1][0]])


def _above(key: str) -> Iterable[str]:
    """Yield the modules around a key, the outermost first."""
    end = key.find(".")
    while end >= 0:
        yield key[:end]
        end = key.find(".", end + 1)
