"""Assignment problems: the best pairing of few rows and columns, exactly where it is contested."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

Scores = Mapping[int, Mapping[int, float]]  # target -> source -> score
LIMIT = 90  # rows of a problem that is solved exactly


def assign(scores: Scores, floor: float) -> dict[int, int]:
    """Return target -> source, of the greatest sum of scores above ``floor`` each; exact for small problems."""
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
            for j in rows:
                chosen.pop(j, None)
            chosen.update(_hungarian(rows, scores, floor))
    return chosen


def _contested(scores: Scores, chosen: dict[int, int], floor: float) -> list[list[int]]:
    """Group the rows that did not all get their best, with those that share a column with them."""
    parent: dict[int, int] = {}

    def root(x: int) -> int:
        while parent.setdefault(x, x) != x:
            parent[x] = parent[parent[x]]
            x = parent[x]
        return x

    owner = {i: j for j, i in chosen.items()}
    unhappy = set()
    for j, row in scores.items():
        mine = row[chosen[j]] if j in chosen else floor
        for i, value in row.items():
            if value > mine:
                unhappy.add(j)
                if i in owner:
                    parent[root(j)] = root(owner[i])
    groups: defaultdict[int, list[int]] = defaultdict(list)
    for j in sorted(scores):
        groups[root(j)].append(j)
    return [rows for rows in groups.values() if len(rows) > 1 and any(j in unhappy for j in rows)]


def _hungarian(rows: list[int], scores: Scores, floor: float) -> dict[int, int]:
    """Solve by shortest augmenting paths; every row may also stay alone at ``floor``."""
    columns = sorted({i for j in rows for i in scores[j]})
    number = {i: k for k, i in enumerate(columns)}
    width = len(columns) + len(rows)  # a column of its own for each row that stays alone
    high = max((v for j in rows for v in scores[j].values()), default=floor)
    cost = []
    for r, j in enumerate(rows):
        line = [1e6] * width
        for i, value in scores[j].items():
            line[number[i]] = high - value
        line[len(columns) + r] = high - floor
        cost.append(line)
    match = _augment(cost, len(rows), width)
    return {rows[r]: columns[c] for r, c in match.items() if c < len(columns) and cost[r][c] < 1e5}


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
