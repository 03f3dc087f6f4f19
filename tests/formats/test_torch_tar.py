"""The tar that torch.save wrote before 0.2, against torch.load; and what is refused in it."""

from __future__ import annotations

import io
import os
import pickle
import struct
import tarfile
import time
import tracemalloc
from collections import OrderedDict

import pytest
import torch

from ckptaudit.errors import CkptauditError, FormatError
from ckptaudit.formats import open_checkpoint

HINT = "get the file again from its source; torch.save writes no such tar"
SYSTEM = {"protocol_version": 1000, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 8}}
DTYPES = {
    **{"Double": torch.float64, "Float": torch.float32, "Half": torch.float16, "Long": torch.int64},
    **{"Int": torch.int32, "Short": torch.int16, "Char": torch.int8, "Byte": torch.uint8},
}


class Ref:
    """A tensor or storage of the object, by its key."""

    def __init__(self, key):
        self.key = key


class Pickler(pickle.Pickler):
    def persistent_id(self, obj):
        return str(obj.key) if isinstance(obj, Ref) else None


def dump(data):
    buffer = io.BytesIO()
    Pickler(buffer, 2).dump(data)
    return buffer.getvalue()


def storage_record(key, name, numel, data=None, location="cpu"):
    itemsize = DTYPES[name].itemsize
    data = bytes(index % 120 for index in range(numel * itemsize)) if data is None else data
    return dump((key, location, getattr(torch, f"{name}Storage"))) + struct.pack("<q", numel) + data


def tensor_record(key, storage, name, size, stride, offset=0):
    head = dump((key, storage, getattr(torch, f"{name}Tensor"))) + struct.pack("<i", len(size)) + bytes(4)
    return head + struct.pack(f"<{2 * len(size) + 1}q", *size, *stride, offset)


def section(*records):
    return dump(len(records)) + b"".join(records)


BASE = 140_221_006_304_256  # an address, as keys were
STORAGES = (storage_record(BASE, "Float", 12), storage_record(BASE + 1, "Long", 2))
TENSORS = (
    tensor_record(1, BASE, "Float", (3, 4), (4, 1)),
    tensor_record(2, BASE, "Float", (2, 2), (1, 4), 5),
    tensor_record(3, BASE + 1, "Long", (1,), (1,), 1),
    tensor_record(4, BASE + 2, "Float", (3,), (1,), 1),
)
VIEWS = [(BASE + 2, BASE, 4, 4)]
STATE = OrderedDict({"w": Ref(1), "part": Ref(2), "steps": Ref(3), "view": Ref(4), "tied": Ref(1)})


def members(data=STATE, held=STORAGES, listed=TENSORS, views=VIEWS, **parts):
    pieces = {
        "sys_info": dump(SYSTEM),
        "pickle": dump(data),
        "tensors": section(*listed),
        "storages": section(*held) + dump(views),
    }
    return {**pieces, **parts}


def pack(path, pieces, tar_format=tarfile.PAX_FORMAT, mtime=1.5, **fields):
    with tarfile.open(path, "w:", format=tar_format) as tar:
        for name, data in pieces.items():
            info = tarfile.TarInfo(name.strip("~"))
            info.size, info.mtime = len(data), mtime
            for field, value in fields.items():
                setattr(info, field, value)
            tar.addfile(info, io.BytesIO(data))
    return path


@pytest.fixture
def path(tmp_path):
    return tmp_path / "old.pth.tar"


def error_of(path):
    with pytest.raises(FormatError) as caught:
        open_checkpoint(path)
    return caught.value


def assert_same_as_torch(path):
    checkpoint = open_checkpoint(path)
    loaded = torch.load(path, weights_only=False)
    assert checkpoint.format == "torch-tar"
    assert list(checkpoint.manifest) == list(loaded)
    for key, tensor in loaded.items():
        spec, raw = checkpoint.manifest[key], checkpoint.tensor(key)
        assert f"torch.{spec.dtype}" == str(tensor.dtype)
        assert (spec.shape, spec.stride) == (tuple(tensor.shape), tensor.stride())
        assert (spec.location, spec.storage_nbytes) == ("cpu", raw.nbytes)
        if raw.nbytes == 0:
            assert tensor.numel() == 0
            continue
        memory = torch.frombuffer(bytearray(b"".join(raw.storage_chunks(5))), dtype=tensor.dtype)
        assert torch.equal(memory.as_strided(spec.shape, spec.stride, spec.storage_offset), tensor)
    return checkpoint


@pytest.mark.parametrize("tar_format", [tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT])
def test_tensors_views_and_ties_read_as_torch_reads_them(path, tar_format):
    checkpoint = assert_same_as_torch(pack(path, members(), tar_format))
    assert checkpoint.manifest.ties() == [("w", "tied")]
    assert checkpoint.manifest.shared_storages() == [("w", "part", "view", "tied")]
    assert checkpoint.manifest["view"].storage_offset == 5
    assert checkpoint.manifest["view"].storage_nbytes == 48
    assert checkpoint.path == checkpoint.manifest.source == str(path)
    assert checkpoint.size == path.stat().st_size
    names = {found.name for found in checkpoint.globals}
    assert names == {
        "collections.OrderedDict",
        "torch.FloatStorage",
        "torch.LongStorage",
        "torch.FloatTensor",
        "torch.LongTensor",
    }


@pytest.mark.parametrize("name", DTYPES)
def test_every_dtype_of_its_time(path, name):
    storages = [storage_record(5, name, 6)]
    tensors = [tensor_record(1, 5, name, (2, 3), (3, 1)), tensor_record(2, 5, name, (), (), 3)]
    assert_same_as_torch(pack(path, members({"w": Ref(1), "scalar": Ref(2)}, storages, tensors, [])))


def test_what_is_empty_and_what_fills_a_storage_is_read(path):
    storages = [storage_record(0, "Float", 0), storage_record(7, "Float", 4)]
    tensors = [tensor_record(1, 0, "Float", (0,), (1,)), tensor_record(2, 8, "Float", (2, 2), (2, 1))]
    state = OrderedDict({"empty": Ref(1), "whole": Ref(2)})
    assert_same_as_torch(pack(path, members(state, storages, tensors, [(8, 7, 0, 4)])))
    assert open_checkpoint(pack(path, members({}, [], [], []))).candidates == ()


def test_nested_state_dicts_are_candidates(path):
    data = {"epoch": 3, "state_dict": STATE, "best": 0.5}
    checkpoint = open_checkpoint(pack(path, members(data)))
    assert checkpoint.chosen.path == "state_dict"
    assert checkpoint.siblings == {"epoch": "int", "best": "float"}
    assert list(checkpoint.manifest) == list(STATE)


class Payload:
    def __reduce__(self):
        return os.system, ("echo",)


SYSTEM_NAME = f"{os.system.__module__}.system"
REFUSED = {  # the members, code, sentence
    "storage twice": (
        members(held=[STORAGES[0], STORAGES[0]]),
        "CKPT002",
        "has a storage 1 of the tar of negative size, or under a key that another one has",
    ),
    "negative size": (
        members(held=[storage_record(BASE, "Float", 0)[:-8] + struct.pack("<q", -1)]),
        "CKPT002",
        "has a storage 0 of the tar of negative size, or under a key that another one has",
    ),
    "storage class": (
        members(held=[dump((BASE, "cpu", OrderedDict)) + struct.pack("<q", 0)]),
        "CKPT002",
        "has a storage 0 of the tar without a known class and a location",
    ),
    "untyped storage": (
        members(held=[dump((BASE, "cpu", torch.UntypedStorage)) + struct.pack("<q", 0)]),
        "CKPT002",
        "has a storage 0 of the tar without a known class and a location",
    ),
    "no location": (
        members(held=[storage_record(BASE, "Float", 1, location=None)]),
        "CKPT002",
        "has a storage 0 of the tar without a known class and a location",
    ),
    "a list for a record": (
        members(held=[dump([BASE, "cpu", torch.FloatStorage]) + struct.pack("<q", 0)]),
        "CKPT002",
        "has a storage 0 of the tar that is no key, storage or location, and class",
    ),
    "no class in a record": (
        members(held=[dump((BASE, "cpu", "FloatStorage")) + struct.pack("<q", 0)]),
        "CKPT002",
        "has a storage 0 of the tar that is no key, storage or location, and class",
    ),
    "storage record": (
        members(held=[dump([BASE])]),
        "CKPT002",
        "has a storage 0 of the tar that is no key, storage or location, and class",
    ),
    "storage key": (
        members(held=[dump(("x", "cpu", torch.FloatStorage)) + struct.pack("<q", 0)]),
        "CKPT002",
        "has a storage 0 of the tar whose key is no address",
    ),
    "huge storage": (
        members(held=[dump((BASE, "cpu", torch.FloatStorage)) + struct.pack("<q", 1 << 60)]),
        "CKPT001",
        "ends early: storage 0 of the tar needs 4,611,686,018,427,387,904 bytes at byte ",
    ),
    "count": (
        members(storages=dump([])),
        "CKPT002",
        "has a number of storages that is no count",
    ),
    "views": (members(views={}), "CKPT002", "has storage views that are no list"),
    "odd view": (members(views=[(1, BASE, -4, 4)]), "CKPT002", "has a storage view that is not four counts"),
    "view of nothing": (
        members(views=[(1, 9, 0, 4)]),
        "CKPT002",
        "has a storage view 1 of no storage, or under a key that another one has",
    ),
    "view of a view": (
        members(views=[*VIEWS, (BASE + 3, BASE + 2, 0, 1)]),
        "CKPT002",
        f"has a storage view {BASE + 3} of no storage, or under a key that another one has",
    ),
    "view over a storage": (
        members(views=[(BASE + 1, BASE, 0, 4)]),
        "CKPT002",
        f"has a storage view {BASE + 1} of no storage, or under a key that another one has",
    ),
    "long view": (
        members(views=[(BASE + 2, BASE, 9, 4)]),
        "CKPT002",
        f"has a view of the storage '{BASE}' that ends at byte 52 of its 48 bytes",
    ),
    "behind the views": (
        members(storages=section(*STORAGES) + dump(VIEWS) + b"12"),
        "CKPT704",
        "has 2 bytes behind the storage views of its tar",
    ),
    "behind the tensors": (
        members(tensors=section(*TENSORS) + b"1"),
        "CKPT704",
        "has 1 byte behind the last tensor of its tar",
    ),
    "dimensions": (
        members(listed=[dump((1, BASE, torch.FloatTensor)) + struct.pack("<ii", 1 << 30, 0)]),
        "CKPT002",
        "has a tensor 0 of the tar of 1,073,741,824 dimensions, the limit is 64",
    ),
    "tensor on nothing": (
        members(listed=[tensor_record(1, 9, "Float", (), ())]),
        "CKPT002",
        "has a tensor 0 of the tar on a storage that the tar does not hold",
    ),
    "tensor class": (
        members(listed=[dump((1, BASE, OrderedDict)) + struct.pack("<iiq", 0, 0, 0)]),
        "CKPT002",
        "has a tensor 0 of the tar without a known class, or under a key that another one has",
    ),
    "tensor twice": (
        members(listed=[TENSORS[0], TENSORS[0]]),
        "CKPT002",
        "has a tensor 1 of the tar without a known class, or under a key that another one has",
    ),
    "unknown reference": (members({"w": Ref(9)}), "CKPT002", "refers to '9', which it does not hold"),
    "code in the counts": (
        members(storages=dump(Payload())),
        "CKPT702",
        f"names {SYSTEM_NAME} in the number of storages of the tar, where torch.save writes plain data only",
    ),
    "code in the system facts": (
        members(sys_info=dump(Payload())),
        "CKPT702",
        f"names {SYSTEM_NAME} in the system facts, where torch.save writes plain data only",
    ),
    "a second object": (
        members(pickle=dump({}) + dump({})),
        "CKPT704",
        "has 6 bytes behind the object of its tar",
    ),
    "no system facts": (
        members(sys_info=dump([])),
        "CKPT002",
        "has system facts that are no dict",
    ),
    "an extra member": (
        members(more=b"x"),
        "CKPT002",
        "has the member 'more', which torch.save does not write",
    ),
    "a member twice": (
        {**members(), "pickle~": dump({})},
        "CKPT002",
        "has two members 'pickle', or more than 64 of any name",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_broken_tar_is_refused_by_name(path, name):
    pieces, code, reason = REFUSED[name]
    error = error_of(pack(path, pieces))
    assert error.reason.startswith(reason) if reason.endswith(" ") else error.reason == reason
    assert (error.code, error.subject) == (code, str(path))


def test_a_tensor_that_looks_out_of_its_storage(path):
    pack(path, members(listed=[tensor_record(1, BASE, "Float", (13,), (1,))]))
    error = error_of(path)
    assert error.reason == f"tensor '0 of the tar' needs 52 bytes of storage '{BASE}', which holds 48"
    assert error.code == "CKPT002"


def test_code_in_the_object_is_refused(path):
    error = error_of(pack(path, members({"w": Ref(1), "x": Payload()})))
    assert error.code == "CKPT702"
    assert SYSTEM_NAME in error.reason


def test_another_tar_is_no_checkpoint(path):
    error = error_of(pack(path, {"model/config.json": b"{}", "weights.th": b""}))
    assert error.reason == "is a tar archive that torch.save did not write, not a checkpoint"
    assert error.hint == f"unpack it first: tar -xf {path}"
    assert error.code == "CKPT001"


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        (
            {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"},
            "has the member 'sys_info', which is no plain file",
        ),
        ({"type": tarfile.LNKTYPE, "linkname": "x"}, "has the member 'sys_info', which is no plain file"),
        ({"type": tarfile.DIRTYPE}, "has the member 'sys_info/', which is no plain file"),
        ({"pax_headers": {"path": "other"}}, "has a pax header that sets 'path'"),
        ({"pax_headers": {"GNU.sparse.size": "1"}}, "has a pax header that sets 'GNU.sparse.size'"),
        ({"pax_headers": {"size": "1\nx"}}, "has a pax header with a size that is no number"),
        ({"pax_headers": {"size": "x"}}, "has a pax header with a size that is no number"),
        (
            {"pax_headers": {"comment": "x" * 5000}, "mtime": 1},
            "has a pax header of 5,014 bytes, the limit is 4,096",
        ),
    ],
)
def test_what_tar_programs_disagree_about_is_refused(path, fields, reason):
    error = error_of(pack(path, members(), **fields))
    assert (error.reason, error.code, error.hint) == (reason, "CKPT002", HINT)


def test_pax_records_that_only_describe_are_read(path):
    assert_same_as_torch(pack(path, members(), pax_headers={"comment": "x", "uname": "größe"}))


def test_a_wrong_checksum_is_refused(path):
    blob = bytearray(pack(path, members(), tarfile.USTAR_FORMAT).read_bytes())
    blob[108] ^= 1
    path.write_bytes(blob)
    assert error_of(path).reason == "has a tar header with a wrong checksum"


def test_data_behind_the_archive_is_refused(path):
    pack(path, members())
    with path.open("ab") as file:
        file.write(b"x")
    error = error_of(path)
    assert error.reason == "has data behind the end of its tar archive"
    assert (error.code, error.hint) == ("CKPT704", HINT)


def test_every_truncation_is_an_error_or_the_same_checkpoint(path):
    """What is cut from the zero bytes that fill up a tar changes nothing."""
    pack(path, members())
    whole = path.read_bytes()
    expected = open_checkpoint(path).manifest
    end = whole.rstrip(b"\0")
    for keep in [*range(0, len(end), 7), *range(len(end), len(whole), 101)]:
        path.write_bytes(whole[:keep])
        try:
            manifest = open_checkpoint(path).manifest
        except CkptauditError:
            continue
        assert keep > len(end)
        assert manifest == expected


def test_no_flipped_byte_leads_to_another_exception(path):
    pack(path, members(), tarfile.USTAR_FORMAT)
    whole = path.read_bytes()
    for index, byte in enumerate(whole):
        if byte or index % 19 == 0:
            blob = bytearray(whole)
            blob[index] ^= 0x55
            path.write_bytes(blob)
            try:
                _ = open_checkpoint(path).choice
            except CkptauditError:
                continue


def test_two_gigabytes_are_read_in_milliseconds_and_kilobytes(path):
    numel = 1 << 29
    pieces = members(
        {"w": Ref(1)},
        held=[],
        listed=[tensor_record(1, BASE, "Float", (numel,), (1,))],
    )
    head = dump(1) + dump((BASE, "cpu", torch.FloatStorage)) + struct.pack("<q", numel)
    tail = dump([])
    pieces.pop("storages")
    pack(path, pieces, tarfile.USTAR_FORMAT)
    start = len(path.read_bytes().rstrip(b"\0")) + 511 >> 9 << 9
    info = tarfile.TarInfo("storages")
    info.size = len(head) + 4 * numel + len(tail)
    with path.open("r+b") as file:
        file.seek(start)
        file.truncate()
        file.write(info.tobuf(tarfile.USTAR_FORMAT) + head)
        file.seek(4 * numel, os.SEEK_CUR)
        file.write(tail)
        file.truncate((file.tell() + 511 >> 9 << 9) + 1024)
    open_checkpoint(path)
    tracemalloc.start()
    started = time.perf_counter()
    checkpoint = open_checkpoint(path)
    seconds = time.perf_counter() - started
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert checkpoint.manifest.nbytes == 4 * numel
    assert seconds < 0.2
    assert peak < 2_000_000
