from __future__ import annotations

from itertools import permutations

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize

from ckptaudit.mapping.inference.solving import assign

SCORES = st.integers(0, 40).map(lambda n: n / 8)


@given(st.lists(st.lists(SCORES, min_size=4, max_size=4), min_size=1, max_size=4))
def test_no_assignment_is_worth_more(rows):
    """Every permutation is tried, with rows that stay alone at the floor."""
    floor = 1.0
    scores = {j: dict(enumerate(row)) for j, row in enumerate(rows)}
    found = assign(scores, floor)
    assert len(set(found.values())) == len(found)
    worth = sum(max(scores[j][found[j]] - floor, 0) for j in found)
    best = max(
        sum(max(rows[j][i] - floor, 0) for j, i in enumerate(columns[: len(rows)]))
        for columns in permutations(range(4))
    )
    assert worth == pytest.approx(best)


def test_it_agrees_with_scipy_on_larger_problems():
    table = numpy.random.default_rng(0).uniform(1, 5, (60, 60))
    scores = {j: dict(enumerate(map(float, row))) for j, row in enumerate(table)}
    found = assign(scores, 0.0)
    rows, columns = optimize.linear_sum_assignment(table, maximize=True)
    assert sum(scores[j][i] for j, i in found.items()) == pytest.approx(table[rows, columns].sum())


def test_below_the_floor_nothing_is_assigned():
    assert assign({0: {0: 0.5}, 1: {0: 2.0}}, 1.0) == {1: 0}


def test_a_large_contested_problem_is_still_one_to_one_and_quick():
    scores = {j: {i: 2.0 + (i * j % 7) / 10 for i in range(j, j + 40)} for j in range(2000)}
    found = assign(scores, 1.0)
    assert len(set(found.values())) == len(found) > 1900
