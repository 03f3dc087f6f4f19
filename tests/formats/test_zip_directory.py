from __future__ import annotations

import contextlib
import struct
import zipfile
from pathlib import Path

import pytest
import torch
from torch_files import save
from zip_files import Entry, archive

from ckptaudit.errors import FormatError
from ckptaudit.formats.base import DEFAULT_LIMITS, ByteSource, Limits
from ckptaudit.formats.torch_files.zip_directory import Record, read_zip_directory

FULL = 0xFFFFFFFF


def read(path: Path, limits: Limits = DEFAULT_LIMITS) -> dict[str, Record]:
    return read_zip_directory(ByteSource(path), limits)


def read_bytes(data: bytes, tmp_path: Path, limits: Limits = DEFAULT_LIMITS) -> dict[str, Record]:
    path = tmp_path / "x.pt"
    path.write_bytes(data)
    return read(path, limits)


def assert_as_zipfile(path: Path) -> None:
    """Names, sizes, checksums and the data itself are what Python's zipfile finds."""
    records = read(path)
    source = ByteSource(path)
    with zipfile.ZipFile(path) as other:
        assert set(records) == set(other.namelist())
        for info in other.infolist():
            record = records[info.filename]
            assert (record.size, record.crc) == (info.compress_size, info.CRC)
            assert record.stored == (info.compress_type == 0)
            if record.stored:
                assert source.read(record.offset, record.size) == other.read(info)


@pytest.mark.parametrize("count", [1, 3, 500])
def test_archives_of_torch(count: int, tmp_path: Path) -> None:
    assert_as_zipfile(save({str(i): torch.ones(i) for i in range(count)}, tmp_path / "x.pt"))


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_archives_of_zipfile(method: int, tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", method) as target:
        target.writestr("a/b.txt", b"text" * 100)
        target.writestr("a/ünï.txt", b"")
        with target.open("a/streamed", "w", force_zip64=True) as stream:
            stream.write(b"x" * 10)
    assert_as_zipfile(path)


def test_records_by_hand(tmp_path: Path) -> None:
    for zip64 in (True, False):
        records = read_bytes(archive(Entry("a/x", b"12"), Entry("a/y", b"3", flags=0), zip64=zip64), tmp_path)
        assert [(r.name, r.size) for r in records.values()] == [("a/x", 2), ("a/y", 1)]


def test_an_empty_archive(tmp_path: Path) -> None:
    assert read_bytes(archive(), tmp_path) == {}


def test_sizes_in_zip64_fields(tmp_path: Path) -> None:
    """As torch writes records beyond 4 GiB: some values saturated, the real ones in the extra field."""
    extra = struct.pack("<HHQQ", 1, 16, 2, 2)
    central = {"size": FULL, "plain": FULL}
    records = read_bytes(archive(Entry("a/x", b"12", central=central, extra=extra)), tmp_path)
    assert records["a/x"].size == 2
    offset = Entry("a/x", b"12", central={"offset": FULL}, extra=struct.pack("<HHQ", 1, 8, 0))
    assert read_bytes(archive(offset), tmp_path)["a/x"].size == 2
    local = Entry("a/x", b"12", flags=0, local={"size": FULL, "plain": FULL}, local_extra=extra)
    assert read_bytes(archive(local), tmp_path)["a/x"].size == 2


X = Entry("a/x", b"12")
BROKEN = {
    "comment": (archive(X, end={"comment": 5}), "its end record announces a comment that is not there"),
    "trailing": (archive(X) + b"12345", "5 bytes follow its end record"),
    "disk": (archive(X, end={"disk": 1}, zip64=False), "it spans several disks"),
    "disk entries": (archive(X, end={"here": 0}, zip64=False), "it spans several disks"),
    "directory moved": (
        archive(X, end={"start": 3}, zip64=False),
        "its directory does not end where its end",
    ),
    "end records": (archive(X, end64={"count": 2}), "its two end records disagree"),
    "end record starts": (archive(X, end64={"start": 1 << 60}), "its two end records disagree"),
    "locator": (archive(X, end64={"locator": 3}), "its zip64 end record is not where it should be"),
    "disks": (archive(X, end64={"disks": 2}), "its zip64 end record is not where it should be"),
    "zip64 size": (archive(X, end64={"size": 45}), "its zip64 end record has an odd size"),
    "count too large": (
        archive(X, end={"here": 2, "count": 2}, zip64=False),
        "its directory is shorter than it",
    ),
    "count too small": (
        archive(X, Entry("a/y"), end={"here": 1, "count": 1}, zip64=False),
        "its directory is longer than it says",
    ),
    "entry": (archive(Entry("a/x", central={"magic": b"XXXX"})), "its directory has a malformed entry"),
    "same name": (archive(X, X), "two of its records have the same name"),
    "same name in capitals": (archive(X, Entry("a/X")), "two of its records have the same name"),
    "encrypted": (
        archive(Entry("a/x", flags=1)),
        "the record 'a/x' is encrypted, commented or on another disk",
    ),
    "entry disk": (
        archive(Entry("a/x", central={"disk": 1})),
        "the record 'a/x' is encrypted, commented or on",
    ),
    "method": (archive(Entry("a/x", method=12)), "the record 'a/x' is packed by method 12"),
    "stored sizes": (
        archive(Entry("a/x", b"12", central={"plain": 3})),
        "the record 'a/x' is stored, but in another size than its own",
    ),
    "not utf-8": (archive(Entry("a/x", central={"name": b"a/\xff"})), "the name of a record is not UTF-8"),
    "zip64 twice": (
        archive(Entry("a/x", b"12", extra=struct.pack("<HHQ", 1, 8, 99))),
        "the record 'a/x' gives its size twice",
    ),
    "zip64 missing": (
        archive(Entry("a/x", b"12", central={"size": FULL, "plain": FULL})),
        "the record 'a/x' lacks its zip64 sizes",
    ),
    "extra": (archive(Entry("a/x", extra=b"\x01")), "the record 'a/x' has malformed extra fields"),
    "overlap": (
        archive(X, Entry("a/y", central={"offset": 0, "name": b"a/y"})),
        "overlaps another, or hidden bytes lie before it",
    ),
    "hidden": (
        archive(Entry("a/x", gap=b"x" * 25), Entry("a/y")),
        "'a/y' overlaps another, or hidden bytes lie",
    ),
    "hidden at the end": (archive(Entry("a/x", gap=b"x" * 25)), "hidden bytes lie before its directory"),
    "hidden at the start": (
        archive(Entry("a/x", central={"offset": 5})),
        "'a/x' overlaps another, or hidden bytes lie before it",
    ),
    "no local header": (
        archive(Entry("a/x", local={"magic": b"XXXX"})),
        "has no header where the directory says",
    ),
    "local name": (
        archive(Entry("a/x", local={"name": b"a/y"})),
        "the two headers of the record 'a/x' disagree",
    ),
    "local flags": (
        archive(Entry("a/x", local={"flags": 0x809})),
        "the two headers of the record 'a/x' disagree",
    ),
    "local method": (
        archive(Entry("a/x", local={"method": 8})),
        "the two headers of the record 'a/x' disagree",
    ),
    "local size": (
        archive(Entry("a/x", b"12", flags=0, local={"size": 3})),
        "the two headers of the record 'a/x' disagree",
    ),
    "too long": (
        archive(Entry("a/x", b"12", central={"size": 900, "plain": 900})),
        "the record 'a/x' runs into the directory",
    ),
    "header in the directory": (
        archive(Entry("a/x" + "y" * 30, central={"name": b"a/x" + b"y" * 90})),
        "runs into the directory",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_archives(case: str, tmp_path: Path) -> None:
    data, reason = BROKEN[case]
    with pytest.raises(FormatError) as caught:
        read_bytes(data, tmp_path)
    assert caught.value.code == "CKPT002"
    assert caught.value.reason.startswith("is a broken zip archive: ")
    assert reason in caught.value.reason
    assert caught.value.hint == "get the file again from its source; torch.save writes no such archive"


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/x", "C:/x", "a\\x", "a/\x1b[2J", "a/\u202ex", ""])
def test_odd_names(name: str, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"is not one that torch\.save writes"):
        read_bytes(archive(Entry(name)), tmp_path)


def test_usual_names(tmp_path: Path) -> None:
    names = ["run 12:30/data.pkl", "run 12:30/.data/serialization_id", "run 12:30/ünï", "run 12:30/folder/"]
    assert list(read_bytes(archive(*map(Entry, names)), tmp_path)) == names


def test_a_truncated_archive_says_so(tmp_path: Path) -> None:
    with pytest.raises(FormatError) as caught:
        read_bytes(archive(X)[:60], tmp_path)
    assert caught.value.code == "CKPT001"
    assert caught.value.reason == "is cut short: it begins as a zip archive, but its 60 bytes have no end record"
    assert caught.value.hint == "download or copy it again; the file is incomplete"


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (Limits(zip_entries=0), "is not read: it has 1 records in a directory of 49 bytes"),
        (Limits(zip_directory_bytes=48), "is not read: it has 1 records in a directory of 49 bytes"),
        (Limits(zip_name_bytes=2), "is not read: it has a record name of 3 bytes"),
    ],
)
def test_limits(limits: Limits, reason: str, tmp_path: Path) -> None:
    with pytest.raises(FormatError) as caught:
        read_bytes(archive(X), tmp_path, limits)
    assert (caught.value.code, caught.value.reason) == ("CKPT703", reason)


def test_every_truncation_and_many_flips_are_format_errors(tmp_path: Path) -> None:
    data = archive(X, Entry("a/y", b"3", flags=0))
    for end in range(len(data)):
        with pytest.raises(FormatError):
            read_bytes(data[:end], tmp_path)
    for index in range(len(data)):
        flipped = bytearray(data)
        flipped[index] ^= 0xFF
        with contextlib.suppress(FormatError):
            read_bytes(bytes(flipped), tmp_path)
