"""What a tensor of the result is made of: bytes that lie in a file, or bytes that are worked out from them.

Without torch and numpy, and in memory that does not depend on the size of the tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from ..formats.base import MIB, ByteSource, RawTensor
from ..formats.elements import first_byte, is_plain, part_of, swapped, worked_out
from ..newfile import NewFile
from ..records import dataclass

Pieces = Iterator[bytearray]
Work = Callable[[], Iterable[bytearray]]


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
    size = raw.spec.nbytes
    return Content(size, raw.source, first_byte(raw)) if is_plain(raw) else Content(size, work=lambda: worked_out(raw))
