"""Where 0.9 would lie for families that nobody looked at: python tests/benchmarks/calibration.py

A pair of modules is confident when its two leads, with and without the order of the files, are above two bounds. Here one
family of the corpus is left out at a time, the bounds are chosen on all others, as low as they may be with at most
0.05 % wrong, and the family that was left out is scored with them.
"""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from itertools import product
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "mapping"))

from inference import corpus  # noqa: E402

from ckptaudit.mapping.inference import outcome  # noqa: E402

BOUNDS = (-9.0, -0.5, -0.2, 0.0, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5)
MOST_WRONG = 0.0005
SURE = 0.95


class Leads:
    """Stands in for the confidence: a number from which the leads can be read again, and which caps still cap."""

    def __init__(self):
        self.known = {}

    def confidence(self, lead, free):
        worst = min(3.0, max(-1.0, min(lead, free)))
        value = SURE + 0.01 * (worst + 1) + 1e-9 * len(self.known)
        self.known[value] = free, lead
        return value


def place(value):
    """Return the number of the last bound that a lead is above."""
    return sum(value > bound for bound in BOUNDS) - 1


def counted():
    """Return family -> place of both leads -> counts, and the right ones of each family."""
    score, leads = corpus.tool("score"), Leads()
    outcome.confidence_of = leads.confidence
    cells, right = defaultdict(lambda: defaultdict(Counter)), Counter()
    for case in corpus.cases():
        said = corpus.predict(case)
        right[case["family"]] += score.score_case(case, said)["right"]
        groups = defaultdict(list)
        for one in said["assignments"]:
            if one["confidence"] in leads.known:
                groups[tuple(map(place, leads.known[one["confidence"]]))].append(one)
        for cell, made in groups.items():
            cells[case["family"]][cell].update(score.score_case(case, {"assignments": made}))
    return cells, right


def above(cells, bounds):
    """Sum the counts of what is above both bounds."""
    return sum((n for cell, n in cells.items() if cell[0] >= bounds[0] and cell[1] >= bounds[1]), Counter())


def chosen(cells):
    """Return the bounds that keep most of the right pairs with few enough wrong ones."""
    best = (0, (len(BOUNDS), len(BOUNDS)))
    for bounds in product(range(len(BOUNDS)), repeat=2):
        n = above(cells, bounds)
        if n["wrong"] <= MOST_WRONG * (n["right"] + n["wrong"]):
            best = max(best, (n["right"], bounds))
    return best[1]


def held_out():
    """Yield family, bounds from the others, and the counts of the family with them."""
    cells, right = counted()
    for family in sorted(cells):
        others = defaultdict(Counter)
        for name, mine in cells.items():
            for cell, n in mine.items() if name != family else ():
                others[cell].update(n)
        bounds = chosen(others)
        n = above(cells[family], bounds)
        yield family, bounds, n["right"], n["wrong"], right[family]


if __name__ == "__main__":
    total = Counter()
    seen = Counter()
    for family, bounds, sure, wrong, right in held_out():
        total.update(families=1, sure=sure, wrong=wrong, right=right, clean=not wrong)
        free, lead = (BOUNDS[k] for k in bounds)
        seen[free, lead] += 1
        print(
            f"{family:28} without order {free:5.2f} with {lead:5.2f} wrong {wrong:4} of {sure + wrong:6} {sure / right:7.1%}"
        )
    share = total["wrong"] / (total["sure"] + total["wrong"])
    print(
        f"wrong {total['wrong']}: {share:.4%}; of the right {total['sure'] / total['right']:.1%}; bounds {dict(seen)}"
    )
    print(f"{total['clean']} of {total['families']} families without a wrong one")
