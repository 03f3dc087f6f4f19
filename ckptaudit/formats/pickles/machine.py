"""An inert pickle machine: opcodes in, a tree of nodes out. Nothing is imported, looked up or called.

It understands the opcodes that CPython's picklers write for torch.save with protocols 2 to 5, and those
Python 2 wrote. The others (INST, OBJ, EXT, GET, PUT, POP, DUP, ...) come from no torch.save; they are where
parsers disagree with each other, so they are refused. Numbers in text have one accepted form, for the same
reason.
"""

from __future__ import annotations

import re
import struct
import sys
from collections.abc import Callable
from itertools import islice

from ...errors import FormatError
from ...records import dataclass
from ..base import Global, Limits
from .calls import _Calls
from .containers import CHECK_EVERY
from .globals import broken_with, classify, full_name
from .nodes import Call, PersistentId

_UINT32 = struct.Struct("<I").unpack_from
_UINT64 = struct.Struct("<Q").unpack_from
_NAME_LINE = rb"\n([A-Za-z_][\w.]*)(?=\n)"
_NAME_BYTES = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_."
_PROTOCOL = 5
_STOPPED = sys.maxsize  # a position behind every pickle: STOP was seen
_BURST = range(1, CHECK_EVERY + 1)
_BEGIN = 256  # opcodes that take as long as to begin with a pickle, where a file has many
_LONG_BINPUT, _BINGET, _BININT1 = b"rhK"


@dataclass(frozen=True)
class PickleResult:
    """What one pickle holds.

    ``value`` is the root node, ``end`` the position behind STOP, ``globals`` every name once, at its first
    use, and ``persistent_ids`` every reference out of the pickle, used or not. ``embedded`` holds the bytes values
    that look like pickles themselves, with their position. ``opcodes`` and ``memory`` are what reading it has cost.
    ``rebuilt`` holds every call that makes a tensor.
    """

    value: object
    end: int
    globals: tuple[Global, ...]
    persistent_ids: tuple[PersistentId, ...]
    embedded: tuple[tuple[int, bytes], ...] = ()
    opcodes: int = 0
    memory: int = 0
    rebuilt: tuple[Call, ...] = ()


class Spent:
    """What the pickles of one file have cost so far: the limits hold for all of them together."""

    __slots__ = ("memory", "opcodes", "storages")

    def __init__(self) -> None:
        self.memory = self.opcodes = self.storages = 0


def run(
    data: bytes,
    *,
    subject: str,
    member: str,
    limits: Limits,
    start: int = 0,
    module_ids: bool = False,
    spent: Spent | None = None,
) -> PickleResult:
    """Interpret the pickle that begins at ``start`` and return its nodes.

    ``subject`` (the file) and ``member`` (its part) word the errors. ``module_ids`` reads the persistent ids
    ``('module', class, ...)`` of torch before 1.6 as that class. ``spent`` is what other pickles of the file have
    cost; what this one costs is added. Raises FormatError: CKPT703 where a limit is exceeded, CKPT702 where a broken
    pickle names code to run, CKPT002 for every other fault.
    """
    machine = _Machine(data, subject, member, limits, start, module_ids)
    machine.spent = spent
    try:
        return machine.run()
    except FormatError as error:
        raise broken_with(error, machine.found()) from None


class _Machine(_Calls):
    """The stack machine. A handler gets the position behind its opcode and returns that of the next one."""

    def __init__(self, data: bytes, subject: str, member: str, limits: Limits, start: int, module_ids: bool) -> None:
        super().__init__(data, subject, member, limits, module_ids)
        self.start = start
        self.spent: Spent | None = None
        self.end = -1
        self.in_frame = False

    def found(self) -> list[Global]:
        """Return the globals named so far, and those that the text behind the last opcode seems to name.

        Where the reading of a broken pickle ends, other readers may go on.
        """
        window = self.data[self.position : self.position + self.limits.string_bytes]
        later = []
        for match in islice(re.finditer(_NAME_LINE, window), self.limits.globals):
            module = _module_before(window[max(0, match.start() - self.limits.global_bytes) : match.start()])
            name = full_name(module.decode(), match[1].decode()) if module else ""
            if module and name not in self.globals:
                start = self.position + match.start() - len(module) - 1
                later.append(Global(name, classify(name), self.member, start))
        return [*self.globals.values(), *later]

    # -- the loop ---------------------------------------------------------------------------------------

    def run(self) -> PickleResult:
        start, spent = self.start, self.spent or Spent()
        self.executed, self.memory, self.storages = spent.opcodes, spent.memory, spent.storages
        if self.spent is not None:
            self.executed += _BEGIN
        if self.data[start : start + 1] != b"\x80":
            self.malformed(start, "does not begin with a protocol number")
        self.run_until(start, len(self.data))
        self.check_limits()
        if self.end < 0:
            self.malformed(len(self.data), "ends without STOP")
        opcodes, memory = self.executed - spent.opcodes, self.memory - spent.memory
        spent.opcodes, spent.memory, spent.storages = self.executed, self.memory, self.storages
        return PickleResult(
            self.stack[0],
            self.end,
            tuple(self.globals.values()),
            tuple(self.persistent_ids),
            tuple(self.embedded),
            opcodes,
            memory,
            tuple(self.rebuilt),
        )

    def run_until(self, pos: int, end: int) -> None:
        """Run the opcodes from ``pos`` to ``end``, which has to be the end of one of them, or to STOP."""
        while pos < end:
            pos = self.run_some(pos, end)
            if self.executed >= self.next_check:
                self.check_limits()
        if pos > end and self.end < 0:
            self.malformed(end, "ends in the middle of an opcode")

    def run_some(self, pos: int, end: int) -> int:
        """Run some of the opcodes and return where the next one is. The three that come most often are done here."""
        table, data, memo, far, ran = _TABLE, self.data, self.memo, self.far, 0
        try:
            for ran in _BURST:  # noqa: B007 - it is used below
                opcode = data[pos]
                if opcode == _LONG_BINPUT and not far and _UINT32(data, pos + 1)[0] == len(memo):
                    memo.append(self.stack[-1])
                    pos += 5
                elif opcode == _BINGET and data[pos + 1] < len(memo):
                    self.stack.append(memo[data[pos + 1]])
                    pos += 2
                elif opcode == _BININT1:
                    self.stack.append(data[pos + 1])
                    pos += 2
                else:
                    pos = table[opcode](self, pos + 1)
                if pos >= end:
                    break
        except (IndexError, struct.error):
            self.malformed(pos, "ends, or its stack does, in the middle of an opcode")
        except KeyError:
            self.malformed(pos, "uses a memo entry that was never stored")
        except UnicodeDecodeError:
            self.malformed(pos, "holds text that is not UTF-8")
        self.executed += ran
        return pos

    def refuse(self, pos: int) -> int:
        self.malformed(pos - 1, f"is the opcode 0x{self.data[pos - 1]:02x}, which torch.save does not write")

    # -- protocol, frames, end --------------------------------------------------------------------------

    def proto(self, pos: int) -> int:
        if pos != self.start + 1:
            self.malformed(pos - 1, "repeats the protocol number")
        if self.data[pos] > _PROTOCOL:
            self.malformed(pos, f"asks for the pickle protocol {self.data[pos]}; the newest is {_PROTOCOL}")
        return pos + 1

    def frame(self, pos: int) -> int:
        first = pos + 8
        end: int = first + _UINT64(self.data, pos)[0]
        if self.in_frame or end > len(self.data):
            self.malformed(pos - 1, "begins a frame that is longer than what holds it")
        self.in_frame = True
        self.run_until(first, end)
        self.in_frame = False
        if self.end >= 0:
            if self.end != end:
                self.malformed(self.end, "is STOP inside a frame that goes on")
            return _STOPPED
        return end

    def stop(self, pos: int) -> int:
        if self.below or len(self.stack) != 1:
            self.malformed(pos - 1, f"is STOP with {len(self.stack)} values and {len(self.below)} open marks")
        self.end = pos
        return _STOPPED


def _module_before(text: bytes) -> bytes:
    """Return the module of a GLOBAL or INST whose first line ends where ``text`` does, or nothing."""
    found = re.search(rb"[ci]([A-Za-z_].*)", text[len(text.rstrip(_NAME_BYTES)) :])
    return found[1] if found else b""


_HANDLERS = {
    0x80: "proto", 0x95: "frame", ord("."): "stop",
    ord("("): "mark", ord("q"): "binput", ord("r"): "long_binput", 0x94: "memoize",
    ord("h"): "binget", ord("j"): "long_binget",
    ord("N"): "none", 0x88: "newtrue", 0x89: "newfalse",
    ord("J"): "binint", ord("K"): "binint1", ord("M"): "binint2", ord("G"): "binfloat",
    ord("I"): "int_text", 0x8A: "long1", 0x8B: "long4",
    ord("X"): "binunicode", 0x8C: "short_binunicode", ord("B"): "binbytes", ord("C"): "short_binbytes",
    0x96: "bytearray8", ord("T"): "binstring", ord("U"): "short_binstring",
    ord("]"): "empty_list", ord("}"): "empty_dict", 0x8F: "empty_set", 0x91: "frozenset",
    ord(")"): "empty_tuple", ord("t"): "tuple_", 0x85: "tuple1", 0x86: "tuple2", 0x87: "tuple3",
    ord("a"): "append", ord("e"): "appends", 0x90: "additems", ord("s"): "setitem", ord("u"): "setitems",
    ord("c"): "global_", 0x93: "stack_global", ord("Q"): "binpersid",
    ord("R"): "reduce", 0x81: "newobj", 0x92: "newobj_ex", ord("b"): "build",
}  # fmt: skip

_TABLE: list[Callable[[_Machine, int], int]] = [_Machine.refuse] * 256
for _opcode, _name in _HANDLERS.items():
    _TABLE[_opcode] = getattr(_Machine, _name)
