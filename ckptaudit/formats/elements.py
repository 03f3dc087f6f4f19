"""The values of a raw tensor as bytes, in one order on every machine: row-major, little-endian, block by block.

Without torch and numpy, and in memory that does not depend on the size of the tensor.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..dtypes import DTYPES
from .base import MIB, RawTensor
from .strided import blocks

_FLIPPED = bytes(value ^ 0x80 for value in range(256))


def part_of(dtype: str) -> int:
    """Return the bytes of a number: a complex value is two of them."""
    row = DTYPES[dtype]
    return row.itemsize // 2 if row.kind == "complex" else row.itemsize


def swapped(data: bytes | bytearray, width: int) -> bytearray:
    """Return numbers of ``width`` bytes in the other byte order."""
    result = bytearray(len(data))
    for byte in range(width):
        result[byte::width] = data[width - 1 - byte :: width]
    return result


def is_plain(raw: RawTensor) -> bool:
    """Tell whether the bytes lie in the file as they are wanted."""
    spec = raw.spec
    little = raw.byteorder == "little" or part_of(spec.dtype) == 1
    return little and spec.contiguous and not (spec.conj or spec.neg)


def first_byte(raw: RawTensor) -> int:
    """Return where in its source the first element of a tensor lies."""
    return raw.offset + raw.spec.storage_offset * DTYPES[raw.spec.dtype].itemsize


def worked_out(raw: RawTensor) -> Iterator[bytearray]:
    """Yield the values of a tensor that does not lie plain: gathered, swapped, with its conj and neg bits carried out.

    Pieces have at most about a MiB and end where an element does.
    """
    spec = raw.spec
    stride = spec.stride if spec.stride is not None else _row_major(spec.shape)
    for block in blocks(raw.source, first_byte(raw), spec.shape, stride, DTYPES[spec.dtype].itemsize):
        yield _resolved(swapped(block, part_of(spec.dtype)) if raw.byteorder == "big" else block, raw)


def _row_major(shape: tuple[int, ...]) -> tuple[int, ...]:
    steps, step = [], 1
    for size in reversed(shape):
        steps.append(step)
        step *= size
    return tuple(reversed(steps))


def batches(raw: RawTensor, size: int = MIB // 4) -> Iterator[bytearray]:
    """Yield the values in pieces of exactly ``size`` bytes, the last one shorter.

    A piece holds until the next one is asked for. ``size`` is a multiple of the bytes of an element.
    """
    if not is_plain(raw):
        yield from _even(worked_out(raw), size)
        return
    start, total = first_byte(raw), raw.spec.nbytes
    buffer = bytearray(min(size, total))
    for done in range(0, total, size):
        if total - done < len(buffer):
            buffer = bytearray(total - done)
        raw.source.read_into(start + done, memoryview(buffer))
        yield buffer


def _even(pieces: Iterator[bytearray], size: int) -> Iterator[bytearray]:
    held = bytearray()
    for piece in pieces:
        held += piece
        whole = len(held) // size * size
        for start in range(0, whole, size):
            yield held[start : start + size]
        del held[:whole]
    if held:
        yield held


def _resolved(block: bytearray, raw: RawTensor) -> bytearray:
    """Carry out the conj and neg bits: each changes signs, and the sign of a float is the highest bit of its bytes."""
    spec = raw.spec
    width, item = part_of(spec.dtype), DTYPES[spec.dtype].itemsize
    for part in range(item // width):
        if spec.neg != (spec.conj and part == 1):
            at = slice(part * width + width - 1, None, item)
            block[at] = block[at].translate(_FLIPPED)
    return block
