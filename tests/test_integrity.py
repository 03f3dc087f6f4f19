"""What a scan of every byte finds: held against torch.isfinite, zipfile's own checksums and torch's skip_data."""

from __future__ import annotations

import os
import tracemalloc
import warnings
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from ckptaudit import integrity
from ckptaudit.errors import FormatError
from ckptaudit.formats import DEFAULT_LIMITS, Limits, open_checkpoint
from ckptaudit.integrity import check_integrity
from ckptaudit.rules import Finding

FLOATS = [
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.float8_e5m2,
    torch.float8_e4m3fn,
    torch.float8_e4m3fnuz,
    torch.float8_e5m2fnuz,
    torch.float8_e8m0fnu,
]
NAN = float("nan")


def findings(path: Path, **options: object) -> list[Finding]:
    return list(check_integrity(open_checkpoint(path), limits=DEFAULT_LIMITS, **options))  # type: ignore[arg-type]


def codes(path: Path) -> list[str]:
    return [finding.rule.code for finding in findings(path)]


def scripted(path: Path) -> None:
    """Write a TorchScript archive; torch.jit.script is deprecated, its files are not."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(nn.Linear(2, 2)), path)


def saved(value: object, path: Path, **options: object) -> Path:
    torch.save(value, path, **options)  # type: ignore[arg-type]
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.pth"


def flip(path: Path, record: str, at: int = 0) -> None:
    """Change one bit of a record's data."""
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        info = next(info for info in archive.infolist() if info.filename.endswith(record))
    name, extra = data[info.header_offset + 26 : info.header_offset + 28], data[info.header_offset + 28 :][:2]
    start = info.header_offset + 30 + int.from_bytes(name, "little") + int.from_bytes(extra, "little")
    data[start + at] ^= 1
    path.write_bytes(data)


def test_a_whole_file_has_no_findings(path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(8, 4))
    for options in ({}, {"_use_new_zipfile_serialization": False}):
        assert findings(saved(model.state_dict(), path, **options)) == []
    save_file(model.state_dict(), path.with_suffix(".safetensors"))
    assert findings(path.with_suffix(".safetensors")) == []


@pytest.mark.parametrize("at", [0, 4_000_000 - 1, (1 << 20), (1 << 20) - 1])
def test_a_flipped_bit_is_found_that_torch_loads_in_silence(path: Path, at: int) -> None:
    saved({"a": torch.ones(3), "w": torch.ones(1_000_000)}, path)
    flip(path, "data/1", at)
    torch.load(path)
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() == "x/data/1"
    (finding,) = findings(path)
    assert (finding.rule.code, finding.keys) == ("CKPT002", ("w",))
    assert finding.message == "1 record is not what was written: the checksum of 'x/data/1' is wrong"


def test_a_flipped_bit_of_a_small_record(path: Path) -> None:
    flip(saved({"w": torch.ones(3)}, path), "serialization_id")
    (finding,) = findings(path)
    assert finding.keys == ("x/.data/serialization_id",)


def test_the_packed_code_of_torchscript_is_checked_too(path: Path) -> None:
    scripted(path)
    assert findings(path) == []
    with zipfile.ZipFile(path) as archive:
        code = next(info for info in archive.infolist() if info.filename.endswith(".py"))
        assert code.compress_type == zipfile.ZIP_DEFLATED
    flip(path, code.filename, code.compress_size // 2)
    assert codes(path) == ["CKPT002"]


def test_archives_without_checksums_are_no_fault(path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        saved({"w": torch.ones(500), "zero": torch.zeros(500)}, path)
    finally:
        torch.serialization.set_crc32_options(True)
    assert findings(path) == []


def test_weights_that_were_never_written(path: Path) -> None:
    with torch.serialization.skip_data():
        saved({"w": torch.ones(100, 100), "b": torch.ones(100)}, path)
    (finding,) = findings(path)
    assert (finding.rule.code, finding.keys) == ("CKPT009", ("w", "b"))
    assert finding.message == "the memory of 2 tensors was never written (40,400 bytes)"
    path.write_bytes(path.read_bytes())  # a copy has no holes
    assert codes(path) == ["CKPT009"]


def test_zeros_that_were_written_are_zeros(path: Path) -> None:
    assert findings(saved({"w": torch.zeros(10_000)}, path)) == []
    save_file({"w": torch.zeros(10_000), "v": torch.ones(10)}, path)
    assert findings(path) == []


def test_a_file_of_nothing_but_zeros_where_no_checksum_tells(path: Path) -> None:
    save_file({"w": torch.zeros(10_000)}, path)
    assert codes(path) == ["CKPT009"]
    save_file({"w": torch.zeros(10)}, path)
    assert findings(path) == []


def test_a_download_that_reserved_its_space(path: Path) -> None:
    """The header and the first tensor came through; the rest is a hole."""
    save_file({"a": torch.ones(2, 1 << 12), "b": torch.ones(3, 1 << 16)}, path)
    whole = path.read_bytes()
    with path.open("wb") as file:
        file.write(whole[: 1 << 14])
        file.truncate(len(whole))
    if open_checkpoint(path).source.data_from(1 << 17) < len(whole):  # type: ignore[union-attr]
        pytest.skip("the file system keeps no holes")
    with path.open("r+b") as file:
        file.write(whole[: 1 << 15])
    assert codes(path) in (["CKPT009"], [])


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_every_value_of_eight_and_sixteen_bits_is_judged_as_torch_does(path: Path, dtype: torch.dtype) -> None:
    bits = 8 * dtype.itemsize
    if bits <= 16:
        words = torch.arange(1 << bits, dtype=torch.int32).to({8: torch.uint8, 16: torch.uint16}[bits]).view(dtype)
    else:
        words = torch.tensor([0.0, 1.0, NAN, float("inf"), -float("inf"), 1e30, 1e-42, 5.0], dtype=dtype)
    expected = int((~torch.isfinite(words.to(torch.float64))).sum())
    saved({"w": words}, path)
    rows = findings(path)
    assert [finding.rows for finding in rows] == [(("w", str(dtype)[6:], f"{expected:,} of {words.numel():,}"),)]


@pytest.mark.filterwarnings("ignore:ComplexHalf")
@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128, torch.complex32], ids=str)
def test_complex_numbers_have_two_parts(path: Path, dtype: torch.dtype) -> None:
    values = torch.ones(4, dtype=torch.complex64)
    values[2] = complex(1, NAN)
    saved({"w": values.to(dtype)}, path)
    (finding,) = findings(path)
    assert finding.rows[0][2] == "1 of 4"


def test_integers_have_no_nan(path: Path) -> None:
    assert findings(saved({"w": torch.full((4,), 0x7F800000, dtype=torch.int32)}, path)) == []


def test_views_are_counted_by_what_they_show(path: Path) -> None:
    base = torch.ones(3_000_000)
    base[2_999_999] = NAN
    saved({"all": base, "head": base[:10], "tail": base[2_999_990:], "turned": base.view(3, -1).t()}, path)
    (finding,) = findings(path)
    rows = {row[0]: row[2] for row in finding.rows}
    assert rows == {"all": "1 of 3,000,000", "tail": "1 of 10", "turned": "1 of 3,000,000"}


def test_a_nan_across_the_border_of_two_reads(path: Path) -> None:
    values = torch.ones((1 << 20) // 8 + 5, dtype=torch.float64)
    values[(1 << 20) // 8 - 1] = NAN
    values[(1 << 20) // 8] = NAN
    save_file({"pad": torch.ones(1, dtype=torch.uint8), "w": values}, path)
    (finding,) = findings(path)
    assert finding.rows[0][2].startswith("2 of ")


def test_big_endian_values(path: Path) -> None:
    saved({"w": torch.tensor([1.0, NAN])}, path)
    with zipfile.ZipFile(path) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in records.items():
            swapped = data[3::-1] + data[:3:-1] if name.endswith("data/0") else data
            archive.writestr(name, b"big" if name.endswith("byteorder") else swapped)
    assert torch.isnan(torch.load(path)["w"]).tolist() == [False, True]
    (finding,) = findings(path)
    assert finding.rows[0][2] == "1 of 2"


def test_shards_are_read_each(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "1.safetensors")
    save_file({"b": torch.tensor([NAN])}, tmp_path / "2.safetensors")
    index = tmp_path / "model.safetensors.index.json"
    index.write_text('{"weight_map": {"a": "1.safetensors", "b": "2.safetensors"}}')
    (finding,) = findings(index)
    assert finding.keys == ("b",)


def test_progress_counts_every_byte(path: Path) -> None:
    saved({"w": torch.ones(1_000_000)}, path)
    told: list[tuple[int, int]] = []
    findings(path, progress=lambda done, total: told.append((done, total)))
    assert told[-1][0] == told[-1][1] >= 4_000_000
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_a_record_that_unpacks_endlessly_is_not_followed(path: Path) -> None:
    scripted(path)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/code/bomb.txt", bytes(1_000_000))
    limits = Limits(string_bytes=100_000)
    with pytest.raises(FormatError, match="unpacks to more than 100,000 bytes") as caught:
        list(check_integrity(open_checkpoint(path), limits=limits))
    assert caught.value.code == "CKPT703"


def test_memory_does_not_depend_on_the_size(path: Path) -> None:
    """A sparse file of 300 MB is read through one buffer."""
    header = b'{"w":{"dtype":"U8","shape":[300000000],"data_offsets":[0,300000000]}}'
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    os.truncate(path, 8 + len(header) + 300_000_000)
    tracemalloc.start()
    try:
        assert codes(path) == ["CKPT009"]
        assert tracemalloc.get_traced_memory()[1] < 8 * integrity.MIB
    finally:
        tracemalloc.stop()
