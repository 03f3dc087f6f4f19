"""Intervals hold what they promise, and the noise that is stated is the noise that is there. No clock is read."""

from __future__ import annotations

import random
from statistics import median

import numpy as np
import pytest

from ckptaudit.benchmark.statistics import MIN_ROUNDS, Noise, interval_rank, speed_up


def times(rng, rounds, factor=1.0, spread=0.1, load=()):
    """Return simulated seconds: lognormal, with a load per round that all variants share."""
    return [factor * rng.lognormvariate(0, spread) * (load[i] if load else 1) for i in range(rounds)]


@pytest.mark.parametrize("count", [9, 15, 21, 41])
def test_the_rank_is_that_of_a_bootstrap_by_resampling(count):
    rng = np.random.default_rng(0)
    medians = np.median(rng.integers(1, count + 1, size=(200_000, count)), axis=1)
    low, high = np.quantile(medians, [0.025, 0.975])
    rank = interval_rank(count, 0.95)
    assert rank in (low, low - 1)  # one further out where the sign test asks for it
    assert count + 1 - rank in (high, high + 1)


@pytest.mark.parametrize(
    ("rounds", "confidence"), [(8, 0.95), (12, 0.95), (20, 0.95), (33, 0.95), (8, 0.99), (20, 0.99)]
)
def test_intervals_hold_the_true_ratio_as_often_as_they_say(rounds, confidence):
    rng, inside, trials = random.Random(rounds), 0, 2000
    for _ in range(trials):
        load = [rng.choice([1, 1, 1, 4]) for _ in range(rounds)]  # something else runs now and then
        fast, slow = times(rng, rounds, 1, 0.2, load), times(rng, rounds, 3, 0.2, load)
        ratio = speed_up(slow, fast, confidence)
        inside += ratio.low <= 3 <= ratio.high
    assert inside / trials >= confidence


def test_the_point_is_the_median_of_the_paired_ratios():
    assert speed_up([2.0, 8.0, 3.0], [1.0, 2.0, 2.0]).point == 2.0
    assert speed_up([1.0] * 9, [2.0] * 9).reciprocal.point == 2.0


def test_what_all_variants_share_cancels():
    rng = random.Random(1)
    load = [rng.choice([1, 10]) for _ in range(20)]
    ratio = speed_up([3 * one for one in load], load)
    assert (ratio.low, ratio.point, ratio.high) == (3, 3, 3)


def test_an_a_a_pair_is_within_its_noise_in_19_of_20_repeats():
    rng, false_alarms, repeats = random.Random(2), 0, 1000
    for _ in range(repeats):
        base, again, third = (times(rng, 16, spread=0.05) for _ in range(3))
        false_alarms += Noise.of(base, again).tells(speed_up(base, third))
    assert false_alarms / repeats <= 0.05


def test_a_slowdown_of_a_tenth_is_told_on_a_quiet_machine():
    rng, told, repeats = random.Random(3), 0, 500
    for _ in range(repeats):
        base, again = times(rng, 16, spread=0.02), times(rng, 16, spread=0.02)
        told += Noise.of(base, again).tells(speed_up(base, times(rng, 16, 1.1, 0.02)))
    assert told / repeats >= 0.99


def test_a_slowdown_of_a_tenth_is_not_told_where_the_machine_is_too_noisy():
    rng = random.Random(4)
    base, again = times(rng, 12, spread=0.6), times(rng, 12, spread=0.6)
    noise = Noise.of(base, again)
    assert noise.resolvable > 1.1
    assert not noise.tells(speed_up(base, [1.1 * median(base)] * 12))


def test_too_few_rounds_tell_nothing():
    base, fast = [2.0] * (MIN_ROUNDS - 1), [1.0] * (MIN_ROUNDS - 1)
    assert not Noise.of(base, base).tells(speed_up(base, fast))
    base, fast = [2.0] * MIN_ROUNDS, [1.0] * MIN_ROUNDS
    assert Noise.of(base, base).tells(speed_up(base, fast))
