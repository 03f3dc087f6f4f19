"""The pattern language of selections, as far as it needs names alone: globs, ``!``, ``re:``, ``module:``, ``rows:``."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal

from ..errors import UsageError
from ..keys import STAR, KeyPattern
from ..records import dataclass

LANGUAGE = "write a glob (backbone.*), !glob, re:REGEX, module:TYPE, module:TYPE/buffers or rows:NAME[0:100]"
_ROWS = re.compile(r"(?P<name>.+)\[(?P<ranges>[\d:,\s]*)\]")
_RANGE = re.compile(r"\s*(\d*)\s*:\s*(\d*)\s*")

Range = tuple[int, int | None]


@dataclass(frozen=True)
class Pattern:
    """One pattern. ``excludes`` takes what it matches out of a selection again.

    ``*`` of a glob spans dots; a name alone stands for that module or tensor and all below it. ``re:`` is searched
    for, not matched. ``module:`` names a class, or one it derives from; ``part`` then picks its buffers or
    parameters. ``rows`` are the ranges of ``rows:``, of the first dimension.
    """

    text: str
    kind: Literal["glob", "re", "module", "rows"]
    excludes: bool
    body: str
    part: Literal["", "buffer", "parameter"] = ""
    rows: tuple[Range, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Pattern:
        """Read one pattern. Raises UsageError."""
        excludes = text.startswith("!")
        rest = text[1:] if excludes else text
        kind, colon, body = rest.partition(":")
        if not rest:
            raise UsageError(text or "''", "is an empty pattern", LANGUAGE)
        if kind == "re" and colon:
            return cls(text, "re", excludes, _regex(text, body))
        if kind == "module" and colon:
            return _module(text, excludes, body)
        if kind == "rows" and colon:
            return _rows(text, excludes, body)
        KeyPattern.parse(rest)
        return cls(text, "glob", excludes, rest)

    def matches(self, name: str, types: Iterable[str] = (), kind: str = "") -> bool:
        """Tell whether a tensor is meant: by its name, the names of its modules' types, its kind."""
        if self.kind == "module":
            return self.part in ("", kind) and self.body in types
        if self.kind == "re":
            return re.search(self.body, name) is not None
        glob = _glob(self.body)
        return glob[0].matches(name) or glob[1].matches(name)

    @property
    def needs_modules(self) -> bool:
        """True where names do not say what is meant."""
        return self.kind == "module"


_globs: dict[str, tuple[KeyPattern, KeyPattern]] = {}


def _glob(text: str) -> tuple[KeyPattern, KeyPattern]:
    """Return the pattern for what is named, and that for all below it."""
    if text not in _globs:
        pattern = KeyPattern.parse(text)
        _globs[text] = (pattern, KeyPattern((*pattern.parts, ".", STAR)))
    return _globs[text]


def _regex(text: str, body: str) -> str:
    try:
        re.compile(body)
    except re.error as error:
        raise UsageError(text, f"is no regular expression: {error}") from None
    return body


def _module(text: str, excludes: bool, body: str) -> Pattern:
    name, _, part = body.partition("/")
    parts: dict[str, Literal["", "buffer", "parameter"]] = {"": "", "buffers": "buffer", "parameters": "parameter"}
    if not name or part not in parts:
        raise UsageError(text, "names no type of module, or another part than buffers and parameters", LANGUAGE)
    return Pattern(text, "module", excludes, name, parts[part])


def _rows(text: str, excludes: bool, body: str) -> Pattern:
    match = _ROWS.fullmatch(body)
    ranges = [_RANGE.fullmatch(part) for part in match["ranges"].split(",")] if match else [None]
    rows = tuple((int(r[1] or 0), int(r[2]) if r[2] else None) for r in ranges if r)
    if match is None or len(rows) < len(ranges) or any(stop is not None and stop <= start for start, stop in rows):
        raise UsageError(text, "has no rows to select", "write rows:emb.weight[0:32000]")
    KeyPattern.parse(match["name"])
    return Pattern(text, "rows", excludes, match["name"], rows=rows)


def matches_nothing(pattern: str, names: Iterable[str]) -> UsageError:
    """Return the error for a pattern that matches no tensor, naming the closest that there is."""
    names = list(names)
    close = closest_name(pattern, names)
    hint = f"the closest name is {close}" if close else f"the names begin with {', '.join(_tops(names))}"
    return UsageError(pattern, "matches no tensor", hint)


def closest_name(pattern: str, names: Iterable[str]) -> str:
    """Return the tensor or module whose name is most like what a pattern says, or the empty string."""
    names = list(names)
    modules = {name[:at] for name in names for at, char in enumerate(name) if char == "."}
    wanted = pattern.removeprefix("!").removeprefix("rows:").rstrip("*").rstrip(".")
    from difflib import get_close_matches

    return next(iter(get_close_matches(wanted, [*names, *modules], n=1, cutoff=0.5)), "")


def _tops(names: list[str]) -> list[str]:
    tops = list(dict.fromkeys(name.partition(".")[0] for name in names))
    return [*tops[:6], *(["..."] if len(tops) > 6 else [])]
