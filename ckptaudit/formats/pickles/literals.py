"""The part of the pickle machine that pushes constants: numbers, text, bytes."""

from __future__ import annotations

import struct
from typing import NoReturn

from ...errors import FormatError
from ..base import Limits, over_limit
from . import prices

_INT32 = struct.Struct("<i").unpack_from
_UINT16 = struct.Struct("<H").unpack_from
_UINT32 = struct.Struct("<I").unpack_from
_UINT64 = struct.Struct("<Q").unpack_from
_DOUBLE = struct.Struct(">d").unpack_from

_SHORT = 256  # bytes of a string that is counted first and checked later

_MOST_EMBEDDED = 16  # bytes values that are looked into


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
        self.short = min(_SHORT, limits.string_bytes)
        self.memory = 0  # bytes that the values take, by their prices
        self.embedded: list[tuple[int, bytes]] = []
        self.position = len(data)  # of the fault that ended the reading

    def malformed(self, pos: int, what: str) -> NoReturn:
        self.position = pos
        raise FormatError(
            self.subject,
            f"{self.member} is a malformed pickle: byte {pos:,} {what}",
            "get the file again from its source; torch.save writes no such pickle",
            code="CKPT002",
        )

    def exceeded(self, what: str, limit: str) -> NoReturn:
        reason = f"{self.member} is not read to its end: it has {what}"
        raise over_limit(self.subject, reason, limit, self.limits)

    def charge(self, price: int) -> None:
        """Count the memory that a value takes before it is made, where it may be large."""
        self.memory += price
        if self.memory > self.limits.pickle_memory:
            self.exceeded(f"values of more than {self.limits.pickle_memory:,} bytes", "pickle_memory")

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
        self.memory += prices.NUMBER
        self.stack.append(_INT32(self.data, pos)[0])
        return pos + 4

    def binint1(self, pos: int) -> int:
        self.stack.append(self.data[pos])
        return pos + 1

    def binint2(self, pos: int) -> int:
        self.memory += prices.NUMBER
        self.stack.append(_UINT16(self.data, pos)[0])
        return pos + 2

    def binfloat(self, pos: int) -> int:
        self.memory += prices.NUMBER
        self.stack.append(_DOUBLE(self.data, pos)[0])
        return pos + 8

    def int_text(self, pos: int) -> int:
        """Python 2 writes integers beyond 32 bits as decimals; only the form it writes is read."""
        end = self.data.find(b"\n", pos, pos + 21)
        digits = self.data[pos:end] if end >= 0 else b""
        number = int(digits) if digits.removeprefix(b"-").isdigit() else None
        if number is None or str(number).encode() != digits:
            self.malformed(pos - 1, "is an INT that is no plain decimal number")
        self.memory += prices.NUMBER
        self.stack.append(number)
        return end + 1

    def long1(self, pos: int) -> int:
        return self.push_long(pos + 1, self.data[pos])

    def long4(self, pos: int) -> int:
        return self.push_long(pos + 4, _UINT32(self.data, pos)[0])

    def push_long(self, pos: int, length: int) -> int:
        raw, end = self.take(pos, length)
        self.charge(prices.NUMBER + length)
        self.stack.append(int.from_bytes(raw, "little", signed=True))
        return end

    # -- strings and bytes ------------------------------------------------------------------------------

    def take(self, pos: int, length: int) -> tuple[bytes, int]:
        if length > self.limits.string_bytes:
            self.exceeded(f"a string of {length:,} bytes", "string_bytes")
        end = pos + length
        if end > len(self.data):
            self.malformed(pos, f"begins {length:,} bytes of data, more than are left")
        return self.data[pos:end], end

    def take_bytes(self, pos: int, length: int) -> tuple[bytes, int]:
        raw, end = self.take(pos, length)
        self.charge(prices.BYTES + length)
        return self.noted(pos, raw), end

    def noted(self, pos: int, raw: bytes) -> bytes:
        """Take note of bytes that look like a pickle, and return them."""
        if raw[:1] == b"\x80" and raw[-1:] == b"." and len(self.embedded) < _MOST_EMBEDDED:
            self.embedded.append((pos, raw))
        return raw

    def push_text(self, pos: int, length: int) -> int:
        raw, end = self.take(pos, length)
        self.charge(prices.TEXT + (length if raw.isascii() else 4 * length))
        self.stack.append(str(raw, "utf-8", "surrogatepass"))
        return end

    def binunicode(self, pos: int) -> int:
        data = self.data
        length: int = _UINT32(data, pos)[0]
        pos += 4
        end = pos + length
        raw = data[pos:end] if length <= self.short else b""
        if len(raw) < length or not raw.isascii():
            return self.push_text(pos, length)
        self.memory += prices.TEXT + length
        self.stack.append(raw.decode())
        return end

    def short_binunicode(self, pos: int) -> int:
        return self.push_text(pos + 1, self.data[pos])

    def binbytes(self, pos: int) -> int:
        raw, end = self.take_bytes(pos + 4, _UINT32(self.data, pos)[0])
        self.stack.append(raw)
        return end

    def short_binbytes(self, pos: int) -> int:
        raw, end = self.take_bytes(pos + 1, self.data[pos])
        self.stack.append(raw)
        return end

    def bytearray8(self, pos: int) -> int:
        raw, end = self.take_bytes(pos + 8, _UINT64(self.data, pos)[0])
        self.stack.append(bytearray(raw))
        return end

    def binstring(self, pos: int) -> int:
        return self.push_python2_string(pos + 4, _UINT32(self.data, pos)[0])

    def short_binstring(self, pos: int) -> int:
        return self.push_python2_string(pos + 1, self.data[pos])

    def push_python2_string(self, pos: int, length: int) -> int:
        """Push text where it is text: torch.load reads the strings of Python 2 as UTF-8."""
        raw, end = self.take(pos, length)
        self.charge(prices.TEXT + (length if raw.isascii() else 4 * length))
        try:
            self.stack.append(raw.decode())
        except UnicodeDecodeError:
            self.stack.append(raw)
        return end
