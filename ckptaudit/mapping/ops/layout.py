"""The same values, as they are or in another order or shape: copy, transpose, permute, reshape, rope_permute."""

from __future__ import annotations

from math import prod

from ...manifest import TensorSpec
from ...records import dataclass
from .base import Misfit, Op, Specs, axis, made, shape_text


@dataclass(frozen=True)
class Copy(Op):
    """A tensor as it is, under another name: for one that other operations take as well."""

    word = "copy"

    def shapes(self, inputs: Specs) -> tuple[TensorSpec, ...]:
        """Keep the shape."""
        return (made(inputs, inputs[0].shape),)

    def undo(self, _inputs: Specs) -> Op | None:
        """Copy it back."""
        return self


@dataclass(frozen=True)
class Transpose(Op):
    """Swap two dimensions."""

    dims: tuple[int, ...] = (0, 1)
    word = "transpose"

    def shapes(self, inputs: Specs) -> tuple[TensorSpec, ...]:
        """Two sizes change places."""
        shape = list(inputs[0].shape)
        if len(self.dims) != 2:
            raise Misfit("is transposed by two dims, as in dims=0,1")
        a, b = (axis(dim, len(shape)) for dim in self.dims)
        shape[a], shape[b] = shape[b], shape[a]
        return (made(inputs, tuple(shape)),)

    def undo(self, _inputs: Specs) -> Op | None:
        """Swap them again."""
        return self


@dataclass(frozen=True)
class Permute(Op):
    """Put all dimensions in the order ``dims``."""

    dims: tuple[int, ...]
    word = "permute"

    def shapes(self, inputs: Specs) -> tuple[TensorSpec, ...]:
        """Give the sizes in that order."""
        shape = inputs[0].shape
        return (made(inputs, tuple(shape[at] for at in self._order(len(shape)))),)

    def _order(self, rank: int) -> list[int]:
        order = [axis(dim, rank) for dim in self.dims]
        if sorted(order) != list(range(rank)):
            raise Misfit(f"has {rank} dimensions, and dims={','.join(map(str, self.dims))} does not name each once")
        return order

    def undo(self, inputs: Specs) -> Op | None:
        """Put them back."""
        order = self._order(len(inputs[0].shape))
        return Permute(tuple(order.index(at) for at in range(len(order))))


@dataclass(frozen=True)
class Reshape(Op):
    """Read the same values, row by row, as another shape; one size may be -1."""

    shape: tuple[int, ...]
    word = "reshape"

    def shapes(self, inputs: Specs) -> tuple[TensorSpec, ...]:
        """Give the shape, with -1 worked out."""
        values = prod(inputs[0].shape)
        known = prod(size for size in self.shape if size != -1)
        open_ = self.shape.count(-1)
        if min(self.shape, default=0) < -1 or open_ > 1:
            raise Misfit(f"cannot become {shape_text(self.shape)}: one size may be -1, and none lower")
        if (values % known if open_ and known else values != known) or (open_ and not known):
            raise Misfit(f"has {values:,} values and cannot become {shape_text(self.shape)}")
        return (made(inputs, tuple(values // known if size == -1 else size for size in self.shape)),)

    def undo(self, inputs: Specs) -> Op | None:
        """Give it the shape it had."""
        return Reshape(inputs[0].shape)


@dataclass(frozen=True)
class RopePermute(Op):
    """Reorder the rows of each head from rotary pairs to halves (Hugging Face's Llama), or back: ``inverse=true``."""

    heads: int
    inverse: bool = False
    word = "rope_permute"

    def shapes(self, inputs: Specs) -> tuple[TensorSpec, ...]:
        """Keep the shape."""
        shape = inputs[0].shape
        if not shape or self.heads < 1 or shape[0] % (2 * self.heads):
            raise Misfit(f"does not hold {self.heads:,} heads of an even number of rows")
        return (made(inputs, shape),)

    def undo(self, _inputs: Specs) -> Op | None:
        """Go the other way."""
        return RopePermute(self.heads, not self.inverse)
