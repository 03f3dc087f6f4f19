"""The directory of a zip archive, read strictly: what two readers could see differently is refused.

torch's own reader takes names without regard to case, ignores the local headers' flags and sizes and lets
records overlap; scanners and torch then disagree on what a file holds. Here both headers of every record must
tell the same story, records may not share a byte, and nothing may hide between them.
"""

from __future__ import annotations

import struct
from typing import NoReturn

from ...errors import FormatError
from ..base import ByteSource, Limits, Record, over_limit

_END = struct.Struct("<4s4H2IH")
_END64 = struct.Struct("<4sQ2H2I4Q")
_LOCATOR = struct.Struct("<4sIQI")
_CENTRAL = struct.Struct("<4s4x2H4x3I4H2x2I")  # without versions, times and internal attributes
_LOCAL = struct.Struct("<4s2x2H4x3I2H")
_SATURATED = 0xFFFFFFFF  # the value is in the zip64 field
_FLAGS = 0x808  # sizes in a descriptor behind the data (bit 3), UTF-8 names (bit 11)
_DESCRIPTOR_FLAG = 0x8
_FOLDER = 0x10  # in the external attributes, as DOS has them
_LONGEST_DESCRIPTOR = 24
_WINDOW = 1 << 16  # read headers that lie close together in one go
_CLOSE = 1 << 12


# One entry of the central directory: offset of its header (first, as entries are sorted by it), name as text and as it
# is, flags, method, checksum, size in the archive and plain size.
_Entry = tuple[int, str, bytes, int, int, int, int, int]


def read_zip_directory(source: ByteSource, limits: Limits) -> dict[str, Record]:
    """Return the records by name, in the order of their data. Only headers are read.

    Raises FormatError: CKPT703 beyond a limit, CKPT002 for everything a zip of torch.save cannot be.
    """
    reader = _Reader(source, limits)
    start, size, count = reader.end_record()
    entries = reader.central(start, size, count)
    entries.sort()
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
        what = f"{count:,} records in a directory of {length:,} bytes"
        if count > self.limits.zip_entries:
            self.exceeded(what, "zip_entries", count)
        if length > self.limits.zip_directory_bytes:
            self.exceeded(what, "zip_directory_bytes", length)
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
            folded.add(entry[1].casefold())
        if position != length:
            self.broken("its directory is longer than it says")
        if len(folded) != count:
            self.broken("two of its records have the same name")
        return entries

    def entry(self, data: bytes, position: int) -> tuple[_Entry, int]:
        magic, flags, method, crc, size, plain_size, name_length, extra_length, comment, disk, attributes, header = (
            _CENTRAL.unpack_from(data, position)
        )
        middle = position + _CENTRAL.size + name_length
        end = middle + extra_length
        if magic != b"PK\x01\x02" or end > len(data):
            self.broken("its directory has a malformed entry")
        raw_name = data[position + _CENTRAL.size : middle]
        name = self.name(raw_name)
        if attributes & _FOLDER and size:
            self.broken(f"the record {name!r} is marked as a folder, which torch would not read")
        if flags & ~_FLAGS or comment or disk:
            self.broken(f"the record {name!r} is encrypted, commented or on another disk")
        if extra_length or _SATURATED in (size, plain_size, header):
            plain_size, size, header = self.zip64(name, data[middle:end], (plain_size, size, header))
        if method not in (0, 8):
            self.broken(f"the record {name!r} is packed by method {method}")
        if method == 0 and size != plain_size:
            self.broken(f"the record {name!r} is stored, but in another size than its own")
        return (header, name, raw_name, flags, method, crc, size, plain_size), end

    def name(self, raw: bytes) -> str:
        try:
            name = raw.decode()
        except UnicodeDecodeError:
            self.broken("the name of a record is not UTF-8")
        if len(raw) > self.limits.zip_name_bytes:
            self.exceeded(f"a record name of {len(raw):,} bytes", "zip_name_bytes")
        climbs = ".." in name and ".." in name.split("/")
        if climbs or not name.isprintable() or "\\" in name or name[:1] in ("", "/") or name[1:3] == ":/":
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
            start, name, raw_name, _, method, crc, size, _ = entry
            after = start + _LOCAL.size + len(raw_name)
            if not 0 <= start - end <= (_LONGEST_DESCRIPTOR if records else 0):
                self.broken(f"the record {name!r} overlaps another, or hidden bytes lie before it")
            if after > directory:
                self.broken(f"the record {name!r} runs into the directory")
            if after > base + len(window):
                following = entries[index + 1][0] if index + 1 < len(entries) else directory
                close = following - start < _CLOSE
                window = self.source.read(start, min(_WINDOW, directory - start) if close else after - start)
                base = start
            offset = after + self.local(entry, window, start - base)
            end = offset + size
            if end > directory:
                self.broken(f"the record {name!r} runs into the directory")
            records[name] = Record(name, offset, size, crc, method == 0)
        if directory - end > _LONGEST_DESCRIPTOR:
            self.broken("hidden bytes lie before its directory")
        return records

    def local(self, entry: _Entry, window: bytes, position: int) -> int:
        """Check the header at a position of the window, and return the length of its extra fields."""
        header, name, raw_name, *known = entry
        magic, flags, method, crc, size, plain, name_length, extra_length = _LOCAL.unpack_from(window, position)
        if magic != b"PK\x03\x04" or name_length != len(raw_name):
            self.broken(f"the record {name!r} has no header where the directory says")
        position += _LOCAL.size
        if flags != known[0] or method != known[1] or not window.startswith(raw_name, position):
            self.broken(f"the two headers of the record {name!r} disagree")
        if not flags & _DESCRIPTOR_FLAG:
            if _SATURATED in (size, plain):
                field = self.source.read(header + _LOCAL.size + name_length, extra_length)
                plain, size, _ = self.zip64(name, field, (plain, size, 0))
            if [crc, size, plain] != known[2:]:
                self.broken(f"the two headers of the record {name!r} disagree")
        return int(extra_length)

    def exceeded(self, what: str, limit: str, needed: int = 0) -> NoReturn:
        raise over_limit(self.source.path, f"is not read: it has {what}", limit, self.limits, needed)
