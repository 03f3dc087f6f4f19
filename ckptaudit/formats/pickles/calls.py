"""The part of the pickle machine that names globals and calls them: inert nodes, and nothing is called."""

from __future__ import annotations

import collections
from typing import Any

from ...records import replace
from ..base import Global, Limits
from . import prices
from .containers import _Containers
from .globals import TENSOR_CALLS, classify, full_name
from .nodes import (
    MAPPING_CLASSES,
    Call,
    GlobalRef,
    PDict,
    PersistentId,
    PSet,
    items_of_list,
    settled,
    shown,
)
from .value_calls import JUDGED_CALLS, TEXT_CODECS, call_fault

_DICT_METHODS = sorted({*dir(collections.OrderedDict), *dir(collections.Counter)})
_SETS = ("builtins.set", "builtins.frozenset")
_SETTLED = {"torch._tensor._rebuild_from_type_v2", "torch._utils._rebuild_parameter_with_state", "torch.Size"}
_LOOKED_AT = {  # calls whose arguments matter
    *("_codecs.encode", "builtins.bytes"), *JUDGED_CALLS, *_SETS, *MAPPING_CLASSES, *_SETTLED
}  # fmt: skip
_NEW_TAKES = {"builtins.complex", "torch.Size", "torch.device", "torch.nn.parameter.Parameter"}  # their __new__
_PLAIN = ("allowed", "inert")
_NAME = 64  # opcodes that take as long as to judge a new name
_FILLED_LATER = frozenset({list, PDict})
_LONG = frozenset({str, bytes, bytearray, list, tuple})
_ARGUMENTS = 8  # that an opcode has time for
_LOOKUP = 4  # opcodes that take as long as to look up a name


class _Calls(_Containers):
    """Handlers of the opcodes that name globals, refer out of the pickle, make objects and set their state."""

    def __init__(self, data: bytes, subject: str, member: str, limits: Limits, module_ids: bool) -> None:
        super().__init__(data, subject, member, limits)
        self.module_ids = module_ids
        self.named: dict[bytes | tuple[str, str], GlobalRef] = {}
        self.refs: dict[str, GlobalRef] = {}
        self.globals: dict[str, Global] = {}
        self.persistent_ids: list[PersistentId] = []
        self.rebuilt: list[Call] = []
        self.storages = 0  # persistent ids, of the whole file

    # -- globals and calls ------------------------------------------------------------------------------

    def global_(self, pos: int) -> int:
        limit = pos + self.limits.global_bytes
        middle = self.data.find(b"\n", pos, limit)
        end = self.data.find(b"\n", middle + 1, limit) if middle >= 0 else -1
        if end < 0:
            self.malformed(pos - 1, "names a global without an end")
        text = self.data[pos:end]
        ref = self.named.get(text)
        if ref is None:
            ref = self.named[text] = self.new_global(
                pos - 1, self.data[pos:middle].decode(), self.data[middle + 1 : end].decode()
            )
        self.executed += _LOOKUP
        self.stack.append(ref)
        return end + 1

    def stack_global(self, pos: int) -> int:
        attribute = self.stack.pop()
        module = self.stack.pop()
        if not isinstance(attribute, str) or not isinstance(module, str):
            self.malformed(pos - 1, "names a global by something that is no text")
        if len(attribute) + len(module) > self.limits.global_bytes:
            self.malformed(pos - 1, "names a global without an end")
        ref = self.named.get((module, attribute))
        if ref is None:
            ref = self.named[module, attribute] = self.new_global(pos - 1, module, attribute)
        self.executed += _LOOKUP
        self.stack.append(ref)
        return pos

    def new_global(self, pos: int, module: str, attribute: str) -> GlobalRef:
        if not (module.isascii() and attribute.isascii() and module.isprintable() and attribute.isprintable()):
            self.malformed(pos, "names a global by other than printable ASCII")
        if not (module and attribute):
            self.malformed(pos, "names a global without a name")
        if len(self.named) >= self.limits.globals:
            self.exceeded(f"more than {self.limits.globals:,} names of globals", "globals")
        self.executed += _NAME
        self.memory += 16 * _NAME
        name = full_name(module, attribute)
        ref = self.refs.get(name)
        if ref is None:
            verdict = classify(name)
            ref = self.refs[name] = GlobalRef(name, verdict in _PLAIN and name not in _LOOKED_AT, name in TENSOR_CALLS)
            ref.bare = verdict in _PLAIN and name in MAPPING_CLASSES and call_fault(name, ()) is None
            self.globals[name] = Global(name, verdict, self.member, pos)
        return ref

    def binpersid(self, pos: int) -> int:
        pid = self.stack.pop()
        if self.module_ids and isinstance(pid, tuple) and len(pid) == 4 and pid[0] == "module":
            if not isinstance(pid[1], GlobalRef):
                self.malformed(pos - 1, "refers to a module class that is no class")
            self.stack.append(pid[1])
            return pos
        node = PersistentId(pid)
        self.memory += prices.NODE
        self.executed += 1
        self.persistent_ids.append(node)
        self.storages += 1
        if self.storages > self.limits.storages:
            self.exceeded(f"more than {self.limits.storages:,} references to storages", "storages")
        self.stack.append(node)
        return pos

    def reduce(self, pos: int) -> int:
        stack = self.stack
        args = stack.pop()
        fn = stack[-1]
        if type(fn) is GlobalRef and type(args) is tuple and (fn.simple or (fn.bare and not args)):
            self.memory += prices.CALL
            self.executed += 2
            if len(args) > _ARGUMENTS:
                self.work(len(args) // _ARGUMENTS)
            if not _FILLED_LATER.isdisjoint(map(type, args)):
                args = self.settle(args)
            stack[-1] = node = Call(fn, args)
            if fn.tensor:
                self.rebuilt.append(node)
        else:
            stack[-1] = self.call(pos, fn, args)
        return pos

    def newobj(self, pos: int) -> int:
        self.check_new(pos, self.stack[-2], self.stack[-1])
        return self.reduce(pos)

    def check_new(self, pos: int, fn: object, args: object) -> None:
        """Refuse arguments that are lost: ``__new__`` of a dict or a set does nothing with them."""
        if args == () or not isinstance(fn, GlobalRef) or fn.name in _NEW_TAKES:
            return
        if fn.name in MAPPING_CLASSES or self.globals[fn.name].verdict == "allowed":
            self.malformed(pos - 1, f"makes one {fn.name} by NEWOBJ with arguments")

    def newobj_ex(self, pos: int) -> int:
        kwargs = self.stack.pop()
        args = self.stack.pop()
        self.check_new(pos, self.stack[-1], args)
        if not isinstance(kwargs, PDict):
            self.malformed(pos - 1, "makes an object with keywords that are no dict")
        node = self.call(pos, self.stack[-1], args)
        if not isinstance(node, Call):
            self.malformed(pos - 1, "makes an object with keywords where there is no class")
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
        self.work(4 + (self.length(args) // _ARGUMENTS if args else 0))
        fault = call_fault(fn.name, args)
        if fault:
            self.malformed(pos - 1, fault)
        if fn.name == "builtins.bytes" and not args:
            return b""  # as protocols below 3 write it
        self.memory += prices.CALL
        if fn.name in _SETS and args:
            return self.set_of(pos, fn, args[0])
        if fn.name in MAPPING_CLASSES and args:
            return self.mapping(pos, fn, args)
        if fn.name in _SETTLED:
            args = self.settle(args)
        named = self.globals[fn.name]
        if named.verdict not in _PLAIN and not named.call:
            self.globals[fn.name] = replace(named, call=shown(Call(fn, args)))
        node = Call(fn, args)
        if fn.tensor:
            self.rebuilt.append(node)
        return node

    def set_of(self, pos: int, fn: GlobalRef, given: object) -> PSet:
        """Take over the items that a set is made from, each of which has to be a possible one."""
        if not isinstance(given, list | tuple):
            self.malformed(pos - 1, f"makes one {fn.name} from something that is no list")
        self.charge(prices.LIST + prices.ITEM * len(given))
        for item in given:
            self.identify(pos, item)
        return PSet(list(given), fn.name == "builtins.frozenset")

    def length(self, args: tuple[Any, ...]) -> int:
        """Return how much there is to look at in the arguments of a call."""
        return len(args) + sum(len(item) for item in args[:_ARGUMENTS] if type(item) in _LONG)

    def mapping(self, pos: int, fn: GlobalRef, args: tuple[object, ...]) -> Call:
        """Take over the items that a mapping is made from; what becomes of the argument later is not its own."""
        call = Call(fn, args)
        factory = fn.name == "collections.defaultdict"
        if len(args) == 1 + factory:
            given = args[-1]
            items = items_of_list(given) if fn.name != "collections.Counter" else None  # which would count the pairs
            if items is None and not isinstance(given, PDict):
                self.malformed(pos - 1, f"makes one {fn.name} from something that is no dict and no list of pairs")
            self.charge(prices.DICT + (prices.PAIR * len(given.table) if isinstance(given, PDict) else 0))
            call.pairs = given.copy() if isinstance(given, PDict) else PDict()
            if items is not None:
                self.fill(pos, call.pairs, *items)
        elif not factory or len(args) > 2:
            self.malformed(pos - 1, f"makes one {fn.name} from {len(args)} arguments")
        return call

    def settle(self, args: tuple[object, ...]) -> tuple[object, ...]:
        """Take the arguments of a call as they are now."""
        for item in args:
            if isinstance(item, list):
                self.charge(prices.LIST + prices.ITEM * len(item))
            elif isinstance(item, PDict):
                self.charge(prices.DICT + prices.PAIR * len(item.table))
        return tuple(settled(item) for item in args)

    def encoded(self, pos: int, args: tuple[object, ...]) -> bytes:
        """Protocols below 3 write bytes as text to be encoded; other codecs than these can take forever."""
        text, codec = args if len(args) == 2 else (None, None)
        if not isinstance(text, str) or codec not in TEXT_CODECS:
            self.malformed(pos - 1, "calls _codecs.encode with other than text and a plain codec")
        self.charge(prices.BYTES + 4 * len(text))
        try:
            return self.noted(pos, text.encode(str(codec)))
        except UnicodeEncodeError:
            self.malformed(pos - 1, "encodes text that does not fit its codec")

    def build(self, pos: int) -> int:
        state = self.stack.pop()
        target = self.stack[-1]
        if not isinstance(target, Call):
            self.malformed(pos - 1, "sets the state of something that is no object")
        if target.state is not None:
            self.malformed(pos - 1, f"sets the state of one {target.name} twice")
        self.executed += 2
        if target.name in ("collections.OrderedDict", "collections.Counter"):
            if not isinstance(state, PDict):
                self.malformed(pos - 1, f"sets the state of one {target.name} to something that is no dict")
            (state,) = self.settle((state,))
        target.state = state
        if target.name in MAPPING_CLASSES and target.attributes is not None:
            table = target.attributes.table
            hidden = next((name for name in _DICT_METHODS if name in table), None)
            if hidden is not None:
                self.malformed(pos - 1, f"sets the attribute {hidden!r} of one {target.name}, which hides a method")
        if target.attributes is not None and self.globals[target.name].verdict in _PLAIN:
            self.check_attributes(pos, target.name, target.attributes)
        return pos

    def check_attributes(self, pos: int, name: str, attributes: PDict) -> None:
        """Refuse to have plain data be told what they are: their class, their methods."""
        for attribute, _ in attributes.pairs:
            if isinstance(attribute, str) and attribute.startswith("__"):
                self.malformed(pos - 1, f"sets the attribute {shown(attribute)} of one {name}")
