"""Operations on tensors: what they make of shapes and dtypes, without torch."""

from __future__ import annotations

from .base import Misfit, Op, check_usable, shape_text
from .chain import Chain
from .joins import Concat, Deinterleave, Interleave, Split, Stack, Unstack
from .layout import Copy, Permute, Reshape, RopePermute, Transpose
from .values import AdaptInputConv, Cast, Pad, Part, ResamplePosEmbed, Slice

__all__ = ["OPS", "Cast", "Misfit", "Op", "check_usable", "shape_text"]

OPS: dict[str, type[Op]] = {
    "split": Split,
    "chunk": Split,
    "concat": Concat,
    "stack": Stack,
    "unstack": Unstack,
    "transpose": Transpose,
    "permute": Permute,
    "reshape": Reshape,
    "rope_permute": RopePermute,
    "interleave": Interleave,
    "deinterleave": Deinterleave,
    "copy": Copy,
    "chain": Chain,
    "cast": Cast,
    "slice": Slice,
    "part": Part,
    "pad": Pad,
    "adapt_input_conv": AdaptInputConv,
    "resample_pos_embed": ResamplePosEmbed,
}
