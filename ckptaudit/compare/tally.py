"""Sums, counts and maxima over two tensors, block by block. Imports numpy when the first block comes."""

from __future__ import annotations

from math import isfinite, nan, sqrt
from typing import Any

from ..dtypes import DTYPES
from ..records import dataclass
from .decode import common, decoder
from .difference import SHOWN_ROWS, Difference

# Integers with the bits of a float: those of one sign are in the order of the floats.
_ORDERED = {"float16": "<i2", "bfloat16": "<i2", "float32": "<i4", "float64": "<i8"}
# Of the squared length of a change, how much may point elsewhere than the values do where these were scaled; and of how
# many values a direction can be told.
_ASTRAY, _ENOUGH = 0.01, 16
_WIDENED = frozenset({"float16", "bfloat16"})  # to float32
_AT_ONCE = 8192  # values in a sum that the libraries behind numpy would give to other threads, were it longer


@dataclass(frozen=True)
class Tolerance:
    """Two values are close where ``|second - first| <= atol + rtol * |first|``, as in ``torch.testing``."""

    rtol: float = 0.0
    atol: float = 0.0

    @property
    def any(self) -> bool:
        """True where values may differ and still be close."""
        return self.rtol > 0 or self.atol > 0


class Tally:
    """What is known so far of two tensors of ``total`` values each; ``width`` are the values in a row, 0 for no rows.

    Blocks come in order, little-endian. What differs is told by the bits where both have one dtype, so that -0.0
    differs from 0.0 and a NaN equals itself; otherwise both are converted to a dtype that holds them exactly, and all
    NaN are equal.
    """

    def __init__(self, dtypes: tuple[str, str], total: int, tolerance: Tolerance, width: int = 0) -> None:
        import numpy

        self._numpy, self._total, self._tolerance, self._width = numpy, total, tolerance, width
        self._dtype = dtypes[0] if dtypes[0] == dtypes[1] else ""
        self._read: list[Any] = [decoder(dtype) for dtype in dtypes]
        self._common = common(*dtypes)
        self._ordered = _ORDERED.get(self._dtype)
        self._changed = self._looked = self._beyond = 0
        self._max_abs: float | None = 0.0 if self._common else None
        self._max_rel, self._max_ulp = 0.0, 0 if self._ordered else None
        self._rows: dict[int, None] = {}
        self._spaces: dict[str, Any] = {}
        self._nan, self._inf = [0, 0], [0, 0]
        self._squares = [0.0, 0.0, 0.0]  # first by first, first by change, change by change

    def add(self, first: bytearray, second: bytearray) -> None:
        """Count blocks that are not equal."""
        with self._numpy.errstate(all="ignore"):
            if self._common is None:
                self._note(self._unlike_bits(first, second))
                return
            if self._dtype in _WIDENED:
                one, other = (self._decoded(side, block) for side, block in enumerate((first, second)))
            else:
                one, other = (read(block) for read, block in zip(self._read, (first, second), strict=True))
            change = None
            if self._ordered:
                change = self._numpy.subtract(other, one, out=self._space("change", one.dtype, len(one)))
            if change is not None and isfinite(largest := _largest(change)):
                self._add_finite(one, change, largest, self._bits(first, second))
                return
            differs = self._unlike_bits(first, second) if self._dtype else None
            self._add_any(one.astype(self._common), other.astype(self._common), differs)
            if self._max_ulp is not None:
                bits = self._bits(first, second)
                self._count_ulps(bits, bits[0] - bits[1], self._numpy.flatnonzero(bits[0] ^ bits[1] < 0))

    def _decoded(self, side: int, block: bytearray) -> Any:
        return self._read[side](block, self._space(f"side {side}", "<f4", len(block) // 2))

    def _space(self, name: str, layout: Any, count: int) -> Any:
        """Return an array to work in, in the same memory for each block: the system takes back what is freed."""
        if len(self._spaces.get(name, ())) < count:
            self._spaces[name] = self._numpy.empty(count, layout)
        return self._spaces[name][:count]

    def add_equal(self, block: bytearray) -> None:
        """Count a block that both have, bit for bit."""
        self._looked += len(block) // DTYPES[self._dtype].itemsize
        if self._common is None:
            return
        with self._numpy.errstate(all="ignore"):
            values = self._read[0](block)
            if not isfinite(square := self._dot(values, values)):
                values = values.astype(self._common)
                whole = self._count_odd(values, values)
                values = self._numpy.where(whole, values, 0)
                square = self._dot(values, values)
            self._squares[0] += square

    # Floats of one dtype, all finite --------------------------------------------------------------------------

    def _add_finite(self, one: Any, change: Any, largest: float, bits: list[Any]) -> None:
        # Zero where the bits are equal, and only there, though it overflows between signs.
        apart = self._numpy.subtract(bits[0], bits[1], out=self._space("apart", bits[0].dtype, len(one)))
        self._note(apart)
        self._max_abs = largest if self._max_abs is None or largest > self._max_abs else self._max_abs
        self._count_beyond(one, change)
        self._count_angle(one, change)
        lowest, ratio = self._ratios(one, change)
        self._max_rel = max(self._max_rel, ratio)
        if self._max_ulp is not None:
            # A value that changed its sign changed by itself at least, and the quotient keeps the order when rounded.
            crossing = self._numpy.flatnonzero(change <= -1 if isfinite(lowest) else bits[0] ^ bits[1] < 0)
            self._count_ulps(bits, apart, crossing)

    def _ratios(self, one: Any, change: Any) -> tuple[float, float]:
        """Divide ``change`` by ``one`` in place; return the lowest ratio, and the largest without its sign.

        The lowest is not finite where some first values are zero; those are left out of the largest.
        """
        self._numpy.divide(change, one, out=change)
        lowest, highest = float(change.min()), float(change.max())
        if isfinite(lowest) and isfinite(highest):
            return lowest, max(-lowest, highest)
        known = change[(one != 0) & self._numpy.isfinite(change)]
        return nan, _largest(known) if len(known) else 0.0

    def _bits(self, first: bytearray, second: bytearray) -> list[Any]:
        return [self._numpy.frombuffer(block, self._ordered) for block in (first, second)]

    def _count_ulps(self, bits: list[Any], apart: Any, crossing: Any) -> None:
        """Count the floats that lie between: of one sign the difference of the magnitudes, of two their sum.

        ``apart`` is that difference, ``crossing`` are the places where the signs may differ.
        """
        most, crossing = 0, crossing[bits[0][crossing] ^ bits[1][crossing] < 0]
        if len(crossing):
            apart[crossing] = 0
            bound = self._numpy.iinfo(apart.dtype).max
            magnitudes = [(part[crossing] & bound).astype("u8") for part in bits]
            most = int((magnitudes[0] + magnitudes[1]).max())
        self._max_ulp = max(self._max_ulp or 0, most, int(_largest(apart)))

    # All others -----------------------------------------------------------------------------------------------

    def _add_any(self, one: Any, other: Any, differs: Any) -> None:
        numpy = self._numpy
        if one.dtype.kind in "iu":
            differs = one != other
            apart = numpy.maximum(one, other).astype("u8") - numpy.minimum(one, other).astype("u8")
            one = one.astype("f8")
            self._add_numbers(differs, one, other.astype("f8") - one, float(apart.max()))
            return
        both_nan = numpy.isnan(one) & numpy.isnan(other)
        differs = (one != other) & ~both_nan | _signs_of_zero(numpy, one, other) if differs is None else differs
        whole = self._count_odd(one, other)
        if not whole.all():
            self._max_ulp = None
        lost = differs & ~whole & ~both_nan
        if lost.any():
            gone = bool((numpy.isnan(one) | numpy.isnan(other))[lost].any())
            self._max_abs = nan if gone else max(float("inf"), self._max_abs or 0.0)
            self._beyond += int(numpy.count_nonzero(lost)) if self._tolerance.any else 0
        change = numpy.where(whole, other - one, 0)
        self._add_numbers(differs, numpy.where(whole, one, 0), change, float(numpy.abs(change).max()))

    def _add_numbers(self, differs: Any, one: Any, change: Any, largest: float) -> None:
        self._note(differs)
        self._max_abs = largest if self._max_abs is None or largest > self._max_abs else self._max_abs
        self._count_beyond(one, change)
        self._count_angle(one, change)
        known = one != 0
        if known.any():
            self._max_rel = max(self._max_rel, float(self._numpy.abs(change[known] / one[known]).max()))

    def _count_odd(self, one: Any, other: Any) -> Any:
        """Count NaN and infinities of both sides; return which values are finite on both."""
        numpy = self._numpy
        for side, values in enumerate((one, other)):
            self._nan[side] += int(numpy.count_nonzero(numpy.isnan(values)))
            self._inf[side] += int(numpy.count_nonzero(numpy.isinf(values) & ~numpy.isnan(values)))
        return numpy.isfinite(one) & numpy.isfinite(other)

    # What both share ------------------------------------------------------------------------------------------

    def _unlike_bits(self, first: bytearray, second: bytearray) -> Any:
        item = DTYPES[self._dtype].itemsize
        words = [self._numpy.frombuffer(block, f"u{min(item, 8)}") for block in (first, second)]
        unlike = words[0] != words[1]
        return unlike.reshape(-1, 2).any(axis=1) if item == 16 else unlike

    def _note(self, differs: Any) -> None:
        """Count what is not zero in ``differs``, one entry a value, and note the rows of it."""
        self._changed += int(self._numpy.count_nonzero(differs))
        if self._width and len(self._rows) <= SHOWN_ROWS:
            self._note_rows(self._numpy.flatnonzero(differs))
        self._looked += len(differs)

    def _note_rows(self, places: Any) -> None:
        """Note the first few rows of some places in a block, which are in order."""
        at = 0
        while at < len(places) and len(self._rows) <= SHOWN_ROWS:
            row = (int(places[at]) + self._looked) // self._width
            self._rows[row] = None
            at = int(self._numpy.searchsorted(places, (row + 1) * self._width - self._looked))

    def _count_beyond(self, one: Any, change: Any) -> None:
        if self._tolerance.any:
            numpy = self._numpy
            room = numpy.abs(one).astype("f8") * self._tolerance.rtol + self._tolerance.atol
            self._beyond += int(numpy.count_nonzero(numpy.abs(change) > room))

    def _count_angle(self, one: Any, change: Any) -> None:
        for place, pair in enumerate(((one, one), (one, change), (change, change))):
            self._squares[place] += self._dot(*pair)

    def _dot(self, one: Any, other: Any) -> float:
        """Return the sum of the products, of the parts of complex values; the sum of the sums of short pieces."""
        if one.dtype.kind == "c":
            one, other = one.view(one.real.dtype), other.view(other.real.dtype)
        elif one.dtype.kind in "iu":
            one, other = one.astype("f8"), other.astype("f8")
        starts = range(0, len(one), _AT_ONCE)
        return sum(float(self._numpy.dot(one[at : at + _AT_ONCE], other[at : at + _AT_ONCE])) for at in starts)

    def result(self) -> Difference:
        """Return the difference of all that was added."""
        tolerant = self._tolerance.any
        return Difference(
            changed=self._changed,
            looked=self._looked,
            total=self._total,
            max_abs=self._max_abs,
            max_ulp=self._max_ulp,
            rows=tuple(self._rows)[: SHOWN_ROWS + 1],
            max_rel=self._max_rel if self._common else None,
            cosine=self._cosine(),
            nan=(self._nan[0], self._nan[1]),
            inf=(self._inf[0], self._inf[1]),
            beyond=self._beyond if tolerant else self._changed,
            scale=self._scale(),
        )

    def _cosine(self) -> float | None:
        """Return the cosine of the angle; by its sine, which is exact where the angle is small."""
        length, along, moved = self._squares
        second = length + 2 * along + moved
        if any(self._nan) or any(self._inf) or not (0 < length * second < float("inf")):
            return None
        sine = max(0.0, (length * moved - along * along) / (length * second))
        cosine = sqrt(max(0.0, 1.0 - sine))
        return cosine if length + along >= 0 else -cosine

    def _scale(self) -> float | None:
        """Return the factor, where the change points where the values do (or against it)."""
        length, along, moved = self._squares
        if self._total < _ENOUGH or self._cosine() is None or not 0 < length * moved < float("inf"):
            return None
        return 1 + along / length if 1 - along * along / (length * moved) < _ASTRAY else None


def _largest(values: Any) -> float:
    """Return the largest absolute value; not finite where one is not."""
    low, high = values.min(), values.max()
    return float(max(-int(low), int(high))) if values.dtype.kind == "i" else max(-float(low), float(high))


def _signs_of_zero(numpy: Any, one: Any, other: Any) -> Any:
    zero = (one == 0) & (other == 0)
    if one.dtype.kind == "c":
        parts = zip((one.real, one.imag), (other.real, other.imag), strict=True)
        return zero & numpy.logical_or(*(numpy.signbit(a) != numpy.signbit(b) for a, b in parts))
    return zero & (numpy.signbit(one) != numpy.signbit(other))
