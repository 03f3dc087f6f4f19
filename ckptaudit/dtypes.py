"""The dtypes of torch, by name, and what a cast from one to another does to the values.

Names are torch's without the ``torch.`` prefix. Widths and exponent ranges follow IEEE 754, the OCP
8-bit and microscaling formats, and ``torch.finfo``; the tests compare every row with torch itself.
"""

from __future__ import annotations

from typing import Literal

from .records import dataclass

Kind = Literal["bool", "int", "uint", "float", "complex", "quantized", "bits"]
Cast = Literal["same", "exact", "narrowed", "kind-changed"]


@dataclass(frozen=True)
class DType:
    """One element type.

    ``bits`` is the width of one element in bits. ``precision`` counts significant bits (with the implicit
    one) of floats and value bits of integers; ``max_exponent`` and ``min_exponent`` bound the powers of two
    a float holds (the smallest subnormal included).
    """

    name: str
    bits: int
    kind: Kind
    precision: int = 0
    max_exponent: int = 0
    min_exponent: int = 0

    @property
    def itemsize(self) -> int:
        """Bytes of one element; torch rounds sub-byte types up to a whole byte."""
        return max(1, self.bits // 8)


_FLOATS = {  # name: bits, precision, max exponent, min exponent
    "float64": (64, 53, 1023, -1074),
    "float32": (32, 24, 127, -149),
    "float16": (16, 11, 15, -24),
    "bfloat16": (16, 8, 127, -133),
    "float8_e4m3fn": (8, 4, 8, -9),
    "float8_e4m3fnuz": (8, 4, 7, -10),
    "float8_e5m2": (8, 3, 15, -16),
    "float8_e5m2fnuz": (8, 3, 15, -17),
    "float8_e8m0fnu": (8, 1, 127, -127),
}
_COMPLEX = {"complex32": "float16", "complex64": "float32", "complex128": "float64", "bcomplex32": "bfloat16"}


def _table() -> dict[str, DType]:
    rows = [DType("bool", 8, "bool", 1)]
    rows += [DType(f"uint{n}", n if n >= 8 else 8, "uint", n) for n in (1, 2, 3, 4, 5, 6, 7, 8, 16, 32, 64)]
    rows += [DType(f"int{n}", n if n >= 8 else 8, "int", n - 1) for n in (1, 2, 3, 4, 5, 6, 7, 8, 16, 32, 64)]
    rows += [DType(name, bits, "float", *rest) for name, (bits, *rest) in _FLOATS.items()]
    rows += [DType(name, 2 * _FLOATS[part][0], "complex", *_FLOATS[part][1:]) for name, part in _COMPLEX.items()]
    rows += [
        DType(name, bits, "quantized")
        for name, bits in {"qint8": 8, "quint8": 8, "qint32": 32, "quint4x2": 8, "quint2x4": 8}.items()
    ]
    packed = {"float4_e2m1fn_x2": 8, "bits1x8": 8, "bits2x4": 8, "bits4x2": 8, "bits8": 8, "bits16": 16}
    rows += [DType(name, bits, "bits") for name, bits in packed.items()]
    return {row.name: row for row in rows}


DTYPES: dict[str, DType] = _table()


def cast_effect(source: str, target: str) -> Cast:
    """Say what ``target.copy_(source)`` does to values, by dtype name alone.

    ``exact`` keeps every value, ``narrowed`` may round or overflow, ``kind-changed`` drops a part of the
    value (the imaginary part, the fraction) or has no numeric meaning. Raises KeyError for unknown names.
    """
    if source == target:
        return "same"
    a, b = DTYPES[source], DTYPES[target]
    if {a.kind, b.kind} & {"quantized", "bits"}:
        return "kind-changed"
    if b.kind == "bool":
        return "kind-changed"
    if a.kind == "bool":
        return "exact"
    if a.kind == "complex" and b.kind != "complex":
        return "kind-changed"
    if a.kind in ("int", "uint"):
        return _cast_integer(a, b)
    if b.kind in ("int", "uint"):
        return "kind-changed"
    return "exact" if _float_holds(b, a) else "narrowed"


def _cast_integer(a: DType, b: DType) -> Cast:
    if b.kind in ("float", "complex"):
        return "exact" if a.precision <= b.precision and a.precision <= b.max_exponent else "narrowed"
    sign_fits = a.kind == "uint" or b.kind == "int"
    return "exact" if sign_fits and a.precision <= b.precision else "narrowed"


def _float_holds(outer: DType, inner: DType) -> bool:
    return (
        outer.precision >= inner.precision
        and outer.max_exponent >= inner.max_exponent
        and outer.min_exponent <= inner.min_exponent
    )
