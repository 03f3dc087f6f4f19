"""The directory of a zip archive, read strictly: what two readers could see differently is refused.

torch's own reader takes names without regard to case, ignores the local headers' flags and sizes and lets
records overlap; scanners and torch then disagree on what a file holds. Here both headers of every record must
tell the same story, records may not share a byte, and nothing may hide between them.
"""

from __future__ import annotations

import struct
from typing import NoReturn

from ..errors import FormatError
from ..records import dataclass
from .base import ByteSource, Limits

_END = struct.Struct("<4s4H2IH")
_END64 = struct.Struct("<4sQ2H2I4Q")
_LOCATOR = struct.Struct("<4sIQI")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_LOCAL = struct.Struct("<4s5H3I2H")
_SATURATED = 0xFFFFFFFF  # the value is in the zip64 field
_FLAGS = 0x808  # sizes in a descriptor behind the data (bit 3), UTF-8 names (bit 11)
_DESCRIPTOR_FLAG = 0x8
_LONGEST_DESCRIPTOR = 24
_WINDOW = 1 << 16  # read headers that lie close together in one go


@dataclass(frozen=True)
class Record:
    """One file in the archive. ``offset`` is that of its data, ``size`` their bytes in the archive.

    ``stored`` tells plain data from deflated; ``crc`` is that of the plain data.
    """

    name: str
    offset: int
    size: int
    crc: int
    stored: bool


@dataclass(frozen=True)
class _Entry:
    """One entry of the central directory, before its local header was read."""

    name: str
    raw_name: bytes
    flags: int
    method: int
    crc: int
    size: int
    plain_size: int
    header: int


def read_zip_directory(source: ByteSource, limits: Limits) -> dict[str, Record]:
    """Return the records by name, in the order of their data. Only headers are read.

    Raises FormatError: CKPT703 beyond a limit, CKPT002 for everything a zip of torch.save cannot be.
    """
    reader = _Reader(source, limits)
    start, size, count = reader.end_record()
    entries = reader.central(start, size, count)
    entries.sort(key=lambda entry: entry.header)
    return reader.locals(entries, start)


class _Reader:
    def __init__(self, source: ByteSource, limits: Limits) -> None:
        self.source = source
        self.limits = limits

    def broken(self, what: str) -> NoReturn:
        hint = "get the file again from its source; torch.save writes no such archive"
        raise FormatError(self.source.path, f"is a broken zip archive: {what}", hint, code="CKPT002")

    # -- the end record: where the directory lies -------------------------------------------------------

    def end_record(self) -> tuple[int, int, int]:
        """Return offset and size of the central directory in bytes, and the number of its entries."""
        size = self.source.size
        position = size - _END.size
        tail = self.source.read(max(0, position), min(size, _END.size))
        if len(tail) < _END.size or not tail.startswith(b"PK\x05\x06"):
            self.no_end()
        _, disk, first_disk, here, count, length, start, comment = _END.unpack(tail)
        if comment:
            self.broken("its end record announces a comment that is not there")
        found: tuple[int, ...] = (disk, first_disk, here, count, length, start)
        end = position
        if position >= _LOCATOR.size + _END64.size:
            locator = self.source.read(position - _LOCATOR.size, _LOCATOR.size)
            if locator.startswith(b"PK\x06\x07"):
                end = position - _LOCATOR.size - _END64.size
                found = self.end_record64(end, locator, found)
        disk, first_disk, here, count, length, start = found
        if disk or first_disk or here != count:
            self.broken("it spans several disks")
        if start + length != end:
            self.broken("its directory does not end where its end record begins")
        if count > self.limits.zip_entries or length > self.limits.zip_directory_bytes:
            self.exceeded(f"{count:,} records in a directory of {length:,} bytes")
        return start, length, count

    def end_record64(self, end: int, locator: bytes, short: tuple[int, ...]) -> tuple[int, ...]:
        """Read the zip64 end record; its values and the short ones must agree unless those are saturated."""
        _, disk, offset, disks = _LOCATOR.unpack(locator)
        record = self.source.read(end, _END64.size)
        if disk or disks != 1 or offset != end or not record.startswith(b"PK\x06\x06"):
            self.broken("its zip64 end record is not where it should be")
        _, size, _, _, *long = _END64.unpack(record)
        if size != _END64.size - 12:
            self.broken("its zip64 end record has an odd size")
        for value, value64, full in zip(short, long, (0xFFFF,) * 4 + (_SATURATED,) * 2, strict=True):
            if value not in (value64, full):
                self.broken("its two end records disagree")
        return tuple(long)

    def no_end(self) -> NoReturn:
        size = self.source.size
        tail = self.source.read(max(0, size - _WINDOW), min(size, _WINDOW))
        found = tail.rfind(b"PK\x05\x06")
        if found >= 0:
            self.broken(f"{len(tail) - found - _END.size:,} bytes follow its end record")
        raise FormatError(
            self.source.path,
            f"is cut short: it begins as a zip archive, but its {size:,} bytes have no end record",
            "download or copy it again; the file is incomplete",
            code="CKPT001",
        )

    # -- the central directory --------------------------------------------------------------------------

    def central(self, start: int, length: int, count: int) -> list[_Entry]:
        data = self.source.read(start, length)
        entries: list[_Entry] = []
        folded: set[str] = set()
        position = 0
        for _ in range(count):
            if position + _CENTRAL.size > length:
                self.broken("its directory is shorter than it says")
            entry, position = self.entry(data, position)
            entries.append(entry)
            folded.add(entry.name.casefold())
        if position != length:
            self.broken("its directory is longer than it says")
        if len(folded) != count:
            self.broken("two of its records have the same name")
        return entries

    def entry(self, data: bytes, position: int) -> tuple[_Entry, int]:
        fields = _CENTRAL.unpack_from(data, position)
        flags, method, crc, size, plain_size = fields[3], fields[4], *fields[7:10]
        name_length, extra_length, comment, disk, header = *fields[10:14], fields[16]
        middle = position + _CENTRAL.size + name_length
        end = middle + extra_length
        if fields[0] != b"PK\x01\x02" or end > len(data):
            self.broken("its directory has a malformed entry")
        raw_name = data[position + _CENTRAL.size : middle]
        name = self.name(raw_name)
        if flags & ~_FLAGS or comment or disk:
            self.broken(f"the record {name!r} is encrypted, commented or on another disk")
        if _SATURATED in (size, plain_size, header) or extra_length:
            plain_size, size, header = self.zip64(name, data[middle:end], (plain_size, size, header))
        if method not in (0, 8):
            self.broken(f"the record {name!r} is packed by method {method}")
        if method == 0 and size != plain_size:
            self.broken(f"the record {name!r} is stored, but in another size than its own")
        return _Entry(name, raw_name, flags, method, crc, size, plain_size, header), end

    def name(self, raw: bytes) -> str:
        try:
            name = raw.decode()
        except UnicodeDecodeError:
            self.broken("the name of a record is not UTF-8")
        if len(raw) > self.limits.zip_name_bytes:
            self.exceeded(f"a record name of {len(raw):,} bytes")
        parts = name.split("/")
        if not name.isprintable() or "\\" in name or ".." in parts or not parts[0] or name[1:3] == ":/":
            self.broken(f"the record name {name!a} is not one that torch.save writes")
        return name

    def zip64(self, name: str, extra: bytes, short: tuple[int, int, int]) -> list[int]:
        """Take the values that do not fit 32 bits from the zip64 field, and let it hold no others."""
        values = list(short)
        wanted = [index for index, value in enumerate(short) if value == _SATURATED]
        for number, field in self.extra_fields(name, extra):
            if number == 1:
                if len(field) != 8 * len(wanted):
                    self.broken(f"the record {name!r} gives its size twice")
                for index, value in zip(wanted, struct.unpack(f"<{len(wanted)}Q", field), strict=True):
                    values[index] = value
                wanted = []
        if wanted:
            self.broken(f"the record {name!r} lacks its zip64 sizes")
        return values

    def extra_fields(self, name: str, extra: bytes) -> list[tuple[int, bytes]]:
        fields: list[tuple[int, bytes]] = []
        position = 0
        while position + 4 <= len(extra):
            number, length = struct.unpack_from("<HH", extra, position)
            fields.append((number, extra[position + 4 : position + 4 + length]))
            position += 4 + length
        if position != len(extra) or len({number for number, _ in fields}) != len(fields):
            self.broken(f"the record {name!r} has malformed extra fields")
        return fields

    # -- the local headers ------------------------------------------------------------------------------

    def locals(self, entries: list[_Entry], directory: int) -> dict[str, Record]:
        """Check each local header against its entry, and that the records tile the file."""
        records: dict[str, Record] = {}
        window, base, end = b"", 0, 0
        for index, entry in enumerate(entries):
            start, length = entry.header, _LOCAL.size + len(entry.raw_name)
            gap = start - end
            if gap < 0 or gap > (_LONGEST_DESCRIPTOR if records else 0):
                self.broken(f"the record {entry.name!r} overlaps another, or hidden bytes lie before it")
            if start + length > directory:
                self.broken(f"the record {entry.name!r} runs into the directory")
            if start + length > base + len(window):
                following = entries[index + 1].header if index + 1 < len(entries) else directory
                near = following - start < _WINDOW
                window = self.source.read(start, min(_WINDOW, directory - start) if near else length)
                base = start
            offset = self.local(entry, window[start - base : start - base + length])
            end = offset + entry.size
            if end > directory:
                self.broken(f"the record {entry.name!r} runs into the directory")
            records[entry.name] = Record(entry.name, offset, entry.size, entry.crc, entry.method == 0)
        if directory - end > _LONGEST_DESCRIPTOR:
            self.broken("hidden bytes lie before its directory")
        return records

    def local(self, entry: _Entry, header: bytes) -> int:
        """Return the offset of the record's data."""
        magic, _, flags, method, _, _, crc, size, plain, name_length, extra_length = _LOCAL.unpack_from(header)
        if magic != b"PK\x03\x04" or name_length != len(entry.raw_name):
            self.broken(f"the record {entry.name!r} has no header where the directory says")
        if (flags, method) != (entry.flags, entry.method) or header[_LOCAL.size :] != entry.raw_name:
            self.broken(f"the two headers of the record {entry.name!r} disagree")
        extra = entry.header + len(header)
        if not flags & _DESCRIPTOR_FLAG:
            if _SATURATED in (size, plain):
                field = self.source.read(extra, extra_length)
                plain, size, _ = self.zip64(entry.name, field, (plain, size, 0))
            if (crc, size, plain) != (entry.crc, entry.size, entry.plain_size):
                self.broken(f"the two headers of the record {entry.name!r} disagree")
        return extra + int(extra_length)

    def exceeded(self, what: str) -> NoReturn:
        hint = "check where the file comes from; no known checkpoint needs as much"
        raise FormatError(self.source.path, f"is not read: it has {what}", hint, code="CKPT703")
