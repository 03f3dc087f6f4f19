"""The part of the pickle machine that pushes constants: numbers, text, bytes."""

from __future__ import annotations

import struct
from typing import NoReturn

from ..errors import FormatError
from .base import Limits

_INT32 = struct.Struct("<i").unpack_from
_UINT16 = struct.Struct("<H").unpack_from
_UINT32 = struct.Struct("<I").unpack_from
_UINT64 = struct.Struct("<Q").unpack_from
_DOUBLE = struct.Struct(">d").unpack_from


class _Literals:
    """Handlers of the opcodes that push one constant, and how every handler reports a fault.

    A handler gets the position behind its opcode and returns that of the next opcode.
    """

    def __init__(self, data: bytes, subject: str, member: str, limits: Limits) -> None:
        self.data = data
        self.subject = subject
        self.member = member
        self.limits = limits
        self.stack: list[object] = []

    def malformed(self, pos: int, what: str) -> NoReturn:
        raise FormatError(
            self.subject,
            f"{self.member} is a malformed pickle: byte {pos:,} {what}",
            "get the file again from its source; torch.save writes no such pickle",
            code="CKPT002",
        )

    def exceeded(self, what: str) -> NoReturn:
        raise FormatError(
            self.subject,
            f"{self.member} is not read to its end: it has {what}",
            "check where the file comes from; no known checkpoint needs as much",
            code="CKPT703",
        )

    # -- numbers and constants --------------------------------------------------------------------------

    def none(self, pos: int) -> int:
        self.stack.append(None)
        return pos

    def newtrue(self, pos: int) -> int:
        self.stack.append(True)
        return pos

    def newfalse(self, pos: int) -> int:
        self.stack.append(False)
        return pos

    def binint(self, pos: int) -> int:
        self.stack.append(_INT32(self.data, pos)[0])
        return pos + 4

    def binint1(self, pos: int) -> int:
        self.stack.append(self.data[pos])
        return pos + 1

    def binint2(self, pos: int) -> int:
        self.stack.append(_UINT16(self.data, pos)[0])
        return pos + 2

    def binfloat(self, pos: int) -> int:
        self.stack.append(_DOUBLE(self.data, pos)[0])
        return pos + 8

    def int_text(self, pos: int) -> int:
        """Python 2 writes integers beyond 32 bits as decimals; only the form it writes is read."""
        end = self.data.find(b"\n", pos, pos + 21)
        digits = self.data[pos:end] if end >= 0 else b""
        number = int(digits) if digits.removeprefix(b"-").isdigit() else None
        if number is None or str(number).encode() != digits:
            self.malformed(pos - 1, "is an INT that is no plain decimal number")
        self.stack.append(number)
        return end + 1

    def long1(self, pos: int) -> int:
        return self.push_long(pos + 1, self.data[pos])

    def long4(self, pos: int) -> int:
        return self.push_long(pos + 4, _UINT32(self.data, pos)[0])

    def push_long(self, pos: int, length: int) -> int:
        raw, end = self.take(pos, length)
        self.stack.append(int.from_bytes(raw, "little", signed=True))
        return end

    # -- strings and bytes ------------------------------------------------------------------------------

    def take(self, pos: int, length: int) -> tuple[bytes, int]:
        end = pos + length
        if end > len(self.data):
            self.malformed(pos, f"begins {length:,} bytes of data, more than are left")
        if length > self.limits.string_bytes:
            self.exceeded(f"a string of {length:,} bytes")
        return self.data[pos:end], end

    def binunicode(self, pos: int) -> int:
        raw, end = self.take(pos + 4, _UINT32(self.data, pos)[0])
        self.stack.append(str(raw, "utf-8", "surrogatepass"))
        return end

    def short_binunicode(self, pos: int) -> int:
        raw, end = self.take(pos + 1, self.data[pos])
        self.stack.append(str(raw, "utf-8", "surrogatepass"))
        return end

    def binbytes(self, pos: int) -> int:
        raw, end = self.take(pos + 4, _UINT32(self.data, pos)[0])
        self.stack.append(raw)
        return end

    def short_binbytes(self, pos: int) -> int:
        raw, end = self.take(pos + 1, self.data[pos])
        self.stack.append(raw)
        return end

    def bytearray8(self, pos: int) -> int:
        raw, end = self.take(pos + 8, _UINT64(self.data, pos)[0])
        self.stack.append(bytearray(raw))
        return end

    def binstring(self, pos: int) -> int:
        raw, end = self.take(pos + 4, _UINT32(self.data, pos)[0])
        return self.push_python2_string(raw, end)

    def short_binstring(self, pos: int) -> int:
        raw, end = self.take(pos + 1, self.data[pos])
        return self.push_python2_string(raw, end)

    def push_python2_string(self, raw: bytes, end: int) -> int:
        """Push text where it is text: torch.load reads the strings of Python 2 as UTF-8."""
        try:
            self.stack.append(raw.decode())
        except UnicodeDecodeError:
            self.stack.append(raw)
        return end
