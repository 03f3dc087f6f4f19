"""An inert pickle machine: opcodes in, a tree of nodes out. Nothing is imported, looked up or called.

It understands the opcodes that CPython's picklers write for torch.save with protocols 2 to 5, and those
Python 2 wrote. The others (INST, OBJ, EXT, GET, PUT, POP, DUP, ...) come from no torch.save; they are where
parsers disagree with each other, so they are refused. Numbers in text have one accepted form, for the same
reason.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable

from ..errors import FormatError
from ..records import dataclass
from .base import Global, Limits
from .globals import STORAGES, TENSOR_CLASSES, classify, full_name
from .nodes import MAPPING_CLASSES, SEQUENCE_CLASSES, Call, GlobalRef, PDict, PersistentId, PSet, identity_of
from .pickle_literals import _Literals

_UINT32 = struct.Struct("<I").unpack_from
_UINT64 = struct.Struct("<Q").unpack_from
_TEXT_CODECS = ("latin1", "latin-1", "utf-8", "ascii")
_ALLOCATING = {"builtins.bytearray", *TENSOR_CLASSES, *STORAGES}  # by the number they are called with
_SETS = ("builtins.set", "builtins.frozenset")
_PROTOCOL = 5
_STOPPED = sys.maxsize  # a position behind every pickle: STOP was seen
_CHECK_EVERY = 1 << 16  # opcodes between two looks at the limits


@dataclass(frozen=True)
class PickleResult:
    """What one pickle holds.

    ``value`` is the root node, ``end`` the position behind STOP, ``globals`` every name once, at its first
    use, and ``persistent_ids`` every reference out of the pickle, used or not.
    """

    value: object
    end: int
    globals: tuple[Global, ...]
    persistent_ids: tuple[PersistentId, ...]


def run(
    data: bytes, *, subject: str, member: str, limits: Limits, start: int = 0, module_ids: bool = False
) -> PickleResult:
    """Interpret the pickle that begins at ``start`` and return its nodes.

    ``subject`` (the file) and ``member`` (its part) word the errors. ``module_ids`` reads the persistent ids
    ``('module', class, ...)`` of torch before 1.6 as that class. Raises FormatError: CKPT703 where a limit
    is exceeded, CKPT702 where a broken pickle names code to run, CKPT002 for every other fault.
    """
    machine = _Machine(data, subject, member, limits, start, module_ids)
    try:
        return machine.run()
    except FormatError as error:
        running = sorted(g.name for g in machine.globals.values() if g.verdict == "dangerous")
        if not running:
            raise
        reason = f"names {', '.join(running[:5])}, which runs code, and is broken: {error.reason}"
        raise FormatError(subject, reason, "do not load it", code="CKPT702") from None


class _Machine(_Literals):
    """The stack machine. A handler gets the position behind its opcode and returns that of the next one."""

    def __init__(self, data: bytes, subject: str, member: str, limits: Limits, start: int, module_ids: bool) -> None:
        super().__init__(data, subject, member, limits)
        self.start = start
        self.module_ids = module_ids
        self.below: list[list[object]] = []  # the stacks under the open marks
        self.memo: dict[int, object] = {}
        self.refs: dict[str, GlobalRef] = {}
        self.globals: dict[str, Global] = {}
        self.persistent_ids: list[PersistentId] = []
        self.executed = 0
        self.end = -1
        self.in_frame = False
        self.table: list[Callable[[int], int]] = [self.refuse] * 256
        for opcode, name in _HANDLERS.items():
            self.table[opcode] = getattr(self, name)

    # -- the loop ---------------------------------------------------------------------------------------

    def run(self) -> PickleResult:
        start = self.start
        if self.data[start : start + 1] != b"\x80":
            self.malformed(start, "does not begin with a protocol number")
        self.run_until(start, len(self.data))
        if self.end < 0:
            self.malformed(len(self.data), "ends without STOP")
        return PickleResult(self.stack[0], self.end, tuple(self.globals.values()), tuple(self.persistent_ids))

    def run_until(self, pos: int, end: int) -> None:
        """Run the opcodes from ``pos`` to ``end``, which has to be the end of one of them, or to STOP."""
        table, data, ran = self.table, self.data, 0
        try:
            while pos < end:
                pos = table[data[pos]](pos + 1)
                ran += 1
                if ran == _CHECK_EVERY:
                    self.check_limits(ran)
                    ran = 0
        except (IndexError, struct.error):
            self.malformed(pos, "ends, or its stack does, in the middle of an opcode")
        except KeyError:
            self.malformed(pos, "uses a memo entry that was never stored")
        except UnicodeDecodeError:
            self.malformed(pos, "holds text that is not UTF-8")
        if pos > end and self.end < 0:
            self.malformed(end, "ends in the middle of an opcode")
        self.check_limits(ran)

    def check_limits(self, ran: int) -> None:
        limits = self.limits
        self.executed += ran
        depth = len(self.stack) + sum(map(len, self.below))
        for count, limit, what in (
            (self.executed, limits.pickle_opcodes, "opcodes"),
            (len(self.memo), limits.memo_entries, "memo entries"),
            (depth, limits.stack_depth, "stack entries"),
        ):
            if count > limit:
                self.exceeded(f"more than {limit:,} {what}")

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

    # -- marks and memo ---------------------------------------------------------------------------------

    def mark(self, pos: int) -> int:
        self.below.append(self.stack)
        if len(self.below) > self.limits.open_marks:
            self.exceeded(f"more than {self.limits.open_marks:,} open marks")
        self.stack = []
        return pos

    def pop_mark(self) -> list[object]:
        items = self.stack
        self.stack = self.below.pop()
        return items

    def binput(self, pos: int) -> int:
        self.memo[self.data[pos]] = self.stack[-1]
        return pos + 1

    def long_binput(self, pos: int) -> int:
        self.memo[_UINT32(self.data, pos)[0]] = self.stack[-1]
        return pos + 4

    def memoize(self, pos: int) -> int:
        self.memo[len(self.memo)] = self.stack[-1]
        return pos

    def binget(self, pos: int) -> int:
        self.stack.append(self.memo[self.data[pos]])
        return pos + 1

    def long_binget(self, pos: int) -> int:
        self.stack.append(self.memo[_UINT32(self.data, pos)[0]])
        return pos + 4

    # -- containers -------------------------------------------------------------------------------------

    def empty_list(self, pos: int) -> int:
        self.stack.append([])
        return pos

    def empty_dict(self, pos: int) -> int:
        self.stack.append(PDict())
        return pos

    def empty_set(self, pos: int) -> int:
        self.stack.append(PSet([]))
        return pos

    def frozenset(self, pos: int) -> int:
        items = self.pop_mark()
        self.stack.append(PSet(items))
        return pos

    def empty_tuple(self, pos: int) -> int:
        self.stack.append(())
        return pos

    def tuple_(self, pos: int) -> int:
        items = tuple(self.pop_mark())
        self.stack.append(items)
        return pos

    def tuple1(self, pos: int) -> int:
        stack = self.stack
        stack[-1] = (stack[-1],)
        return pos

    def tuple2(self, pos: int) -> int:
        stack = self.stack
        last = stack.pop()
        stack[-1] = (stack[-1], last)
        return pos

    def tuple3(self, pos: int) -> int:
        stack = self.stack
        last = stack.pop()
        middle = stack.pop()
        stack[-1] = (stack[-1], middle, last)
        return pos

    def append(self, pos: int) -> int:
        item = self.stack.pop()
        self.extend(pos, [item])
        return pos

    def appends(self, pos: int) -> int:
        self.extend(pos, self.pop_mark())
        return pos

    def extend(self, pos: int, items: list[object]) -> None:
        target = self.stack[-1]
        if isinstance(target, Call) and _may_fill(target, SEQUENCE_CLASSES):
            target.items = target.items or []
            target.items.extend(items)
        elif isinstance(target, list):
            target.extend(items)
        elif isinstance(target, PSet):
            target.items.extend(items)
        else:
            self.malformed(pos - 1, "appends to something that is no list")

    def setitem(self, pos: int) -> int:
        value = self.stack.pop()
        key = self.stack.pop()
        self.store(pos, [key], [value])
        return pos

    def setitems(self, pos: int) -> int:
        items = self.pop_mark()
        if len(items) % 2:
            self.malformed(pos - 1, "stores a key without a value")
        self.store(pos, items[::2], items[1::2])
        return pos

    def store(self, pos: int, keys: list[object], values: list[object]) -> None:
        target = self.stack[-1]
        if isinstance(target, Call) and _may_fill(target, MAPPING_CLASSES):
            target.pairs = target.pairs or PDict()
            target = target.pairs
        if not isinstance(target, PDict):
            self.malformed(pos - 1, "stores an item in something that is no dict")
        target.pairs.extend(zip(keys, values, strict=True))
        seen, longest = target.seen, self.limits.key_bytes
        for key in keys:
            identity = key if type(key) is str else identity_of(key, longest)
            if identity is None:
                self.malformed(pos - 1, f"uses a {type(key).__name__} as a dict key")
            if identity in seen:
                self.malformed(pos - 1, f"stores the key {_shown(key)} twice in one dict")
            seen.add(identity)
            if type(key) is str and len(key) > longest:
                self.exceeded(f"a dict key of {len(key):,} characters")

    # -- globals and calls ------------------------------------------------------------------------------

    def global_(self, pos: int) -> int:
        limit = pos + self.limits.global_bytes
        middle = self.data.find(b"\n", pos, limit)
        end = self.data.find(b"\n", middle + 1, limit) if middle >= 0 else -1
        if end < 0:
            self.malformed(pos - 1, "names a global without an end")
        self.push_global(pos - 1, self.data[pos:middle].decode(), self.data[middle + 1 : end].decode())
        return end + 1

    def stack_global(self, pos: int) -> int:
        attribute = self.stack.pop()
        module = self.stack.pop()
        if not isinstance(attribute, str) or not isinstance(module, str):
            self.malformed(pos - 1, "names a global by something that is no text")
        if len(attribute) + len(module) > self.limits.global_bytes:
            self.malformed(pos - 1, "names a global without an end")
        self.push_global(pos - 1, module, attribute)
        return pos

    def push_global(self, pos: int, module: str, attribute: str) -> None:
        if not (module.isascii() and attribute.isascii() and module.isprintable() and attribute.isprintable()):
            self.malformed(pos, "names a global by other than printable ASCII")
        if not (module and attribute):
            self.malformed(pos, "names a global without a name")
        name = full_name(module, attribute)
        ref = self.refs.get(name)
        if ref is None:
            ref = self.refs[name] = GlobalRef(name)
            self.globals[name] = Global(name, classify(name), self.member, pos)
        self.stack.append(ref)

    def binpersid(self, pos: int) -> int:
        pid = self.stack.pop()
        if self.module_ids and isinstance(pid, tuple) and len(pid) == 4 and pid[0] == "module":
            if not isinstance(pid[1], GlobalRef):
                self.malformed(pos - 1, "refers to a module class that is no class")
            self.stack.append(pid[1])
            return pos
        node = PersistentId(pid)
        self.persistent_ids.append(node)
        self.stack.append(node)
        return pos

    def reduce(self, pos: int) -> int:
        args = self.stack.pop()
        self.stack[-1] = self.call(pos, self.stack[-1], args)
        return pos

    def newobj_ex(self, pos: int) -> int:
        kwargs = self.stack.pop()
        args = self.stack.pop()
        if not isinstance(kwargs, PDict):
            self.malformed(pos - 1, "makes an object with keywords that are no dict")
        node = self.call(pos, self.stack[-1], args)
        if isinstance(node, Call):
            node.kwargs = kwargs
        self.stack[-1] = node
        return pos

    def call(self, pos: int, fn: object, args: object) -> object:
        if not isinstance(fn, GlobalRef):
            self.malformed(pos - 1, "calls something that it does not name")
        if not isinstance(args, tuple):
            self.malformed(pos - 1, f"calls {fn.name} with arguments that are no tuple")
        if fn.name == "_codecs.encode":
            return self.encoded(pos, args)
        if fn.name == "builtins.bytes" and not args:
            return b""  # as protocols below 3 write it
        if fn.name in _SETS and len(args) == 1 and isinstance(args[0], list):
            return PSet(args[0])
        if args and fn.name in _ALLOCATING and not isinstance(args[0], str | bytes):
            self.malformed(pos - 1, f"allocates memory: it calls {fn.name}")
        return Call(fn, args)

    def encoded(self, pos: int, args: tuple[object, ...]) -> bytes:
        """Protocols below 3 write bytes as text to be encoded; other codecs than these can take forever."""
        text, codec = args if len(args) == 2 else (None, None)
        if not isinstance(text, str) or codec not in _TEXT_CODECS:
            self.malformed(pos - 1, "calls _codecs.encode with other than text and a plain codec")
        try:
            return text.encode(str(codec))
        except UnicodeEncodeError:
            self.malformed(pos - 1, "encodes text that does not fit its codec")

    def build(self, pos: int) -> int:
        state = self.stack.pop()
        target = self.stack[-1]
        if not isinstance(target, Call):
            self.malformed(pos - 1, "sets the state of something that is no object")
        if target.state is not None:
            self.malformed(pos - 1, f"sets the state of one {target.name} twice")
        target.state = state
        return pos


def _may_fill(call: Call, classes: frozenset[str]) -> bool:
    """Tell whether items may be stored in a call's result: a known container, or a class of the user's.

    What torch's own list allows and is no container (a tensor, a Size) must not be written to: that is how
    CVE-2026-24747 corrupts the memory of torch before 2.10.
    """
    return call.name in classes or classify(call.name) in ("refused", "dangerous")


def _shown(key: object) -> str:
    text = ascii(key)
    return text if len(text) <= 80 else f"{text[:77]}..."


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
    ord("a"): "append", ord("e"): "appends", 0x90: "appends", ord("s"): "setitem", ord("u"): "setitems",
    ord("c"): "global_", 0x93: "stack_global", ord("Q"): "binpersid",
    ord("R"): "reduce", 0x81: "reduce", 0x92: "newobj_ex", ord("b"): "build",
}  # fmt: skip
