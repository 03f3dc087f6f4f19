"""The stream that torch.save wrote before 1.6, against torch.load; and what is refused in it."""

from __future__ import annotations

import io
import os
import pickle
import pickletools
import struct
import time
import tracemalloc
from collections import OrderedDict

import pytest
import torch

from ckptaudit.errors import CkptauditError, FormatError
from ckptaudit.formats import Limits, open_checkpoint

MAGIC = 0x1950A86A20F9469CFC6C
SYSTEM = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
HINT = "get the file again from its source; torch.save writes no such file"
NO_TENSOR = "get the file again from its source; torch.save writes no such tensor"
CUT = "download or copy it again; this copy is incomplete"
DTYPES = [
    *("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool"),
    *("complex64", "complex128", "complex32", "uint16", "uint32", "uint64", "float4_e2m1fn_x2"),
    *("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu"),
]


def save(data, path, protocol=2):
    torch.save(data, path, _use_new_zipfile_serialization=False, pickle_protocol=protocol)
    return path


def error_of(path, name=""):
    with pytest.raises(FormatError) as caught:
        open_checkpoint(f"{path}#{name}" if name else path)
    return caught.value


def assert_same_as_torch(path, select=lambda loaded: loaded, inner=""):
    """Compare every tensor, its memory and who shares it with what torch.load shows."""
    return assert_same_as(select(torch.load(path)), path, inner)


def assert_same_as(state, path, inner=""):
    checkpoint = open_checkpoint(f"{path}#{inner}" if inner else path)
    assert checkpoint.format == "torch-legacy"
    tensors = {key: value for key, value in state.items() if isinstance(value, torch.Tensor)}
    assert list(checkpoint.manifest) == list(tensors)
    memory = {}
    for key, tensor in tensors.items():
        spec, raw = checkpoint.manifest[key], checkpoint.tensor(key)
        assert f"torch.{spec.dtype}" == str(tensor.dtype)
        assert (spec.shape, spec.stride) == (tuple(tensor.shape), tensor.stride())
        assert spec.storage_offset == tensor.storage_offset()
        assert spec.requires_grad in (None, tensor.requires_grad)
        assert spec.location == "cpu"
        assert (spec.kind == "parameter") == isinstance(tensor, torch.nn.Parameter)
        assert raw.nbytes == spec.storage_nbytes == tensor.untyped_storage().nbytes()
        assert b"".join(raw.storage_chunks(7)) == bytes(tensor.untyped_storage())
        memory.setdefault(spec.storage, set()).add(tensor.untyped_storage()._cdata)
    assert all(len(addresses) == 1 for addresses in memory.values())
    assert len(memory) == len({tensor.untyped_storage()._cdata for tensor in tensors.values()})
    return checkpoint


@pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")
@pytest.mark.parametrize("name", DTYPES)
def test_every_dtype_reads_as_it_was_saved(tmp_path, name):
    """Oracle: what was saved. torch 2.15 writes dtypes without a storage class, and cannot read them."""
    data = torch.arange(1, 25, dtype=torch.uint8).repeat_interleave(16)
    tensor = data > 7 if name == "bool" else data.view(getattr(torch, name))
    state = {"w": tensor, "empty": tensor[:0].clone()}
    assert_same_as(state, save(state, tmp_path / "x.pt"))


@pytest.mark.parametrize("name", DTYPES[:12])
def test_every_dtype_that_torch_can_read_reads_as_torch_reads_it(tmp_path, name):
    tensor = torch.arange(24).to(getattr(torch, name))
    checkpoint = assert_same_as_torch(save({"w": tensor, "grad": tensor[:0].clone()}, tmp_path / "x.pt"))
    assert checkpoint.manifest["w"].requires_grad is False


def test_ties_views_parameters_and_strides(tmp_path):
    base = torch.arange(24.0).reshape(4, 6)
    state = {
        "base": base,
        "tied": base,
        "transposed": base.t(),
        "part": base[1:3, 2:5],
        "scalar": torch.tensor(7),
        "empty": torch.zeros(0, 3),
        "parameter": torch.nn.Parameter(torch.ones(2), requires_grad=False),
        "expanded": torch.ones(1).expand(5),
    }
    checkpoint = assert_same_as_torch(save(state, tmp_path / "x.pt"))
    assert checkpoint.manifest.ties() == [("base", "tied")]
    assert checkpoint.details == {"byteorder": "little"}


def test_a_state_dict_keeps_its_versions(tmp_path):
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    checkpoint = assert_same_as_torch(save(model.state_dict(), tmp_path / "x.pt"))
    assert checkpoint.manifest.versions == {"": 1, "0": 1, "1": 2}
    assert checkpoint.path == checkpoint.manifest.source == str(tmp_path / "x.pt")
    assert checkpoint.size == (tmp_path / "x.pt").stat().st_size
    assert {found.name for found in checkpoint.globals} >= {"collections.OrderedDict", "torch.FloatStorage"}
    assert {found.verdict for found in checkpoint.globals} == {"allowed"}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_protocol_of_pickle(tmp_path, protocol):
    state = {"w": torch.ones(3)}
    assert_same_as(state, save(state, tmp_path / "x.pt", protocol))


def test_nested_state_dicts_are_candidates(tmp_path):
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(3)).sum().backward()
    optimizer.step()
    training = {"state_dict": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3}
    path = save(training, tmp_path / "x.pt")
    checkpoint = assert_same_as_torch(path, lambda loaded: loaded["state_dict"])
    assert checkpoint.chosen.path == "state_dict"
    assert checkpoint.siblings["epoch"] == "int"
    assert "optimizer" in {candidate.path for candidate in checkpoint.candidates}
    assert_same_as_torch(path, lambda loaded: loaded["state_dict"], "state_dict")
    assert error_of_choice(path, "ema").code == "CKPT006"


def error_of_choice(path, inner):
    choice = open_checkpoint(f"{path}#{inner}").choice
    assert isinstance(choice, FormatError)
    return choice


def test_pickled_modules_name_their_class_through_a_persistent_id(tmp_path):
    path = save(torch.nn.Linear(3, 2), tmp_path / "x.pt")
    error = error_of(path)
    assert error.code == "CKPT701"
    assert "torch.nn.modules.linear.Linear" in error.reason
    checkpoint = open_checkpoint(path, allow_refused=True)
    assert "torch.nn.modules.linear.Linear" in {found.name for found in checkpoint.globals}


# -- files that torch does not write any more, or never wrote ---------------------------------------------


class Memory:
    """A storage to be pickled: its persistent id is ``fields``."""

    def __init__(self, *fields):
        self.fields = fields


class Rebuilt:
    def __init__(self, function, *args):
        self.call = (function, args)

    def __reduce__(self):
        return self.call


class Pickler(pickle.Pickler):
    def persistent_id(self, obj):
        return obj.fields if isinstance(obj, Memory) else None


def dump(data, protocol=2):
    buffer = io.BytesIO()
    Pickler(buffer, protocol).dump(data)
    return buffer.getvalue()


def memory(key="1", numel=6, view=None, storage=torch.FloatStorage, location="cpu"):
    return Memory("storage", storage, key, location, numel, view)


def rebuilt(mem, size=(2, 3), stride=(3, 1), offset=0):
    return Rebuilt(torch._utils._rebuild_tensor, mem, offset, size, stride)


def content(numel, itemsize=4, fill=None):
    return struct.pack("<q", numel) + (fill or bytes(range(1, 1 + numel * itemsize)))


def stream(path, data, keys=("1",), tail=None, **parts):
    """Write a legacy file from its parts; each may be replaced by bytes of one's own."""
    pieces = {"magic": dump(MAGIC), "version": dump(1001), "system": dump(SYSTEM), "object": dump(data)}
    pieces |= {"listed": dump(list(keys)), "tail": content(6) if tail is None else tail}
    path.write_bytes(b"".join({**pieces, **parts}.values()))
    return path


@pytest.fixture
def path(tmp_path):
    return tmp_path / "old.pth"


def test_the_rebuild_function_of_torch_0_3(path):
    assert_same_as_torch(stream(path, {"w": rebuilt(memory()), "t": rebuilt(memory(), (3, 2), (1, 3))}))


def test_views_of_storages_share_the_memory_of_their_root(path):
    state = {
        "left": rebuilt(memory(view=("2", 0, 3)), (3,), (1,)),
        "right": rebuilt(memory(view=("3", 3, 3)), (2,), (1,), 1),
        "again": rebuilt(memory(view=("3", 3, 3)), (1,), (1,)),
    }
    checkpoint = open_checkpoint(stream(path, state))
    loaded = torch.load(path)
    for key, tensor in loaded.items():
        spec, raw = checkpoint.manifest[key], checkpoint.tensor(key)
        root = torch.frombuffer(bytearray(b"".join(raw.storage_chunks())), dtype=torch.float32)
        assert torch.equal(root.as_strided(spec.shape, spec.stride, spec.storage_offset), tensor)
        assert (raw.nbytes, spec.storage, spec.storage_nbytes) == (24, "1", 24)
    assert checkpoint.manifest["right"].storage_offset == 4
    assert checkpoint.manifest.shared_storages() == [("left", "right", "again")]


def python2(data):
    """Write text as Python 2 did: SHORT_BINSTRING instead of BINUNICODE."""
    pieces, blob = [], dump(data)
    positions = [(opcode, argument, start) for opcode, argument, start in pickletools.genops(blob)]
    for (opcode, argument, start), following in zip(
        positions, [*(start for _, _, start in positions[1:]), len(blob)], strict=True
    ):
        if opcode.name == "BINUNICODE":
            pieces.append(b"U" + bytes([len(argument)]) + argument.encode())
        else:
            pieces.append(blob[start:following])
    return b"".join(pieces)


def test_the_strings_of_python_2(path):
    data = OrderedDict({"conv1.weight": rebuilt(memory())})
    stream(path, data, object=python2(data), listed=python2(["1"]), system=python2(SYSTEM))
    assert b"conv1.weight" in path.read_bytes()
    assert_same_as_torch(path)


@pytest.mark.parametrize("tensor_first", [True, False])
def test_a_storage_beside_a_tensor_on_it(path, tensor_first):
    parts = {"w": rebuilt(memory()), "s": memory()}
    stream(path, parts if tensor_first else dict(reversed(parts.items())))
    checkpoint = open_checkpoint(path)
    assert torch.load(path)["w"].shape == checkpoint.manifest["w"].shape == (2, 3)


@pytest.mark.parametrize("tensor_first", [True, False])
def test_one_storage_under_two_dtypes(path, tensor_first):
    """Versions of torch differ on which of the two the bytes are."""
    parts = {"w": rebuilt(memory()), "s": memory(numel=24, storage=torch.ByteStorage)}
    stream(path, parts if tensor_first else dict(reversed(parts.items())), tail=content(24, 1))
    with pytest.raises(FormatError, match=r"twice, as (float32 and uint8|uint8 and float32)") as caught:
        open_checkpoint(path)
    assert caught.value.code == "CKPT002"


def test_a_file_of_a_big_endian_machine_is_little_endian_all_the_same(path):
    stream(path, {"w": rebuilt(memory())}, system=dump({**SYSTEM, "little_endian": False}))
    checkpoint = assert_same_as_torch(path)
    assert checkpoint.details == {"byteorder": "little", "written on": "a big-endian machine"}
    assert checkpoint.tensor("w").byteorder == "little"


class Payload:
    def __init__(self, function, *args):
        self.function, self.args = function, args

    def __reduce__(self):
        return self.function, self.args


PLAIN_ONLY = "where torch.save writes plain data only"
SYSTEM_NAME = f"{os.system.__module__}.system"
SYSTEM_CALL = dump(Payload(os.system, "echo"))
BARE = {"w": rebuilt(memory())}
REFUSED = {  # how to write the file, code, sentence
    "no keys": (
        {"keys": ()},
        "CKPT002",
        "lists no bytes for 1 of 1 storages, '1' first: torch would load whatever lies in memory",
    ),
    "unknown key": (
        {"keys": ("1", "9")},
        "CKPT002",
        "lists the storage '9', which no tensor declares",
    ),
    "key twice": ({"keys": ("1", "1")}, "CKPT002", "lists a storage twice"),
    "keys no list": (
        {"listed": dump({"1": 1})},
        "CKPT002",
        "has a list of storage keys that is no list of text",
    ),
    "numbers as keys": ({"keys": (1,)}, "CKPT002", "has a list of storage keys that is no list of text"),
    "other count": (
        {"tail": content(5)},
        "CKPT002",
        "holds the storage '1' in 20 bytes, where its tensors declare 24",
    ),
    "negative count": (
        {"tail": struct.pack("<q", -6) + bytes(24)},
        "CKPT002",
        "holds the storage '1' in -24 bytes, where its tensors declare 24",
    ),
    "trailing": ({"tail": content(6) + b"x"}, "CKPT704", "has 1 byte behind the last storage"),
    "version": ({"version": dump(9)}, "CKPT002", "has the protocol version 9, torch.save writes 1001"),
    "system": ({"system": dump([])}, "CKPT002", "has system facts that are no dict"),
    "storage in keys": (
        {"listed": dump([Memory("1")])},
        "CKPT002",
        "refers to a storage in the list of storage keys, where torch.save writes plain data only",
    ),
    "sizes differ": (
        {"data": {"w": rebuilt(memory()), "v": rebuilt(memory(numel=7))}},
        "CKPT002",
        "declares the storage '1' twice, with 24 and 28 bytes",
    ),
    "view": (
        {"data": {"w": rebuilt(memory(view=("2", 3, 4)), (3,), (1,))}},
        "CKPT002",
        "has a view of the storage '1' that ends at byte 28 of its 24 bytes",
    ),
    "negative view": (
        {"data": {"w": rebuilt(memory(view=("2", -3, 3)), (3,), (1,))}},
        "CKPT002",
        "has a view of the storage '1' whose offset and size are no counts",
    ),
    "view without an offset": (
        {"data": {"w": rebuilt(memory(view=("2", None, 3)), (3,), (1,))}},
        "CKPT002",
        "has a view of the storage '1' whose offset and size are no counts",
    ),
    "view of a true size": (
        {"data": {"w": rebuilt(memory(view=("2", 0, True)), (1,), (1,))}},
        "CKPT002",
        "has a view of the storage '1' whose offset and size are no counts",
    ),
    "odd view": (
        {"data": {"w": rebuilt(memory(view=("2", 3)), (3,), (1,))}},
        "CKPT002",
        "has a view of the storage '1' without a key, an offset and a size",
    ),
    "view at two places": (
        {"data": {k: rebuilt(memory(view=("2", i, 3)), (3,), (1,)) for i, k in enumerate("ab")}},
        "CKPT002",
        "declares the view '2' of storages twice, at different places",
    ),
    "view named like a storage": (
        {"data": {"w": rebuilt(memory(view=("1", 0, 3)), (3,), (1,))}},
        "CKPT002",
        "uses '1' for a storage and for a view of one",
    ),
    "code for the system facts": (
        {"system": SYSTEM_CALL},
        "CKPT702",
        f"names {SYSTEM_NAME} in the system facts, {PLAIN_ONLY}",
    ),
    "code for the keys": (
        {"listed": dump(Payload(os.system, "echo"))},
        "CKPT702",
        f"names {SYSTEM_NAME} in the list of storage keys, {PLAIN_ONLY}",
    ),
    "a class for the keys": (
        {"listed": dump(OrderedDict())},
        "CKPT701",
        f"names collections.OrderedDict in the list of storage keys, {PLAIN_ONLY}",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_broken_stream_is_refused_by_name(path, name):
    parts, code, reason = REFUSED[name]
    stream(path, **{"data": BARE, **parts})
    error = error_of(path)
    assert (error.reason, error.code, error.subject) == (reason, code, str(path))
    assert error.hint == ("do not load it" if code in ("CKPT702", "CKPT701") else HINT)


def test_a_view_that_a_tensor_looks_out_of(path):
    stream(path, {"w": rebuilt(memory(view=("2", 3, 2)), (3,), (1,))})
    error = error_of(path)
    assert error.reason == "tensor 'w' needs 12 bytes of storage '1', which holds 8"
    assert (error.code, error.hint) == ("CKPT002", NO_TENSOR)


def test_code_in_the_object_is_refused(path):
    stream(path, {**BARE, "x": Payload(os.system, "echo")})
    error = error_of(path)
    assert error.code == "CKPT702"
    assert SYSTEM_NAME in error.reason


def test_a_magic_number_that_is_computed_is_no_torch_file(path):
    stream(path, BARE, magic=dump(Payload(eval, "0x1950A86A20F9469CFC6C")))
    error = error_of(path)
    assert error.reason.startswith("is a pickle that torch.save did not write, not a checkpoint; it runs code")
    assert error.code == "CKPT702"


def test_a_magic_number_inside_something_else_is_refused(path):
    stream(path, BARE, magic=dump([MAGIC]))
    assert error_of(path).reason == "does not begin with the magic number of torch.save"


def test_a_cut_file_says_what_is_missing(path):
    stream(path, BARE)
    size = path.stat().st_size
    os.truncate(path, size - 1)
    error = error_of(path)
    assert error.reason == f"ends early: the storage '1' needs 24 bytes at byte {size - 24:,}, 23 are left"
    assert (error.code, error.hint) == ("CKPT001", CUT)
    os.truncate(path, size - 26)
    assert error_of(path).reason.startswith("ends early: the size of the storage '1' needs 8 bytes")


def test_every_truncation_is_an_error(path):
    save({"a": torch.ones(2), "b": torch.ones(1, dtype=torch.int8)}, path)
    whole = path.read_bytes()
    for keep in range(len(whole)):
        path.write_bytes(whole[:keep])
        with pytest.raises(CkptauditError):
            open_checkpoint(path)


def test_no_flipped_byte_leads_to_another_exception(path):
    save({"a": torch.ones(2), "b": torch.nn.Parameter(torch.ones(1))}, path)
    whole = path.read_bytes()
    for index in range(len(whole)):
        for flip in (0x01, 0x80, 0xFF):
            blob = bytearray(whole)
            blob[index] ^= flip
            path.write_bytes(blob)
            try:
                _ = open_checkpoint(path).choice
            except CkptauditError:
                continue


def test_a_pickle_beyond_the_first_window_is_read_whole(path):
    state = {f"layer{number:05}.weight": torch.zeros(1) for number in range(4000)}
    save(state, path)
    assert path.stat().st_size > 1 << 18
    assert_same_as_torch(path)


def test_text_longer_than_the_windows_is_read_whole(path):
    for text in ("x" * 300_000, "x" * 5_000_000, "x" * (16 << 20)):
        save({"log": text, "w": torch.ones(1)}, path)
        assert open_checkpoint(path).manifest["w"].shape == (1,)


def test_a_pickle_beyond_the_limit_is_not_read(path):
    save({"log": "x" * 1000, "w": torch.ones(1)}, path)
    with pytest.raises(FormatError) as caught:
        open_checkpoint(path, limits=Limits(pickle_bytes=900))
    assert caught.value.reason == "is not read to its end: the object takes more than 900 bytes"
    assert caught.value.code == "CKPT703"
    assert caught.value.hint == "raise it if you trust the file: --limit pickle_bytes=9000"


def test_a_broken_pickle_before_much_data_is_not_looked_for_to_the_end_of_the_file(path):
    stream(path, BARE, object=b"\x80\x02}0", tail=b"")
    os.truncate(path, 1 << 30)
    tracemalloc.start()
    error = error_of(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert error.reason.startswith("the object is a malformed pickle: byte 3 is the opcode 0x30")
    assert peak < 100 << 20


def test_two_gigabytes_are_read_in_milliseconds_and_kilobytes(path):
    numel = 1 << 29
    stream(path, {"w": rebuilt(memory(numel=numel), (numel,), (1,))}, tail=struct.pack("<q", numel))
    os.truncate(path, path.stat().st_size + 4 * numel)
    open_checkpoint(path)
    tracemalloc.start()
    started = time.perf_counter()
    checkpoint = open_checkpoint(path)
    seconds = time.perf_counter() - started
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert checkpoint.manifest.nbytes == 4 * numel
    assert seconds < 0.2
    assert peak < 1_000_000
