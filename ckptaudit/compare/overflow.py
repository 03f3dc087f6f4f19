"""Which values a cast would make infinite, or another integer: counted in a file, without torch."""

from __future__ import annotations

from typing import Any

from ..dtypes import DTYPES
from ..formats.base import MIB, RawTensor
from ..formats.elements import batches
from .decode import decoder

_PARTS = {"complex128": "float64", "complex64": "float32", "complex32": "float16", "bcomplex32": "bfloat16"}
_LARGEST_OF_E4M3FN = 448.0  # its last code is NaN, not the next float


def count_out_of_range(raw: RawTensor, dtype: str) -> int:
    """Count the finite values of a tensor that ``dtype`` has no room for; both have a decoder.

    Integers lose what lies beyond the ends of the range, floats what would be rounded to beyond the largest one. For
    eight bits torch's casts make of these a NaN, an infinity or the largest value, by dtype and version.
    """
    import numpy

    decode, count = decoder(raw.spec.dtype), 0
    if decode is None:
        return 0
    for block in batches(raw, MIB // 4):
        values = decode(block)
        if DTYPES[dtype].kind in ("int", "uint"):
            count += int(numpy.count_nonzero(_outside(values, DTYPES[dtype].kind, DTYPES[dtype].precision)))
            continue
        if values.dtype.kind == "c":
            sizes = numpy.maximum(numpy.abs(values.real), numpy.abs(values.imag))
        else:
            sizes = numpy.abs(values.astype("f8"))
        end, ends_there = _end_of_range(_PARTS.get(dtype, dtype))
        beyond = sizes > end if ends_there else sizes >= end
        count += int(numpy.count_nonzero(beyond & numpy.isfinite(sizes)))
    return count


def _outside(values: Any, kind: str, bits: int) -> Any:
    low, high = (-(1 << bits), (1 << bits) - 1) if kind == "int" else (0, (1 << bits) - 1)
    return (values < low) | (values > high)


def _end_of_range(dtype: str) -> tuple[float, bool]:
    """Return half a step beyond the largest value, and whether that half is rounded down, to the even one."""
    row = DTYPES[dtype]
    step = 2.0 ** (row.max_exponent - row.precision + 1)
    if dtype == "float8_e4m3fn":
        return _LARGEST_OF_E4M3FN + step / 2, True
    return 2.0**row.max_exponent * 2 - step + step / 2, False
