"""Whatever a state dict is: .pth to safetensors and back keeps every bit, tie, key, version and value, in order."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import nn

from ckptaudit import convert

from .support import bits, random, same, ties

DTYPES = [torch.float32, torch.bfloat16, torch.int64, torch.uint8, torch.bool, torch.complex64, torch.uint16]
KEYS = st.text(st.characters(categories=["L", "N", "P", "Zs"]), min_size=1, max_size=12).filter(
    lambda key: key.isprintable() and key != "__metadata__"
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=5)
    | st.binary(min_size=1, max_size=5)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=4) | st.integers(0, 5), inner, max_size=3)
    ),
    max_leaves=8,
)


@st.composite
def views(draw):
    """Draw a tensor of any layout that looks at a storage of its own."""
    tensor = random(*draw(st.lists(st.integers(0, 4), max_size=3)), dtype=draw(st.sampled_from(DTYPES)))
    if tensor.dim() and draw(st.booleans()):
        tensor = tensor.permute(*draw(st.permutations(range(tensor.dim()))))
    if tensor.dim() and tensor.shape[0] > 1 and draw(st.booleans()):
        tensor = tensor[draw(st.integers(0, 1)) :: draw(st.integers(1, 2))]
    return tensor


@st.composite
def state_dicts(draw):
    """Draw tensors, second names and views of them, and values that are none."""
    state = draw(st.dictionaries(KEYS, views(), min_size=1, max_size=5))
    tensors = list(state.values())
    for key in draw(st.lists(KEYS, max_size=3)):
        base = draw(st.sampled_from(tensors))
        state[key] = base.t() if base.dim() == 2 and draw(st.booleans()) else base
    state |= draw(st.dictionaries(KEYS.map("extra.{}".format), VALUES, max_size=2))
    items = draw(st.permutations(list(state.items())))
    result = OrderedDict(items)
    if draw(st.booleans()):
        result._metadata = OrderedDict(
            draw(st.dictionaries(KEYS, st.just({}) | st.integers(0, 9).map(lambda v: {"version": v}), max_size=3))
        )
    return result


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("round")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(state=state_dicts(), around=st.none() | st.dictionaries(KEYS, VALUES, max_size=2), shards=st.booleans())
def test_there_and_back(state, around, shards, folder):
    content = state if around is None else {**around, "state_dict": state}
    torch.save(content, folder / "in.pth")
    saved = torch.load(folder / "in.pth", weights_only=True)
    options = {"shard_size": 40} if shards else {}
    result = convert(folder / "in.pth", folder / "x.safetensors", **options)
    convert(result.destination, folder / "back.pth")
    convert(folder / "in.pth", folder / "again.pth")
    for name in ("back.pth", "again.pth"):
        back = torch.load(folder / name, weights_only=True)
        if around is not None:
            assert list(back) == list(saved)
            assert {key: back[key] for key in around if key != "state_dict"} == {
                key: around[key] for key in around if key != "state_dict"
            }
        old, new = (saved, back) if around is None else (saved["state_dict"], back["state_dict"])
        assert same(new, old)
        assert ties(new) == ties(old)
        assert getattr(new, "_metadata", None) == getattr(old, "_metadata", None)
    if not shards:
        plain = load_file(folder / "x.safetensors")
        assert set(plain) == {row.key for row in result.tensors if not row.alias_of}
        assert all(bits(tensor) == bits(state[key]) for key, tensor in plain.items())


def models():
    tied = nn.Sequential(OrderedDict(embed=nn.Embedding(9, 4), head=nn.Linear(4, 9, bias=False)))
    tied.head.weight = tied.embed.weight
    normed = nn.utils.parametrizations.weight_norm(nn.Linear(3, 3))
    last = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    return {
        "tied": tied,
        "lstm": nn.LSTM(3, 4, 2),
        "batch norm": nn.BatchNorm2d(3),
        "weight norm": normed,
        "nhwc": last,
    }


@pytest.mark.parametrize("name", models())
def test_models_load_strictly(name, folder):
    source, target, plain = (models()[name] for _ in range(3))
    torch.save(source.state_dict(), folder / "in.pth")
    convert(folder / "in.pth", folder / "x.safetensors")
    convert(folder / "x.safetensors", folder / "back.pth")
    target.load_state_dict(torch.load(folder / "back.pth", weights_only=True), strict=True)
    assert same(target.state_dict(), source.state_dict())
    if name != "tied":
        plain.load_state_dict(load_file(folder / "x.safetensors"), strict=True)
        assert same(plain.state_dict(), source.state_dict())
