"""Several tensors in one, and one in several: split, concat, stack, unstack, interleave, deinterleave."""

from __future__ import annotations

from ...manifest import TensorSpec
from ...records import dataclass
from .base import MAX_TENSORS, Misfit, Op, Shape, Specs, axis, made, shape_text


def _same(inputs: Specs, free: int | None = None) -> None:
    """Raise Misfit unless all have one dtype and one shape, but for the dimension ``free``."""
    first = inputs[0]
    for spec in inputs[1:]:
        if spec.dtype != first.dtype:
            raise Misfit(f"is {first.dtype}, and another input is {spec.dtype}")
        if _but(spec.shape, free) != _but(first.shape, free) or len(spec.shape) != len(first.shape):
            raise Misfit(f"does not go together with {shape_text(spec.shape)}")


def _but(shape: Shape, free: int | None) -> Shape:
    return shape if free is None else tuple(size for at, size in enumerate(shape) if at != free)


def _with(shape: Shape, at: int, size: int) -> Shape:
    return (*shape[:at], size, *shape[at + 1 :])


@dataclass(frozen=True)
class Split(Op):
    """Cut one tensor along ``dim``: into the names' number of equal parts, into ``parts``, or into ``sizes``."""

    dim: int = 0
    sizes: tuple[int, ...] = ()
    parts: int = 0
    word = "split"
    splits = True

    def shapes(self, inputs: Specs) -> tuple[TensorSpec, ...]:
        """One part a size."""
        (spec,) = inputs
        at = axis(self.dim, len(spec.shape))
        return tuple(made(inputs, _with(spec.shape, at, size)) for size in self._sizes(spec.shape[at]))

    def _sizes(self, length: int) -> tuple[int, ...]:
        if not self.sizes and not self.parts:
            raise Misfit("cannot be split without sizes= or parts=")
        if not self.sizes and length % self.parts:
            raise Misfit(f"cannot be split: {length:,} is not divisible by {self.parts:,}")
        if self.parts > MAX_TENSORS:
            raise Misfit(f"would become {self.parts:,} tensors")
        sizes = self.sizes or (length // self.parts,) * self.parts
        if min(sizes) < 0:
            raise Misfit("cannot be split: a size is below 0")
        if sum(sizes) != length:
            raise Misfit(f"cannot be split: the sizes add up to {sum(sizes):,} and not to {length:,}")
        return sizes

    def bound(self, inputs: Specs, count: int) -> Op:
        """Write the sizes out."""
        whole = self if self.sizes or self.parts else Split(self.dim, (), count)
        (spec,) = inputs
        return Split(self.dim, whole._sizes(spec.shape[axis(self.dim, len(spec.shape))]))

    def undo(self, inputs: Specs) -> Op | None:
        """Put the parts together."""
        return Concat(self.dim) if len(self._sizes(inputs[0].shape[self.dim])) else None


@dataclass(frozen=True)
class Concat(Op):
    """Put tensors one after another along ``dim``."""

    dim: int = 0
    word = "concat"
    joins = True

    def shapes(self, inputs: Specs) -> tuple[TensorSpec, ...]:
        """One tensor as long as all inputs."""
        shape = inputs[0].shape
        at = axis(self.dim, len(shape))
        _same(inputs, at)
        return (made(inputs, _with(shape, at, sum(spec.shape[at] for spec in inputs))),)

    def undo(self, inputs: Specs) -> Op | None:
        """Cut at the same places."""
        return Split(self.dim, tuple(spec.shape[self.dim] for spec in inputs))


@dataclass(frozen=True)
class Stack(Op):
    """Put tensors of one shape beside each other along a new dimension."""

    dim: int = 0
    word = "stack"
    joins = True

    def shapes(self, inputs: Specs) -> tuple[TensorSpec, ...]:
        """One tensor with one more dimension."""
        _same(inputs)
        shape = inputs[0].shape
        at = axis(self.dim, len(shape) + 1)
        return (made(inputs, (*shape[:at], len(inputs), *shape[at:])),)

    def undo(self, _inputs: Specs) -> Op | None:
        """Take them apart."""
        return Unstack(self.dim)


@dataclass(frozen=True)
class Unstack(Op):
    """Take a tensor apart along ``dim``, which is gone afterwards."""

    dim: int = 0
    word = "unstack"
    splits = True

    def shapes(self, inputs: Specs) -> tuple[TensorSpec, ...]:
        """One tensor an index."""
        shape = inputs[0].shape
        at = axis(self.dim, len(shape))
        if shape[at] > MAX_TENSORS:
            raise Misfit(f"would become {shape[at]:,} tensors")
        return (made(inputs, _but(shape, at)),) * shape[at]

    def undo(self, inputs: Specs) -> Op | None:
        """Stack them again, if there are any."""
        return Stack(self.dim) if inputs[0].shape[self.dim] else None


@dataclass(frozen=True)
class Interleave(Op):
    """Take slices along ``dim`` from each tensor in turn: a fused gate_up weight with gates at 0, 2, 4."""

    dim: int = 0
    word = "interleave"
    joins = True

    def shapes(self, inputs: Specs) -> tuple[TensorSpec, ...]:
        """One tensor as long as all inputs."""
        _same(inputs)
        shape = inputs[0].shape
        at = axis(self.dim, len(shape))
        return (made(inputs, _with(shape, at, shape[at] * len(inputs))),)

    def undo(self, inputs: Specs) -> Op | None:
        """Take every n-th slice."""
        return Deinterleave(self.dim, len(inputs))


@dataclass(frozen=True)
class Deinterleave(Op):
    """Give slices along ``dim`` to each name in turn, or to ``parts`` tensors."""

    dim: int = 0
    parts: int = 0
    word = "deinterleave"
    splits = True

    def shapes(self, inputs: Specs) -> tuple[TensorSpec, ...]:
        """Equal parts."""
        shape = inputs[0].shape
        at = axis(self.dim, len(shape))
        if not 0 < self.parts <= MAX_TENSORS:
            raise Misfit("cannot be taken apart without parts=")
        if shape[at] % self.parts:
            raise Misfit(f"cannot be taken apart: {shape[at]:,} is not divisible by {self.parts:,}")
        return (made(inputs, _with(shape, at, shape[at] // self.parts)),) * self.parts

    def bound(self, _inputs: Specs, count: int) -> Op:
        """Write the number of parts out."""
        return self if self.parts else Deinterleave(self.dim, count)

    def undo(self, _inputs: Specs) -> Op | None:
        """Interleave them again."""
        return Interleave(self.dim)
