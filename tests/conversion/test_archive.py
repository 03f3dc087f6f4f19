"""The archives that are written without torch are those that torch writes, and torch loads them."""

from __future__ import annotations

import io
import os
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch

from ckptaudit import TensorSpec, UsageError, open_checkpoint
from ckptaudit.conversion.archive import Archive
from ckptaudit.conversion.content import Content, of_bytes
from ckptaudit.conversion.pickler import StateDict, Storage, pickled, storage_dtype
from ckptaudit.newfile import NewFile

from .support import bits, random, same


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def written(archive, path="x.pth"):
    with NewFile(path, archive.size) as file:
        archive.write(file, lambda _: None)
        file.finish()
        file.publish()
    return Path(path).read_bytes()


@pytest.mark.parametrize("sizes", [[], [0], [1, 0, 64, 63], [5] * 12, list(range(150))])
def test_archives_are_those_of_torch_to_the_byte(sizes):
    tensors = [random(size, dtype=torch.uint8) for size in sizes]
    stream = io.BytesIO()
    torch.save(tensors, stream)
    theirs = stream.getvalue()
    with zipfile.ZipFile(stream) as records:
        pickle = records.read("archive/data.pkl")
        identity = records.read("archive/.data/serialization_id")
        crc = records.getinfo("archive/.data/serialization_id").CRC
    ours = written(Archive(pickle, [of_bytes(bytes(tensor.numpy())) for tensor in tensors]))
    with zipfile.ZipFile("x.pth") as records:
        assert records.testzip() is None
        own = records.read("archive/.data/serialization_id")
        own_crc = records.getinfo("archive/.data/serialization_id").CRC
    assert len(own) == len(identity) == 40
    ours = ours.replace(own, identity).replace(own_crc.to_bytes(4, "little"), crc.to_bytes(4, "little"))
    assert ours == theirs


class Holes:
    """Stands in for a NewFile, and leaves out what is too large to write in a test."""

    def __init__(self, path):
        self.file = open(path, "wb")
        self.at = 0

    def write(self, data):
        self.file.seek(self.at)
        self.file.write(data)
        self.at += len(data)


class Hole(Content):
    def copy_to(self, file, seen):
        file.at += self.size


def test_more_than_four_gib():
    """A storage of 5 GiB, and two behind it, whose headers need 64 bits for their places."""
    size = 5 << 30
    storages = [Storage("0", "uint8", size), Storage("1", "float32", 8), Storage("2", "uint8", 0)]
    specs = [TensorSpec((s.nbytes // (4 if s.dtype == "float32" else 1),), s.dtype, stride=(1,)) for s in storages]
    keys = ("large", "small", "none")
    state = StateDict(keys, dict(zip(keys, specs, strict=True)), dict(zip(keys, storages, strict=True)), {}, None, {})
    small = random(2)
    archive = Archive(
        pickled(state, "x"),
        [Hole(size, None, 0, None), of_bytes(bytes(small.view(torch.uint8).numpy())), of_bytes(b"")],
    )
    holes = Holes("x.pth")
    archive.write(holes, lambda _: None)
    holes.file.truncate(holes.at)
    holes.file.close()
    assert os.path.getsize("x.pth") == archive.size
    checkpoint = open_checkpoint("x.pth")
    assert checkpoint.tensor("large").nbytes == size
    assert checkpoint.tensor("small").offset % 64 == 0
    with zipfile.ZipFile("x.pth") as records:
        assert records.getinfo("archive/data/0").file_size == size
        assert records.read("archive/data/1") == bytes(small.view(torch.uint8).numpy())
    loaded = torch.load("x.pth", mmap=True, weights_only=True)
    assert loaded["large"].shape == (size,)
    assert bits(loaded["small"]) == bits(small)
    reader = torch._C.PyTorchFileReader("x.pth")
    assert [reader.get_record_offset(f"data/{number}") for number in range(3)] == [
        member.data for member in archive.members if "/data/" in member.name
    ]
    assert (
        reader.get_record_offset_no_read(archive.members[4].start, "archive/data/0", size, 64)
        == archive.members[4].data
    )
    assert (
        reader.get_record_offset_no_read(archive.members[5].start, "archive/data/1", 8, 64) == archive.members[5].data
    )


def state_of(tensors, storages, **others):
    given = {"entries": {}, "versions": None, "metadata": {}, **others}
    return StateDict((*tensors, *given["entries"]), tensors, storages, **given)


def loaded(state, *contents):
    written(Archive(pickled(state, "x.pth"), [of_bytes(content) for content in contents]))
    result = torch.load("x.pth", weights_only=True)
    assert same(result, torch.load("x.pth", weights_only=True, mmap=True))
    return result


def test_one_memory_under_two_dtypes():
    assert storage_dtype({"float32", "int32"}) is None
    storage = Storage("0", None, 8)
    tensors = {
        "f": TensorSpec((2,), "float32", stride=(1,)),
        "i": TensorSpec((1,), "int32", stride=(1,), storage_offset=1),
    }
    back = loaded(state_of(tensors, {"f": storage, "i": storage}), b"\0\0\x80\x3f\7\0\0\0")
    assert (back["f"][0].item(), back["i"].item()) == (1.0, 7)
    assert back["f"].untyped_storage().data_ptr() == back["i"].untyped_storage().data_ptr()


def test_keys_and_versions():
    versions = {"": 1, "a": None, "large": -5}
    keys = ["ключ", "a" * 300, "", "line\nbreak", *map(str, range(300))]
    tensors = {key: TensorSpec((), "uint8", stride=()) for key in keys}
    back = loaded(state_of(tensors, dict.fromkeys(keys, Storage("0", "uint8", 1)), versions=versions), b"\7")
    assert list(back) == keys
    assert back._metadata == OrderedDict({"": {"version": 1}, "a": {}, "large": {"version": -5}})


@pytest.mark.parametrize("number", [0, 255, 256, -1, 2**31 - 1, 2**31, -(2**31), -(2**31) - 1, 2**63, -(2**200)])
def test_numbers(number):
    assert loaded(state_of({}, {}, entries={"n": number})) == {"n": number}


@pytest.mark.parametrize(
    "value",
    [
        {"$dtype": "float32\nos\nsystem"},
        {"$dtype": "os.system"},
        {"$nothing": 1},
        {"$tuple": 1},
        {"$float": []},
        {"$bytes": "abc"},
        {"$dict": [[1]]},
        {"$ordered": 5},
        {"$size": None},
    ],
)
def test_a_value_that_is_none_writes_no_pickle(value):
    with pytest.raises(UsageError, match="has notes with a value that is none"):
        pickled(state_of({}, {}, entries={"n": value}), "x.safetensors")
