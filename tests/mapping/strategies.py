"""Random tensors with every bit pattern, operations that fit them, and mappings over state dicts of known names."""

from __future__ import annotations

from collections import OrderedDict

import torch
from hypothesis import strategies as st

from ckptaudit.keys import STAR, KeyPattern
from ckptaudit.manifest import TensorSpec
from ckptaudit.mapping.keyrules import AddPrefix, ExpectMissing, Init, SelectPrefix, StripPrefix, Tie
from ckptaudit.mapping.ops import joins, layout, values
from ckptaudit.mapping.pattern import escape, escape_name
from ckptaudit.mapping.rules import Drop, Rename, StripWrappers
from ckptaudit.mapping.tensors import TensorRule

DTYPES = (
    *("float32", "float16", "bfloat16", "float64", "float8_e4m3fn", "float8_e5m2"),
    *("int64", "int8", "uint8", "uint16", "bool", "complex64", "complex128"),
)
SIZES = st.integers(0, 4)
SHAPES = st.lists(SIZES, min_size=0, max_size=4).map(tuple)


def tensor_of(shape, dtype, seed, *, strided=False):
    """Return a tensor of random bits, NaN payloads among them; bools are 0 and 1."""
    generator = torch.Generator().manual_seed(seed)
    kind = getattr(torch, dtype)
    numel = 1
    for size in shape:
        numel *= size
    bits = torch.randint(0, 256, (numel * kind.itemsize,), dtype=torch.uint8, generator=generator)
    if dtype == "bool":
        bits &= 1
    flat = bits.view(kind) if numel else torch.empty(0, dtype=kind)
    tensor = flat.reshape(shape)
    return tensor.transpose(0, -1).contiguous().transpose(0, -1) if strided and len(shape) > 1 else tensor


def bits_of(tensor):
    """Return dtype, shape and bytes: what makes two tensors the same."""
    plain = tensor.detach().resolve_conj().resolve_neg().contiguous()
    flat = plain.reshape(-1)
    return str(tensor.dtype), tuple(tensor.shape), flat.view(torch.uint8).tolist() if flat.numel() else []


def spec_of(tensor):
    return TensorSpec(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))


@st.composite
def tensors(draw, shapes=SHAPES, dtypes=DTYPES):
    return tensor_of(
        draw(shapes), draw(st.sampled_from(dtypes)), draw(st.integers(0, 2**31)), strided=draw(st.booleans())
    )


DIMS = st.integers(-4, 3)


def any_op():
    """Operations with options that may or may not fit."""
    few = st.lists(st.integers(-1, 4), max_size=4).map(tuple)
    return st.one_of(
        st.builds(joins.Split, DIMS, st.lists(SIZES, max_size=3).map(tuple), st.integers(0, 3)),
        st.builds(joins.Concat, DIMS),
        st.builds(joins.Stack, DIMS),
        st.builds(joins.Unstack, DIMS),
        st.builds(joins.Interleave, DIMS),
        st.builds(joins.Deinterleave, DIMS, st.integers(0, 3)),
        st.builds(layout.Transpose, st.tuples(DIMS, DIMS)),
        st.integers(0, 4).flatmap(lambda n: st.permutations(range(n))).map(lambda p: layout.Permute(tuple(p))),
        st.builds(layout.Permute, few),
        st.builds(layout.Reshape, few),
        st.builds(layout.RopePermute, st.integers(0, 2), st.booleans()),
        st.builds(values.Cast, st.sampled_from(sorted(values.CASTABLE))),
        st.builds(values.Slice, DIMS, SIZES, st.none() | SIZES),
        st.builds(values.Pad, DIMS, SIZES, SIZES),
        st.builds(values.AdaptInputConv, st.integers(0, 7)),
        st.builds(values.ResamplePosEmbed, st.tuples(SIZES, SIZES), st.integers(0, 2)),
    )


def fitting(seed):
    """Return a state dict that holds something for each of ``LINES``."""
    shapes = {
        "module.conv1.weight": (4, 3, 2, 2),
        "module.pos_embed": (1, 5, 4),
        "module.embed.weight": (6, 4),
        "module.fc.weight": (5, 8),
        "module.fc.bias": (5,),
        "module.steps": (),
    }
    for layer in range(3):
        shapes |= {f"module.blocks.{layer}.{name}.weight": (4, 4) for name in "abc"}
        shapes |= {f"module.blocks.{layer}.qkv.weight": (12, 4), f"module.blocks.{layer}.proj.weight": (4, 6)}
    shapes |= {f"module.experts.{expert}.w": (2, 3) for expert in range(11)}
    state = OrderedDict()
    for number, (key, shape) in enumerate(shapes.items()):
        state[key] = tensor_of(shape, "int16" if key == "module.steps" else "float32", seed + number)
    state._metadata = OrderedDict({"": {"version": 1}, "module.blocks.0.qkv": {"version": 3}, "module.fc": {}})
    return state


# Rules that have an inverse and fit ``fitting`` together, whichever of them are there; all but the first two need it.
INVERTIBLE = [
    "module.blocks.{i}.* -> module.layers.{i+1}.*",
    "module.embed.weight -> module.tokens.weight",
    "split *.qkv.weight -> *.q.weight, *.k.weight, *.v.weight",
    "concat *.a.weight, *.b.weight, *.c.weight -> *.abc.weight dim=1",
    "stack module.experts.{e}.w -> module.experts.w dim=1",
    "transpose *.proj.weight",
    "permute module.conv1.weight dims=2,3,1,0",
    "reshape module.fc.weight shape=5x2x-1",
    "cast module.steps dtype=int64",
    "pad module.pos_embed dim=1 before=1 after=2",
    "tie module.head.bias = module.fc.bias",
]


# Rules ------------------------------------------------------------------------------------------------------

KEYS = st.text(alphabet="abi01._-> ,=*{}\\é\n'\"", min_size=1, max_size=8)


def any_rule():
    """Rules of every kind, with names that hold every character of the syntax."""
    names = KEYS.map(escape_name)
    pairs = st.sampled_from([("", ""), ("*.", "*"), ("{i}.", "{i+1}."), ("*{i}.{j}", "{j-2}.*{i}")])
    patterns = st.one_of(KEYS.map(lambda key: KeyPattern((key,))), KEYS.map(lambda key: KeyPattern((key, STAR))))
    when = st.none() | SHAPES
    renames = st.builds(lambda a, b, p: Rename(p[0] + escape(a), p[1] + escape(b)), KEYS, KEYS, pairs)
    ops = any_op()
    return st.one_of(
        renames,
        st.builds(Rename, st.sampled_from(["split a", "rename x", "drop", "tie a = b"]), names),
        *(st.builds(kind, patterns) for kind in (Drop, Init, ExpectMissing)),
        *(st.builds(kind, KEYS) for kind in (StripPrefix, AddPrefix, SelectPrefix)),
        st.lists(st.text("ab_", min_size=1, max_size=3), min_size=1, max_size=3).map(lambda n: StripWrappers(tuple(n))),
        st.just(StripWrappers()),
        st.builds(lambda a, b, p: Tie(p[1] + a, p[0] + b), names, names, pairs),
        st.builds(_tensor_rule, ops, st.lists(names, min_size=4, max_size=4), pairs, when),
    )


def _tensor_rule(op, names, pair, when):
    sources = tuple(pair[0] + name for name in names[:2])
    targets = tuple(pair[1] + name for name in names[2:])
    if op.joins:
        return TensorRule(op, sources, targets[:1], when)
    if op.splits:
        return TensorRule(op, sources[:1], targets, when)
    return TensorRule(op, sources[:1], () if isinstance(op, values.Cast) else targets[:1], when)
