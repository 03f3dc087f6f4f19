"""The values of torch's dtypes as numpy arrays; of those that numpy lacks by their bits. Imports numpy when called."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from ..dtypes import DTYPES, DType

_NATIVE = {
    "bool": "u1",
    "float16": "<f2",
    "float32": "<f4",
    "float64": "<f8",
    "complex64": "<c8",
    "complex128": "<c16",
}
_HALVES = {"complex32": "float16", "bcomplex32": "bfloat16"}
# Eight bits: width and bias of the exponent, and which codes are no finite numbers (OCP, and the fnuz variants).
_EIGHT_BITS = {
    "float8_e4m3fn": (4, 7, "nan at the end"),
    "float8_e5m2": (5, 15, "ieee"),
    "float8_e4m3fnuz": (4, 8, "nan at minus zero"),
    "float8_e5m2fnuz": (5, 16, "nan at minus zero"),
}


def decoder(dtype: str) -> Callable[..., Any] | None:
    """Return what turns a buffer of little-endian values into an array that numpy can count with, or None.

    Of 16-bit floats it takes the array to write to as its second argument, if one is given.
    Floats of 16 bits and fewer become float32, exactly; complex32 becomes complex64. None for quantized dtypes and
    bits, which are no numbers without their scales.
    """
    import numpy

    row = DTYPES[dtype]
    if dtype in _HALVES:
        half = decoder(_HALVES[dtype])
        return lambda data: half(data).view("<c8") if half else None
    if dtype == "bfloat16":
        return lambda data, out=None: _widened(numpy, data, out)
    if dtype == "float16":
        # All indices fit; "clip" leaves out the copy that the other modes make.
        return lambda data, out=None: numpy.take(_halves(), numpy.frombuffer(data, "<u2"), out=out, mode="clip")
    if row.kind == "float" and row.bits == 8:
        return lambda data: _table(dtype)[numpy.frombuffer(data, "u1")]
    layout = _NATIVE.get(dtype) or _layout_of_integers(row)
    return (lambda data: numpy.frombuffer(data, layout)) if layout else None


def _widened(numpy: Any, data: Any, out: Any) -> Any:
    """Return bfloat16 values as float32, whose upper half they are."""
    words = None if out is None else out.view("<u4")
    codes = numpy.frombuffer(data, "<u2")
    return numpy.left_shift(codes, 16, out=words, dtype="<u4", casting="unsafe").view("<f4")


def _layout_of_integers(row: DType) -> str:
    letter = {"int": "i", "uint": "u"}.get(row.kind)
    return f"<{letter}{row.itemsize}" if letter else ""


@cache
def _halves() -> Any:
    """Return the values of all codes of float16 as float32: looking them up is faster than numpy's conversion."""
    import numpy

    return numpy.arange(1 << 16, dtype="<u2").view("<f2").astype("<f4")


@cache
def _table(dtype: str) -> Any:
    """Return the values of all 256 codes as float32."""
    import numpy

    codes = numpy.arange(256)
    if dtype == "float8_e8m0fnu":
        with numpy.errstate(over="ignore"):
            return numpy.where(codes == 255, numpy.nan, numpy.ldexp(1.0, codes - 127)).astype("<f4")
    width, bias, special = _EIGHT_BITS[dtype]
    places = 7 - width
    exponent, fraction = codes >> places & (1 << width) - 1, codes & (1 << places) - 1
    normal = numpy.where(exponent == 0, fraction, fraction + (1 << places))
    size = numpy.ldexp(normal.astype(float), numpy.maximum(exponent, 1) - bias - places)
    if special == "ieee":
        last = exponent == (1 << width) - 1
        size = numpy.where(last, numpy.where(fraction == 0, numpy.inf, numpy.nan), size)
    elif special == "nan at the end":
        size = numpy.where(codes & 0x7F == 0x7F, numpy.nan, size)
    else:
        size = numpy.where(codes == 0x80, numpy.nan, size)
    return numpy.where(codes & 0x80, -size, size).astype("<f4")


def common(one: str, other: str) -> str | None:
    """Return a numpy dtype that holds every value of two of torch's dtypes exactly, or None."""
    kinds = [DTYPES[name].kind for name in (one, other)]
    if {"quantized", "bits"} & set(kinds):
        return None
    if {"float", "complex"} & set(kinds):
        bits = [DTYPES[name].precision for name in (one, other)]
        if max(bits) > 53:  # float64 holds no integer of 64 bits
            return None
        return "<c16" if "complex" in kinds else "<f8"
    signed, widest = "int" in kinds, max(DTYPES[name].precision for name in (one, other))
    return None if signed and widest > 63 else "<i8" if signed else "<u8"
