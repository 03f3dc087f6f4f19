"""How far the values of one tensor are from those of another: what is known, and the words for it."""

from __future__ import annotations

from math import isnan

from ..records import dataclass
from ..words import plural

SHOWN_ROWS = 4
_SHOWN_ULPS = 1000  # more says no more than the absolute change
# An average d*e + (1-d)*p of two equal values, or an addition that is taken back, is off by a few ULPs each time; an
# update by 1e-4 of a float32 is about 1,000.
_ROUNDING_ULPS = {"float32": 64, "float64": 64}
_ROUNDING_ULPS_OF_16_BITS = 2


@dataclass(frozen=True)
class Difference:
    """What is known of a change. ``changed`` of the ``looked`` values that were compared differ, of ``total``.

    ``max_abs`` is the largest absolute change (NaN where a NaN came or went), ``max_ulp`` the same in units in the
    last place, None for other dtypes than float16, bfloat16, float32 and float64. ``rows`` are the first few
    indices of the first dimension that changed.

    Known where whole files were compared: ``max_rel``, the largest change relative to a first value that is not zero;
    ``cosine`` of the angle between all first and all second values; ``nan`` and ``inf``, how many of each side are
    none; ``beyond``, how many of the changes exceed the tolerance; ``scale``, by which all values were multiplied
    where that is what happened.
    """

    changed: int
    looked: int
    total: int
    max_abs: float | None = None
    max_ulp: int | None = None
    rows: tuple[int, ...] = ()
    max_rel: float | None = None
    cosine: float | None = None
    nan: tuple[int, int] = (0, 0)
    inf: tuple[int, int] = (0, 0)
    beyond: int = 0
    scale: float | None = None

    @property
    def text(self) -> str:
        """The change in a few words, as ``by up to 0.012 (10,066 ULPs), in 3 of 64 values``."""
        sampled = " sampled" if self.looked < self.total else ""
        if not self.changed:
            return f"in none of {plural(self.looked, 'sampled value')}"
        share = "" if self.changed == self.looked else f", in {self.changed:,} of {self.looked:,}{sampled} values"
        rows = f", rows {', '.join(map(str, self.rows[:SHOWN_ROWS]))}" if share and self.rows else ""
        return f"{self.size}{share}{rows}" + (" ..." if rows and len(self.rows) > SHOWN_ROWS else "")

    @property
    def size(self) -> str:
        """The largest change alone, as ``by up to 0.012``."""
        if self.max_abs is None or isnan(self.max_abs):
            return "to NaN"
        if self.max_abs == 0 and self.max_ulp == 0:
            return "zeros changed their sign"
        ulps = f" ({plural(self.max_ulp, 'ULP')})" if self.max_ulp is not None and self.max_ulp < _SHOWN_ULPS else ""
        return f"by up to {self.max_abs:.3g}{ulps}"

    def is_rounding(self, dtype: str) -> bool:
        """Tell whether it is no more than what averaging with equal values does to a dtype."""
        known = self.max_ulp is not None and self.changed > 0
        return known and (self.max_ulp or 0) <= _ROUNDING_ULPS.get(dtype, _ROUNDING_ULPS_OF_16_BITS)


def number(value: float | None) -> float | None:
    """Leave out what JSON has no number for."""
    return value if value is not None and value - value == 0 else None
