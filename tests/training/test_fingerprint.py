"""Fingerprints: equal exactly where every bit is, whichever method takes them. The oracle is torch on integer views."""

from __future__ import annotations

import tracemalloc

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.testing._internal.two_tensor import TwoTensor

from ckptaudit.training.fingerprint import Fingerprint, take

# complex32 and sparse CSR are as torch calls them: experimental, and beta.
pytestmark = [
    pytest.mark.filterwarnings("ignore:ComplexHalf support"),
    pytest.mark.filterwarnings("ignore:Sparse CSR tensor support"),
    pytest.mark.filterwarnings("ignore:BComplex"),
]
METHODS = ["xxh3_128", "index_mix"]
DTYPES = sorted(
    {
        dtype
        for dtype in vars(torch).values()
        if isinstance(dtype, torch.dtype) and not str(dtype).startswith("torch.q") and dtype.itemsize
    }
    - {getattr(torch, f"{sign}int{bits}", None) for sign in ("", "u") for bits in range(1, 8)},
    key=str,
)


def forced(method, order=()):
    """Return an earlier fingerprint for ``take`` to be like."""
    return Fingerprint(method, torch.float32, torch.Size(), order, b"")


def of(tensor, method="xxh3_128", rows=None, order=()):
    found, unchecked = take({"t": (tensor, rows)}, {"t": forced(method, order)})
    assert not unchecked
    return found["t"]


def raw(dtype, *shape, fill=None):
    """Return random bits as a tensor of any dtype."""
    size = torch.Size(shape).numel() * dtype.itemsize
    data = (
        torch.randint(0, 256, (size,), dtype=torch.uint8)
        if fill is None
        else torch.full((size,), fill, dtype=torch.uint8)
    )
    if dtype is torch.bool:
        data &= 1
    return data.view(dtype).reshape(shape)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype_and_every_byte_of_it(dtype, method):
    tensor = raw(dtype, 3, 5)
    first = of(tensor, method)
    assert first == of(tensor.clone(), method)
    assert (first.dtype, first.shape) == (dtype, (3, 5))
    data = tensor.reshape(-1).view(torch.uint8)
    for position in range(len(data)):
        data[position] ^= 1
        assert of(tensor, method) != first
        data[position] ^= 1
    assert of(tensor, method) == first


EDITS = {
    "one bit": lambda t: t.view(torch.int32)[5, 7].bitwise_xor_(1),
    "a sign": lambda t: t[5, 7].neg_(),
    "all signs": lambda t: t.neg_(),
    "two signs": lambda t: t[2:4, 7].neg_(),
    "rows swapped": lambda t: t.copy_(t[torch.tensor([1, 0, *range(2, 64)])]),
    "columns reversed": lambda t: t.copy_(t.flip(1)),
    "transposed": lambda t: t.copy_(t.t().clone()),
    "rolled": lambda t: t.copy_(t.roll(1)),
    "two values swapped": lambda t: t.view(-1).index_copy_(0, torch.tensor([3, 900]), t.view(-1)[[900, 3]]),
    "plus one, minus one": lambda t: (t[0, 0].add_(1), t[0, 1].sub_(1)),
    "ulp": lambda t: t.copy_(torch.nextafter(t, torch.tensor(9.0))),
    "zero": lambda t: t.zero_(),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("edit", EDITS)
def test_no_edit_goes_unseen(edit, method):
    tensor = torch.randn(64, 64)
    before, kept = of(tensor, method), tensor.clone()
    EDITS[edit](tensor)
    assert not torch.equal(tensor.view(torch.int32), kept.view(torch.int32))
    assert of(tensor, method) != before


@pytest.mark.parametrize("method", METHODS)
def test_constants_of_all_kinds_differ(method):
    values = [0.0, -0.0, 1.0, -1.0, 5.0, float("inf"), float("nan")]
    assert len({of(torch.full((64, 64), value), method) for value in values}) == len(values)
    assert len({of(torch.zeros(shape), method) for shape in [(64, 64), (4096,), (32, 128), (0,), (), (1,)]}) == 6
    assert of(torch.zeros(4, dtype=torch.float16), method) != of(torch.zeros(4, dtype=torch.bfloat16), method)


@pytest.mark.parametrize("method", METHODS)
def test_equal_nans_are_equal_and_payloads_count(method):
    nans = torch.tensor([0x7FC00000, 0x7FC00000], dtype=torch.int32)
    assert of(nans.view(torch.float32), method) == of(nans.clone().view(torch.float32), method)
    other = nans + torch.tensor([0, 1], dtype=torch.int32)
    assert of(nans.view(torch.float32), method) != of(other.view(torch.float32), method)


LAYOUTS = {
    "channels_last": lambda t: t.contiguous(memory_format=torch.channels_last),
    "transposed": lambda t: t.transpose(0, 3).contiguous().transpose(0, 3),
    "strided": lambda t: torch.stack([t, t], -1)[..., 0],
    "offset": lambda t: torch.cat([t, t])[len(t) :],
    "flipped twice": lambda t: t.flip(0).flip(0),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_layout_of_memory_does_not_matter(layout, method):
    tensor = torch.randn(6, 4, 3, 5)
    assert of(LAYOUTS[layout](tensor), method) == of(tensor, method)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("other", LAYOUTS)
def test_what_is_taken_alike_is_equal_in_any_layout(layout, other, method):
    tensor = torch.randn(6, 4, 3, 5)
    (first,) = take({"t": (LAYOUTS[layout](tensor), None)})[0].values()
    order = (0, 2, 3, 1) if layout == "channels_last" else first.order
    assert first.order == order
    (second,) = take({"t": (LAYOUTS[other](tensor), None)}, {"t": first})[0].values()
    assert second == first
    (third,) = take({"t": (LAYOUTS[other](tensor).neg(), None)}, {"t": first})[0].values()
    assert third != first
    assert of(LAYOUTS[other](tensor), method, order=first.order) == of(tensor, method, order=first.order)


def test_channels_last_is_not_copied():
    tensor = torch.randn(4, 3, 5, 5).contiguous(memory_format=torch.channels_last)
    (found,) = take({"t": (tensor, None)})[0].values()
    assert found.digest == of(tensor.permute(0, 2, 3, 1)).digest
    assert of(tensor[:, :2]).order == ()


@pytest.mark.parametrize("method", METHODS)
def test_lazy_conjugates_and_negatives_are_what_they_say(method):
    tensor = torch.randn(4, 4, dtype=torch.complex64)
    assert of(tensor.conj(), method) == of(tensor.conj().resolve_conj(), method) != of(tensor, method)
    negative = torch._neg_view(torch.randn(4))
    assert of(negative, method) == of(negative.resolve_neg(), method)


@pytest.mark.parametrize("method", METHODS)
def test_rows_count_and_others_do_not(method):
    tensor = torch.randn(10, 3)
    before = of(tensor, method, ((0, 2), (5, 7)))
    tensor[2:5] = 0
    tensor[7:] = 0
    assert of(tensor, method, ((0, 2), (5, 7))) == before
    tensor[6, 2] += 1
    assert of(tensor, method, ((0, 2), (5, 7))) != before


def test_the_mix_is_the_same_however_it_is_tiled(monkeypatch):
    tensor = torch.randn(40, 50).t()
    whole = of(tensor, "index_mix"), of(tensor)
    monkeypatch.setattr("ckptaudit.training.fingerprint._CHUNK", 256)
    assert (of(tensor, "index_mix"), of(tensor)) == whole


def reference_mix(words):
    """The mix in Python's integers."""
    mask, sums = (1 << 64) - 1, [0, 0]
    for index, word in enumerate(words):
        for which, seed in enumerate((0, 0x2545F4914F6CDD1D)):
            z = (word ^ (index * 0x9E3779B97F4A7C15) ^ seed) & mask
            z = (z * 0xBF58476D1CE4E5B9) & mask
            z = ((z ^ (z >> 32)) * 0x94D049BB133111EB) & mask
            sums[which] = (sums[which] + (z ^ (z >> 29))) & mask
    return b"".join(value.to_bytes(8, "little") for value in sums)


@given(st.lists(st.integers(-(2**31), 2**31 - 1), max_size=20))
@settings(max_examples=50, deadline=None)
def test_the_mix_is_the_one_that_is_described(words):
    assert of(torch.tensor(words, dtype=torch.int32), "index_mix").digest == reference_mix(words)


def test_the_digest_is_that_of_the_xxhash_command():
    import xxhash

    tensor = torch.randn(33)
    assert of(tensor).digest == xxhash.xxh3_128(tensor.numpy().tobytes()).digest()


def test_what_has_no_values_to_read_is_named():
    freed = torch.ones(4)
    freed.untyped_storage().resize_(0)
    with FakeTensorMode():
        fake = torch.ones(3)
    tensors = {
        "lazy": nn.LazyLinear(3).weight,
        "meta": torch.empty(3, device="meta"),
        "coo": torch.eye(3).to_sparse(),
        "csr": torch.eye(3).to_sparse_csr(),
        "freed": freed,
        "fake": fake,
        "two": TwoTensor(torch.ones(3), torch.ones(3)),
        "fine": torch.ones(3),
    }
    found, unchecked = take({name: (tensor, None) for name, tensor in tensors.items()})
    assert list(found) == ["fine"]
    assert unchecked == {
        "lazy": "is lazy and has no values yet",
        "meta": "is on the meta device and has no values",
        "coo": "has the layout sparse_coo",
        "csr": "has the layout sparse_csr",
        "fake": "is a FakeTensor, which keeps its values elsewhere",
        "two": "is a TwoTensor, which keeps its values elsewhere",
        "freed": "has no memory at the moment (a sharded parameter outside its forward pass)",
    }


def test_nothing_of_the_tensor_is_copied_or_changed():
    parameter = nn.Parameter(torch.randn(1000, 1000))
    version, pointer = parameter._version, parameter.data_ptr()
    tracemalloc.start()
    of(parameter)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100_000
    assert (parameter._version, parameter.data_ptr(), parameter.grad) == (version, pointer, None)


def test_one_copy_brings_all_digests_over(monkeypatch):
    copies = []
    real = torch.Tensor.tolist
    monkeypatch.setattr(torch.Tensor, "tolist", lambda self: copies.append(self.shape) or real(self))
    names = [f"t{i}" for i in range(20)]
    found, _ = take({name: (torch.randn(5), None) for name in names}, dict.fromkeys(names, forced("index_mix")))
    assert copies == [(20, 2)]
    assert len({value.digest for value in found.values()}) == 20


def test_inference_tensors_can_be_read():
    with torch.inference_mode():
        tensor = torch.ones(4)
    assert of(tensor) == of(torch.ones(4))
