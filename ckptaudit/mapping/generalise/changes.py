"""What differs between two names, cut out so that it can be found again in others."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

from ..pattern import escape

Path = tuple[str, ...]
Numbers = tuple[int, ...]
_INTEGERS = re.compile(r"(?<![0-9])(?:0|[1-9][0-9]{0,8})(?![0-9])")
LETTERS = "ijklmnopqrstuvwxyzabcdefgh"
MARK = "\0"  # stands for an integer
MAX_LITERAL = 64  # rules with the integers written out that one change may give rise to


class Change(NamedTuple):
    """``before`` becomes ``after``; ``head`` and ``tail`` tell whether any text may stand around them.

    Integers are MARK; their values are kept beside it.
    """

    before: Path
    after: Path
    head: bool
    tail: bool

    @property
    def length(self) -> int:
        """What it takes to write it down."""
        return len(self.before) + len(self.after)


@lru_cache(maxsize=1 << 17)
def path_of(name: str) -> Path:
    """Split a name, or what is cut out of one, at its dots."""
    return tuple(name.split(".")) if name else ()


def bare(text: str) -> str:
    """Replace every integer by MARK."""
    return _INTEGERS.sub(MARK, text)


def numbers(text: str) -> Numbers:
    """Return the integers of a text."""
    return tuple(map(int, _INTEGERS.findall(text)))


def common(a: Sequence[str], b: Sequence[str]) -> int:
    """Return how many items both begin with."""
    for index, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return index
    return min(len(a), len(b))


def core(a: Path, b: Path) -> tuple[int, int]:
    """Return how many segments two paths begin and end with in common, the end first."""
    tail = common(a[::-1], b[::-1])
    head = common(a[: len(a) - tail], b[: len(b) - tail])
    return head, tail


Found = tuple[Change, Numbers, Numbers]


@lru_cache(maxsize=1 << 16)
def smallest(name: str, goal: str) -> Change:
    """Return the core of a difference: equal integers of both sides are MARK, others are written out."""
    a, b = path_of(name), path_of(goal)
    head, tail = core(a, b)
    before, after = ".".join(a[head : len(a) - tail]), ".".join(b[head : len(b) - tail])
    equal = Counter(numbers(before)) & Counter(numbers(after))
    hide = lambda match: MARK if int(match[0]) in equal else match[0]  # noqa: E731
    return Change(path_of(_INTEGERS.sub(hide, before)), path_of(_INTEGERS.sub(hide, after)), head > 0, tail > 0)


@lru_cache(maxsize=1 << 16)
def changes(name: str, goal: str) -> tuple[Found, ...]:
    """Return ways to cut a difference out, whole or in part, with the integers of both sides."""
    a, b = path_of(name), path_of(goal)
    head, tail = core(a, b)
    found: dict[tuple[Path, Path, bool, bool], None] = {}
    for start, end in _extents(len(a), head, tail):
        found[a[start : len(a) - end], b[start : len(b) - end], start > 0, end > 0] = None
    first, last = a[head : len(a) - tail], b[head : len(b) - tail]
    for i in range(len(first)):
        for j in range(len(last)):
            if i + j and first[:i] != last[:j]:
                found[first[:i], last[:j], head > 0, True] = None
            if i + j and first[i:] != last[j:]:
                found[first[i:], last[j:], True, tail > 0] = None
    return tuple(_found(*each) for each in found if each[0] or not each[2])


def _extents(length: int, head: int, tail: int) -> Iterator[tuple[int, int]]:
    """Yield how much of the common beginning and end stays outside: all of it first, then less."""
    for start in dict.fromkeys((head, max(head - 1, 0), max(head - 2, 0), 0)):
        for end in dict.fromkeys((tail, max(tail - 1, 0), max(tail - 2, 0), max(tail - 3, 0), 0)):
            if length - end > start or not start:
                yield start, end


def _found(before: Path, after: Path, head: bool, tail: bool) -> Found:
    left, right = ".".join(before), ".".join(after)
    return Change(path_of(bare(left)), path_of(bare(right)), head, tail), numbers(left), numbers(right)


# From a change and the integers of all its places to the two sides of rules -----------------------------------


def sides(change: Change, rows: Sequence[tuple[Numbers, Numbers]]) -> Iterator[tuple[str, str]]:
    """Yield pairs of templates that make the change in these places, those of the most places first."""
    for fixed, used in _relations(list(dict.fromkeys(rows))):
        least = [min(row[0][column] for row in used) for column in range(len(used[0][0]))]
        yield _sides(change, fixed, used[0], [0] * len(least))
        if any(offset for _, offset in fixed.values()):
            yield _sides(change, fixed, used[0], least)


# For each integer on the right that varies: the one on the left that it follows, and by how much it differs.
_Fixed = dict[int, tuple[int, int]]
_Rows = list[tuple[Numbers, Numbers]]


def _relations(rows: _Rows) -> Iterator[tuple[_Fixed, _Rows]]:
    """Yield rules for the integers with the rows that keep them, until all rows are explained."""
    for _ in range(MAX_LITERAL):
        if not rows:
            return
        fixed, used = _relation(rows)
        yield fixed, used
        known = set(used)
        rows = [row for row in rows if row not in known]


def _relation(rows: _Rows) -> tuple[_Fixed, _Rows]:
    fixed: _Fixed = {}
    for column in range(len(rows[0][1])):
        votes: Counter[tuple[int, int]] = Counter()
        for before, after in rows:
            votes.update((left, after[column] - number) for left, number in enumerate(before))
        most = max(votes.values(), default=0)
        value, same = Counter(after[column] for _, after in rows).most_common(1)[0]
        if most > same:
            best = [vote for vote, count in votes.items() if count == most]
            left, offset = min(best, key=lambda vote: (vote[1] != 0, vote[0] != column, abs(vote[1]), vote))
            rows = [row for row in rows if row[1][column] - row[0][left] == offset]
            fixed[column] = left, offset
        else:
            rows = [row for row in rows if row[1][column] == value]
    followed = {left for left, _ in fixed.values()}
    for left in range(len(rows[0][0])):
        if left not in followed:
            groups: defaultdict[int, _Rows] = defaultdict(list)
            for row in rows:
                groups[row[0][left]].append(row)
            rows = max(groups.values(), key=len)
    return fixed, rows


def _sides(change: Change, fixed: _Fixed, row: tuple[Numbers, Numbers], least: list[int]) -> tuple[str, str]:
    lowest: dict[int, int] = {}
    for left, offset in fixed.values():
        lowest[left] = min(lowest.get(left, 0), offset)
    letters = {left: LETTERS[order] for order, left in enumerate(sorted(lowest))}
    shift = {left: least[left] or -low for left, low in lowest.items()}
    first = [f"{{{letters[n]}{_plus(shift[n])}}}" if n in letters else str(value) for n, value in enumerate(row[0])]
    second = [
        f"{{{letters[fixed[n][0]]}{_plus(shift[fixed[n][0]] + fixed[n][1])}}}" if n in fixed else str(value)
        for n, value in enumerate(row[1])
    ]
    return _side(change.before, change, first), _side(change.after, change, second)


def _plus(offset: int) -> str:
    return f"+{offset}" if offset else ""


def _side(path: Path, change: Change, written: list[str]) -> str:
    """Write one side of a rule: integers filled in, stars around it."""
    pieces = iter(written)
    text = "".join(next(pieces) if part == MARK else escape(part) for part in re.split(f"({MARK})", ".".join(path)))
    return ".".join([*(["*"] if change.head else []), *([text] if path else []), *(["*"] if change.tail else [])])
