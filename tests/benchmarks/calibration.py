"""Where 0.9 would lie for families that nobody looked at: python tests/benchmarks/calibration.py

A pair of modules is confident when its two leads, with and without the order of the files, are above two bounds. Here one
family of the corpus is left out at a time, the bounds are chosen on all others, as low as they may be with a given
share of wrong ones, and the family that was left out is scored with them. Besides, the weights of the evidence are drawn
at random around their values.
"""

from __future__ import annotations

import random
import sys
from collections import Counter, defaultdict
from itertools import product
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "mapping"))

from inference import corpus  # noqa: E402

from ckptaudit.mapping.inference import outcome, scoring  # noqa: E402

BOUNDS = (-9.0, -0.5, -0.2, 0.0, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5)
LIMITS = (0.0005, 0.0001)
SEEDS = 5
WEIGHTS = ("AFFINITY", "NAMES", "TAIL", "NUMBER", "ORDER", "ORDINAL", "BESIDE", "ANCHORED", "VOTE", "BARE")
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


def chosen(cells, limit):
    """Return the bounds that keep most of the right pairs with few enough wrong ones."""
    best = (0, (len(BOUNDS), len(BOUNDS)))
    for bounds in product(range(len(BOUNDS)), repeat=2):
        n = above(cells, bounds)
        if n["wrong"] <= limit * (n["right"] + n["wrong"]):
            best = max(best, (n["right"], bounds))
    return best[1]


def held_out(cells, limit):
    """Yield family, bounds from the others, and the counts of the family with them."""
    for family in sorted(cells):
        others = defaultdict(Counter)
        for name, mine in cells.items():
            for cell, n in mine.items() if name != family else ():
                others[cell].update(n)
        bounds = chosen(others, limit)
        n = above(cells[family], bounds)
        yield family, bounds, Counter(right=n["right"], wrong=n["wrong"])


def own(cells):
    """Sum the counts of what the engine's own bounds let through."""
    free, lead = ([BOUNDS.index(bound) for bound in pair] for pair in ((0.6, 0.1), (0.6, 1.0)))
    inside = [n for (f, g), n in cells.items() if any(f >= a and g >= b for a, b in zip(free, lead, strict=True))]
    return sum(inside, Counter())


def perturbed(seed):
    """Return the counts over all cases with every weight of the evidence drawn from 0.8 to 1.25 of its own."""
    chance, score, total = random.Random(seed), corpus.tool("score"), Counter()
    kept = {name: getattr(scoring, name) for name in WEIGHTS}
    for name, value in kept.items():
        setattr(scoring, name, value * chance.uniform(0.8, 1.25))
    for case in corpus.cases():
        total.update(score.score_case(case, corpus.predict(case)), cases=1)
    for name, value in kept.items():
        setattr(scoring, name, value)
    return total


def main():
    """Print what each family that was left out says, and what other weights would say."""
    for seed in range(SEEDS):
        n = perturbed(seed)
        shares = n["exact"] / n["cases"], n["wrong"] / n["counted"], n["wrong_confident"] / n["counted"]
        print("weights drawn, seed {}: exact {:.1%}, wrong {:.3%}, wrong at 0.9 {:.4%}".format(seed, *shares))
    cells, right = counted()
    for limit in LIMITS:
        total = Counter()
        for family, (free, lead), n in held_out(cells, limit):
            total.update(families=1, sure=n["right"], wrong=n["wrong"], clean=not n["wrong"])
            if n["wrong"]:
                bounds = f"bounds {BOUNDS[free]} and {BOUNDS[lead]}"
                print(
                    f"  {family}: {bounds}, wrong {n['wrong']} of {n.total()}, right {n['right'] / right[family]:.1%}"
                )
        show(f"bounds from the others, at most {limit:.2%} wrong", total, right.total())
    total = Counter()
    for family, mine in cells.items():
        n = own(mine)
        total.update(families=1, sure=n["right"], wrong=n["wrong"], clean=not n["wrong"])
        print(f"  {family}: wrong {n['wrong']} of {n['right'] + n['wrong']}, right {n['right'] / right[family]:.1%}")
    show("the engine's own bounds", total, right.total())


def show(name, total, right):
    """Print a line of totals."""
    share = total["wrong"] / (total["sure"] + total["wrong"])
    clean = f"{total['clean']} of {total['families']} families without a wrong one"
    print(f"{name}: wrong {total['wrong']} ({share:.3%}), {clean}, {total['sure'] / right:.1%} of the right ones")


if __name__ == "__main__":
    main()
