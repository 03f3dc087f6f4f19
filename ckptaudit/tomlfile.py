"""TOML text, and the lines on which its tables and keys stand: a fault is reported where it was written."""

from __future__ import annotations

import re
import sys
from typing import Any

from .errors import UsageError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Step = str | int
_KEY = r"""(?:[\w-]+|"[^"]*"|'[^']*')"""
_DOTTED = rf"{_KEY}(?:\s*\.\s*{_KEY})*"
_HEADER = re.compile(rf"\s*(\[\[?)\s*({_DOTTED})\s*\]\]?\s*(?:#.*)?")
_ENTRY = re.compile(rf"\s*({_DOTTED})\s*=.*")
_AT_LINE = re.compile(r"(.*) \(at line (\d+), column \d+\)", re.DOTALL)


def parse_toml(text: str, name: str, hint: str | None = None) -> dict[str, Any]:
    """Read TOML. Raises UsageError, whose subject is ``NAME:LINE`` where a line is at fault."""
    try:
        data: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        match = _AT_LINE.fullmatch(str(error))
        where, what = (f"{name}:{match[2]}", match[1]) if match else (name, str(error))
        raise UsageError(where, f"is not valid TOML: {what}", hint) from None
    return data


class TomlLines:
    """Where tables and keys begin, as far as a line tells; what is written inline is at the line of what holds it.

    A path has the names of tables and keys, and the numbers of tables in arrays: ``("rule", 0, "drop")``.
    """

    def __init__(self, text: str) -> None:
        self._found: dict[tuple[Step, ...], int] = {}
        counts: dict[tuple[Step, ...], int] = {}
        table: tuple[Step, ...] = ()
        for number, line in enumerate(text.split("\n"), 1):
            if header := _HEADER.fullmatch(line):
                table = self._inside(header[2], counts)
                if header[1] == "[[":
                    counts[table] = counts.get(table, -1) + 1
                    self._found.setdefault(table, number)
                    table = (*table, counts[table])
                self._found.setdefault(table, number)
            elif entry := _ENTRY.fullmatch(line):
                names = _names(entry[1])
                for length in range(1, len(names) + 1):
                    self._found.setdefault((*table, *names[:length]), number)

    @staticmethod
    def _inside(dotted: str, counts: dict[tuple[Step, ...], int]) -> tuple[Step, ...]:
        """Return the path of a header; a name of an array on the way there means its latest table."""
        *outer, last = _names(dotted)
        path: tuple[Step, ...] = ()
        for name in outer:
            path = (*path, name)
            path = (*path, counts[path]) if path in counts else path
        return (*path, last)

    def of(self, *path: Step) -> int | None:
        """Return the line (from 1) of a table or key, or of the nearest one around it; None where none is known."""
        return next((self._found[path[:end]] for end in range(len(path), 0, -1) if path[:end] in self._found), None)

    def place(self, name: str, *path: Step) -> str:
        """Return ``NAME:LINE``, or the name alone."""
        line = self.of(*path)
        return name if line is None else f"{name}:{line}"


def _names(dotted: str) -> tuple[str, ...]:
    return tuple(name.strip("\"'") for name in re.findall(_KEY, dotted))


def quoted(text: str) -> str:
    """Write a text as TOML, as a literal string where it can be one, so that backslashes stay single.

    Raises UsageError for half of a character.
    """
    if any("\ud800" <= char <= "\udfff" for char in text):
        raise UsageError(ascii(text), "holds half of a character, which TOML cannot hold")
    if text.isprintable() and "\\" in text and "'" not in text:
        return f"'{text}'"
    return '"' + "".join(map(_escaped, text)) + '"'


def _escaped(char: str) -> str:
    if char in '"\\':
        return f"\\{char}"
    return char if char.isprintable() else f"\\U{ord(char):08x}"
