"""The safetensors reader against the safetensors library: what it reads, and what it refuses."""

from __future__ import annotations

import json
import os
import struct
import time
import tracemalloc

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ckptaudit.errors import FormatError, UsageError
from ckptaudit.formats.base import DEFAULT_LIMITS, ByteSource, Limits
from ckptaudit.formats.safetensors import read_safetensors

FILE_DTYPES = {  # every dtype name of the format: its width in bits
    **{"BOOL": 8, "F4": 4, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8},
    **{"F8_E5M2FNUZ": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32},
    **{"C64": 64, "F64": 64, "I64": 64, "U64": 64},
}
SCALAR = b'{"dtype":"F32","shape":[],"data_offsets":[0,4]}'
DAMAGED = "the file is damaged or was not written by the safetensors library; get it again from its source"


def read(path, wanted="", limits=DEFAULT_LIMITS):
    return read_safetensors(ByteSource(path), wanted=wanted, limits=limits)


def write(path, header, data=b""):
    if not isinstance(header, bytes):
        header = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + data)
    return path


def shown_by_library(path):
    with safe_open(path, "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, file.metadata()  # noqa: SIM118


def loaded_bytes(raw):
    return b"".join(raw.storage_chunks(3))


def assert_same_as_library(path):
    checkpoint = read(path)
    tensors, metadata = shown_by_library(path)
    assert set(checkpoint.manifest.tensors) == set(tensors)
    for key, tensor in tensors.items():
        spec, raw = checkpoint.manifest[key], checkpoint.tensor(key)
        assert f"torch.{spec.dtype}" == str(tensor.dtype)
        assert (spec.shape, spec.stride) == (tuple(tensor.shape), tensor.stride())
        assert (spec.storage_offset, spec.kind, spec.layout) == (0, "tensor", "strided")
        assert spec.contiguous
        assert spec.nbytes == spec.storage_nbytes == raw.nbytes == tensor.untyped_storage().nbytes()
        assert loaded_bytes(raw) == bytes(tensor.untyped_storage())
        assert raw.spec is spec
    assert checkpoint.details == {f"metadata.{key}": text for key, text in (metadata or {}).items()}
    return checkpoint


@pytest.mark.parametrize(("dtype", "bits"), FILE_DTYPES.items())
@pytest.mark.parametrize("shape", [[2, 4], [8], [0], [0, 2], [3, 0, 2], [1, 1, 1, 2]])
def test_every_dtype_reads_as_the_library_reads_it(tmp_path, dtype, bits, shape):
    numel = torch.Size(shape).numel()
    data = os.urandom(numel * bits // 8) if dtype != "BOOL" else b"\1" * numel
    header = {"w": {"dtype": dtype, "shape": shape, "data_offsets": [0, len(data)]}}
    assert_same_as_library(write(tmp_path / "x.safetensors", header, data))


def test_names_ties_and_metadata_of_a_state_dict(tmp_path):
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    path = tmp_path / "model.safetensors"
    save_file(model.state_dict(), path, metadata={"format": "pt", "config": '{"depth": 50}'})
    checkpoint = assert_same_as_library(path)
    assert checkpoint.path == str(path)
    assert checkpoint.format == "safetensors"
    assert checkpoint.size == path.stat().st_size
    assert checkpoint.details["metadata.config"] == '{"depth": 50}'
    assert [candidate.path for candidate in checkpoint.candidates] == [""]
    assert checkpoint.chosen.kind == "state_dict"
    assert checkpoint.manifest.versions is None
    assert checkpoint.manifest.source == str(path)
    assert checkpoint.manifest.shared_storages() == []
    assert checkpoint.manifest["1.num_batches_tracked"].shape == ()
    assert checkpoint.globals == ()


def test_keys_keep_the_order_of_the_header_not_of_the_offsets(tmp_path):
    header = {
        "z": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]},
        "a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
    }
    checkpoint = assert_same_as_library(write(tmp_path / "x", header, b"aaaazzzz"))
    assert list(checkpoint.manifest) == ["z", "a"]
    assert loaded_bytes(checkpoint.tensor("z")) == b"zzzz"


def test_empty_tensors_may_share_one_offset_and_have_distinct_storages(tmp_path):
    header = {
        "e": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]},
        "a": {"dtype": "F32", "shape": [], "data_offsets": [0, 4]},
        "f": {"dtype": "F32", "shape": [3, 0], "data_offsets": [4, 4]},
        "g": {"dtype": "F32", "shape": [0], "data_offsets": [4, 4]},
    }
    checkpoint = assert_same_as_library(write(tmp_path / "x", header, b"1234"))
    assert len({spec.storage for spec in checkpoint.manifest.tensors.values()}) == 4


def test_a_file_without_tensors_is_an_empty_state_dict(tmp_path):
    checkpoint = read(write(tmp_path / "x", {"__metadata__": {"a": "b"}}))
    assert len(checkpoint.manifest) == 0
    assert checkpoint.manifest.nbytes == 0


def test_dtypes_torch_has_no_type_for_are_entries_not_tensors(tmp_path):
    header = {
        "a": {"dtype": "F6_E2M3", "shape": [4], "data_offsets": [0, 3]},
        "b": {"dtype": "U8", "shape": [1], "data_offsets": [3, 4]},
    }
    path = write(tmp_path / "x", header, b"1234")
    with pytest.raises(SafetensorError, match="Dtype not understood"):
        shown_by_library(path)
    manifest = read(path).manifest
    assert list(manifest) == ["b"]
    assert manifest.entries == {"a": "F6_E2M3"}


def test_an_inner_path_is_an_error_that_says_what_there_is(tmp_path):
    checkpoint = read(write(tmp_path / "x.safetensors", b'{"a":' + SCALAR + b"}", b"1234"), wanted="model")
    assert isinstance(checkpoint.choice, FormatError)
    assert checkpoint.choice.code == "CKPT006"
    assert checkpoint.choice.reason == "has no state dict at 'model'; it has none below its top level"
    assert checkpoint.choice.hint == "leave out '#model'"


def entry(dtype='"F32"', shape="[]", offsets="[0,4]", extra=""):
    return f'{{"dtype":{dtype},"shape":{shape},"data_offsets":{offsets}{extra}}}'.encode()


REFUSED = {  # header JSON, and the sentence about it; every file has four bytes of data
    "blank": (b' {"a":' + SCALAR + b"}", "has a safetensors header that does not begin with '{'"),
    "array": (b"[]", "has a safetensors header that does not begin with '{'"),
    "utf8": (
        b'{"a\xff":' + SCALAR + b"}",
        "has a safetensors header that is not UTF-8: invalid start byte at byte 3",
    ),
    "json": (
        b'{"a":}',
        "has a safetensors header that is not JSON: Expecting value: line 1 column 6 (char 5)",
    ),
    "nul": (
        b'{"a":' + SCALAR + b"}\0",
        "has a safetensors header that is not JSON: Extra data: line 1 column 54 (char 53)",
    ),
    "deep": (b'{"a":' + b"[" * 100_000, "has a safetensors header that is nested too deeply"),
    "nan": (
        b'{"a":' + entry(extra=',"x":NaN') + b"}",
        "has a safetensors header that is not JSON: NaN is no number",
    ),
    "float": (
        b'{"a":' + entry(offsets="[0.0,4]") + b"}",
        "has a safetensors header with the number 0.0, where only counts can be",
    ),
    "negative": (
        b'{"a":' + entry(offsets="[-0,4]") + b"}",
        "has a safetensors header with the number -0, where only counts can be",
    ),
    "digits": (
        b'{"a":' + entry(offsets="[0," + "9" * 5000 + "]") + b"}",
        "has a safetensors header with the number 999999999999999999999999..., where only counts can be",
    ),
    "twice": (b'{"a":' + SCALAR + b',"a":' + SCALAR + b"}", "names 'a' twice"),
    "metadata twice": (b'{"__metadata__":{},"__metadata__":{}}', "names '__metadata__' twice"),
    "metadata key twice": (b'{"__metadata__":{"k":"1","k":"2"}}', "names the metadata 'k' twice"),
    "metadata null": (b'{"__metadata__":null}', "has metadata that are no JSON object"),
    "metadata number": (b'{"__metadata__":{"k":1}}', "has the metadata 'k', which are no text"),
    "metadata surrogate": (b'{"__metadata__":{"k":"\\ud800"}}', "has the metadata 'k', which are no text"),
    "surrogate": (b'{"a\\ud800":' + SCALAR + b"}", "names the tensor 'a\\ud800', which is no valid text"),
    "list entry": (
        b'{"a":["F32",[],[0,4]]}',
        "describes the tensor 'a' by something else than a JSON object",
    ),
    "field twice": (
        b'{"a":' + entry(extra=',"dtype":"F32"') + b"}",
        "has the tensor 'a', which names its field 'dtype' twice",
    ),
    "field missing": (b'{"a":{"dtype":"F32","shape":[]}}', "has the tensor 'a' without data_offsets"),
    "field unknown": (
        b'{"a":' + entry(extra=',"x":1') + b"}",
        "has the tensor 'a' with the unknown field 'x'",
    ),
    "dtype": (b'{"a":' + entry(dtype='"C128"') + b"}", "has the tensor 'a' of the unknown dtype 'C128'"),
    "dtype null": (b'{"a":' + entry(dtype="null") + b"}", "has the tensor 'a' of the unknown dtype None"),
    "shape": (b'{"a":' + entry(shape="4") + b"}", "has the tensor 'a', whose shape is no list of sizes"),
    "shape bool": (
        b'{"a":' + entry(shape="[true]") + b"}",
        "has the tensor 'a', whose shape is no list of sizes",
    ),
    "offsets": (
        b'{"a":' + entry(offsets="[0,4,4]") + b"}",
        "has the tensor 'a', whose data_offsets are not a begin and an end",
    ),
    "reversed": (
        b'{"a":' + entry(offsets="[4,0]") + b"}",
        "has the tensor 'a', whose data_offsets are not a begin and an end",
    ),
    "size": (
        b'{"a":' + entry(shape="[2]") + b"}",
        "has the tensor 'a' (F32, shape 2) in 4 bytes, its shape needs 8",
    ),
    "overflow": (
        b'{"a":' + entry(shape="[0,4294967296,4294967296]", offsets="[0,0]") + b"}",
        "has the tensor 'a' (F32, shape 0x4294967296x4294967296), which is too large to exist",
    ),
    "half bytes": (
        b'{"a":' + entry(dtype='"F4"', shape="[1]") + b"}",
        "has the tensor 'a' (F4, shape 1), which ends inside a byte",
    ),
    "odd pairs": (
        b'{"a":' + entry(dtype='"F4"', shape="[8,1]") + b"}",
        "has the tensor 'a' (F4, shape 8x1), whose last size is not even, as torch's pairs of F4 need it",
    ),
    "hole at start": (
        b'{"a":' + entry(dtype='"U8"', shape="[3]", offsets="[1,4]") + b"}",
        "has 1 byte of no tensor before the tensor 'a'",
    ),
    "hole": (
        b'{"a":' + entry('"U8"', "[1]", "[0,1]") + b',"b":' + entry('"U8"', "[1]", "[3,4]") + b"}",
        "has 2 bytes of no tensor before the tensor 'b'",
    ),
    "overlap": (
        b'{"a":' + entry('"U8"', "[3]", "[0,3]") + b',"b":' + entry('"U8"', "[2]", "[2,4]") + b"}",
        "has the tensor 'b', which overlaps the tensor 'a' by 1 byte",
    ),
    "same range": (
        b'{"a":' + SCALAR + b',"b":' + SCALAR + b"}",
        "has the tensor 'b', which overlaps the tensor 'a' by 4 bytes",
    ),
    "rest": (b'{"a":' + entry('"U8"', "[2]", "[0,2]") + b"}", "has 2 bytes of no tensor after the last one"),
}
ACCEPTED_BY_LIBRARY = {"blank", "twice", "metadata key twice", "metadata null", "list entry", "field unknown"}
ACCEPTED_BY_LIBRARY |= {"long key", "dimensions"}


@pytest.mark.parametrize("name", REFUSED)
def test_a_broken_header_is_refused_by_name(tmp_path, name):
    header, sentence = REFUSED[name]
    data = b"" if b'{"__metadata__"' in header or name == "overflow" else b"1234"
    path = write(tmp_path / "x.safetensors", header, data)
    with pytest.raises(FormatError) as caught:
        read(path)
    assert caught.value.reason == sentence
    assert (caught.value.code, caught.value.subject, caught.value.hint) == ("CKPT003", str(path), DAMAGED)
    if name in ACCEPTED_BY_LIBRARY | {"overflow"}:
        shown_by_library(path)  # we are stricter
    else:
        with pytest.raises(SafetensorError):
            shown_by_library(path)


def test_tensors_may_have_the_names_of_fields(tmp_path):
    names = ("dtype", "shape", "data_offsets")
    metadata = dict(zip(names, "xyz", strict=True))
    entries = {name: {"dtype": "F32", "shape": [2], "data_offsets": [8 * i, 8 * i + 8]} for i, name in enumerate(names)}
    for header in (entries, {"__metadata__": metadata, **entries}):
        checkpoint = read(write(tmp_path / "x", header, bytes(24)))
        assert tuple(checkpoint.manifest) == names
        assert checkpoint.details == ({f"metadata.{k}": v for k, v in metadata.items()} if len(header) > 3 else {})


LIMITED = {
    "safetensors_header_bytes": (52, b'{"a":' + SCALAR + b"}", "has a safetensors header of 53 bytes"),
    "json_tokens": (16, b'{"a":' + SCALAR + b"}", "has a safetensors header of more than 16 JSON tokens"),
    "key_bytes": (9, b'{"' + b"k" * 10 + b'":' + SCALAR + b"}", "has a tensor name of 10 bytes ('kkkkkkkkkk'...)"),
    "dimensions": (4, b'{"a":' + entry(shape="[1,1,1,1,1]") + b"}", "has the tensor 'a' of 5 dimensions"),
    "sizes": (4, b'{"a":' + entry(shape="[1,1,1,1,1]") + b"}", "holds more than 4 dimensions of tensors together"),
    "tensors": (0, b'{"a":' + SCALAR + b"}", "holds 1 tensors"),
}


@pytest.mark.parametrize("name", LIMITED)
def test_limits(tmp_path, name):
    most, header, sentence = LIMITED[name]
    path = write(tmp_path / "x", header, b"1234")
    with pytest.raises(FormatError) as caught:
        read(path, limits=Limits(**{name: most}))
    assert (caught.value.code, caught.value.reason) == ("CKPT703", sentence)
    assert caught.value.hint.startswith(f"raise it if you trust the file: --limit {name}=")
    assert read(path, limits=Limits(**{name: most + 1})).manifest.nbytes == 4


def test_a_header_longer_than_the_format_allows_is_refused(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"\xff" * 8 + b"{}")
    reason = "header of 18,446,744,073,709,551,615 bytes, the limit of the format is 100,000,000"
    with pytest.raises(FormatError, match=reason) as caught:
        read(path)
    assert caught.value.code == "CKPT003"


def test_what_is_exactly_at_a_limit_is_read(tmp_path):
    header = {"k" * 30: {"dtype": "U8", "shape": [1] * 5, "data_offsets": [0, 1]}}
    limits = Limits(safetensors_header_bytes=len(json.dumps(header)), key_bytes=30, dimensions=5)
    path = write(tmp_path / "x", header, b"1")
    assert read(path, limits=limits).manifest["k" * 30].shape == (1,) * 5
    assert_same_as_library(write(tmp_path / "y", {}))
    numel = 10**18  # 19 digits, the most that a count may have
    sparse = write(tmp_path / "z", {"w": {"dtype": "U8", "shape": [numel], "data_offsets": [0, numel]}})
    with pytest.raises(FormatError, match="its tensors end at byte 1,000,000,000,000,000,"):
        read(sparse)


@pytest.mark.parametrize(
    ("keep", "sentence"),
    [
        (7, "ends early: it has 7 bytes, the length of a safetensors header takes 8"),
        (40, "ends early: it has 40 bytes, its safetensors header ends at byte 61"),
        (64, "ends early: it has 64 bytes, its tensors end at byte 65"),
    ],
)
def test_a_cut_file_says_where_it_ends_and_where_it_should(tmp_path, keep, sentence):
    path = write(tmp_path / "x", b'{"a":' + SCALAR + b"}", b"1234")
    os.truncate(path, keep)
    with pytest.raises(FormatError) as caught:
        read(path)
    assert caught.value.reason == sentence
    assert caught.value.code == "CKPT001"
    assert caught.value.hint == "download or copy it again; this copy is incomplete"


def test_every_truncation_is_a_format_error(tmp_path):
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.ones(3), "b": torch.ones(2, 2, dtype=torch.bfloat16)}, path, metadata={"format": "pt"})
    whole = path.read_bytes()
    for keep in range(len(whole)):
        path.write_bytes(whole[:keep])
        with pytest.raises(FormatError):
            read(path)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_whatever_the_library_rejects_is_rejected(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "mutated.safetensors"
    save_file({"a": torch.ones(3), "b": torch.ones(2, 2).half(), "c": torch.zeros(0)}, path, metadata={"k": "v"})
    blob = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        index = data.draw(st.integers(0, len(blob) - 1))
        blob[index] = data.draw(st.one_of(st.integers(0, 255), st.sampled_from(b'0123456789{}[]",:')))
    path.write_bytes(blob)
    try:
        shown_by_library(path)
        accepted = True
    except Exception:  # the library raises SafetensorError, and torch its own
        accepted = False
    try:
        read(path)
    except (FormatError, UsageError):
        return
    assert accepted or b"F6_" in blob
    if b"F6_" not in blob:
        assert_same_as_library(path)


def test_two_gigabytes_are_read_in_milliseconds_and_kilobytes(tmp_path):
    path, nbytes = tmp_path / "big.safetensors", 2 << 30
    write(path, {"w": {"dtype": "BF16", "shape": [1 << 15, 1 << 15], "data_offsets": [0, nbytes]}})
    os.truncate(path, path.stat().st_size + nbytes)
    read(path)
    tracemalloc.start()
    started = time.perf_counter()
    checkpoint = read(path)
    seconds = time.perf_counter() - started
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert checkpoint.manifest.nbytes == nbytes
    assert seconds < 0.1
    assert peak < 200_000


def test_a_large_header_takes_little_more_memory_than_itself_and_its_result(tmp_path):
    text = "x" * (16 << 20)
    path = write(tmp_path / "x", {"__metadata__": {"log": text}, "a": json.loads(SCALAR)}, b"1234")
    tracemalloc.start()
    checkpoint = read(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert checkpoint.details["metadata.log"] == text
    assert peak < 2.2 * len(text)
