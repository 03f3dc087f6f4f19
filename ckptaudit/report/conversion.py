"""The terminal page of ``ckptaudit convert``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..conversion import Conversion, Row
from ..keys import fold
from ..words import binary_size, plural
from .layout import wrap
from .table import grid

_SHOWN = 3


def render_conversion(result: Conversion, width: int, verbose: bool) -> str:
    """Return what was, or would be, converted; ``verbose`` lists the tensors, folded."""
    files = plural(len(result.files), "file") + ", " if len(result.files) > 1 else ""
    rows = [
        (result.source, result.source_format),
        (result.destination, f"{result.format}, {files}{binary_size(result.nbytes)}"),
    ]
    lines = grid(rows, (), width, indent="")
    if verbose:
        lines += ["", *_tensors(result.tensors, width), ""]
    for fact in _facts(result):
        lines += wrap(fact, width, "  ", "    ")
    lines += ["", *(line for sentence in _closing(result) for line in wrap(sentence, width))]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _tensors(tensors: Iterable[Row], width: int) -> list[str]:
    groups: dict[tuple[str, str, str], list[str]] = {}
    for row in tensors:
        groups.setdefault((str(row.shape), row.dtype, row.operation), []).append(row.key)
    rows = [
        (str(pattern), shape, dtype, operation, f"{pattern.count:,}")
        for (shape, dtype, operation), keys in groups.items()
        for pattern in fold(keys)
    ]
    return grid(rows, ("key", "shape", "dtype", "operation", "tensors"), width)


def _facts(result: Conversion) -> Iterable[str]:
    renamed = [row for row in result.tensors if row.sources[1:] or row.sources[0] != row.key]
    if renamed:
        first = renamed[0]
        yield f"renamed: {plural(len(renamed), 'tensor')}, first {', '.join(first.sources)} -> {first.key}"
    made = [row for row in result.tensors if row.operation]
    if made:
        yield f"made anew: {plural(len(made), 'tensor')}, first {made[0].key} by {made[0].operation}"
    if result.dropped:
        yield f"dropped: {_listed(result.dropped)}"
    if result.aliases:
        yield f"kept once: {_listed([f'{key} = {of}' for key, of in result.aliases.items()])}"
    if result.copied:
        yield f"overlap in memory, written apart: {_listed(result.copied)}"
    if result.kept:
        yield f"kept beside the tensors: {_listed(_typed(result.kept))}"
    if result.left_out:
        yield f"left out: {_listed(_typed(result.left_out))}"


def _typed(named: Mapping[str, str]) -> list[str]:
    return [f"{name} ({kind})" for name, kind in named.items()]


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _closing(result: Conversion) -> list[str]:
    tensors = plural(len(result.tensors), "tensor")
    if not result.written:
        return [f"{tensors} would be written. Nothing was written (--dry-run)."]
    speed = f"{binary_size(round(result.nbytes / max(result.seconds, 1e-3)))}/s"
    how = f"in {result.seconds:.2f} s ({speed})"
    if not result.verified:
        return [f"{tensors} written {how}.", "Not checked: what was written (--no-verify)."]
    return [f"{tensors} written and read back {how}: the same as the source, bit for bit."]
