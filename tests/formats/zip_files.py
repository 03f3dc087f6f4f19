"""Zip archives written byte by byte, so that each field can lie."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from zlib import crc32


@dataclass
class Entry:
    """One record. ``local`` and ``central`` overwrite fields of the two headers by name."""

    name: str
    data: bytes = b""
    flags: int = 0x808
    method: int = 0
    local: dict[str, object] = field(default_factory=dict)
    central: dict[str, object] = field(default_factory=dict)
    local_extra: bytes = b""
    extra: bytes = b""
    gap: bytes = b""

    def pack(self, offset: int) -> tuple[bytes, bytes]:
        """Return the local part and the directory entry of a record at ``offset``."""
        plain = {"crc": crc32(self.data), "size": len(self.data), "plain": len(self.data)}
        known = plain | {"flags": self.flags, "method": self.method, "name": self.name.encode(), "magic": b""}
        hidden = dict.fromkeys(plain, 0) if self.flags & 8 else {}
        near = known | hidden | self.local
        far = known | {"offset": offset, "comment": 0, "disk": 0} | self.central
        local = struct.pack(
            "<4s5H3I2H",
            near["magic"] or b"PK\x03\x04",
            0,
            near["flags"],
            near["method"],
            0,
            0,
            near["crc"],
            near["size"],
            near["plain"],
            len(near["name"]),
            len(self.local_extra),
        )
        descriptor = b"PK\x07\x08" + struct.pack("<3I", *plain.values()) if self.flags & 8 else b""
        entry = struct.pack(
            "<4s6H3I5H2I",
            far["magic"] or b"PK\x01\x02",
            0,
            0,
            far["flags"],
            far["method"],
            0,
            0,
            far["crc"],
            far["size"],
            far["plain"],
            len(far["name"]),
            len(self.extra),
            far["comment"],
            far["disk"],
            0,
            0,
            far["offset"],
        )
        body = local + near["name"] + self.local_extra + self.data + descriptor + self.gap
        return body, entry + far["name"] + self.extra


def archive(
    *entries: Entry,
    zip64: bool = True,
    end: dict[str, int] | None = None,
    end64: dict[str, int] | None = None,
) -> bytes:
    """Return the archive; ``end`` and ``end64`` overwrite fields of the end records."""
    body = directory = b""
    for entry in entries:
        local, central = entry.pack(len(body))
        body += local
        directory += central
    found = {"disk": 0, "first": 0, "here": len(entries), "count": len(entries)}
    found |= {"length": len(directory), "start": len(body)}
    data = body + directory
    if zip64:
        long = found | {"size": 44, "locator": len(data), "disks": 1} | (end64 or {})
        numbers = (long["disk"], long["first"], long["here"], long["count"], long["length"], long["start"])
        data += struct.pack("<4sQ2H2I4Q", b"PK\x06\x06", long["size"], 45, 45, *numbers)
        data += struct.pack("<4sIQI", b"PK\x06\x07", 0, long["locator"], long["disks"])
    short = found | {"comment": 0} | (end or {})
    return data + struct.pack("<4s4H2IH", b"PK\x05\x06", *short.values())
