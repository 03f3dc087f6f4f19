"""Other values or fewer: cast, slice, part, pad, adapt_input_conv, resample_pos_embed."""

from __future__ import annotations

from math import isqrt, prod

from ...dtypes import DTYPES, cast_effect
from ...manifest import TensorSpec
from ...records import dataclass
from .base import Misfit, Op, Specs, axis, check_float, made

CASTABLE = frozenset(
    (
        *("bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64"),
        *("float64", "float32", "float16", "bfloat16", "complex64", "complex128"),
        *("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz"),
    )
)


@dataclass(frozen=True)
class Cast(Op):
    """Convert floats to floats and integers to integers, as torch does."""

    dtype: str
    word = "cast"

    def takes(self, spec: TensorSpec) -> bool:
        """Tell whether the cast stays in the kind of the values: ``cast *`` leaves counters alone."""
        return _family(spec.dtype) == _family(self.dtype) and spec.dtype in CASTABLE and spec.layout == "strided"

    def shapes(self, inputs: Specs) -> tuple[TensorSpec, ...]:
        """Keep the shape."""
        if not self.takes(inputs[0]):
            raise Misfit(f"is {inputs[0].dtype} and is not cast to {self.dtype}")
        return (made(inputs, inputs[0].shape, self.dtype),)

    def exact(self, inputs: Specs) -> bool:
        """Tell whether the other dtype holds every value."""
        return cast_effect(inputs[0].dtype, self.dtype) in ("same", "exact")

    def undo(self, inputs: Specs) -> Op | None:
        """Wider integers come back; floats do not to the bit: the payload of a NaN may be lost."""
        same = inputs[0].dtype == self.dtype
        whole = DTYPES[self.dtype].kind in ("int", "uint", "bool") and self.exact(inputs)
        return Cast(inputs[0].dtype) if same or whole else None


def _family(dtype: str) -> str:
    return DTYPES[dtype].kind.removeprefix("u")


@dataclass(frozen=True)
class Slice(Op):
    """Keep ``start`` to ``stop`` (not included, the end where it is not said) along ``dim``."""

    dim: int = 0
    start: int = 0
    stop: int | None = None
    word = "slice"

    def shapes(self, inputs: Specs) -> tuple[TensorSpec, ...]:
        """One size is smaller."""
        shape = inputs[0].shape
        at = axis(self.dim, len(shape))
        stop = shape[at] if self.stop is None else self.stop
        if not 0 <= self.start <= stop <= shape[at]:
            raise Misfit(f"has {shape[at]:,} entries along {self.dim} and none from {self.start:,} to {stop:,}")
        return (made(inputs, (*shape[:at], stop - self.start, *shape[at + 1 :])),)

    def exact(self, inputs: Specs) -> bool:
        """Tell whether nothing is cut off."""
        return self.shapes(inputs)[0].shape == inputs[0].shape


@dataclass(frozen=True)
class Part(Op):
    """Keep one of ``parts`` equal parts along ``dim``; ``index`` counts from 0."""

    dim: int
    index: int
    parts: int
    word = "part"

    def shapes(self, inputs: Specs) -> tuple[TensorSpec, ...]:
        """One size is divided."""
        (piece,) = self.cut(inputs[0].shape).shapes(inputs)
        return (piece,)

    def cut(self, shape: tuple[int, ...]) -> Slice:
        """Return the same with the sizes of a shape. Raises Misfit."""
        length = shape[axis(self.dim, len(shape))]
        if not 0 <= self.index < self.parts or length % self.parts:
            raise Misfit(f"has {length:,} entries along {self.dim}: no part {self.index:,} of {self.parts:,}")
        size = length // self.parts
        return Slice(self.dim, self.index * size, (self.index + 1) * size)

    def exact(self, _inputs: Specs) -> bool:
        """Tell whether there is only one part."""
        return self.parts == 1


@dataclass(frozen=True)
class Pad(Op):
    """Put ``before`` and ``after`` entries of zeros around the values along ``dim``."""

    dim: int = 0
    before: int = 0
    after: int = 0
    word = "pad"

    def shapes(self, inputs: Specs) -> tuple[TensorSpec, ...]:
        """One size is larger."""
        shape = inputs[0].shape
        at = axis(self.dim, len(shape))
        if self.before < 0 or self.after < 0:
            raise Misfit("is padded by before= and after=, which are not below 0")
        return (made(inputs, (*shape[:at], self.before + shape[at] + self.after, *shape[at + 1 :])),)

    def undo(self, inputs: Specs) -> Op | None:
        """Cut the zeros off."""
        return Slice(self.dim, self.before, self.before + inputs[0].shape[self.dim])


@dataclass(frozen=True)
class AdaptInputConv(Op):
    """Make a convolution over RGB one over ``in_chans`` channels, as timm's ``adapt_input_conv`` does."""

    in_chans: int
    word = "adapt_input_conv"

    def shapes(self, inputs: Specs) -> tuple[TensorSpec, ...]:
        """Change the second size."""
        check_float(inputs[0])
        shape = inputs[0].shape
        if len(shape) != 4 or self.in_chans < 1:
            raise Misfit("is no weight of a two-dimensional convolution for in_chans= of 1 or more")
        channels = shape[1]
        if self.in_chans == RGB:
            return (made(inputs, shape),)
        if (channels % RGB and channels > RGB) or (self.in_chans > 1 and channels != RGB):
            raise Misfit(f"has {channels:,} input channels, and not the {RGB} of RGB")
        wanted = self.in_chans if self.in_chans > 1 else max(1, channels // RGB)
        return (made(inputs, (shape[0], wanted, *shape[2:])),)

    def exact(self, _inputs: Specs) -> bool:
        """Tell whether the weight stays as it is."""
        return self.in_chans == RGB


RGB = 3


@dataclass(frozen=True)
class ResamplePosEmbed(Op):
    """Resize a grid of absolute position embeddings, as timm's ``resample_abs_pos_embed`` does.

    The grid is square where ``old_size`` does not say otherwise; ``prefix_tokens`` before it stay as they are.
    """

    size: tuple[int, ...]
    prefix_tokens: int = 1
    old_size: tuple[int, ...] = ()
    mode: str = "bicubic"
    word = "resample_pos_embed"

    def shapes(self, inputs: Specs) -> tuple[TensorSpec, ...]:
        """Change the number of tokens."""
        check_float(inputs[0])
        shape = inputs[0].shape
        if self.mode not in ("bicubic", "bilinear"):
            raise Misfit(f"is resampled by mode=bicubic or bilinear, not {self.mode}")
        if len(self.size) != 2 or min(self.size) < 1 or self.prefix_tokens < 0:
            raise Misfit("is resampled to size=HEIGHTxWIDTH")
        if len(shape) != 3 or shape[0] != 1 or not shape[2]:
            raise Misfit("is no position embedding of the shape (1, tokens, width)")
        self.grid(shape[1])
        return (made(inputs, (1, self.prefix_tokens + prod(self.size), shape[2])),)

    def grid(self, tokens: int) -> tuple[int, ...]:
        """Return the grid that the tokens form now."""
        rest = tokens - self.prefix_tokens
        grid = self.old_size or (isqrt(max(rest, 0)),) * 2
        if len(grid) != 2 or prod(grid) != rest or rest < 1:
            form = "x".join(map(str, self.old_size)) if self.old_size else "square"
            raise Misfit(f"has {tokens:,} tokens, which are no {form} grid after {self.prefix_tokens:,} prefix tokens")
        return grid

    def exact(self, inputs: Specs) -> bool:
        """Tell whether the grid stays as it is."""
        return self.grid(inputs[0].shape[1]) == self.size
