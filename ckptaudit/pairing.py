"""Which tensors of two opened sides are to hold the same values, and where their bytes are."""

from __future__ import annotations

from collections.abc import Iterator

from .compare.align import is_extra_state
from .compare.overflow import count_out_of_range
from .compare.summary import Pair, Progress, Values, compare_all
from .compare.tally import Tolerance
from .dtypes import cast_effect
from .records import dataclass, replace
from .rules import Evidence
from .sources import Source

__all__ = ["Comparison", "Progress", "Tolerance"]


@dataclass(frozen=True)
class Comparison:
    """A comparison of values that was asked for."""

    tolerance: Tolerance
    progress: Progress | None = None

    def of(self, source: Source, target: Source, evidence: Evidence) -> Values:
        """Compare what meets under the mapping in force, and count what the model's dtypes have no room for."""
        overflows = dict(_overflows(source, evidence))
        for side in (source, target):
            if not side.has_values:
                return Values((), absent=_absent(side), tolerance=self.tolerance, overflows=overflows)
        values = compare_all(_pairs(source, target, evidence), self.tolerance, self.progress)
        for side in (source, target):
            side.check_unchanged()
        return replace(values, overflows=overflows)


def _absent(side: Source) -> str:
    what = "is built without any" if side.kind == "model" else "has none"
    return f"{side.name}, a {side.kind}, {what}"


def _pairs(source: Source, target: Source, evidence: Evidence) -> Iterator[Pair]:
    alignment = evidence.alignment
    for key, saved, wanted in alignment.pairs(alignment.matched_keys):
        if is_extra_state(key):
            continue
        origin = evidence.source_key(key)
        if origin is None:
            yield Pair(key, "", "is made by operations on tensors, which are not carried out here", target.raw(key))
        elif saved.shape != wanted.shape:  # (1,) and ()
            yield Pair(key, origin, "has another shape", target.raw(key))
        else:
            yield Pair(key, origin, source.raw(origin), target.raw(key))


def _overflows(source: Source, evidence: Evidence) -> Iterator[tuple[str, tuple[int, int]]]:
    """Yield the tensors with values that their cast would lose, with how many of how many."""
    if not source.has_values:
        return
    alignment = evidence.alignment
    for key, saved, wanted in alignment.pairs(alignment.matched_keys):
        origin = evidence.source_key(key)
        if origin is None or cast_effect(saved.dtype, wanted.dtype) != "narrowed" or wanted.dtype == _WITHOUT_SIGN:
            continue
        raw = source.raw(origin)
        if isinstance(raw, str) or raw.spec.layout != "strided":
            continue
        if count := count_out_of_range(raw, wanted.dtype):
            yield key, (count, saved.numel)


_WITHOUT_SIGN = "float8_e8m0fnu"  # nothing but powers of two, and no zero: what a cast to it makes is no rounding
