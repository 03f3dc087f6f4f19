"""Changes to pickles that know opcodes: whole ones are moved, and whole values take the place of others."""

from __future__ import annotations

import pickletools
from functools import lru_cache
from random import Random

import fuzz_pickles as made
from fuzz_bytes import NUMBERS, mutate_bytes

Ops = list[bytes]
Range = tuple[int, int]

_GLOBAL = 0x63
_ALIKE = (
    (b"R", b"\x81"),  # REDUCE, NEWOBJ
    (b"]", b"}", b")", b"\x8f"),
    (b"N", b"\x88", b"\x89", b"K\x01", b")"),
    (b"t", b"l", b"d", b"\x91"),
    (b"a", b"\x85", b"\x86"),
    (b"s", b"\x87"),
    (b"u", b"e", b"\x90", b"t"),
    (b"b", b"R", b"a", b"\x86"),
    (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"\x80\x06", b"\x80\x01"),
)
_ALTERNATIVES = {op: group for group in _ALIKE for op in group}


def split(data: bytes, start: int = 0) -> tuple[Ops, int] | None:
    """Return the opcodes with their arguments and the position behind STOP; frames are left out."""
    found = _split(data, start)
    return (list(found[0]), found[1]) if found else None


@lru_cache(maxsize=3000)
def _split(data: bytes, start: int) -> tuple[tuple[bytes, ...], int] | None:
    starts, frames = [], set()
    try:
        for opcode, _, position in pickletools.genops(memoryview(data)[start:].tobytes()):
            if opcode.name == "FRAME":
                frames.add(len(starts))
            starts.append(start + (position or 0))
    except Exception:  # genops raises whatever its readers raise
        return None
    end = starts[-1] + 1
    bounds = zip(starts, [*starts[1:], end], strict=True)
    return tuple(data[a:b] for number, (a, b) in enumerate(bounds) if number not in frames), end


def values(ops: Ops) -> list[Range]:
    """Return the ranges of opcodes that push one value each, inner ones first."""
    found: list[Range] = []
    stack: list[int] = []  # where each value on the stack begins
    marks: list[int] = []
    for index, op in enumerate(ops):
        opcode = pickletools.code2op.get(chr(op[0]))
        if opcode is None:
            continue
        start = index
        if opcode.name == "MARK":
            marks.append(len(stack))
            stack.append(index)
            continue
        before = opcode.stack_before
        if pickletools.markobject in before:
            depth = marks.pop() if marks else 0
            start = min([index, *stack[depth:]])
            del stack[depth:]
            before = before[: before.index(pickletools.markobject)]
        for _ in before:
            start = min(start, stack.pop() if stack else index)
        for _ in opcode.stack_after:
            stack.append(start)
            found.append((start, index + 1))
    return found


def _replace_value(rng: Random, ops: Ops, others: list[Ops]) -> Ops:
    start, end = rng.choice(values(ops) or [(0, 1)])
    drawn = rng.random()
    if drawn < 0.4:
        return [*ops[:start], made.value(rng, 2), *ops[end:]]
    donor = rng.choice([ops, *others])
    first, last = rng.choice(values(donor) or [(0, 1)])
    return [*ops[:start], *donor[first:last], *ops[end:]]


def _swap_values(rng: Random, ops: Ops, others: list[Ops]) -> Ops:
    found = values(ops)
    if len(found) < 2:
        return ops
    (a, b), (c, d) = sorted(rng.sample(found, 2))
    return [*ops[:a], *ops[c:d], *ops[b:c], *ops[a:b], *ops[d:]] if b <= c else ops


def _drop_ops(rng: Random, ops: Ops, others: list[Ops]) -> Ops:
    at = rng.randrange(len(ops))
    return ops[:at] + ops[at + rng.choice((1, 1, 1, 2, 5)) :]


def _repeat_ops(rng: Random, ops: Ops, others: list[Ops]) -> Ops:
    at = rng.randrange(len(ops))
    part = ops[at : at + rng.choice((1, 1, 2, 3, 8))]
    return ops[:at] + part * rng.choice((2, 2, 3, 50)) + ops[at + len(part) :]


def _swap_ops(rng: Random, ops: Ops, others: list[Ops]) -> Ops:
    a, b = rng.randrange(len(ops)), rng.randrange(len(ops))
    ops[a], ops[b] = ops[b], ops[a]
    return ops


def _insert(rng: Random, ops: Ops, others: list[Ops]) -> Ops:
    at = rng.randrange(len(ops) + 1)
    put = b"q" + bytes([rng.randrange(4)])
    new = rng.choice(
        (
            made.value(rng, 2),
            made.tensor(rng, 1),
            b"(",
            b"0",
            b"2",
            b"1",
            b"\x94",
            put,
            b"h\x00",
            b"s",
            b"a",
            b"b",
            b"R",
        )
    )
    return [*ops[:at], new, *ops[at:]]


def _alike(rng: Random, ops: Ops, others: list[Ops]) -> Ops:
    places = [index for index, op in enumerate(ops) if op in _ALTERNATIVES]
    if places:
        at = rng.choice(places)
        ops[at] = rng.choice(_ALTERNATIVES[ops[at]])
    return ops


def _argument(rng: Random, ops: Ops, others: list[Ops]) -> Ops:
    """Change the argument of one opcode, by its kind."""
    places = [index for index, op in enumerate(ops) if len(op) > 1]
    if not places:
        return ops
    at = rng.choice(places)
    op, letter = ops[at], chr(ops[at][0])
    if letter in "JKM\x8aI":
        ops[at] = made.integer(rng.choice((*NUMBERS, 1, 2, 3, 4, 6, 8)), rng)
    elif letter == "c":
        ops[at] = made.name(made.random_name(rng), rng)
    elif letter in "X\x8c":
        texts = [other for other in ops if other[:1] in (b"X", b"\x8c")]
        ops[at] = rng.choice((made.text(rng.choice(made.TEXTS)), rng.choice(texts), mutate_bytes(rng, op)))
    elif letter in "qrhj":
        ops[at] = (
            letter.encode() + bytes([rng.choice((0, 1, 2, rng.randrange(256)))]) + bytes(3 if letter in "rj" else 0)
        )
    else:
        ops[at] = mutate_bytes(rng, op)
    return ops


def _kin(rng: Random, ops: Ops, others: list[Ops]) -> Ops:
    """Let a global become another of its kind: a storage another storage, a rebuilder another rebuilder."""
    places = [index for index, op in enumerate(ops) if op[0] == _GLOBAL]
    if places:
        at = rng.choice(places)
        full = ops[at][1:-1].replace(b"\n", b".").decode("utf-8", "replace")
        kind = next((kind for kind in made.KINDS if full in kind), made.KINDS[0])
        ops[at] = made.name(rng.choice(kind), rng)
    return ops


_CHANGES = (
    *(_replace_value, _replace_value, _replace_value, _swap_values, _drop_ops, _repeat_ops, _swap_ops, _insert),
    *(_insert, _alike, _alike, _argument, _argument, _argument, _argument, _kin, _kin),
)


def mutate_pickle(rng: Random, data: bytes, others: list[bytes]) -> bytes:
    """Return a pickle with a few changes, at times a new one, at times one that is no pickle any more."""
    drawn = rng.random()
    if drawn < 0.05:
        return made.program(rng)
    parts = split(data)
    if parts is None or drawn < 0.12:
        return mutate_bytes(rng, data, rng.choice(others) if others else b"")
    ops, end = parts
    donors = [found[0] for found in map(split, rng.sample(others, min(1, len(others)))) if found]
    for _ in range(rng.choice((1, 1, 1, 1, 2, 2, 3, 6))):
        ops = [op for op in rng.choice(_CHANGES)(rng, ops, donors) if op] or [b"."]
    return b"".join(ops) + data[end:]
