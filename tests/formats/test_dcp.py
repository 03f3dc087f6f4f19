"""Distributed checkpoints: equal to what torch loads from them, and refused where they contradict themselves."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch
from dcp_folders import (
    alter,
    archive,
    converted,
    index_of,
    metadata_of,
    place,
    put,
    quiet,
    save,
    save_ranks,
    sharded,
    tensor_of,
    write_metadata,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.distributed.checkpoint import FileSystemReader
from torch.distributed.checkpoint import filesystem as torch_filesystem
from torch.distributed.checkpoint import metadata as torch_metadata
from torch.distributed.checkpoint.default_planner import DefaultSavePlanner
from torch.distributed.checkpoint.filesystem import SerializationFormat, _StorageInfo
from torch.distributed.checkpoint.metadata import (
    BytesStorageMetadata,
    ChunkStorageMetadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.tensor import Replicate, Shard
from torch_files import rezip
from torch_files import save as save_zip

import ckptaudit
from ckptaudit.dtypes import DTYPES
from ckptaudit.errors import CkptauditError, FormatError, UsageError
from ckptaudit.formats import Limits, open_checkpoint
from ckptaudit.formats.base import Remark
from ckptaudit.formats.dcp import reader as dcp
from ckptaudit.formats.dcp import tiles as dcp_tiles
from ckptaudit.formats.dcp.metadata import CLASSES

HINT = "save the checkpoint again, or get it again from its source; torch writes no such folder"
STATE = {"model": {"w": torch.arange(6.0).view(2, 3), "b": torch.ones(3, dtype=torch.bfloat16)}, "epoch": 3}
# Dtypes that torch.save or torch.distributed.checkpoint does not write.
UNSAVED = {row.name for row in DTYPES.values() if row.kind == "quantized" or row.name.startswith("bits")}
UNSAVED |= {f"{sign}int{bits}" for sign in ("", "u") for bits in range(1, 8)}
RUNS = b"\x80\x02cposix\nsystem\nX\x02\x00\x00\x00id\x85R."


@pytest.fixture
def folder(tmp_path):
    return save(STATE, tmp_path / "step_10")


@pytest.fixture
def split(tmp_path):
    """A folder that two ranks wrote: rows, with a plain tensor and a value beside them."""

    def make(rank):
        return {"model": {"w": sharded(torch.arange(12.0).view(4, 3), (2,), [Shard(0)])}, "epoch": 3}

    return save_ranks(make, 2, tmp_path / "step_20")


def error_of(path, kind=FormatError, **options):
    with pytest.raises(kind) as caught:
        open_checkpoint(path, **options)
    return caught.value


def refused(folder, code, reason, hint=HINT, part=".metadata", **options):
    error = error_of(folder, **options)
    assert (error.code, error.reason) == (code, reason)
    assert error.hint == hint
    assert error.subject == str(folder / part)


# -- equal to torch ----------------------------------------------------------------------------------------------


def same_as_torch(folder):
    """Hold every candidate against what torch loads from the folder, saved by torch.save; return ours."""
    ours, theirs = open_checkpoint(folder), open_checkpoint(converted(folder))
    assert (ours.path, ours.format) == (str(folder), "dcp")
    assert ours.size == sum(file.stat().st_size for file in folder.iterdir())
    assert [(c.path, c.kind) for c in ours.candidates] == [(c.path, c.kind) for c in theirs.candidates]
    for one, other in zip(ours.candidates, theirs.candidates, strict=True):
        assert list(one.manifest) == list(other.manifest)
        assert one.manifest.entries == other.manifest.entries
        for key, spec in one.manifest.tensors.items():
            expected = other.manifest[key]
            for name in ("shape", "dtype", "stride", "storage_offset", "storage_nbytes", "requires_grad", "layout"):
                assert getattr(spec, name) == getattr(expected, name), (key, name)
        assert one.manifest.ties() == []
        for key, raw in ours.raw[one.path].items():
            assert torch.equal(tensor_of(raw), tensor_of(theirs.raw[one.path][key]))
    assert ours.siblings == theirs.siblings
    assert {g.verdict for g in ours.globals} == {"allowed"}
    assert ours.remarks == ()
    return ours


def trained():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    optimizer = torch.optim.AdamW(net.parameters())
    net(torch.randn(5, 3)).sum().backward()
    optimizer.step()
    return net, optimizer


def test_a_state_dict(tmp_path):
    net, _ = trained()
    checkpoint = same_as_torch(save(net.state_dict(), tmp_path / "flat"))
    assert list(checkpoint.manifest) == list(net.state_dict())
    assert set(checkpoint.raw[""]) == set(net.state_dict())
    assert checkpoint.details == {"files": "1", "items": "7", "sharded": "0 of 7 tensors", "version": "1.0.0"}


def test_a_training_run_with_all_that_lies_in_it(tmp_path):
    net, optimizer = trained()
    state = {
        "model": net.state_dict(),
        "optimizer": optimizer.state_dict(),
        "epoch": 3,
        "history": [0.5, None, "text"],
        "pair": (torch.ones(2), 1),
        "several": [torch.ones(2), 5, {"deep": torch.zeros(1)}],
        "weird": {"a.b": {"": torch.ones(1)}, "empty": {}},
    }
    checkpoint = same_as_torch(save(state, tmp_path / "run"))
    assert [c.path for c in checkpoint.candidates if c.kind == "optimizer"] == ["optimizer"]
    assert checkpoint.chosen.path == "model"
    assert checkpoint.siblings["epoch"] == "int"
    assert open_checkpoint(f"{tmp_path}/run#several.2").manifest["deep"].shape == (1,)
    assert open_checkpoint(f"{tmp_path}/run/.metadata#optimizer").chosen.kind == "optimizer"


def test_tensors_of_every_layout_in_memory(tmp_path):
    state = {
        "turned": torch.arange(6.0).view(2, 3).t(),
        "last": torch.ones(1, 2, 3, 3).to(memory_format=torch.channels_last),
        "slice": torch.arange(10.0)[2:8:2],
        "none": torch.zeros(0, 3),
        "scalar": torch.tensor(2),
        "parameter": nn.Parameter(torch.ones(2)),
        "conjugated": torch.ones(2, dtype=torch.complex64).conj(),
    }
    checkpoint = open_checkpoint(same_as_torch(save(state, tmp_path / "layouts")).path)
    assert checkpoint.manifest["turned"].stride == (2, 1)
    assert checkpoint.tensor("turned").spec.stride == (1, 3)
    assert torch.equal(tensor_of(checkpoint.tensor("turned")), state["turned"])
    assert checkpoint.tensor("conjugated").spec.conj


@pytest.mark.parametrize("name", sorted(DTYPES.keys() & vars(torch).keys() - UNSAVED))
def test_every_dtype(tmp_path, name):
    tensor = torch.arange(16, dtype=torch.uint8).view(getattr(torch, name))
    folder = save({"w": tensor}, tmp_path / "dtype")
    checkpoint = open_checkpoint(folder)
    assert checkpoint.manifest["w"].dtype == name
    assert checkpoint.manifest["w"].shape == tuple(tensor.shape)
    assert b"".join(checkpoint.tensor("w").storage_chunks()) == bytes(range(16))


@pytest.mark.parametrize(
    ("options", "files"),
    [({"single_file_per_rank": False}, 3), ({"thread_count": 2}, 2), ({"planner": DefaultSavePlanner(False)}, 1)],
)
def test_every_way_to_write(tmp_path, options, files):
    state = {"w": torch.ones(2), "b": torch.zeros(3), "epoch": 3}
    assert same_as_torch(save(state, tmp_path / "written", **options)).details["files"] == str(files)


def test_tensors_in_the_safetensors_format_which_torch_itself_does_not_read(tmp_path):
    state = {"w": torch.arange(6.0).view(2, 3), "none": torch.zeros(0), "b": torch.ones(2), "epoch": 3}
    folder = save(state, tmp_path / "step", serialization_format=SerializationFormat.SAFETENSORS)
    checkpoint = open_checkpoint(folder)
    assert checkpoint.manifest.entries == {"epoch": "int"}
    assert checkpoint.manifest.shared_storages() == []
    assert checkpoint.remarks == ()
    for key in ("w", "none", "b"):
        assert torch.equal(tensor_of(checkpoint.tensor(key)), state[key])


class TestSeveralRanks:
    FULL = torch.arange(35.0).view(7, 5)

    def save(self, tmp_path, world, mesh, **placements):
        def make(rank):
            tensors = {key: sharded(self.FULL, mesh, placed) for key, placed in placements.items()}
            return {"model": {**tensors, "plain": torch.ones(2)}, "epoch": 3}

        return save_ranks(make, world, tmp_path / "ranks")

    def check(self, folder, split):
        checkpoint = same_as_torch(folder)
        assert set(checkpoint.manifest) - set(checkpoint.raw["model"]) == set(split)
        assert checkpoint.details["sharded"].startswith(f"{len(split)} of ")
        chunks = {key: raw for part in checkpoint.parts for key, raw in part.raw[""].items()}
        for name, raw in chunks.items():
            key, _, offsets = name.partition("[")
            starts = [int(text) for text in offsets.rstrip("]").split(", ")] if offsets else [0] * len(raw.spec.shape)
            place = tuple(slice(a, a + n) for a, n in zip(starts, raw.spec.shape, strict=True))
            full = torch.ones(2) if key == "model.plain" else self.FULL
            assert torch.equal(tensor_of(raw), full[place])
        return checkpoint

    @pytest.mark.parametrize("world", [2, 3, 4])
    def test_one_mesh(self, tmp_path, world):
        folder = self.save(tmp_path, world, (world,), rows=[Shard(0)], columns=[Shard(1)], same=[Replicate()])
        checkpoint = self.check(folder, ["rows", "columns"])
        assert checkpoint.manifest["rows"].shape == (7, 5)
        assert checkpoint.manifest["rows"].storage_nbytes == 140

    def test_a_grid(self, tmp_path):
        self.check(
            self.save(tmp_path, 4, (2, 2), grid=[Shard(0), Shard(1)], twice=[Shard(0), Shard(0)]), ["grid", "twice"]
        )

    def test_ranks_that_get_nothing(self, tmp_path):
        def make(rank):
            row = sharded(torch.arange(5.0).view(1, 5), (4,), [Shard(0)])
            return {"model": {"row": row, "none": sharded(torch.zeros(0, 2), (4,), [Shard(0)])}}

        folder = save_ranks(make, 4, tmp_path / "ranks")
        assert [chunk.sizes for chunk in metadata_of(folder).state_dict_metadata["model.row"].chunks] == [
            (1, 5),
            (0, 5),
        ]
        checkpoint = same_as_torch(folder)
        assert checkpoint.details["sharded"] == "0 of 2 tensors"
        assert torch.equal(tensor_of(checkpoint.tensor("row")), torch.arange(5.0).view(1, 5))

    def test_an_empty_tensor_of_another_shape_than_its_chunk(self, tmp_path):
        folder = save({"none": torch.zeros(0, 4), "w": torch.ones(1)}, tmp_path / "step")
        alter(folder, lambda m: setattr(m.state_dict_metadata["none"], "size", torch.Size([0, 6])))
        checkpoint = open_checkpoint(folder)
        assert checkpoint.manifest["none"].shape == (0, 6)
        assert set(checkpoint.raw[""]) == {"w"}

    def test_chunks_without_elements_may_share_a_place(self, split):
        def change(metadata):
            chunks = metadata.state_dict_metadata["model.w"].chunks
            for _ in range(2):
                chunks.insert(0, ChunkStorageMetadata(torch.Size([2, 0]), torch.Size([0, 3])))

        assert open_checkpoint(alter(split, change)).manifest["w"].shape == (4, 3)


# -- what .metadata may be made of ---------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_protocol(folder, protocol):
    write_metadata(folder, metadata_of(folder), protocol)
    assert same_as_torch(folder).chosen.path == "model"


@pytest.mark.parametrize("place", ["torch.distributed._shard.checkpoint", "torch.distributed.checkpoint"])
def test_the_names_of_older_releases(folder, monkeypatch, place):
    metadata = metadata_of(folder)
    metadata.storage_meta = None
    old = {"metadata": torch_metadata, "filesystem": torch_filesystem}
    for name, module in old.items():
        fake = types.ModuleType(f"{place}.{name}")
        monkeypatch.setitem(sys.modules, fake.__name__, fake)
        for cls in (v for v in vars(module).values() if isinstance(v, type) and v.__module__ == module.__name__):
            monkeypatch.setattr(cls, "__module__", fake.__name__)
            setattr(fake, cls.__name__, cls)
    fake = types.ModuleType("torch.distributed._shard.sharded_tensor.metadata")
    monkeypatch.setitem(sys.modules, fake.__name__, fake)
    for cls in (TensorProperties, torch_metadata._MEM_FORMAT_ENCODING):
        monkeypatch.setattr(cls, "__module__", fake.__name__)
        name = cls.__name__.removeprefix("_")
        cls.__qualname__ = name
        setattr(fake, name, cls)
    data = pickle.dumps(metadata)
    monkeypatch.undo()
    torch_metadata._MEM_FORMAT_ENCODING.__qualname__ = "_MEM_FORMAT_ENCODING"
    assert place.encode() in data
    assert b"sharded_tensor" in data
    (folder / ".metadata").write_bytes(data)
    checkpoint = open_checkpoint(folder)
    assert list(checkpoint.manifest) == ["w", "b"]
    assert {g.verdict for g in checkpoint.globals} == {"allowed"}


def test_the_classes_are_those_that_torch_has():
    for name in CLASSES:
        if name.startswith("torch.distributed.checkpoint."):
            module, _, attribute = name.rpartition(".")
            assert hasattr(sys.modules[module], attribute), name


def by_name(member, protocol):
    return getattr, (type(member), member.name)


def test_an_enumeration_by_name_as_the_first_releases_of_python_3_11_wrote_it(folder, monkeypatch):
    metadata = metadata_of(folder)
    monkeypatch.setattr(torch_metadata._MEM_FORMAT_ENCODING, "__reduce_ex__", by_name)
    write_metadata(folder, metadata)
    assert {g.name: g.verdict for g in open_checkpoint(folder).globals}["builtins.getattr"] == "allowed"


class Getter:
    """Unpickles as a call of getattr."""

    def __init__(self, *arguments):
        self.arguments = arguments

    def __reduce__(self):
        return getattr, self.arguments


@pytest.mark.parametrize(
    "value",
    [
        Getter(TensorProperties, "__init__"),
        Getter(torch_metadata._MEM_FORMAT_ENCODING, "__class__"),
        Getter(torch_metadata._MEM_FORMAT_ENCODING, "TORCH_CHANNELS_LAST", None),
        [{("x", Getter(torch.Size, "x"))}],
        getattr,
    ],
)
def test_getattr_of_anything_else_is_refused(folder, value):
    alter(folder, lambda metadata: setattr(metadata, "other", value))
    refused(
        folder,
        "CKPT701",
        "needs a full unpickling, which can run any code: it names builtins.getattr",
        f"see what it holds, without running anything: ckptaudit inspect {folder}/.metadata",
    )


def test_what_others_write_beside_it_does_not_matter(folder):
    def change(metadata):
        metadata.mcore_data = {"model.w": {"nd_reformulated_orig_global_shape": (2, 3)}}
        metadata.version = None
        metadata.planner_data["not.there"] = object

    alter(folder, change)
    checkpoint = open_checkpoint(folder)
    assert "version" not in checkpoint.details
    assert [g.name for g in checkpoint.globals if g.verdict == "inert"] == ["builtins.object"]


# -- what runs code ------------------------------------------------------------------------------------------------


class Payload:
    def __init__(self, *call):
        self.call = call or (os.system, ("touch ran",))

    def __reduce__(self):
        return self.call


def test_code_in_metadata(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    alter(folder, lambda metadata: setattr(metadata, "storage_meta", Payload()))
    hint = f"see what it holds, without running anything: ckptaudit inspect {folder}/.metadata"
    refused(folder, "CKPT702", "runs code when it is unpickled: it names posix.system", hint)
    checkpoint = open_checkpoint(folder, allow_refused=True)
    (found,) = [g for g in checkpoint.globals if g.verdict == "dangerous"]
    assert (found.name, found.member, found.call) == ("posix.system", ".metadata", "posix.system('touch ran')")
    assert not (tmp_path / "ran").exists()


def test_code_in_place_of_metadata(folder):
    (folder / ".metadata").write_bytes(RUNS)
    error = error_of(folder, allow_refused=True)
    assert (error.code, error.hint) == ("CKPT702", "do not load it")
    assert error.reason == (
        "names posix.system (.metadata, byte 2), which runs code, and is broken: is no metadata of a distributed "
        "checkpoint: it has posix.system for its metadata"
    )


@pytest.mark.parametrize("data", [b"cos\nsystem\n(S'id'\ntR.", b"(cos\nsystem\nS'id'\no."])
def test_code_in_metadata_of_protocol_0(folder, data):
    (folder / ".metadata").write_bytes(data)
    assert error_of(folder).code == "CKPT702"


@pytest.mark.parametrize("key", ["epoch", "model.w"])
def test_code_in_an_item(folder, key):
    put(folder, key, archive([Payload(), torch.ones(2)]))
    error = error_of(folder)
    assert error.code == "CKPT702"
    assert error.reason == "runs code when it is unpickled: it names posix.system"
    assert error.subject == f"{folder}/__0_0.distcp:{key}"


def test_code_in_a_value_is_shown_where_it_lies(folder):
    put(folder, "epoch", archive({"x": Payload(), "net": {"w": torch.ones(2)}}))
    checkpoint = open_checkpoint(folder, allow_refused=True)
    (found,) = [g for g in checkpoint.globals if g.verdict == "dangerous"]
    assert (found.name, found.member) == ("posix.system", "__0_0.distcp:epoch:archive/data.pkl")
    assert [c.path for c in checkpoint.candidates] == ["model", "epoch.net"]
    assert torch.equal(tensor_of(checkpoint.raw["epoch.net"]["w"]), torch.ones(2))


def test_code_in_a_chunk_is_the_worse_news(folder):
    put(folder, "model.w", archive([Payload()]))
    error = error_of(folder, allow_refused=True)
    assert error.code == "CKPT702"
    assert error.reason == (
        "names posix.system (archive/data.pkl, byte 5), which runs code, and is broken: holds list, where .metadata "
        "says a float32 tensor of (2, 3)"
    )


@pytest.mark.parametrize(
    ("data", "code"), [(RUNS, "CKPT702"), (pickle.dumps(open), "CKPT702"), (pickle.dumps(1), "CKPT502")]
)
def test_a_bare_pickle_as_an_item(folder, data, code):
    error = error_of(put(folder, "epoch", data))
    assert error.code == code
    assert error.reason.startswith("is a pickle that torch.save did not write, not a checkpoint")


def test_a_program_as_an_item(folder, tmp_path):
    with quiet():
        torch.jit.save(torch.jit.trace(nn.Linear(1, 1), torch.ones(1)), tmp_path / "program.pt")
    put(folder, "epoch", (tmp_path / "program.pt").read_bytes())
    hint = "do not load it; torch writes no such item"
    reason = "is a TorchScript archive, which torch would load as a program"
    refused(folder, "CKPT502", reason, hint, "__0_0.distcp:epoch")


def test_globals_that_are_plain_data_are_told(folder):
    put(folder, "epoch", archive(Path("x")))
    (found,) = [g for g in open_checkpoint(folder).globals if g.member.startswith("__0_0.distcp:epoch")]
    assert (found.name, found.verdict) == ("pathlib.PosixPath", "inert")
    put(folder, "epoch", archive(types.SimpleNamespace(x=1)))
    (found,) = [g for g in open_checkpoint(folder).globals if g.verdict == "inert"]
    assert (found.name, found.member) == ("types.SimpleNamespace", "__0_0.distcp:epoch:archive/data.pkl")


def test_classes_of_metadata_are_refused_elsewhere(folder):
    put(folder, "epoch", archive(BytesStorageMetadata()))
    error = error_of(folder)
    assert error.code == "CKPT701"
    assert error.reason.endswith("it names torch.distributed.checkpoint.metadata.BytesStorageMetadata")


# -- items ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "held"),
    [
        (torch.zeros(3, 2), "a float32 tensor of (3, 2)"),
        (torch.zeros(2, 3, dtype=torch.int32), "a int32 tensor of (2, 3)"),
        ([torch.zeros(2, 3)], "list"),
        ({b"tensor": torch.zeros(2, 3)}, "dict"),
        (3, "int"),
        (torch.zeros(2, 3).to_sparse(), "a tensor that is cpu"),
        (torch.zeros(2, 3, device="meta"), "a tensor that is meta"),
    ],
)
def test_a_chunk_that_is_something_else(folder, value, held):
    put(folder, "model.w", archive(value))
    reason = f"holds {held}, where .metadata says a float32 tensor of (2, 3)"
    refused(folder, "CKPT502", reason, part="__0_0.distcp:model.w")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "is empty (0 bytes)"),
        (b"\0" * 20, "begins with 20 zero bytes: it was never written"),
        (archive(3)[:500], "is cut short: it begins as a zip archive, but its 500 bytes have no end record"),
        (archive(3, _use_new_zipfile_serialization=False), "is a torch-legacy file, where torch writes a zip archive"),
    ],
)
def test_an_item_that_is_no_archive(folder, data, reason):
    put(folder, "epoch", data)
    error = error_of(folder)
    assert (error.code, error.reason, error.subject) == ("CKPT502", reason, f"{folder}/__0_0.distcp:epoch")


def test_an_archive_that_contradicts_itself(folder):
    data = archive(torch.zeros(2, 3)).replace(b"K\x06tq", b"K\x07tq")
    put(folder, "model.w", data)
    assert error_of(folder).code == "CKPT002"


def test_the_safetensors_behind_the_values_hold_just_the_chunks(tmp_path):
    def step(name, state):
        return save(state, tmp_path / name, serialization_format=SerializationFormat.SAFETENSORS)

    folder = step("step", {"w": torch.ones(2), "b": torch.ones(3), "epoch": 3})
    alter(folder, lambda m: setattr(m.state_dict_metadata["w"].properties, "dtype", torch.int32))
    reason = "holds a float32 tensor of (2,), where .metadata says a int32 tensor of (2,)"
    refused(folder, "CKPT502", reason, part="__0_0.distcp:safetensors:w")
    for key in ("w", "b"):
        (tmp_path / "other").exists()
        other = step(f"other_{key}", {"w": torch.ones(2), "b": torch.ones(3)})

        def forget(metadata, key=key):
            del metadata.state_dict_metadata[key]
            metadata.storage_data = {i: info for i, info in metadata.storage_data.items() if i.fqn != key}

        alter(other, forget)
        refused(other, "CKPT502", f"does not name '{key}', which lies in __0_0.distcp")

    def rename(metadata):
        metadata.state_dict_metadata["x"] = metadata.state_dict_metadata.pop("b")
        info = next(metadata.storage_data.pop(i) for i in list(metadata.storage_data) if i.fqn == "b")
        metadata.storage_data[index_of("x", 0)] = info

    folder = alter(step("renamed", {"w": torch.ones(2), "b": torch.ones(3)}), rename)
    reason = "holds nothing, where .metadata says a float32 tensor of (3,)"
    refused(folder, "CKPT502", reason, part="__0_0.distcp:safetensors:x")

    def overlap(metadata):
        place(metadata, "epoch").length += 1

    folder = alter(step("overlapping", {"w": torch.ones(2), "epoch": 3}), overlap)
    refused(folder, "CKPT502", "puts 'w' inside of another item of __0_0.distcp")


# -- .metadata against itself ----------------------------------------------------------------------------------------


def tensors(metadata):
    return metadata.state_dict_metadata["model.w"]


def rename(metadata, key, *path):
    """Give a value another key, and the path that the key is made of."""
    new = ".".join(path)
    metadata.state_dict_metadata[new] = metadata.state_dict_metadata.pop(key)
    metadata.storage_data[MetadataIndex(new)] = metadata.storage_data.pop(MetadataIndex(key))
    metadata.planner_data[new] = path
    del metadata.planner_data[key]


def chunk(offsets, sizes):
    return ChunkStorageMetadata(torch.Size(offsets), torch.Size(sizes))


CONTRADICTIONS = {
    "gap": (
        lambda m: setattr(tensors(m), "size", torch.Size([5, 3])),
        "CKPT505",
        "does not hold the tensor 'model.w' once: it has chunks with a gap between them: they hold 12 of its 15 elements",
    ),
    "overlap": (
        lambda m: tensors(m).chunks.append(chunk([1, 0], [1, 3])),
        "CKPT505",
        "does not hold the tensor 'model.w' once: it has chunks that overlap: they hold 15 elements, it has 12",
    ),
    "moved": (
        lambda m: setattr(tensors(m).chunks[1], "offsets", torch.Size([1, 0])),
        "CKPT505",
        "does not hold the tensor 'model.w' once: it has chunks that overlap, and a gap between them",
    ),
    "outside": (
        lambda m: setattr(tensors(m).chunks[1], "offsets", torch.Size([3, 0])),
        "CKPT505",
        "does not hold the tensor 'model.w' once: it has the shape (4, 3) and a chunk of (2, 3) at (3, 0), outside of it",
    ),
    "dimensions": (
        lambda m: setattr(tensors(m).chunks[1], "sizes", torch.Size([2, 3, 1])),
        "CKPT505",
        "does not hold the tensor 'model.w' once: it has 2 dimensions and a chunk of 3",
    ),
    "no chunks": (
        lambda m: setattr(tensors(m), "chunks", []),
        "CKPT505",
        "does not hold the tensor 'model.w' once: it has chunks with a gap between them: they hold 0 of its 12 elements",
    ),
    "no place": (
        lambda m: m.storage_data.pop(index_of("model.w", 2, 0)),
        "CKPT502",
        "gives no place to the chunk of 'model.w' at (2, 0)",
    ),
    "no first place": (
        lambda m: m.storage_data.pop(index_of("model.w", 0, 0)),
        "CKPT502",
        "gives no place to the chunk of 'model.w' at (0, 0)",
    ),
    "another place": (
        lambda m: m.storage_data.update({index_of("model.w", 3, 0): m.storage_data[index_of("model.w", 0, 0)]}),
        "CKPT502",
        "gives a place to a chunk of 'model.w' at (3, 0), which it does not have",
    ),
    "a place of a value": (
        lambda m: m.storage_data.update({MetadataIndex("model.w"): m.storage_data[index_of("model.w", 0, 0)]}),
        "CKPT502",
        "gives the tensor 'model.w' a place as if it were no tensor",
    ),
    "unknown key": (
        lambda m: m.storage_data.update({index_of("x", 0): m.storage_data[index_of("model.w", 0, 0)]}),
        "CKPT502",
        "gives a place to 'x', which is no key of its state dict",
    ),
    "value without a place": (
        lambda m: m.storage_data.pop(MetadataIndex("epoch")),
        "CKPT502",
        "gives 0 places to the value 'epoch', which is in one piece",
    ),
    "value in chunks": (
        lambda m: m.storage_data.update({index_of("epoch", 0): m.storage_data.pop(MetadataIndex("epoch"))}),
        "CKPT502",
        "gives 1 places to the value 'epoch', which is in one piece",
    ),
    "behind the end": (
        lambda m: setattr(place(m, "epoch"), "length", 10**15),
        "CKPT502",
        "puts 'epoch' at byte 0, 1,000,000,000,000,000 bytes long, into __1_0.distcp, which has 2,838 bytes",
    ),
    "before the beginning": (
        lambda m: setattr(place(m, "epoch"), "offset", -1),
        "CKPT502",
        "puts 'epoch' at byte -1, 1,261 bytes long, into __1_0.distcp, which has 2,838 bytes",
    ),
    "less than nothing": (
        lambda m: setattr(place(m, "epoch"), "length", -1),
        "CKPT502",
        "puts 'epoch' at byte 0, -1 bytes long, into __1_0.distcp, which has 2,838 bytes",
    ),
    "shared bytes": (
        lambda m: setattr(place(m, "epoch"), "length", 1262),
        "CKPT502",
        "puts 'epoch' and 'model.w' on the same bytes of __1_0.distcp",
    ),
    "packed": (
        lambda m: setattr(place(m, "epoch"), "transform_descriptors", ["stream.zstd"]),
        "CKPT703",
        "has 'epoch' packed by ['stream.zstd'], which is not read",
    ),
    "sparse": (
        lambda m: setattr(tensors(m).properties, "layout", torch.sparse_coo),
        "CKPT703",
        "has the tensor 'model.w' in a layout that is not read",
    ),
    "a value that is a dict": (
        lambda m: rename(m, "epoch", "model"),
        "CKPT002",
        "puts two values at model of the nested state dict",
    ),
    "a dict that is a value": (
        lambda m: rename(m, "epoch", "model", "w", "x"),
        "CKPT002",
        "puts two values at w of the nested state dict",
    ),
}


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_contradictions(split, name):
    change, code, reason = CONTRADICTIONS[name]
    refused(alter(split, change), code, reason)


BROKEN = {
    "no object": (lambda m: [], "it has list for its metadata"),
    "another class": (
        lambda m: chunk([], []),
        f"it has {ChunkStorageMetadata.__module__}.ChunkStorageMetadata for its metadata",
    ),
    "keys": (lambda m: setattr(m, "state_dict_metadata", [1]), "it has list for its state_dict_metadata"),
    "no places": (lambda m: setattr(m, "storage_data", None), "it has NoneType for its storage_data"),
    "a key": (lambda m: m.state_dict_metadata.update({3: BytesStorageMetadata()}), "it has int for a key"),
    "a tensor": (lambda m: m.state_dict_metadata.update({"model.w": 3}), "it has int for the key 'model.w'"),
    "size": (lambda m: setattr(tensors(m), "size", 3), "the sizes of the key 'model.w' are no short tuple of numbers"),
    "bool": (
        lambda m: setattr(tensors(m), "size", (True, 3)),
        "the sizes of the key 'model.w' hold something other than a number from 0 to 2^63",
    ),
    "negative": (
        lambda m: setattr(tensors(m).chunks[0], "offsets", torch.Size([-1, 0])),
        "the offsets of a chunk of the key 'model.w' hold something other than a number from 0 to 2^63",
    ),
    "too many dimensions": (
        lambda m: setattr(tensors(m), "size", (1,) * 65),
        "the sizes of the key 'model.w' are no short tuple of numbers",
    ),
    "too large": (
        lambda m: setattr(tensors(m), "size", torch.Size([1 << 40, 1 << 40])),
        "the key 'model.w' has more elements than 64 bits can count",
    ),
    "chunks": (lambda m: setattr(tensors(m), "chunks", 3), "the key 'model.w' has int for its chunks"),
    "a chunk": (lambda m: setattr(tensors(m), "chunks", [3]), "it has int for a chunk of the key 'model.w'"),
    "properties": (lambda m: setattr(tensors(m), "properties", 3), "the key 'model.w' has int for properties"),
    "dtype": (
        lambda m: setattr(tensors(m).properties, "dtype", 3),
        "the key 'model.w' has int for a dtype",
    ),
    "dtype by another name": (
        lambda m: setattr(tensors(m).properties, "dtype", torch.Size),
        "the key 'model.w' has torch.Size for a dtype",
    ),
    "an index": (lambda m: m.storage_data.update({"x": 3}), "it has str for a key of its storage_data"),
    "a name": (
        lambda m: m.storage_data.update({MetadataIndex(3): m.storage_data.popitem()[1]}),
        "it has int for a key of its storage_data",
    ),
    "a place": (lambda m: m.storage_data.update({MetadataIndex("epoch"): 3}), "it has int for the place of 'epoch'"),
    "offsets": (
        lambda m: m.storage_data.update({MetadataIndex("epoch", (-1,)): m.storage_data.pop(MetadataIndex("epoch"))}),
        "the offsets of a place of 'epoch' hold something other than a number from 0 to 2^63",
    ),
    "file": (
        lambda m: setattr(place(m, "epoch"), "relative_path", b"x"),
        "the place of 'epoch' is no name of a file and two numbers",
    ),
    "length": (
        lambda m: setattr(place(m, "epoch"), "length", 1e3),
        "the place of 'epoch' is no name of a file and two numbers",
    ),
    "many attributes": (
        lambda m: m.__dict__.update({f"x{n}": n for n in range(60)}),
        "it has a torch.distributed.checkpoint.metadata.Metadata with 65 attributes",
    ),
    "no path": (
        lambda m: m.planner_data.update({"epoch": ()}),
        "the path of 'epoch' is no tuple of names and indices",
    ),
    "a path of other things": (
        lambda m: m.planner_data.update({"epoch": ("a", True)}),
        "the path of 'epoch' is no tuple of names and indices",
    ),
    "a path to another key": (
        lambda m: m.planner_data.update({"epoch": ("model", "w")}),
        "the path of 'epoch' leads to another key",
    ),
    "a path in other parts": (
        lambda m: m.planner_data.update({"epoch": ("ep", "ch")}),
        "the path of 'epoch' leads to another key",
    ),
    "an index below zero": (
        lambda m: m.planner_data.update({"epoch": ("a", -1)}),
        "the path of 'epoch' is no tuple of names and indices",
    ),
    "an index that would fill the memory": (
        lambda m: m.planner_data.update({"epoch": ("a", 10**12)}),
        "the path of 'epoch' is no tuple of names and indices",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_metadata(split, name):
    change, reason = BROKEN[name]
    metadata = metadata_of(split)
    changed = change(metadata)
    write_metadata(split, changed if isinstance(changed, list | ChunkStorageMetadata) else metadata)
    refused(split, "CKPT002", f"is no metadata of a distributed checkpoint: {reason}")


def test_objects_that_are_made_by_more_than_their_attributes(folder):
    class Argument(BytesStorageMetadata):
        def __reduce__(self):
            return torch_metadata.Metadata, ({},)

    metadata = metadata_of(folder)
    write_metadata(folder, Argument())
    name = "torch.distributed.checkpoint.metadata.Metadata"
    reason = f"is no metadata of a distributed checkpoint: it has a {name} that is made by more than its attributes"
    refused(folder, "CKPT002", reason)
    assert metadata


def test_an_encoding_that_does_not_exist(folder, monkeypatch):
    metadata = metadata_of(folder)
    encoding = torch_metadata._MEM_FORMAT_ENCODING
    monkeypatch.setattr(encoding, "__reduce_ex__", lambda *_: (encoding, (9,)))
    write_metadata(folder, metadata)
    reason = "is no metadata of a distributed checkpoint: the key 'model.w' has "
    refused(folder, "CKPT002", f"{reason}torch.distributed.checkpoint.metadata.TensorProperties for properties")


@pytest.mark.parametrize(
    ("index", "reason"),
    [
        (MetadataIndex("epoch"), "gives 2 places to the value 'epoch', which is in one piece"),
        (index_of("model.w", 2, 0), "gives a place to a chunk of 'model.w' at (2, 0), which it does not have"),
    ],
)
def test_one_place_twice(split, monkeypatch, index, reason):
    """Two indices that are equal are one for torch, and whichever comes later wins."""
    metadata = metadata_of(split)
    monkeypatch.setattr(MetadataIndex, "__eq__", object.__eq__)
    monkeypatch.setattr(MetadataIndex, "__hash__", object.__hash__)
    metadata.storage_data = {**dict(metadata.storage_data.items()), index: place(metadata, index.fqn)}
    write_metadata(split, metadata)
    refused(split, "CKPT502", reason)


def test_bytes_behind_the_pickle(folder):
    data = (folder / ".metadata").read_bytes()
    (folder / ".metadata").write_bytes(data + RUNS)
    refused(folder, "CKPT704", f"is broken: {len(RUNS)} bytes follow the pickle in it")


@pytest.mark.parametrize(
    ("data", "code", "reason"),
    [
        (b"", "CKPT001", "is empty (0 bytes)"),
        (b"<html>", "CKPT001", "is a web page (HTML), not a checkpoint"),
        (
            b"version https://git-lfs.github.com/spec/v1\nsize 9\n",
            "CKPT001",
            "is a git-lfs pointer to a file of 9 bytes, not the file itself",
        ),
        (b"\x80\x04}.", "CKPT002", "is no metadata of a distributed checkpoint: it has dict for its metadata"),
        (archive(3), "CKPT002", ".metadata is a malformed pickle: byte 0 does not begin with a protocol number"),
    ],
)
def test_metadata_that_is_something_else(folder, data, code, reason):
    (folder / ".metadata").write_bytes(data)
    for path in (folder, folder / ".metadata"):
        error = error_of(path)
        assert (error.code, error.reason, error.subject) == (code, reason, str(folder / ".metadata"))


# -- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "/etc/hostname",
        "../x.distcp",
        "a/b",
        "a\\b",
        "C:x",
        "a\0b",
        "a\nb",
        "\x1b[2J",
        "\u202ex",
        "\udcffx",
    ],
)
def test_names_with_a_way_out(folder, name):
    def change(metadata):
        for info in metadata.storage_data.values():
            info.relative_path = name

    alter(folder, change)
    reason = f"names the file {name!a}, which is not the name of a file in its folder"
    refused(folder, "CKPT705", reason, "do not load it; ask where it comes from")


def test_a_file_that_is_not_there(split):
    (split / "__1_0.distcp").unlink()
    hint = "get __1_0.distcp from where the checkpoint comes from"
    refused(split, "CKPT501", "names the file '__1_0.distcp', which is not there", hint)
    (split / "__0_0.distcp").unlink()
    assert error_of(split).code == error_of(split / ".metadata").code == "CKPT501"


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_file(folder, make):
    (folder / "__0_0.distcp").unlink()
    make(folder / "__0_0.distcp")
    assert error_of(folder).reason == "names the file '__0_0.distcp', which is not there"
    (folder / ".metadata").unlink()
    make(folder / ".metadata")
    if make is os.mkfifo:
        assert error_of(folder, UsageError).reason == "is not a regular file"
    else:
        assert error_of(folder).reason == "is a distributed checkpoint without the .metadata that says what it holds"


def test_links(folder, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    file = folder / "__0_0.distcp"
    file.rename(tmp_path / "elsewhere" / "x")
    file.symlink_to(tmp_path / "elsewhere" / "x")
    reason = "names the file '__0_0.distcp', a link to a file outside of its folder"
    refused(folder, "CKPT705", reason, f"copy the file itself into {folder}")
    file.unlink()
    (tmp_path / "elsewhere" / "x").rename(folder / "x")
    file.symlink_to("x")
    assert open_checkpoint(folder).chosen.path == "model"


def test_the_store_of_a_hugging_face_cache(folder, tmp_path):
    snapshot, blobs = tmp_path / "models--x" / "snapshots" / "abc", tmp_path / "models--x" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for file in folder.iterdir():
        file.rename(blobs / file.name.strip("."))
        (snapshot / file.name).symlink_to(blobs / file.name.strip("."))
    assert open_checkpoint(snapshot).chosen.path == "model"


def test_a_folder_in_the_working_folder(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert open_checkpoint(".").path == open_checkpoint(".metadata").path == "."
    monkeypatch.chdir(folder.parent)
    assert open_checkpoint("step_10/").path == "step_10"


def test_a_file_that_changes_after_it_was_checked(folder):
    raw = open_checkpoint(folder).tensor("w")
    assert torch.equal(tensor_of(raw), STATE["model"]["w"])
    file = folder / "__0_0.distcp"
    os.utime(file, (1, 1))
    hint = "read it again once it is written"
    for read in (
        lambda: raw.source.read(0, 1),
        lambda: raw.source.read_into(0, memoryview(bytearray(1))),
        lambda: raw.source.data_from(0),
    ):
        with pytest.raises(FormatError) as caught:
            read()
        assert (caught.value.reason, caught.value.hint) == ("was changed since it was checked", hint)
        assert caught.value.code == "CKPT703"
    file.unlink()
    with pytest.raises(UsageError):
        raw.source.read(0, 1)


@pytest.mark.parametrize("name", [".metadata", "__0_0.distcp"])
def test_a_file_that_changes_while_it_is_read(folder, monkeypatch, name):
    def find_candidates(*arguments, **options):
        raise AssertionError("not reached")

    def replaced(self):
        if os.path.basename(self.path) == name:
            os.utime(self.path, (1, 1))
        return check(self)

    check = dcp.ByteSource.check_unchanged
    monkeypatch.setattr(dcp.ByteSource, "check_unchanged", replaced)
    monkeypatch.setattr(dcp, "find_candidates", find_candidates)
    error = error_of(folder)
    assert (error.code, error.subject) == ("CKPT703", str(folder / name))


def test_thousands_of_files_are_not_open_at_once(tmp_path):
    folder = save({f"w{n}": torch.ones(1) for n in range(60)}, tmp_path / "many", single_file_per_rank=False)
    before = len(os.listdir("/proc/self/fd"))
    checkpoint = open_checkpoint(folder)
    assert checkpoint.details["files"] == "60"
    assert len(os.listdir("/proc/self/fd")) == before
    buffer = bytearray(4)
    for raw in checkpoint.raw[""].values():
        raw.source.read_into(raw.offset, memoryview(buffer))
        assert buffer == b"".join(raw.storage_chunks()) == bytes(torch.ones(1).untyped_storage())
        assert raw.source.data_from(raw.offset) == raw.offset


# -- remarks ---------------------------------------------------------------------------------------------------------


def test_files_that_nothing_refers_to(folder):
    (folder / "__1_0.distcp").write_bytes(RUNS)
    (folder / "config.json").write_text("{}")
    reason = "holds 1 file ('__1_0.distcp') that its .metadata does not name"
    assert open_checkpoint(folder).remarks == (Remark("CKPT707", reason, ("__1_0.distcp",)),)


def test_bytes_that_nothing_refers_to(folder):
    put(folder, "epoch", archive(4))
    reason = "holds bytes that its .metadata does not refer to, in 1 file ('__0_0.distcp')"
    assert open_checkpoint(folder).remarks == (Remark("CKPT707", reason, ("__0_0.distcp",)),)


def test_odd_archives_are_remarked_on_once(folder):
    for key, value in (("epoch", pickle.dumps(1)), ("model.w", torch.ones(2, 3))):
        data = archive(value).replace(b"archive/.format_version", b"archive/.format_vershun")
        put(folder, key, data)
    archives, loose = open_checkpoint(folder).remarks
    reason = "holds 1 record ('.format_vershun') that nothing refers to (in __0_0.distcp, 'epoch')"
    assert (archives.code, archives.reason) == ("CKPT707", f"{reason}, and 2 more of the kind")
    assert loose.reason.startswith("holds bytes that its .metadata does not refer to")


def test_a_pickle_inside_of_metadata(folder):
    alter(folder, lambda metadata: setattr(metadata, "other", RUNS))
    (remark,) = open_checkpoint(folder).remarks
    assert remark.code == "CKPT707"
    assert remark.reason.endswith("which names posix.system")


# -- limits ------------------------------------------------------------------------------------------------------------


def over(folder, reason, hint, **limits):
    refused(folder, "CKPT703", reason, hint, limits=Limits(**limits))


def test_the_number_of_items(split):
    raised = "raise it if you trust the file: --limit dcp_items=20"
    over(split, "is not read: it has 3 items, more than 2", raised, dcp_items=2)
    assert open_checkpoint(split, limits=Limits(dcp_items=3))


def test_the_number_of_chunks_of_one_tensor(split):
    alter(split, lambda m: setattr(tensors(m), "chunks", tensors(m).chunks * 10))
    raised = "raise it if you trust the file: --limit dcp_items=100"
    over(split, "is not read: it has 20 items, more than 10", raised, dcp_items=10)


def test_the_bytes_of_metadata(folder):
    (folder / ".metadata").write_bytes((folder / ".metadata").read_bytes().ljust(20_000))
    raised = "raise it if you trust the file: --limit pickle_bytes=20000"
    over(folder, "is not read: it has 20,000 bytes", raised, pickle_bytes=100)


def test_long_paths(folder):
    alter(folder, lambda m: rename(m, "epoch", *"xxxxx"))
    raised = "raise it if you trust the file: --limit nesting=40"
    over(folder, "is not read: it has longer paths of keys than are read", raised, nesting=4)


def test_chunks_with_too_many_corners(tmp_path, monkeypatch):
    def make(rank):
        return {"w": sharded(torch.ones(4, 4), (2, 2), [Shard(0), Shard(1)])}

    folder = save_ranks(make, 4, tmp_path / "grid")
    monkeypatch.setattr(dcp_tiles, "MAX_CORNERS", 15)
    refused(folder, "CKPT703", "has chunks cut along so many dimensions that they are not compared")


def test_all_archives_together_may_cost_what_one_file_may(tmp_path):
    folder = save({"a": list(range(3000)), "b": list(range(3000))}, tmp_path / "lists")
    assert open_checkpoint(folder, limits=Limits(pickle_opcodes=8000)).candidates == ()
    error = error_of(folder, limits=Limits(pickle_opcodes=5000))
    assert (error.code, error.subject) == ("CKPT703", f"{folder}/__0_0.distcp:b")
    assert error.hint == "raise it if you trust the file: --limit pickle_opcodes=50000"


def test_the_records_of_all_archives_count(folder, tmp_path, monkeypatch):
    rezip(save_zip(3, tmp_path / "x.pt"), tmp_path / "y.pt", replace={f"odd/{n}": b"" for n in range(30)})
    for key in ("epoch", "model.b"):
        put(folder, key, (tmp_path / "y.pt").read_bytes())
    alter(folder, lambda m: m.state_dict_metadata.update({"model.b": BytesStorageMetadata()}))
    alter(
        folder, lambda m: m.storage_data.update({MetadataIndex("model.b"): m.storage_data.pop(index_of("model.b", 0))})
    )
    assert open_checkpoint(folder).manifest.entries == {"b": "int"}
    monkeypatch.setattr(dcp, "_RECORD", 100_000)
    error = error_of(folder)
    assert (error.code, error.subject) == ("CKPT703", f"{folder}/__0_0.distcp:model.b")
    assert error.hint == "raise it if you trust the file: --limit pickle_opcodes=45000000"
    monkeypatch.setattr(dcp, "_RECORD", 200_000)
    reason = "is not read: its archives together cost as much as "
    error = error_of(folder)
    assert (error.code, error.reason[: len(reason)], error.hint) == (
        "CKPT703",
        reason,
        "raise it if you trust the file: --limit pickle_opcodes=45000000",
    )


# -- whatever else -----------------------------------------------------------------------------------------------------


def test_metadata_cut_at_every_length(folder):
    data = (folder / ".metadata").read_bytes()
    for length in range(0, len(data), 5):
        (folder / ".metadata").write_bytes(data[:length])
        with pytest.raises(FormatError):
            open_checkpoint(folder)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damage_is_a_format_error_or_harmless(split, data):
    name = data.draw(st.sampled_from([".metadata", "__0_0.distcp", "__1_0.distcp"]))
    whole = (split / name).read_bytes()
    at, byte = data.draw(st.integers(0, len(whole) - 1)), data.draw(st.integers(0, 255))
    (split / name).write_bytes(whole[:at] + bytes([byte]) + whole[at + 1 :])
    try:
        open_checkpoint(split, allow_refused=data.draw(st.booleans()))
    except CkptauditError:
        pass
    finally:
        (split / name).write_bytes(whole)


def test_reading_imports_neither_torch_nor_pickle(folder):
    code = """
import sys
for name in ("torch", "numpy", "pickle", "pickletools", "zipfile", "logging", "tarfile"):
    sys.modules[name] = None
from ckptaudit.formats import open_checkpoint
assert list(open_checkpoint(sys.argv[1]).manifest) == ["w", "b"]
"""
    env = {**os.environ, "PYTHONPATH": str(Path(ckptaudit.__file__).parents[1])}
    subprocess.run([sys.executable, "-c", code, str(folder)], check=True, env=env)


def test_the_metadata_that_torch_reads(split):
    theirs = FileSystemReader(split).read_metadata()
    ours = open_checkpoint(split)
    for key, entry in theirs.state_dict_metadata.items():
        if isinstance(entry, TensorStorageMetadata):
            spec = ours.manifest[key.removeprefix("model.")]
            assert (spec.shape, f"torch.{spec.dtype}") == (tuple(entry.size), str(entry.properties.dtype))
    infos = [info for info in theirs.storage_data.values() if isinstance(info, _StorageInfo)]
    assert ours.details["items"] == str(len(infos))
