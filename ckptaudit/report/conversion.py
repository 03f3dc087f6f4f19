"""The terminal page of ``ckptaudit convert``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..conversion import Conversion, Row
from ..keys import fold
from ..words import binary_size, plural
from .layout import wrap
from .table import grid, hidden_rows

_SHOWN = 3
_ROWS = 40


def render_conversion(result: Conversion, width: int, verbose: bool) -> str:
    """Return what was, or would be, converted; a plan lists the tensors, folded, and ``verbose`` every row of them."""
    files = plural(len(result.files), "file") + ", " if len(result.files) > 1 else ""
    rows = [
        (result.source, result.source_format),
        (result.destination, f"{result.format}, {files}{binary_size(result.nbytes)}"),
    ]
    lines = grid(rows, (), width, indent="")
    if verbose or not result.written:
        lines += ["", *_tensors(result.tensors, width, verbose), ""]
    for fact in _facts(result):
        lines += wrap(fact, width, "  ", "    ")
    lines += ["", *(line for sentence in _closing(result) for line in wrap(sentence, width))]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _tensors(tensors: Iterable[Row], width: int, every: bool) -> list[str]:
    groups: dict[tuple[str, str], list[str]] = {}
    for row in tensors:
        groups.setdefault((row.dtype, row.operation), []).append(row.key)
    rows = [
        (str(pattern), dtype, f"{pattern.count:,}", *([operation] if operation else []))
        for (dtype, operation), keys in groups.items()
        for pattern in fold(keys)
    ]
    shown = rows if every else rows[:_ROWS]
    headers = ("key", "dtype", "tensors", *(["operation"] if any(len(row) > 3 for row in rows) else []))
    return grid(shown, headers, width) + hidden_rows(len(rows) - len(shown))


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
    took = f"{result.seconds:.2f} s, {speed}"
    if not result.verified:
        return [f"{tensors} written. Not checked: what was written (--no-verify).", took]
    return [f"{tensors} written, and read back the same, bit for bit.", took]
