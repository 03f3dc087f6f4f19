"""What a tensor of the result is made of: bytes that lie in a file, or bytes that are worked out from them.

Without torch and numpy, and in memory that does not depend on the size of the tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from math import prod

from ..dtypes import DTYPES
from ..formats.base import MIB, ByteSource, RawTensor
from ..newfile import NewFile
from ..records import dataclass
from .strided import blocks

Pieces = Iterator[bytearray]
Work = Callable[[], Iterable[bytearray]]
_FLIPPED = bytes(value ^ 0x80 for value in range(256))


@dataclass(frozen=True)
class Content:
    """``size`` bytes: those at ``offset`` of ``source``, or, where ``work`` is given, the pieces that it makes."""

    size: int
    source: ByteSource | None = None
    offset: int = 0
    work: Work | None = None

    def pieces(self) -> Pieces:
        """Yield the bytes, piece by piece; a piece is the caller's until the next one is asked for."""
        if self.work is not None:
            yield from self.work()
            return
        assert self.source is not None
        buffer = bytearray(min(MIB, self.size))
        for start in range(0, self.size, MIB):
            if self.size - start < len(buffer):
                buffer = bytearray(self.size - start)
            self.source.read_into(self.offset + start, memoryview(buffer))
            yield buffer

    def copy_to(self, file: NewFile, seen: Callable[[memoryview], None]) -> None:
        """Append the bytes to a file, right into its buffer where they lie in another one; ``seen`` is shown each."""
        if self.work is not None:
            for piece in self.work():
                file.write(piece)
                seen(memoryview(piece))
            return
        assert self.source is not None or not self.size
        done = 0
        while done < self.size:
            assert self.source is not None
            room = file.room(self.size - done)
            self.source.read_into(self.offset + done, room)
            file.filled(len(room))
            seen(room)
            done += len(room)


def of_bytes(data: bytes) -> Content:
    """Return bytes in memory as content."""
    return Content(len(data), work=lambda: [bytearray(data)])


def whole_storage(raw: RawTensor) -> Content:
    """Return the whole memory behind a tensor, in little-endian order."""
    if raw.byteorder == "little":
        return Content(raw.nbytes, raw.source, raw.offset)
    width = part_of(raw.spec.dtype)

    def work() -> Pieces:
        for chunk in raw.storage_chunks():
            yield swapped(chunk, width)

    return Content(raw.nbytes, work=work)


def dense(raw: RawTensor) -> Content:
    """Return the values of a tensor in row-major order, little-endian, with its conj and neg bits carried out."""
    spec = raw.spec
    item = DTYPES[spec.dtype].itemsize
    size = prod(spec.shape) * item
    start = raw.offset + spec.storage_offset * item
    if spec.contiguous and raw.byteorder == "little" and not (spec.conj or spec.neg):
        return Content(size, raw.source, start)

    def work() -> Pieces:
        stride = spec.stride or ()
        for block in blocks(raw.source, start, spec.shape, stride, item):
            yield _resolved(swapped(block, part_of(spec.dtype)) if raw.byteorder == "big" else block, raw)

    return Content(size, work=work)


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


def _resolved(block: bytearray, raw: RawTensor) -> bytearray:
    """Carry out the conj and neg bits: each changes signs, and the sign of a float is the highest bit of its bytes."""
    spec = raw.spec
    width, item = part_of(spec.dtype), DTYPES[spec.dtype].itemsize
    for part in range(item // width):
        if spec.neg != (spec.conj and part == 1):
            at = slice(part * width + width - 1, None, item)
            block[at] = block[at].translate(_FLIPPED)
    return block
