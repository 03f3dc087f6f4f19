"""One operation after another, as one: ``reshape(8,64,512)|permute(0,2,1)|reshape(8,512,64)``."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cached_property

from ...manifest import TensorSpec
from ...records import dataclass
from .base import Misfit, Op, Specs
from .joins import Concat, Split, Stack, Unstack
from .layout import Permute, Reshape, RopePermute, Transpose
from .values import Part, Slice


def _slice(dim: int, start: int, stop: int) -> Slice:
    return Slice(dim, start, stop)


_STEP = re.compile(r"([a-z_]+)(?:\(\s*(-?\d+(?:\s*,\s*-?\d+)*)?\s*\))?")
_MAKERS: dict[str, Callable[..., Op]] = {
    "transpose": lambda *dims: Transpose(dims or (0, 1)),
    "permute": lambda *dims: Permute(dims),
    "reshape": lambda *shape: Reshape(shape),
    "part": Part,
    "chunk": Part,
    "slice": _slice,
    "split": lambda dim, parts: Split(dim, (), parts),
    "cut": lambda dim, *sizes: Split(dim, sizes),
    "concat": lambda dim=0: Concat(dim),
    "stack": lambda dim=0: Stack(dim),
    "unstack": lambda dim=0: Unstack(dim),
    "rope_permute": lambda heads, inverse=0: RopePermute(heads, bool(inverse)),
}


def read_steps(text: str) -> tuple[Op, ...]:
    """Read operations joined by ``|``; ``copy`` and the empty text are none. Raises ValueError."""
    steps = []
    for piece in map(str.strip, text.split("|")):
        if piece in ("", "copy"):
            continue
        match = _STEP.fullmatch(piece)
        if match is None or match[1] not in _MAKERS:
            raise ValueError(f"{piece!r} is no step; steps are {', '.join(_MAKERS)}")
        numbers = tuple(map(int, match[2].split(","))) if match[2] else ()
        try:
            steps.append(_MAKERS[match[1]](*numbers))
        except TypeError:
            raise ValueError(f"{piece!r} does not have the numbers of its step") from None
    return tuple(steps)


def write_steps(ops: Sequence[Op]) -> str:
    """Write operations as ``read_steps`` reads them. Raises Misfit for one that has no place in a chain."""
    return "|".join(map(_write, ops)) or "copy"


def _write(op: Op) -> str:
    numbers: tuple[int, ...]
    if isinstance(op, Split):
        return f"cut({','.join(map(str, (op.dim, *op.sizes)))})" if op.sizes else f"split({op.dim},{op.parts})"
    if isinstance(op, (Transpose, Permute)):
        numbers = op.dims
    elif isinstance(op, Reshape):
        numbers = op.shape
    elif isinstance(op, Part):
        numbers = (op.dim, op.index, op.parts)
    elif isinstance(op, Slice) and op.stop is not None:
        numbers = (op.dim, op.start, op.stop)
    elif isinstance(op, (Concat, Stack, Unstack)):
        numbers = (op.dim,)
    elif isinstance(op, RopePermute):
        numbers = (op.heads, int(op.inverse))
    else:
        raise Misfit(f"cannot go through {op.word} in a chain")
    return f"{op.word}({','.join(map(str, numbers))})"


@dataclass(frozen=True)
class Chain(Op):
    """Several operations in order; one that joins takes all tensors, one that splits the only one, others each."""

    steps: str
    word = "chain"

    @cached_property
    def ops(self) -> tuple[Op, ...]:
        """The operations."""
        return read_steps(self.steps)

    @property
    def joins(self) -> bool:  # type: ignore[override]
        """Whether it begins with several tensors."""
        return bool(self.ops) and self.ops[0].joins

    @property
    def splits(self) -> bool:  # type: ignore[override]
        """Whether it ends with several: the last that splits comes after the last that joins."""
        kinds = [op.splits for op in self.ops if op.splits or op.joins]
        return bool(kinds) and kinds[-1]

    def shapes(self, inputs: Specs) -> tuple[TensorSpec, ...]:
        """Those of the last operation."""
        return self._stages(inputs)[-1]

    def _stages(self, inputs: Specs) -> list[tuple[TensorSpec, ...]]:
        """Describe the tensors before each operation, and after the last."""
        stages = [tuple(inputs)]
        for op in self.ops:
            now = stages[-1]
            if op.splits and len(now) != 1:
                raise Misfit(f"goes through {op.word}, which takes one tensor, as {len(now):,}")
            results = op.shapes(now) if op.joins or op.splits else [op.shapes((spec,))[0] for spec in now]
            stages.append(tuple(results))
        return stages

    def exact(self, inputs: Specs) -> bool:
        """Tell whether every step is."""
        stages = self._stages(inputs)
        return all(_by_one(op, now) for op, now in zip(self.ops, stages, strict=False))

    def undo(self, inputs: Specs) -> Op | None:
        """Go back step by step, where each has one way back for all its tensors."""
        back: list[Op] = []
        for op, now in zip(self.ops, self._stages(inputs), strict=False):
            ways = {op.undo(now)} if op.joins or op.splits else {op.undo((spec,)) for spec in now}
            way = ways.pop()
            if ways or way is None:
                return None
            back.insert(0, way)
        return Chain(write_steps(back))


def _by_one(op: Op, now: Specs) -> bool:
    return op.exact(now) if op.joins or op.splits else all(op.exact((spec,)) for spec in now)
