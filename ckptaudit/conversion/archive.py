"""Zip archives as ``torch.save`` lays them out: records stored, and the data of each at a multiple of 64.

The layout is that of PyTorchStreamWriter (caffe2/serialize/inline_container.cc) over miniz: padding in an extra field
of the local header, sizes in a descriptor behind the data, and a zip64 end record whatever the size.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Sequence

from ..newfile import NewFile
from ..records import dataclass
from .content import Content, of_bytes

ALIGNMENT = 64
_LOCAL = struct.Struct("<4s5H3I2H")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_END64 = struct.Struct("<4sQ2H2I4Q")
_LOCATOR = struct.Struct("<4sIQI")
_END = struct.Struct("<4s4H2IH")
_FULL, _FULL16 = 0xFFFFFFFF, 0xFFFF
_UTF8, _DESCRIBED = 0x800, 0x8
_TOP = "archive/"
_IDENTITY = 40  # digits of the serialization id


@dataclass
class Member:
    """One record. ``start`` is that of its header, ``data`` that of its bytes; ``crc`` is known once it is written."""

    name: str
    content: Content
    start: int
    data: int
    crc: int = 0

    @property
    def large(self) -> bool:
        """True where its size or place takes more than 32 bits."""
        return self.content.size >= _FULL or self.start >= _FULL

    @property
    def end(self) -> int:
        """Where the next record begins."""
        return self.data + self.content.size + len(self.descriptor())

    def header(self) -> bytes:
        """Return the local header, with as many letters of padding as bring the data to their place."""
        name = self.name.encode()
        extra = _extra64(self)
        padding = self.data - self.start - _LOCAL.size - len(name) - len(extra) - 4
        extra += b"FB" + struct.pack("<H", padding) + b"Z" * padding
        full = _FULL if self.content.size >= _FULL else 0
        return _LOCAL.pack(b"PK\3\4", 0, self.flags, 0, 0, 0, 0, full, full, len(name), len(extra)) + name + extra

    @property
    def flags(self) -> int:
        """The general-purpose flags."""
        return _UTF8 | _DESCRIBED if self.content.size else _UTF8

    def descriptor(self) -> bytes:
        """Return what follows the data."""
        size = self.content.size
        return struct.pack("<4sI2Q" if self.large else "<4s3I", b"PK\7\10", self.crc, size, size) if size else b""

    def central(self) -> bytes:
        """Return the entry of the directory."""
        name, size = self.name.encode(), self.content.size
        wide = [value for value in (size, size, self.start) if value >= _FULL]
        extra = struct.pack(f"<2H{len(wide)}Q", 1, 8 * len(wide), *wide) if wide else b""
        short, at = min(size, _FULL), min(self.start, _FULL)
        fields = (0, 0, self.flags, 0, 0, 0, self.crc, short, short, len(name), len(extra), 0, 0, 0, 0, at)
        return _CENTRAL.pack(b"PK\1\2", *fields) + name + extra


def _extra64(member: Member) -> bytes:
    """Return the zip64 field of a local header; the compressed size in it is 0, as torch's writer has it."""
    fields = [member.content.size, 0] if member.content.size >= _FULL else []
    fields += [member.start] if member.start >= _FULL else []
    return struct.pack(f"<2H{len(fields)}Q", 1, 8 * len(fields), *fields) if fields else b""


class Archive:
    """The archive around a data.pkl and the storages that it refers to, laid out before a byte is written."""

    def __init__(self, pickle: bytes, storages: Sequence[Content]) -> None:
        self.members: list[Member] = []
        self._end = 0
        self._add("data.pkl", of_bytes(pickle))
        self._add(".format_version", of_bytes(b"1"))
        self._add(".storage_alignment", of_bytes(str(ALIGNMENT).encode()))
        self._add("byteorder", of_bytes(b"little"))
        for number, content in enumerate(storages):
            self._add(f"data/{number}", content)
        self._add("version", of_bytes(b"3\n"))
        self._add(".data/serialization_id", Content(_IDENTITY, work=self._identity))
        directory = sum(len(member.central()) for member in self.members)
        self.size = self._end + directory + _END64.size + _LOCATOR.size + _END.size

    def _add(self, name: str, content: Content) -> None:
        member = Member(_TOP + name, content, self._end, 0)
        least = self._end + _LOCAL.size + len(member.name.encode()) + len(_extra64(member)) + 4
        member.data = -(-least // ALIGNMENT) * ALIGNMENT
        self.members.append(member)
        self._end = member.end

    def _identity(self) -> list[bytearray]:
        """Return twenty digits for the names of the records and twenty for their checksums, as torch's writer does."""
        names = zlib.crc32("".join(member.name for member in self.members[:-1]).encode())
        checksums = zlib.crc32("".join(str(member.crc) for member in self.members[:-1]).encode())
        return [bytearray(f"{names:020d}{checksums:020d}".encode())]

    def write(self, file: NewFile, seen: Callable[[int], None]) -> None:
        """Write every record, and then the directory; ``seen`` is told the bytes of content."""
        for member in self.members:
            file.write(member.header())

            def look(data: memoryview, member: Member = member) -> None:
                member.crc = zlib.crc32(data, member.crc)
                seen(len(data))

            member.content.copy_to(file, look)
            file.write(member.descriptor())
        directory = b"".join(member.central() for member in self.members)
        file.write(directory)
        file.write(self._tail(len(directory)))

    def _tail(self, length: int) -> bytes:
        count, start = len(self.members), self._end
        after = start + length
        end64 = _END64.pack(b"PK\6\6", _END64.size - 12, 0x31E, 45, 0, 0, count, count, length, start)
        short = min(count, _FULL16)
        end = _END.pack(b"PK\5\6", 0, 0, short, short, min(length, _FULL), min(start, _FULL), 0)
        return end64 + _LOCATOR.pack(b"PK\6\7", 0, after, 1) + end
