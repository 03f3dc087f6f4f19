"""KeyPattern: many state-dict keys written as one text, folded and expanded again without loss."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import product
from math import prod

from .errors import UsageError
from .records import dataclass

MAX_RANGE = 1_000_000
_SPECIAL = re.compile(r"[{}*\\,]")
_RANGE = re.compile(r"(0|[1-9]\d{0,17})\.\.(0|[1-9]\d{0,17})")
_TOKENS = re.compile(r"\d+|\D+")


class _Star:
    """Any run of characters, dots included."""

    def __repr__(self) -> str:
        return "*"


STAR = _Star()
Part = str | tuple[str, ...] | _Star


@dataclass(frozen=True)
class KeyPattern:
    r"""A set of keys: literal text, ``{a,b}`` and ``{1..4}`` alternatives, ``*`` for any run of characters.

    A backslash takes the meaning from ``{ } * , \``, so that every key can be written. Parts are literals,
    tuples of alternatives, or STAR.
    """

    parts: tuple[Part, ...]

    @classmethod
    def parse(cls, text: str) -> KeyPattern:
        """Read a pattern. Raises UsageError for braces that do not pair or hold an absurd range."""
        parts: list[Part] = []
        literal = ""
        position = 0
        while position < len(text):
            char = text[position]
            if char in "{*":
                parts += [literal] if literal else []
                literal = ""
            if char == "{":
                alternatives, position = _parse_braces(text, position + 1)
                parts.append(alternatives)
            elif char == "*":
                parts.append(STAR)
                position += 1
            elif char == "}":
                raise UsageError(text, f"has a closing brace without an opening one at {position}", _ESCAPE)
            else:
                piece, position = _parse_char(text, position)
                literal += piece
        return cls((*parts, literal) if literal else tuple(parts))

    def __str__(self) -> str:
        return "".join(_write(part) for part in self.parts)

    def matches(self, key: str) -> bool:
        """Tell whether the whole key fits."""
        return self._regex.fullmatch(key) is not None

    @cached_property
    def _regex(self) -> re.Pattern[str]:
        return re.compile("".join(_to_regex(part) for part in self.parts), re.DOTALL)

    def expand(self) -> Iterator[str]:
        """Yield every key of a pattern without ``*``. Raises UsageError for one with it."""
        if STAR in self.parts:
            raise UsageError(str(self), "stands for endlessly many keys and cannot be listed")
        choices = [part if isinstance(part, tuple) else (part,) for part in self.parts]
        for pieces in product(*choices):
            yield "".join(str(piece) for piece in pieces)

    @property
    def count(self) -> int:
        """Number of keys that ``expand`` yields."""
        return prod(len(part) for part in self.parts if isinstance(part, tuple))


_ESCAPE = "write a brace that belongs to a key as \\{ or \\}"


def _parse_char(text: str, position: int) -> tuple[str, int]:
    if text[position] == "\\" and position + 1 < len(text):
        return text[position + 1], position + 2
    return text[position], position + 1


def _parse_braces(text: str, position: int) -> tuple[tuple[str, ...], int]:
    """Read alternatives up to the closing brace; escaped characters never make a range."""
    alternatives: list[str] = []
    current, escaped = "", False
    while position < len(text):
        char = text[position]
        if char in ",}":
            alternatives += [current] if escaped else _parse_range(text, current)
            if char == "}":
                return tuple(alternatives), position + 1
            current, escaped = "", False
            position += 1
            continue
        escaped |= char == "\\"
        piece, position = _parse_char(text, position)
        current += piece
    raise UsageError(text, "has an opening brace without a closing one", _ESCAPE)


def _parse_range(text: str, alternative: str) -> Sequence[str]:
    match = _RANGE.fullmatch(alternative)
    if match is None:
        return [alternative]
    first, last = int(match[1]), int(match[2])
    if not first <= last < first + MAX_RANGE:
        raise UsageError(text, f"has a range that is empty or longer than {MAX_RANGE:,}")
    return [str(number) for number in range(first, last + 1)]


def _write(part: Part) -> str:
    if isinstance(part, str):
        return _escape(part)
    return "*" if isinstance(part, _Star) else "{" + ",".join(_write_alternatives(part)) + "}"


def _escape(text: str) -> str:
    return _SPECIAL.sub(lambda match: "\\" + match[0], text)


def _write_alternatives(alternatives: tuple[str, ...]) -> Iterator[str]:
    """Write runs of three or more successive integers as ``first..last``."""
    run: list[str] = []
    for text in (*alternatives, None):
        if run and text is not None and _is_index(text) and int(text) == int(run[-1]) + 1:
            run.append(text)
            continue
        yield from [f"{run[0]}..{run[-1]}"] if len(run) > 2 else run
        run = []
        if text is not None and _is_index(text):
            run = [text]
        elif text is not None:
            escaped = _escape(text)
            yield escaped.replace(".", "\\.", 1) if _RANGE.fullmatch(text) else escaped


def _to_regex(part: Part) -> str:
    if isinstance(part, _Star):
        return ".*"
    if isinstance(part, str):
        return re.escape(part)
    return "(?:" + "|".join(re.escape(text) for text in sorted(part, key=len, reverse=True)) + ")"


def _is_index(token: str) -> bool:
    """Tell a number that reads the same after int(): no leading zeros, ASCII, at most 18 digits."""
    return token.isascii() and token.isdigit() and len(token) <= 18 and (token == "0" or token[0] != "0")


def natural_key(key: str) -> tuple[tuple[int, int, str], ...]:
    """Return a sort key under which ``layer10`` comes after ``layer9``."""
    return tuple((0, int(t), t) if _is_index(t) else (1, 0, t) for t in _TOKENS.findall(key))


# A segment is what stands between two dots: a tuple of literals and alternatives.
_Segment = tuple[Part, ...]


def fold(keys: Iterable[str]) -> list[KeyPattern]:
    """Write distinct keys as few patterns: ``expand`` over the result gives exactly the keys, each once.

    Keys that differ in integers alone are merged first, then those that differ in one whole name between dots.
    Patterns come in the order in which their first keys appear. Close to linear in the number of keys.
    """
    order: dict[str, int] = {}
    groups: dict[tuple[tuple[str | None, ...], ...], list[tuple[str, ...]]] = {}
    for key in keys:
        if key not in order:
            order[key] = len(order)
            skeleton, numbers = _split(key)
            groups.setdefault(skeleton, []).append(numbers)
    folded = [
        _segments(skeleton, box) for skeleton, numbers in groups.items() for box in _boxes(numbers, len(numbers[0]))
    ]
    patterns = [_pattern(segments) for segments in _merge_names(folded)]
    return sorted(patterns, key=lambda pattern: min(order[key] for key in pattern.expand()))


def _split(key: str) -> tuple[tuple[tuple[str | None, ...], ...], tuple[str, ...]]:
    """Split a key into segments of text with None for each integer, and the integers."""
    numbers: list[str] = []
    skeleton = []
    for segment in key.split("."):
        tokens = _TOKENS.findall(segment)
        numbers += [token for token in tokens if _is_index(token)]
        skeleton.append(tuple(None if _is_index(token) else token for token in tokens))
    return tuple(skeleton), tuple(numbers)


_Box = tuple[tuple[str, ...], ...]


def _boxes(rows: list[tuple[str, ...]], dimensions: int) -> list[_Box]:
    """Cover a set of integer tuples with disjoint boxes, merging along the axes in the better of two orders."""
    if not dimensions:
        return [()]
    forward = _merge_axes(rows, range(dimensions))
    backward = _merge_axes(rows, range(dimensions - 1, -1, -1))
    return forward if len(forward) <= len(backward) else backward


def _merge_axes(rows: list[tuple[str, ...]], axes: Iterable[int]) -> list[_Box]:
    boxes: list[_Box] = [tuple((number,) for number in row) for row in rows]
    for axis in axes:
        merged: dict[_Box, list[str]] = {}
        for box in boxes:
            merged.setdefault(box[:axis] + box[axis + 1 :], []).extend(box[axis])
        boxes = [(*rest[:axis], tuple(sorted(values, key=int)), *rest[axis:]) for rest, values in merged.items()]
    return boxes


def _segments(skeleton: tuple[tuple[str | None, ...], ...], box: _Box) -> tuple[_Segment, ...]:
    numbers = iter(box)
    return tuple(tuple(_single(next(numbers)) if token is None else token for token in segment) for segment in skeleton)


def _single(alternatives: tuple[str, ...]) -> Part:
    return alternatives[0] if len(alternatives) == 1 else alternatives


def _merge_names(patterns: list[tuple[_Segment, ...]]) -> list[tuple[_Segment, ...]]:
    """Merge patterns that differ in one plain name, the last segment first."""
    depth = max(map(len, patterns), default=0)
    for back in range(1, depth + 1):
        merged: dict[object, list[tuple[_Segment, ...]]] = {}
        for pattern in patterns:
            rest = (len(pattern), *pattern[: len(pattern) - back], *pattern[len(pattern) - back + 1 :])
            plain = len(pattern) >= back and all(isinstance(part, str) for part in pattern[-back])
            merged.setdefault(rest if plain else pattern, []).append(pattern)
        patterns = [_join_names(group, back) for group in merged.values()]
    return patterns


def _join_names(group: list[tuple[_Segment, ...]], back: int) -> tuple[_Segment, ...]:
    if len(group) == 1:
        return group[0]
    names = sorted(("".join(map(str, pattern[-back])) for pattern in group), key=natural_key)
    first, at = group[0], len(group[0]) - back
    return (*first[:at], (tuple(names),), *first[at + 1 :])


def _pattern(segments: tuple[_Segment, ...]) -> KeyPattern:
    """Join segments with dots and neighbouring literals into one."""
    parts: list[Part] = []
    for index, segment in enumerate(segments):
        for part in ((".",) if index else ()) + segment:
            if isinstance(part, str) and parts and isinstance(parts[-1], str):
                parts[-1] += part
            else:
                parts.append(part)
    return KeyPattern(tuple(part for part in parts if part != ""))
