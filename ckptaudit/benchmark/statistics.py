"""Ratios of paired times, the intervals that go with them, and the smallest ratio that can be told from 1.

Steps are timed in rounds, each variant once a round in random order, and compared within the round: whatever else the
machine did then, it did to both. The median of those ratios is the result; a slow moment moves it by one rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import comb
from statistics import median

from ..records import dataclass

MIN_ROUNDS = 8  # fewer have no 99 % interval of a median


@dataclass(frozen=True)
class Ratio:
    """How many times as fast as the baseline: the median over rounds, and its 95 % interval."""

    point: float
    low: float
    high: float

    @property
    def reciprocal(self) -> Ratio:
        """The same comparison the other way round."""
        return Ratio(1 / self.point, 1 / self.high, 1 / self.low)

    def to_json(self) -> dict[str, float]:
        """Return the JSON form, rounded to five digits."""
        return {name: float(f"{getattr(self, name):.5g}") for name in ("point", "low", "high")}


def speed_up(baseline: Sequence[float], variant: Sequence[float], confidence: float = 0.95) -> Ratio:
    """Return the ratio of paired times, baseline over variant.

    Args:
        baseline: seconds of the baseline, one per round.
        variant: seconds of the variant in the same rounds.
        confidence: of the interval.

    """
    ratios = sorted(first / second for first, second in zip(baseline, variant, strict=True))
    rank = interval_rank(len(ratios), confidence)
    return Ratio(median(ratios), ratios[rank - 1], ratios[-rank])


def interval_rank(count: int, confidence: float) -> int:
    """Return k: the interval of a median of ``count`` values goes from the k-th smallest to the k-th largest.

    The percentile bootstrap of a median needs no random resampling: of a resample, the median is at most the k-th
    smallest value with a binomial probability (Maritz and Jarrett, 1978). Where fewer than the stated share of medians
    would be inside (few rounds), the interval of the sign test, which holds for every distribution, is the wider one.
    """
    tail = (1 - confidence) / 2
    middle = (count + 1) // 2
    bootstrap = next(k for k in range(1, count + 1) if _at_least(count, middle, k / count) > tail)
    sign, below = 0, 0.0
    while sign < middle and (below := below + comb(count, sign) / 2**count) <= tail:
        sign += 1
    return max(1, min(bootstrap, sign))


def _at_least(count: int, least: int, chance: float) -> float:
    """Return the probability of ``least`` or more successes in ``count`` trials."""
    return sum(comb(count, i) * chance**i * (1 - chance) ** (count - i) for i in range(least, count + 1))


@dataclass(frozen=True)
class Noise:
    """What the baseline against itself says about the machine.

    ``ratio`` is that of the A/A pair with its 99 % interval; ``resolvable`` is the smallest ratio (above 1) that can be
    told from none: the edge of that interval that is further from 1. ``enough`` is False below eight rounds.
    """

    ratio: Ratio
    resolvable: float
    enough: bool

    @classmethod
    def of(cls, baseline: Sequence[float], again: Sequence[float]) -> Noise:
        """Judge the noise from an A/A pair: the times of two steps that are built alike."""
        ratio = speed_up(baseline, again, 0.99)
        return cls(ratio, max(ratio.high, 1 / ratio.low), len(baseline) >= MIN_ROUNDS)

    def tells(self, ratio: Ratio) -> bool:
        """Tell whether a variant differs from the baseline: its interval excludes 1, and it is beyond the noise."""
        beyond = max(ratio.point, 1 / ratio.point) > self.resolvable
        return self.enough and beyond and (ratio.low > 1 or ratio.high < 1)

    def to_json(self) -> dict[str, object]:
        """Return the JSON form."""
        return {"ratio": self.ratio.to_json(), "resolvable": float(f"{self.resolvable:.5g}"), "enough": self.enough}
