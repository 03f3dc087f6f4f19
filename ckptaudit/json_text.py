"""JSON as text that line-based tools can diff: one line per field, one per row of a list."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

# What a terminal or a line-based tool would act on, and what UTF-8 has no bytes for.
_ACTING = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff]")

_BATCH = 100  # rows that are written in one go


def to_lines(data: dict[str, Any], *, ascii_only: bool = True) -> str:
    """Return JSON text of an object; lists of objects get a line an item. ``ascii_only`` escapes the rest."""
    return "".join(pieces(data, ascii_only=ascii_only))


def pieces(data: dict[str, Any], *, ascii_only: bool = True) -> Iterator[str]:
    """Yield the same text part by part; in objects inside, lists may be iterators."""

    def text(value: Any) -> str:
        line = json.dumps(value, ensure_ascii=ascii_only)
        if ascii_only:
            return line.replace("\x7f", "\\u007f")
        return _ACTING.sub(lambda match: f"\\u{ord(match[0]):04x}", line)

    between = "{"
    for name, value in data.items():
        yield f"{between}{text(name)}: "
        if isinstance(value, list) and value and isinstance(value[0], dict):
            yield "[\n  "
            yield from _joined(map(text, value), ",\n  ")
            yield "\n ]"
        elif isinstance(value, dict):
            yield from _on_one_line(value, text)
        else:
            yield text(value)
        between = ",\n "
    yield "}\n" if data else "{}\n"


def _on_one_line(value: dict[str, Any], text: Callable[[Any], str]) -> Iterator[str]:
    between = "{"
    for name, item in value.items():
        yield f"{between}{text(name)}: "
        if isinstance(item, Iterator):
            yield "["
            yield from _joined((text(batch)[1:-1] for batch in _batches(item)), ", ")
            yield "]"
        else:
            yield text(item)
        between = ", "
    yield "}" if value else "{}"


def _batches(items: Iterator[Any]) -> Iterator[list[Any]]:
    while batch := list(islice(items, _BATCH)):
        yield batch


def _joined(texts: Iterable[str], between: str) -> Iterator[str]:
    before = ""
    for text in texts:
        yield before + text
        before = between
