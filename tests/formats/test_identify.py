"""What a file is, by its bytes: our formats under any name, and strangers with a sentence of their own."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import struct
import subprocess
import tarfile
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from ckptaudit.errors import FormatError
from ckptaudit.formats.base import DEFAULT_LIMITS, ByteSource, Limits
from ckptaudit.formats.identify import identify
from ckptaudit.manifest import Manifest

AGAIN = "download or copy it again; this copy is incomplete"
EXPORT = "use the checkpoint it was converted from, or convert it to safetensors with the tool that wrote it"
NUMPY = "read it with numpy.load and save a state dict with safetensors.torch.save_file"
NO_WEIGHTS = "check the download link or the path; this file holds no weights"
UNKNOWN = "get the file that torch.save or safetensors wrote, and check that its download was complete"
WEB = "download it from the link to the raw file; this link answered with a web page"


def kind_of(path, limits=DEFAULT_LIMITS):
    return identify(ByteSource(path), limits)


def in_memory(write):
    buffer = io.BytesIO()
    write(buffer)
    return buffer.getvalue()


def tar_bytes(**options):
    def write(buffer):
        with tarfile.open(fileobj=buffer, mode="w", **options) as tar:
            tar.addfile(tarfile.TarInfo("storages"), io.BytesIO())

    return in_memory(write)


def v7_tar():
    """A tar of before POSIX: no magic, only the checksum tells it."""
    block = bytearray(tar_bytes(format=tarfile.USTAR_FORMAT)[:512])
    block[257:265] = bytes(8)
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block) + bytes(1024)


def safetensors_bytes():
    header = b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}'
    return struct.pack("<Q", len(header)) + header + b"1"


def safetensors_with_length(length):
    header = b'{"__metadata__":{"k":"'.ljust(length - 3, b"x") + b'"}}'
    return struct.pack("<Q", length) + header


def legacy(protocol=2):
    return in_memory(
        lambda buffer: torch.save(
            {"w": torch.ones(2)}, buffer, _use_new_zipfile_serialization=False, pickle_protocol=protocol
        )
    )


OURS = {
    "torch-zip": lambda: in_memory(lambda buffer: torch.save({"w": torch.ones(2)}, buffer)),
    "torch-zip, cut": lambda: in_memory(lambda buffer: torch.save({"w": torch.ones(2)}, buffer))[:400],
    "torch-legacy": legacy,
    "torch-legacy, protocol 4": lambda: legacy(4),
    "torch-tar": lambda: tar_bytes(format=tarfile.USTAR_FORMAT),
    "torch-tar, pax": lambda: tar_bytes(format=tarfile.PAX_FORMAT),
    "torch-tar, v7": v7_tar,
    "safetensors": safetensors_bytes,
    "safetensors, cut": lambda: safetensors_bytes()[:20],
    "safetensors, length begins like JSON": lambda: safetensors_with_length(ord("{")),
    "safetensors, length begins like a gzip": lambda: safetensors_with_length(0x8B1F),
    "safetensors, length that cannot be": lambda: b"\xff" * 8 + b'{"a":',
    "index": lambda: b' {"weight_map": {"a": "x.safetensors"}}',
    "manifest": lambda: Manifest({}).dumps().encode(),
}


@pytest.mark.parametrize("name", OURS)
def test_our_formats_are_known_under_any_name(tmp_path, name):
    path = tmp_path / "weights.html"
    path.write_bytes(OURS[name]())
    assert kind_of(path) == name.partition(",")[0]


def test_a_safetensors_header_may_have_the_length_that_reads_as_a_zip(tmp_path):
    path = tmp_path / "model.safetensors"
    length = int.from_bytes(b"PK\x03\x04", "little")
    path.write_bytes(b"PK\x03\x04\0\0\0\0{")
    os.truncate(path, length + 8)
    assert kind_of(path) == "safetensors"


def is_no(what):
    return f"is {what}, not a checkpoint"


def unpack(command):
    return f"unpack it first: {command} -dc {{file}} > checkpoint, then name the unpacked file"


def npz():
    return in_memory(lambda buffer: np.savez(buffer, w=np.ones(2)))


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 102502400\n"
STRANGERS = {
    "empty": (b"", "is empty (0 bytes)", AGAIN),
    "zeros": (bytes(1 << 20), "begins with 4,096 zero bytes: it was never written", AGAIN),
    "seven bytes": (b"\x01" * 7, "ends early: it has 7 bytes", AGAIN),
    "git-lfs": (
        LFS,
        "is a git-lfs pointer to a file of 102,502,400 bytes, not the file itself",
        "git lfs pull",
    ),
    "html": (b"\n<!DOCTYPE html><html>...", is_no("a web page (HTML)"), WEB),
    "html fragment": (b"<HTML lang='en'>", is_no("a web page (HTML)"), WEB),
    "xml": (b'\xef\xbb\xbf<?xml version="1.0"?><Error/>', is_no("a web page (HTML)"), WEB),
    "json error": (
        b'{"error": "Repository not found"}',
        is_no("a JSON error message ('Repository not found')"),
        NO_WEIGHTS,
    ),
    "json message": (b'{"message": "Not Found"}', is_no("a JSON error message ('Not Found')"), NO_WEIGHTS),
    "json": (b'{"hidden_size": 768}', is_no("a JSON file without a weight_map"), NO_WEIGHTS),
    "json list": (b"[1, 2]", is_no("a JSON file without a weight_map"), NO_WEIGHTS),
    "broken json": (b"{" * 100_000, is_no("a JSON file without a weight_map"), NO_WEIGHTS),
    "gzip": (gzip.compress(b"x"), is_no("a gzip archive"), unpack("gzip")),
    "bzip2": (bz2.compress(b"x"), is_no("a bzip2 archive"), unpack("bzip2")),
    "xz": (lzma.compress(b"x"), is_no("an xz archive"), unpack("xz")),
    "zstd": (b"\x28\xb5\x2f\xfd" + bytes(9), is_no("a zstd archive"), unpack("zstd")),
    "7z": (b"7z\xbc\xaf\x27\x1c\0\4", is_no("a 7z archive"), "unpack it first: 7z x {file}"),
    "rar": (b"Rar!\x1a\x07\x01\0", is_no("a RAR archive"), "unpack it first: unrar x {file}"),
    "gguf": (b"GGUF\3\0\0\0" + bytes(9), is_no("a GGUF file (llama.cpp)"), EXPORT),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(9), is_no("an HDF5 file (Keras, TensorFlow)"), EXPORT),
    "pte": (b"\x34\0\0\0ET12" + bytes(9), is_no("an ExecuTorch program (.pte)"), EXPORT),
    "tflite": (b"\x1c\0\0\0TFL3" + bytes(9), is_no("a TensorFlow Lite model"), EXPORT),
    "onnx": (b"\x08\x08\x12\x07pytorch\x1a\x052.1.0", is_no("a protobuf file, as ONNX models are"), EXPORT),
    "flax": (b"\x82\xa4step\x00\xa6params\x81", is_no("a msgpack file, as Flax checkpoints are"), EXPORT),
    "npy": (in_memory(lambda b: np.save(b, np.ones(2))), is_no("a NumPy array (.npy)"), NUMPY),
    "elf": (b"\x7fELF\2\1\1\0" + bytes(9), is_no("an ELF executable or library"), NO_WEIGHTS),
    "exe": (b"MZ\x90\0\3\0\0\0" + bytes(9), is_no("a Windows executable"), NO_WEIGHTS),
    "png": (b"\x89PNG\r\n\x1a\n" + bytes(9), is_no("a PNG image"), NO_WEIGHTS),
    "pdf": (b"%PDF-1.7 ...", is_no("a PDF document"), NO_WEIGHTS),
    "text": ("Größe: 3\nmore\n".encode(), is_no("a text file"), NO_WEIGHTS),
    "random": (
        bytes.fromhex("93a1 07ff fe12 9c44 8b31"),
        "is in no known checkpoint format: it begins with 93 a1 07 ff fe 12 9c 44",
        UNKNOWN,
    ),
    "empty zip": (in_memory(lambda b: zipfile.ZipFile(b, "w").close()), is_no("an empty zip archive"), AGAIN),
    "zip behind a script": (
        b"#!/bin/sh\n" + npz(),
        "is a zip archive that does not begin at the first byte; torch.save writes no such file",
        "get it again from its source; do not load it",
    ),
}


@pytest.mark.parametrize("name", STRANGERS)
def test_a_stranger_is_named_with_a_step_that_helps(tmp_path, name):
    data, reason, hint = STRANGERS[name]
    path = tmp_path / "resnet 50.pth"
    path.write_bytes(data)
    with pytest.raises(FormatError) as caught:
        kind_of(path)
    assert caught.value.reason == reason
    assert caught.value.hint == hint.replace("{file}", f"'{path}'")
    assert (caught.value.code, caught.value.subject) == ("CKPT001", str(path))


@pytest.mark.parametrize(
    ("name", "compress"), [("gzip", gzip.compress), ("bzip2", bz2.compress), ("xz", lzma.compress)]
)
def test_the_hint_for_a_packed_file_works_whatever_its_name_is(tmp_path, name, compress):
    path = tmp_path / "model.pth"
    path.write_bytes(compress(safetensors_bytes()))
    with pytest.raises(FormatError) as caught:
        kind_of(path)
    command = caught.value.hint.removeprefix("unpack it first: ").partition(",")[0]
    assert command.startswith(name)
    subprocess.run(command, shell=True, check=True, cwd=tmp_path)
    assert kind_of(tmp_path / "checkpoint") == "safetensors"


def test_a_large_json_file_is_not_read(tmp_path):
    path = tmp_path / "x.json"
    path.write_text('{"weight_map": {}}')
    with pytest.raises(FormatError, match="is not read: it is a JSON file of 18 bytes") as caught:
        kind_of(path, Limits(index_bytes=17))
    assert (caught.value.code, caught.value.hint) == (
        "CKPT703",
        "raise it if you trust the file: --limit index_bytes=170",
    )


def test_every_file_of_every_kind_cut_anywhere_is_known_or_an_error(tmp_path):
    path = tmp_path / "x"
    samples = [make() for make in OURS.values()] + [data for data, _, _ in STRANGERS.values()]
    for sample in samples:
        for keep in [*range(min(len(sample), 64)), *range(64, min(len(sample), 2048), 37)]:
            path.write_bytes(sample[:keep])
            try:
                kind_of(path)
            except FormatError:
                continue


def test_a_real_safetensors_file_and_its_index(tmp_path):
    save_file({"w": torch.ones(2)}, tmp_path / "a.bin")
    (tmp_path / "b.bin").write_text(json.dumps({"metadata": {}, "weight_map": {"w": "a.bin"}}))
    assert kind_of(tmp_path / "a.bin") == "safetensors"
    assert kind_of(tmp_path / "b.bin") == "index"
