"""The values of two tensors compared where they lie, block by block, without torch; numpy only where they differ."""

from __future__ import annotations

from itertools import islice
from math import prod

from ..dtypes import DTYPES
from ..formats.base import MIB, RawTensor
from ..formats.elements import batches, first_byte, is_plain
from ..records import replace
from .decode import common
from .difference import Difference
from .tally import Tally, Tolerance

_BLOCK = MIB // 8  # bytes of each side, which fit into a cache with what is worked out of them
EXACT = Tolerance()


def compare(
    first: RawTensor, second: RawTensor, tolerance: Tolerance = EXACT, *, measure: bool = True
) -> Difference | None:
    """Return how far two tensors of one shape are apart, or None where they are equal bit for bit.

    Memory format, byte order and the file's format do not count. Tensors of two dtypes are equal where all values are,
    and each is converted exactly (see ``incomparable``). Without ``measure`` the first difference ends the comparison,
    and only that there is one is known.
    """
    if is_same_place(first, second):
        return None
    first, second = in_memory_order(first, second)
    dtypes = (first.spec.dtype, second.spec.dtype)
    if dtypes[0] != dtypes[1]:
        return _converted(first, second, tolerance)
    tally: Tally | None = None
    for number, (one, other) in enumerate(zip(batches(first, _BLOCK), batches(second, _BLOCK), strict=True)):
        same = one == other
        if tally is None:
            if same:
                continue
            if not measure:
                return Difference(1, 0, first.spec.numel)
            tally = Tally(dtypes, first.spec.numel, tolerance, _width(first))
            for block in islice(batches(first, _BLOCK), number):
                tally.add_equal(block)
        if same:
            tally.add_equal(one)
        else:
            tally.add(one, other)
    return None if tally is None else tally.result()


def _converted(first: RawTensor, second: RawTensor, tolerance: Tolerance) -> Difference | None:
    """Compare values of two dtypes, so many of each at a time."""
    tally = Tally((first.spec.dtype, second.spec.dtype), first.spec.numel, tolerance, _width(first))
    count = _BLOCK // 16
    sides = [batches(raw, count * DTYPES[raw.spec.dtype].itemsize) for raw in (first, second)]
    for one, other in zip(*sides, strict=True):
        tally.add(one, other)
    difference = tally.result()
    return difference if difference.changed else None


def _width(raw: RawTensor) -> int:
    """Return the values in a row, where rows are worth naming and come in their order."""
    shape = raw.spec.shape
    return prod(shape[1:]) if len(shape) > 1 else 0


def is_same_place(first: RawTensor, second: RawTensor) -> bool:
    """Tell whether both are the same bytes of the same file, read alike."""
    one, other = first.spec, second.spec
    views = [(s.shape, s.dtype, s.stride, s.conj, s.neg) for s in (one, other)]
    return (
        views[0] == views[1]
        and first.byteorder == second.byteorder
        and first_byte(first) == first_byte(second)
        and first.source.identity == second.source.identity
    )


def in_memory_order(first: RawTensor, second: RawTensor) -> tuple[RawTensor, RawTensor]:
    """Return two tensors as flat ones where both lie dense in one order of dimensions, as channels_last does.

    Values then meet as they lie, without being gathered.
    """
    one, other = first.spec, second.spec
    if (is_plain(first) and is_plain(second)) or one.stride is None or one.stride != other.stride:
        return first, second
    dims = [(step, size) for step, size in zip(one.stride, one.shape, strict=True) if size != 1]
    expected = 1
    for step, size in sorted(dims):
        if step != expected:
            return first, second
        expected *= size
    return _flat(first), _flat(second)


def _flat(raw: RawTensor) -> RawTensor:
    return replace(raw, spec=replace(raw.spec, shape=(raw.spec.numel,), stride=(1,)))


def rows_of(raw: RawTensor, start: int, stop: int) -> RawTensor:
    """Return the rows of the first dimension from ``start`` on, ``stop`` not included."""
    spec = raw.spec
    step = spec.stride[0] if spec.stride is not None else prod(spec.shape[1:])
    part = replace(spec, shape=(stop - start, *spec.shape[1:]), storage_offset=spec.storage_offset + start * step)
    return replace(raw, spec=part)


def incomparable(first: RawTensor, second: RawTensor) -> str:
    """Say why the values of two tensors cannot be compared, as the end of a sentence, or return the empty string."""
    for spec in (first.spec, second.spec):
        if spec.layout != "strided":
            return "was never initialized" if spec.layout == "uninitialized" else f"is {spec.layout}"
        if DTYPES[spec.dtype].kind == "quantized":
            return f"is quantized ({spec.dtype})"
        if spec.location == "meta":
            return "is on the meta device and has no values"
    if first.spec.shape != second.spec.shape:
        return "has another shape"
    dtypes = (first.spec.dtype, second.spec.dtype)
    if dtypes[0] != dtypes[1] and common(*dtypes) is None:
        return f"is {dtypes[0]} and {dtypes[1]}, and no dtype holds the values of both"
    return ""
