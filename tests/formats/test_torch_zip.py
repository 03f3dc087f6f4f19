from __future__ import annotations

import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn
from torch_files import dumps, pickled, read, rezip, save, with_pickle
from zip_files import Entry, archive

from ckptaudit.errors import FormatError
from ckptaudit.formats.base import DEFAULT_LIMITS, ByteSource, Limits
from ckptaudit.formats.torch_files.zip import read_torch_zip


def refusal(path: Path, wanted: str = "", **options: object) -> FormatError:
    with pytest.raises(FormatError) as caught:
        read(path, wanted, **options)  # type: ignore[arg-type]
    assert caught.value.subject == str(path)
    assert caught.value.hint
    return caught.value


@pytest.fixture
def simple(tmp_path: Path) -> Path:
    return save({"w": torch.arange(6.0)}, tmp_path / "simple.pt")


def test_facts_about_the_container(simple: Path) -> None:
    checkpoint = read(simple)
    assert checkpoint.path == str(simple)
    assert checkpoint.format == "torch-zip"
    assert checkpoint.size == simple.stat().st_size
    assert checkpoint.details == {"archive version": "3", "byteorder": "little"}
    assert {g.member for g in checkpoint.globals} == {"simple/data.pkl"}


def test_files_are_known_by_content_not_by_name(tmp_path: Path) -> None:
    for name in ("model", "model.safetensors", "epoch=3.last.ckpt", "ünï code.pth.tar"):
        assert list(read(save({"w": torch.ones(1)}, tmp_path / name)).manifest) == ["w"]


def test_a_state_dict_is_picked_by_its_path(tmp_path: Path) -> None:
    nets = {"generator": nn.Linear(2, 2).state_dict(), "discriminator": nn.Linear(2, 1).state_dict()}
    path = save(nets, tmp_path / "gan.pt")
    checkpoint = read(path)
    assert isinstance(checkpoint.choice, FormatError)
    assert checkpoint.choice.reason == (
        "holds 2 state dicts and no choice: generator (2 tensors), discriminator (2 tensors)"
    )
    assert checkpoint.choice.hint == f"pick one: ckptaudit inspect '{path}#generator'"
    assert checkpoint.siblings == {
        "generator": "collections.OrderedDict",
        "discriminator": "collections.OrderedDict",
    }
    assert read(path, "discriminator").manifest["weight"].shape == (1, 2)
    assert read(path, "discriminator").siblings == {"generator": "collections.OrderedDict"}


# -- what is refused ----------------------------------------------------------------------------------


class Shell:
    """A payload: unpickling it runs a command that leaves a file behind."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_payload_is_named_and_never_runs(protocol: int, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    path = save({"w": torch.ones(1), "x": Shell(marker)}, tmp_path / "evil.pt", pickle_protocol=protocol)
    error = refusal(path)
    assert error.code == "CKPT702"
    assert error.reason == f"runs code when it is unpickled: it names {os.system.__module__}.system"
    assert error.hint == f"see what it holds, without running anything: ckptaudit inspect {path}"
    checkpoint = read(path, allow_refused=True)
    assert list(checkpoint.manifest) == ["w"]
    assert checkpoint.manifest.entries == {"x": f"{os.system.__module__}.system"}
    assert [g.verdict for g in checkpoint.globals if "system" in g.name] == ["dangerous"]
    assert not marker.exists()


class Config:
    pass


def test_unknown_classes_are_refused_by_name(tmp_path: Path) -> None:
    path = save({"w": torch.ones(1), "config": Config()}, tmp_path / "my model.pt")
    error = refusal(path)
    assert error.code == "CKPT701"
    assert error.reason == (f"needs a full unpickling, which can run any code: it names {Config.__module__}.Config")
    assert error.hint == f"see what it holds, without running anything: ckptaudit inspect '{path}'"
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path)


def test_five_names_and_a_count(tmp_path: Path) -> None:
    names = [f"m.C{i}" for i in range(8)]
    data = b"\x80\x02(" + b"".join(b"cm\n%s\n" % name[2:].encode() for name in reversed(names)) + b"t."
    error = refusal(with_pickle(tmp_path, data))
    assert error.reason.endswith("it names m.C0, m.C1, m.C2, m.C3, m.C4 and 3 more")


def test_plain_data_outside_the_list_of_torch_is_read(tmp_path: Path) -> None:
    import argparse
    import datetime
    import pathlib

    value = {
        "state_dict": {"w": torch.ones(1)},
        "args": argparse.Namespace(lr=0.1, path=pathlib.PurePosixPath("/a")),
        "when": datetime.datetime(2024, 1, 1),
        "window": slice(0, 3),
        "ids": frozenset({1}),
    }
    path = save(value, tmp_path / "x.pt")
    checkpoint = read(path)
    assert checkpoint.chosen.path == "state_dict"
    assert checkpoint.siblings == {
        "args": "argparse.Namespace",
        "when": "datetime.datetime",
        "window": "slice",
        "ids": "set",
    }
    assert {g.name for g in checkpoint.globals if g.verdict == "inert"} == {
        "argparse.Namespace",
        "pathlib.PurePosixPath",
        "datetime.datetime",
        "builtins.slice",
        "builtins.frozenset",
    }


# -- broken archives ----------------------------------------------------------------------------------


def test_every_64th_truncation_is_a_format_error(simple: Path, tmp_path: Path) -> None:
    data = simple.read_bytes()
    path = tmp_path / "cut.pt"
    for end in range(0, len(data), 64):
        path.write_bytes(data[:end])
        error = refusal(path)
        assert error.code == "CKPT001"
        assert error.reason.startswith("is cut short: ")


def test_flipped_bytes_raise_nothing_but_format_errors(simple: Path, tmp_path: Path) -> None:
    data = simple.read_bytes()
    path = tmp_path / "flipped.pt"
    refused = 0
    for index in range(0, len(data), 7):
        flipped = bytearray(data)
        flipped[index] ^= 0x55
        path.write_bytes(flipped)
        try:
            read(path, allow_refused=True)
        except FormatError:
            refused += 1
    assert refused > 50


def edited(simple: Path, tmp_path: Path, old: bytes, new: bytes) -> Path:
    data = pickled(simple)
    assert old in data
    return rezip(simple, tmp_path / "edited.pt", replace={"data.pkl": data.replace(old, new)})


def test_storages_must_have_the_size_the_pickle_says(simple: Path, tmp_path: Path) -> None:
    error = refusal(edited(simple, tmp_path, b"K\x06t", b"K\x07t"))
    assert error.code == "CKPT002"
    assert error.reason == ("is a broken torch archive: its pickle gives the storage '0' 28 bytes, the record has 24")


def test_storages_need_a_record(simple: Path, tmp_path: Path) -> None:
    error = refusal(rezip(simple, tmp_path / "x.pt", drop=("data/0",)))
    assert error.reason == "is a broken torch archive: it has no record data/0"


def test_storages_are_described_in_one_way(tmp_path: Path) -> None:
    base = torch.arange(6.0)
    path = save({"a": base, "b": base[1:]}, tmp_path / "x.pt")
    data = pickled(path)
    at = data.rindex(b"K\x06")
    changed = data[:at] + b"K\x05" + data[at + 2 :]
    error = refusal(rezip(path, tmp_path / "y.pt", replace={"data.pkl": changed}))
    assert error.reason == "is a broken torch archive: its pickle describes the storage '0' in two ways"


def test_geometry_faults_name_the_key(simple: Path, tmp_path: Path) -> None:
    error = refusal(edited(simple, tmp_path, b"K\x06\x85", b"K\x07\x85"))
    assert error.reason == "tensor 'w' needs 28 bytes of storage '0', which holds 24"


def test_bytes_behind_the_pickle_are_refused(simple: Path, tmp_path: Path) -> None:
    longer = rezip(simple, tmp_path / "x.pt", replace={"data.pkl": pickled(simple) + b"N."})
    error = refusal(longer)
    assert error.code == "CKPT704"
    assert error.reason == "is a broken torch archive: 2 bytes follow the pickle in its data.pkl"


def test_persistent_ids_nobody_uses_are_checked_too(tmp_path: Path) -> None:
    error = refusal(with_pickle(tmp_path, b"\x80\x02]U\x01xQa."))
    assert error.reason.startswith("has a persistent id that is no storage: ")


def test_compressed_records_are_refused(simple: Path, tmp_path: Path) -> None:
    error = refusal(rezip(simple, tmp_path / "x.pt", method=zipfile.ZIP_DEFLATED, drop=("version", "byteorder")))
    assert error.code == "CKPT002"
    error = refusal(rezip(simple, tmp_path / "y.pt", method=zipfile.ZIP_DEFLATED))
    assert error.reason.endswith("is compressed")


@pytest.mark.parametrize(
    ("record", "content", "reason"),
    [
        ("byteorder", b"middle", "its byte order is neither little nor big"),
        ("byteorder", b"l" * 5000, "its record byteorder has 5,000 bytes"),
        ("version", b"99999\n", "its version is '99999', not a number from 1 to 10"),
        ("version", b"\xff", "its version is '\\ufffd', not a number from 1 to 10"),
    ],
)
def test_small_records(record: str, content: bytes, reason: str, simple: Path, tmp_path: Path) -> None:
    error = refusal(rezip(simple, tmp_path / "x.pt", replace={record: content}))
    assert (error.code, error.reason) == ("CKPT002", f"is a broken torch archive: {reason}")


def test_names_that_differ_in_case_are_refused(simple: Path, tmp_path: Path) -> None:
    """To torch they are the same: it swaps the bytes of this file."""
    value = torch.load(simple)
    swapped = rezip(simple, tmp_path / "x.pt", replace={"BYTEORDER": b"big"}, drop=("byteorder",))
    assert not torch.equal(torch.load(swapped)["w"], value["w"])
    assert refusal(swapped).reason == "is a broken torch archive: its record BYTEORDER would be byteorder to torch"


def test_all_records_lie_in_one_folder(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    with zipfile.ZipFile(path, "w") as target:
        target.writestr("a/data.pkl", dumps({}))
        target.writestr("a/version", "3")
        target.writestr("b/data.pkl", dumps({}))
    assert refusal(path).reason == "is a broken torch archive: its records lie in 2 folders, not in one"


def test_records_that_differ_in_case_only_are_refused(tmp_path: Path) -> None:
    """torch's reader looks names up without regard to case, and would unpickle DATA.PKL."""
    path = tmp_path / "x.pt"
    path.write_bytes(archive(Entry("a/data.pkl", dumps({})), Entry("a/DATA.PKL", dumps({})), Entry("a/version", b"3")))
    assert refusal(path).reason == "is a broken zip archive: two of its records have the same name"


def test_the_checksum_of_the_pickle(simple: Path, tmp_path: Path) -> None:
    data = simple.read_bytes()
    content = pickled(simple)
    assert data.count(content) == 1
    path = tmp_path / "x.pt"
    path.write_bytes(data.replace(content, content.replace(b"\x01\x00\x00\x00w", b"\x01\x00\x00\x00v")))
    error = refusal(path)
    assert (error.code, error.reason) == (
        "CKPT002",
        "is a broken torch archive: the checksum of its data.pkl is wrong",
    )


def test_archives_without_checksums_are_read_and_noted(tmp_path: Path) -> None:
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        path = save({"w": torch.ones(1)}, tmp_path / "x.pt")
    finally:
        torch.serialization.set_crc32_options(before)
    assert read(path).details["checksums"] == "none"


def test_unused_records_are_counted(simple: Path, tmp_path: Path) -> None:
    path = rezip(simple, tmp_path / "x.pt", replace={"data/7": b"1234"})
    assert read(path).details["unused records"] == "1"


def test_pickles_beyond_the_limit_are_not_read(simple: Path) -> None:
    error = refusal(simple, limits=Limits(pickle_bytes=10))
    assert error.code == "CKPT703"
    assert "bytes is not read" in error.reason


# -- other zip archives -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "reason", "hint"),
    [
        (["m/.data/extern_modules", "m/model/model.pkl"], "is a torch.package archive", "PackageImporter"),
        (["m/models/model.json"], "is an exported program (torch.export) without archive_format", "torch.export.save"),
        (["m/model.json", "m/tensors/0"], "is a TorchScript archive of torch before 1.4", "torch.jit.load"),
        (["arr_0.npy", "arr_1.npy"], "is a NumPy archive (.npz), not a checkpoint", "numpy.load"),
        (
            ["a/b/model.pth", "a/readme"],
            "is a zip archive around other files, such as 'a/b/model.pth'",
            "unzip it",
        ),
        (["word/document.xml"], "is a zip archive, but no checkpoint: it has no data.pkl", "torch.save"),
        (["data.pkl", "data/0"], "is a zip archive, but no checkpoint: it has no data.pkl", "torch.save"),
        ([], "is a zip archive, but no checkpoint: it has no data.pkl", "torch.save"),
    ],
)
def test_strangers(names: list[str], reason: str, hint: str, tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    with zipfile.ZipFile(path, "w") as target:
        for name in names:
            target.writestr(name, b"x")
    error = refusal(path)
    assert error.code == "CKPT001"
    assert error.reason.startswith(reason)
    assert hint in str(error.hint)


@pytest.mark.filterwarnings("ignore")
def test_real_packages(tmp_path: Path) -> None:
    package = tmp_path / "package.pt"
    with torch.package.PackageExporter(str(package)) as exporter:
        exporter.save_pickle("model", "model.pkl", {"w": 1})
    assert refusal(package).reason.startswith("is a torch.package archive")


# -- cost ---------------------------------------------------------------------------------------------


class CountingSource(ByteSource):
    reads = taken = 0

    def read(self, offset: int, length: int) -> bytes:
        self.reads += 1
        self.taken += length
        return super().read(offset, length)


def test_a_sparse_file_of_2_gb_costs_its_headers_alone(tmp_path: Path) -> None:
    elements = 1 << 29
    content = pickled(save({"w": torch.ones(1)}, tmp_path / "small.pt"))
    size = elements.to_bytes(4, "little")
    content = content.replace(b"K\x01t", b"J" + size + b"t").replace(b"K\x01\x85", b"J" + size + b"\x85", 1)
    nbytes = 4 * elements
    path = tmp_path / "big.pt"
    write_sparse(path, content, nbytes)
    assert path.stat().st_size > nbytes
    assert path.stat().st_blocks * 512 < 1 << 20
    source = CountingSource(path)
    checkpoint = read_torch_zip(source, wanted="", limits=DEFAULT_LIMITS, allow_refused=False)
    assert source.taken < 1 << 18
    assert checkpoint.manifest["w"].shape == (elements,)
    assert checkpoint.tensor("w").nbytes == nbytes


def write_sparse(path: Path, content: bytes, nbytes: int) -> None:
    """Write an archive whose storage is a hole of ``nbytes`` bytes."""
    before = [Entry("x/data.pkl", content), Entry("x/version", b"3")]
    sizes = {"size": nbytes, "plain": nbytes, "crc": 0}
    data = Entry("x/data/0", b"", flags=0, local=sizes, central=sizes)
    local = b""
    central = b""
    for entry in (*before, data):
        near, far = entry.pack(len(local))
        local += near
        central += far
    count, start = 3, len(local) + nbytes
    end = archive(end={"here": count, "count": count, "length": len(central), "start": start}, zip64=False)
    with path.open("wb") as target:
        target.write(local)
        target.seek(start)
        target.write(central + end)


def test_ten_thousand_tensors(tmp_path: Path) -> None:
    """Headers that lie close together are read together: one read for each would cost more than the rest."""
    path = save({f"layer{i}.weight": torch.ones(2) for i in range(10_000)}, tmp_path / "x.pt")
    source = CountingSource(path)
    checkpoint = read_torch_zip(source, wanted="", limits=DEFAULT_LIMITS, allow_refused=False)
    assert len(checkpoint.manifest) == 10_000
    assert source.reads < 100


def test_nothing_heavy_is_imported(simple: Path) -> None:
    code = """
import sys
sys.path.insert(0, sys.argv[2])
for name in ("torch", "numpy"):
    sys.modules[name] = None
before = set(sys.modules)
from ckptaudit.formats.base import DEFAULT_LIMITS, ByteSource
from ckptaudit.formats.torch_files.zip import read_torch_zip
c = read_torch_zip(ByteSource(sys.argv[1]), wanted="", limits=DEFAULT_LIMITS, allow_refused=False)
assert list(c.manifest) == ["w"]
heavy = {"pickle", "_pickle", "pickletools", "zipfile", "logging", "_compat_pickle", "shlex", "argparse"}
print(sorted(heavy & (set(sys.modules) - before)))
"""
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-c", code, str(simple), str(root)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


@pytest.mark.parametrize("fault", ["tensor", "record"])
def test_code_in_an_archive_that_is_broken_elsewhere_is_the_worse_news(tmp_path: Path, fault: str) -> None:
    class Payload:
        def __reduce__(self) -> tuple[object, ...]:
            return os.system, ("id",)

    path = save({"w": torch.ones(2), "x": Payload()}, tmp_path / "x.pt")
    if fault == "record":
        path = rezip(path, tmp_path / "y.pt", drop=("data/0",))
    else:
        odd = pickled(path).replace(b"\x89", b"K\x07", 1)  # a requires_grad of 7
        path = rezip(path, tmp_path / "y.pt", replace={"data.pkl": odd})
    with pytest.raises(FormatError) as caught:
        read(path, allow_refused=True)
    assert caught.value.code == "CKPT702"
    assert caught.value.reason.startswith("names posix.system (x/data.pkl, byte ")
    assert "which runs code, and is broken: " in caught.value.reason
