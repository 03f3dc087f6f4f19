"""The elements of a strided tensor in row-major order, block by block, read from a file that holds its storage."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from math import prod
from typing import Any

from ..records import dataclass
from .base import MIB, ByteSource

_SPAN = 4 * MIB  # bytes that are read in one go
_WASTE = 16  # of them, how many times what is needed of them
_FORMATS: dict[int, Any] = {1: "B", 2: "H", 4: "I", 8: "Q"}  # of memoryview, by the bytes of an element


@dataclass(frozen=True, slots=True)
class _Dim:
    """One dimension: its size, and how far apart neighbours lie in the file and in the block, in elements."""

    size: int
    source: int
    block: int


def blocks(
    source: ByteSource, start: int, shape: Sequence[int], stride: Sequence[int], itemsize: int
) -> Iterator[bytearray]:
    """Yield the elements of a tensor whose first one lies at byte ``start``, about a MiB at a time.

    Strides are in elements of ``itemsize`` bytes; 0 repeats. What is read for a block is at most 4 MiB at a time.
    """
    if 0 in shape:
        return
    if itemsize == 16:  # complex128: two words, one behind the other
        shape, stride, itemsize = (*shape, 2), (*(2 * step for step in stride), 1), 8
    outer, rows = _division(shape, itemsize)
    inner = tuple(zip(shape[outer:], stride[outer:], strict=True)) or ((1, 1),)
    for index in product(*map(range, shape[:outer])):
        base = sum(place * step for place, step in zip(index, stride, strict=False))
        for first in range(0, inner[0][0], rows):
            count = min(rows, inner[0][0] - first)
            dims = ((count, inner[0][1]), *inner[1:])
            yield _block(source, start + (base + first * inner[0][1]) * itemsize, dims, itemsize)


def _division(shape: Sequence[int], itemsize: int) -> tuple[int, int]:
    """Return how many dimensions are walked one by one, and how many rows of the next one make a block."""
    below = itemsize
    for axis in range(len(shape) - 1, -1, -1):
        if below * shape[axis] > MIB:
            return axis, max(1, MIB // below)
        below *= shape[axis]
    return 0, shape[0] if shape else 1


def _block(source: ByteSource, start: int, dims: Sequence[tuple[int, int]], itemsize: int) -> bytearray:
    """Gather one block: read spans of the file, and scatter the elements of each to where they belong."""
    result = bytearray(prod(size for size, _ in dims) * itemsize)
    target = memoryview(result).cast(_FORMATS[itemsize])
    step, placed = 1, []
    for size, source_step in reversed(dims):
        placed.append(_Dim(size, source_step, step))
        step *= size
    placed.sort(key=lambda dim: dim.source)
    together = _together(placed, itemsize)
    within, apart = placed[:together], placed[together:]
    extent = (1 + sum((dim.size - 1) * dim.source for dim in within)) * itemsize
    span = bytearray(extent)
    view = memoryview(span).cast(_FORMATS[itemsize])
    for index in product(*(range(dim.size) for dim in apart)):
        offset = sum(place * dim.source for place, dim in zip(index, apart, strict=True))
        source.read_into(start + offset * itemsize, memoryview(span))
        _scatter(view, target, sum(place * dim.block for place, dim in zip(index, apart, strict=True)), within)
    return result


def _together(dims: Sequence[_Dim], itemsize: int) -> int:
    """Return how many of the dimensions, closest neighbours first, are read in one go."""
    extent, needed = 1, 1
    for number, dim in enumerate(dims):
        extent += (dim.size - 1) * dim.source
        needed *= dim.size if dim.source else 1
        if extent * itemsize > _SPAN or extent > _WASTE * needed + MIB // itemsize:
            return number
    return len(dims)


def _scatter(view: memoryview, target: memoryview, at: int, dims: Sequence[_Dim]) -> None:
    """Move the elements of a span to the block, the longest dimension in one step each time."""
    longest = max(dims, key=lambda dim: dim.size, default=_Dim(1, 1, 1))
    others = [dim for dim in dims if dim is not longest]
    size, step, block_step = longest.size, longest.source, longest.block
    for index in product(*(range(dim.size) for dim in others)):
        first = sum(place * dim.source for place, dim in zip(index, others, strict=True))
        place = at + sum(place * dim.block for place, dim in zip(index, others, strict=True))
        values = (
            view[first : first + (size - 1) * step + 1 : step] if step else _repeated(view[first : first + 1], size)
        )
        target[place : place + (size - 1) * block_step + 1 : block_step] = values


def _repeated(element: memoryview, count: int) -> memoryview:
    return memoryview(element.tobytes() * count).cast(_FORMATS[element.itemsize])
