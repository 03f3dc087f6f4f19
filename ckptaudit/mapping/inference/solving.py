"""Assignment problems: the best pairing of few rows and columns, exactly where it is contested."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

Scores = Mapping[int, Mapping[int, float]]  # target -> source -> score
LIMIT = 90  # rows of a problem that is solved exactly
FORBIDDEN = 1e6  # cost of a pair that is none
SMALL = 12  # rows of one that is solved whole, with all that share a column


def assign(scores: Scores, floor: float) -> dict[int, int]:
    """Return target -> source, of the greatest sum of scores above ``floor`` each.

    Exact for small problems; in larger ones the rows that compete are solved exactly, as far as they are few.
    """
    pairs = sorted(
        ((value, j, i) for j, row in scores.items() for i, value in row.items() if value > floor),
        key=lambda pair: (-pair[0], pair[1], pair[2]),
    )
    chosen: dict[int, int] = {}
    used: set[int] = set()
    for _, j, i in pairs:
        if j not in chosen and i not in used:
            chosen[j] = i
            used.add(i)
    for rows in _contested(scores, chosen, floor):
        if len(rows) <= LIMIT:
            mine = {chosen[j] for j in rows if j in chosen}
            columns = sorted({i for j in rows for i in scores[j] if i in mine or i not in used})
            for j in rows:
                chosen.pop(j, None)
            chosen.update(_hungarian(rows, columns, scores, floor))
            used = set(chosen.values())
    return chosen


def _contested(scores: Scores, chosen: dict[int, int], floor: float) -> list[list[int]]:
    """Group the rows of which some did not get their best: small problems whole, of others those that compete."""
    groups = Groups()
    first: dict[int, int] = {}
    for j, row in scores.items():
        for i, value in row.items():
            if value > floor:
                groups.join(j, first.setdefault(i, j))
    owner = {i: j for j, i in chosen.items()}
    best = {j: row[chosen[j]] if j in chosen else floor for j, row in scores.items()}
    unhappy = {j for j, row in scores.items() if max(row.values(), default=floor) > best[j]}
    result = []
    rest = Groups()
    for rows in groups.members(scores):
        if len(rows) <= SMALL:
            result.append(rows)
            continue
        for j in rows:
            for i, value in scores[j].items():
                if value > best[j] and i in owner:
                    rest.join(j, owner[i])
    result += rest.members(rest.known())
    return [rows for rows in result if len(rows) > 1 and not unhappy.isdisjoint(rows)]


class Groups:
    """Disjoint sets of numbers that are joined one by one."""

    def __init__(self) -> None:
        self._parent: dict[int, int] = {}

    def _root(self, x: int) -> int:
        parent = self._parent
        while parent.setdefault(x, x) != x:
            parent[x] = parent[parent[x]]
            x = parent[x]
        return x

    def join(self, a: int, b: int) -> None:
        """Put two numbers, with all that they were joined with, in one set."""
        self._parent[self._root(a)] = self._root(b)

    def known(self) -> list[int]:
        """Return all numbers that were ever joined."""
        return list(self._parent)

    def members(self, numbers: Iterable[int]) -> list[list[int]]:
        """Return the sets of these numbers, each in order."""
        sets: defaultdict[int, list[int]] = defaultdict(list)
        for x in sorted(numbers):
            sets[self._root(x)].append(x)
        return list(sets.values())


def _hungarian(rows: list[int], columns: list[int], scores: Scores, floor: float) -> dict[int, int]:
    """Solve by shortest augmenting paths; every row may also stay alone at ``floor``."""
    number = {i: k for k, i in enumerate(columns)}
    width = len(columns) + len(rows)  # a column of its own for each row that stays alone
    high = max((value for j in rows for value in scores[j].values()), default=floor)
    cost = []
    for r, j in enumerate(rows):
        line = [FORBIDDEN] * width
        for i, value in scores[j].items():
            if i in number and value > floor:
                line[number[i]] = high - value
        line[len(columns) + r] = high - floor
        cost.append(line)
    match = _augment(cost, len(rows), width)
    return {rows[r]: columns[c] for r, c in sorted(match.items()) if c < len(columns)}


def _augment(cost: list[list[float]], height: int, width: int) -> dict[int, int]:
    row_of = [-1] * width
    u, v = [0.0] * height, [0.0] * width
    for start in range(height):
        least, previous = [float("inf")] * width, [-1] * width
        done = [False] * width
        row, column = start, -1
        while True:
            best, step = -1, float("inf")
            line, base = cost[row], u[row]
            for c in range(width):
                if done[c]:
                    continue
                reduced = line[c] - base - v[c]
                if reduced < least[c]:
                    least[c], previous[c] = reduced, column
                if least[c] < step:
                    best, step = c, least[c]
            u[start] += step
            for c in range(width):
                if done[c]:
                    u[row_of[c]] += step
                    v[c] -= step
                else:
                    least[c] -= step
            column = best
            done[column] = True
            if row_of[column] < 0:
                break
            row = row_of[column]
        while column >= 0:
            before = previous[column]
            row_of[column] = start if before < 0 else row_of[before]
            column = before
    return {row: column for column, row in enumerate(row_of) if row >= 0}
