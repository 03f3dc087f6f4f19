"""The bytes of tensors, worked out without torch, are those that torch works out."""

from __future__ import annotations

import tracemalloc

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptaudit import TensorSpec
from ckptaudit.conversion.content import dense, whole_storage
from ckptaudit.formats.base import ByteSource, RawTensor
from ckptaudit.formats.elements import swapped

BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("storages")


def bytes_of(tensor):
    """Return the values in row-major order, as torch has them, bit for bit."""
    flat = tensor.detach().resolve_conj().resolve_neg().reshape(-1).clone(memory_format=torch.contiguous_format)
    flat = flat.as_strided(flat.shape, (1,))
    return bytes(flat.view(torch.uint8).numpy()) if flat.numel() else b""


def raw_of(tensor, path, byteorder="little"):
    """Write the storage of a tensor to a file, and describe the tensor as a view of it."""
    storage = torch.tensor([], dtype=torch.uint8).set_(tensor.untyped_storage())
    data = bytes(storage.numpy())
    if byteorder == "big":
        width = tensor.element_size() // (2 if tensor.is_complex() else 1)
        data = b"".join(data[at : at + width][::-1] for at in range(0, len(data), width))
    path.write_bytes(b"head!" + data)
    spec = TensorSpec(
        tuple(tensor.shape),
        str(tensor.dtype).removeprefix("torch."),
        stride=tensor.stride(),
        storage_offset=tensor.storage_offset(),
        storage="0",
        storage_nbytes=len(data),
        conj=tensor.is_conj(),
        neg=tensor.is_neg(),
    )
    return RawTensor(spec, ByteSource(path), 5, len(data), byteorder)


def random(*shape, dtype=torch.float32):
    size = torch.tensor([], dtype=dtype).element_size()
    return torch.randint(0, 256, (*shape, size), dtype=torch.uint8).view(dtype).reshape(shape)


COMPLEX = torch.randn(6, 5, dtype=torch.complex64)  # torch's own negation makes signalling NaN quiet ones
TENSORS = {
    "plain": random(4, 5),
    "0-d": random(),
    "empty": random(0, 3),
    "empty transposed": random(3, 0).t(),
    "transposed": random(4, 5).t(),
    "row of a matrix": random(4, 5)[2],
    "column of a matrix": random(4, 5)[:, 2],
    "every second": random(40)[::2],
    "expanded": random(1, 5).expand(4, 5),
    "expanded scalar": random().expand(3, 4),
    "expanded inside": random(4, 1, 2).expand(4, 3, 2),
    "channels_last": random(2, 3, 4, 5).to(memory_format=torch.channels_last),
    "channels_last_3d": random(2, 3, 4, 5, 2).to(memory_format=torch.channels_last_3d),
    "overlapping windows": random(10).unfold(0, 4, 1),
    "permuted bytes": random(7, 3, 2, dtype=torch.uint8).permute(2, 0, 1),
    "permuted bfloat16": random(7, 3, 2, dtype=torch.bfloat16).permute(2, 0, 1),
    "permuted float64": random(7, 3, 2, dtype=torch.float64).permute(1, 2, 0),
    "permuted complex128": random(7, 3, dtype=torch.complex128).t(),
    "conj": COMPLEX.conj(),
    "conj transposed": COMPLEX.t().conj(),
    "conj complex128": torch.randn(3, dtype=torch.complex128).conj(),
    "imaginary part of a conj": COMPLEX.conj().imag,
    "neg": torch._neg_view(torch.randn(5, 2)),
    "neg float16": torch._neg_view(torch.randn(5, dtype=torch.float16)),
    "neg complex": torch._neg_view(COMPLEX),
    "neg and conj": torch._neg_view(COMPLEX.conj()),
    "large transposed": random(1500, 1300).t(),
    "large strided": random(3000, 700)[:, ::7],
    "large row": random(3, 800_000, dtype=torch.int16)[:, ::2],
    "large permuted": random(64, 64, 5, 60).permute(3, 1, 0, 2),
    "large expanded": random(1, 3).expand(200_000, 3),
}


@pytest.mark.parametrize("name", TENSORS)
@pytest.mark.parametrize("byteorder", ["little", "big"])
def test_values_are_those_of_torch(name, byteorder, folder):
    tensor = TENSORS[name]
    content = dense(raw_of(tensor, folder / "storage", byteorder))
    assert b"".join(map(bytes, content.pieces())) == bytes_of(tensor)
    assert content.size == tensor.numel() * tensor.element_size()


@pytest.mark.parametrize("byteorder", ["little", "big"])
def test_a_storage_is_whole_and_little_endian(byteorder, folder):
    for tensor in (random(700_000)[5:9], COMPLEX[1:], random(3, dtype=torch.bool)):
        raw = raw_of(tensor, folder / "storage", byteorder)
        storage = torch.tensor([], dtype=torch.uint8).set_(tensor.untyped_storage())
        assert b"".join(map(bytes, whole_storage(raw).pieces())) == bytes(storage.numpy())


def test_plain_bytes_are_not_worked_out(folder):
    raw = raw_of(random(4, 5)[1:], folder / "storage")
    content = dense(raw)
    assert (content.work, content.offset, content.size) == (None, 5 + 20, 60)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_view(folder, data):
    dtype = data.draw(st.sampled_from([torch.uint8, torch.float16, torch.float32, torch.int64, torch.complex128]))
    storage = random(data.draw(st.integers(1, 200)), dtype=dtype)
    shape, stride, room = [], [], len(storage) - 1
    for _ in range(data.draw(st.integers(0, 4))):
        step = data.draw(st.integers(0, 9))
        size = data.draw(st.integers(1, min(6, room // step + 1) if step else 6))
        room -= (size - 1) * step
        shape.append(size)
        stride.append(step)
    tensor = storage.as_strided(shape, stride, data.draw(st.integers(0, room)))
    pieces = dense(raw_of(tensor, folder / "storage")).pieces()
    assert b"".join(map(bytes, pieces)) == bytes_of(tensor)


def test_memory_does_not_grow_with_the_tensor(folder):
    raw = raw_of(random(3000, 3000).t(), folder / "storage")
    tracemalloc.start()
    sizes = [len(piece) for piece in dense(raw).pieces()]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sum(sizes) == 36_000_000
    assert max(sizes) <= 1 << 20
    assert peak < 8 << 20


def test_bytes_are_swapped():
    assert swapped(b"abcdefgh", 4) == b"dcbahgfe"
    assert swapped(b"ab", 1) == b"ab"
