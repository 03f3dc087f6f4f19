"""The part of the pickle machine that holds what was pushed: marks, the memo, and containers."""

from __future__ import annotations

import struct

from ..base import Limits
from . import prices
from .globals import classify
from .literals import _Literals
from .nodes import MAPPING_CLASSES, SEQUENCE_CLASSES, Call, PDict, PSet, identity_of, shown

CHECK_EVERY = 1 << 14  # opcodes between two looks at the limits
_UINT32 = struct.Struct("<I").unpack_from


class _Containers(_Literals):
    """Handlers of the opcodes that mark, memoize, and fill containers. They are filled in place, as in any pickle."""

    def __init__(self, data: bytes, subject: str, member: str, limits: Limits) -> None:
        super().__init__(data, subject, member, limits)
        self.below: list[list[object]] = []  # the stacks under the open marks
        self.memo: list[object] = []  # picklers number its entries in a row
        self.far: dict[int, object] = {}  # entries out of the row
        self.executed = 0  # opcodes; what takes as long as several counts as several
        self.next_check = 0
        self.most_marks = limits.open_marks

    def work(self, opcodes: int) -> None:
        """Count an opcode that takes as long as several."""
        self.executed += opcodes
        if self.executed >= self.next_check:
            self.check_limits()

    def check_limits(self) -> None:
        self.next_check = self.executed + CHECK_EVERY
        self.charge(0)
        limits = self.limits
        for count, name, what in (
            (self.executed, "pickle_opcodes", "opcodes"),
            (len(self.memo) + len(self.far), "memo_entries", "memo entries"),
            (len(self.stack) + sum(map(len, self.below)), "stack_depth", "stack entries"),
        ):
            limit = getattr(limits, name)
            if count > limit:
                self.exceeded(f"more than {limit:,} {what}", name)

    # -- marks and memo ---------------------------------------------------------------------------------

    def mark(self, pos: int) -> int:
        below = self.below
        below.append(self.stack)
        if len(below) > self.most_marks:
            self.exceeded(f"more than {self.limits.open_marks:,} open marks", "open_marks")
        self.stack = []
        return pos

    def pop_mark(self) -> list[object]:
        items = self.stack
        self.stack = self.below.pop()
        return items

    def put(self, index: int) -> None:
        memo = self.memo
        if index < len(memo):
            memo[index] = self.stack[-1]
        elif index > len(memo) or index in self.far:
            self.far[index] = self.stack[-1]
            self.memory += prices.FAR
        else:
            memo.append(self.stack[-1])

    def binput(self, pos: int) -> int:
        self.put(self.data[pos])
        return pos + 1

    def long_binput(self, pos: int) -> int:
        self.put(_UINT32(self.data, pos)[0])
        return pos + 4

    def memoize(self, pos: int) -> int:
        self.put(len(self.memo) + len(self.far))
        return pos

    def get(self, index: int) -> object:
        return self.memo[index] if index < len(self.memo) else self.far[index]

    def binget(self, pos: int) -> int:
        self.stack.append(self.get(self.data[pos]))
        return pos + 1

    def long_binget(self, pos: int) -> int:
        self.stack.append(self.get(_UINT32(self.data, pos)[0]))
        return pos + 4

    # -- containers -------------------------------------------------------------------------------------

    def empty_list(self, pos: int) -> int:
        self.memory += prices.LIST
        self.stack.append([])
        return pos

    def empty_dict(self, pos: int) -> int:
        self.memory += prices.DICT
        self.executed += 1
        self.stack.append(PDict())
        return pos

    def empty_set(self, pos: int) -> int:
        self.memory += prices.LIST + prices.NODE
        self.stack.append(PSet([]))
        return pos

    def frozenset(self, pos: int) -> int:
        items = self.pop_mark()
        self.memory += prices.LIST + prices.NODE + prices.ITEM * len(items)
        self.stack.append(PSet(items, frozen=True))
        return pos

    def empty_tuple(self, pos: int) -> int:
        self.stack.append(())
        return pos

    def tuple_(self, pos: int) -> int:
        items = tuple(self.stack)
        self.memory += prices.TUPLE + prices.ITEM * len(items)
        self.stack = stack = self.below.pop()
        stack.append(items)
        return pos

    def tuple1(self, pos: int) -> int:
        self.memory += prices.TUPLE + prices.ITEM
        stack = self.stack
        stack[-1] = (stack[-1],)
        return pos

    def tuple2(self, pos: int) -> int:
        self.memory += prices.TUPLE + 2 * prices.ITEM
        stack = self.stack
        last = stack.pop()
        stack[-1] = (stack[-1], last)
        return pos

    def tuple3(self, pos: int) -> int:
        self.memory += prices.TUPLE + 3 * prices.ITEM
        stack = self.stack
        last = stack.pop()
        middle = stack.pop()
        stack[-1] = (stack[-1], middle, last)
        return pos

    def append(self, pos: int) -> int:
        stack = self.stack
        item = stack.pop()
        target = stack[-1]
        if type(target) is list:
            self.memory += prices.ITEM
            target.append(item)
        else:
            self.extend(pos, [item])
        return pos

    def appends(self, pos: int) -> int:
        self.extend(pos, self.pop_mark())
        return pos

    def extend(self, pos: int, items: list[object]) -> None:
        self.memory += prices.ITEM * len(items)
        target = self.stack[-1]
        if isinstance(target, list):
            target.extend(items)
        elif isinstance(target, Call) and _may_fill(target, SEQUENCE_CLASSES):
            if target.items is None:
                self.memory += prices.LIST
                target.items = []
            target.items.extend(items)
        else:
            self.malformed(pos - 1, "appends to something that is no list")

    def additems(self, pos: int) -> int:
        items = self.pop_mark()
        target = self.stack[-1]
        if isinstance(target, PSet):
            self.memory += prices.ITEM * len(items)
            target.items.extend(items)
        elif isinstance(target, Call):
            self.extend(pos, items)
        else:
            self.malformed(pos - 1, "adds items to something that is no set")
        return pos

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
            if target.pairs is None:
                self.memory += prices.DICT
                target.pairs = PDict()
            target = target.pairs
        if not isinstance(target, PDict):
            self.malformed(pos - 1, "stores an item in something that is no dict")
        self.fill(pos, target, keys, values)

    def fill(self, pos: int, target: PDict, keys: list[object], values: list[object]) -> None:
        self.charge(prices.PAIR * len(keys))
        self.executed += 2 * len(keys)
        table, longest = target.table, self.limits.key_bytes
        for key, value in zip(keys, values, strict=True):
            if type(key) is not str:
                identity = self.identify(pos, key)
            elif len(key) <= longest:
                identity = key
            else:
                self.exceeded(f"a dict key of {len(key):,} characters", "key_bytes")
            if identity in table:
                self.malformed(pos - 1, f"stores the key {shown(key)} twice in one dict")
            if identity is key:
                table[key] = value
            else:
                target.add(key, identity, value)

    def identify(self, pos: int, key: object) -> object:
        """Return what tells a key that is no text from the others."""
        identity, cost = identity_of(key, self.limits.key_bytes)
        self.work(cost)
        if identity is None:
            self.malformed(pos - 1, f"uses a {type(key).__name__} as a dict key")
        if identity is not key:
            self.memory += prices.DICT + prices.PAIR + 16 * cost
        return identity


def _may_fill(call: Call, classes: frozenset[str]) -> bool:
    """Tell whether items may be stored in a call's result: a known container, or a class of the user's.

    What torch's own list allows and is no container (a tensor, a Size) must not be written to: that is how
    CVE-2026-24747 corrupts the memory of torch before 2.10.
    """
    return call.name in classes or classify(call.name) in ("refused", "dangerous")
