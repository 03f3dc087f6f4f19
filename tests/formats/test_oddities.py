"""What is remarked on in files that can be read; each remark beside a file that differs in that point alone."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch_files import rezip, save

from ckptaudit.errors import FormatError
from ckptaudit.formats import open_checkpoint
from ckptaudit.formats.base import DEFAULT_LIMITS, Remark
from ckptaudit.formats.oddities import about, embedded_pickles, key_oddity


def remarks(path: Path) -> tuple[Remark, ...]:
    return open_checkpoint(path).remarks


class Payload:
    def __reduce__(self) -> tuple[object, ...]:
        return os.system, ("id",)


@pytest.mark.parametrize(
    ("key", "what"),
    [
        ("", "without a single character"),
        ("__metadata__", "that safetensors reserves for its metadata"),
        ("a\x1b[2J", "with characters that act on a terminal or are none"),
        ("w\u202egnp.exe", "with characters that act on a terminal or are none"),
        ("../../etc/passwd", "that reads as a path out of its folder"),
        ("a\\..\\b", "that reads as a path out of its folder"),
        ("/etc/passwd", "that reads as a path out of its folder"),
        ("C:\\x", "that reads as a path out of its folder"),
        ("layer1.0.conv.weight", ""),
        ("bert/encoder/layer_0/kernel:0", ""),
        ("схема.вес", ""),
        ("a..b", ""),
        ("c:weight", ""),
    ],
)
def test_keys(key: str, what: str) -> None:
    assert key_oddity(key) == what


@pytest.mark.parametrize("key", ["", "a\x1b[2J", "../w"])
def test_odd_keys_of_safetensors(tmp_path: Path, key: str) -> None:
    save_file({key: torch.zeros(1), "b": torch.zeros(1)}, tmp_path / "x.safetensors")
    reason = f"has 1 key ({key!a}) {key_oddity(key)}"
    assert remarks(tmp_path / "x.safetensors") == (Remark("CKPT706", reason, (key,)),)


def test_odd_keys_of_torch_files_and_of_what_is_no_tensor(tmp_path: Path) -> None:
    path = save({"w": torch.zeros(1), "/x": 3, "../y": torch.zeros(1)}, tmp_path / "x.pt")
    (remark,) = remarks(path)
    assert remark.reason == "has 2 keys ('../y', '/x') that reads as a path out of its folder"
    assert remark.keys == ("../y", "/x")


def test_tensors_under_keys_that_are_no_text(tmp_path: Path) -> None:
    path = save({"net": {("a", 1): torch.zeros(1)}, "other": {"w": torch.zeros(1)}}, tmp_path / "x.pt")
    reason = "holds tensors under keys that are neither text nor numbers, in 1 mapping ('net')"
    assert remarks(path) == (Remark("CKPT706", reason, ("net",)),)


def test_tensors_under_numbers_are_common(tmp_path: Path) -> None:
    assert remarks(save({0: torch.zeros(1), 1: torch.zeros(2)}, tmp_path / "x.pt")) == ()


@pytest.mark.parametrize(("size", "count"), [(1 << 20, 0), ((1 << 20) + 1, 1)])
def test_large_metadata_of_safetensors(tmp_path: Path, size: int, count: int) -> None:
    save_file({"w": torch.zeros(1)}, tmp_path / "x.safetensors", metadata={"a": "x" * (size - 2), "b": ""})
    found = remarks(tmp_path / "x.safetensors")
    assert len(found) == count
    assert all(r.reason == "has metadata of 1,048,577 characters, more than any writer needs" for r in found)


def test_ordinary_files_have_none(tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(3, 2)).sum().backward()
    optimizer.step()
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3}
    for form in (True, False):
        assert remarks(save(state, tmp_path / "x.pt", _use_new_zipfile_serialization=form)) == ()
    save_file(model.state_dict(), tmp_path / "x.safetensors", metadata={"format": "pt"})
    assert remarks(tmp_path / "x.safetensors") == ()


def test_records_that_nothing_refers_to(tmp_path: Path) -> None:
    path = save({"w": torch.zeros(1)}, tmp_path / "x.pt")
    assert remarks(rezip(path, tmp_path / "same.pt")) == ()
    more = {f"data/{number}": b"x" for number in range(7, 12)}
    (remark,) = remarks(rezip(path, tmp_path / "more.pt", replace=more))
    reason = "holds 5 records ('data/10', 'data/11', 'data/7' and 2 more) that nothing refers to"
    assert (remark.code, remark.reason, len(remark.keys)) == ("CKPT707", reason, 5)


@pytest.mark.parametrize("text", [b"64", b"4096", b"1"])
def test_an_alignment_that_torch_writes(tmp_path: Path, text: bytes) -> None:
    path = save({"w": torch.zeros(1)}, tmp_path / "x.pt")
    assert remarks(rezip(path, tmp_path / "y.pt", replace={".storage_alignment": text})) == ()


@pytest.mark.parametrize("text", [b"0", b"-1", b"65", b"9" * 20])
def test_an_alignment_that_torch_does_not_write(tmp_path: Path, text: bytes) -> None:
    path = save({"w": torch.zeros(1)}, tmp_path / "x.pt")
    (remark,) = remarks(rezip(path, tmp_path / "y.pt", replace={".storage_alignment": text}))
    assert remark.code == "CKPT707"
    assert remark.reason.endswith(", where torch.save writes a power of two")


@pytest.mark.parametrize("text", [b"x", b"6\x1d", b"\xff\xfe", b"9" * 5000])
def test_an_alignment_that_torch_does_not_load(tmp_path: Path, text: bytes) -> None:
    path = save({"w": torch.zeros(1)}, tmp_path / "x.pt")
    broken = rezip(path, tmp_path / "y.pt", replace={".storage_alignment": text})
    with pytest.raises(ValueError, match="int"):
        torch.load(broken)
    with pytest.raises(FormatError, match=r"is a broken torch archive: its (record )?\.storage_alignment"):
        remarks(broken)


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_inside_a_value(tmp_path: Path, protocol: int, zipped: bool) -> None:
    def written(value: object) -> tuple[Remark, ...]:
        state = {"w": torch.zeros(1), "blob": value}
        options = {"pickle_protocol": protocol, "_use_new_zipfile_serialization": zipped}
        return remarks(save(state, tmp_path / "x.pt", **options))

    assert written(b"bytes and no more") == ()
    (remark,) = written(pickle.dumps([1, 2], 4))
    assert remark.code == "CKPT707"
    assert remark.reason.startswith("holds a pickle inside a value (")
    assert remark.reason.endswith(")")
    (remark,) = written(pickle.dumps(Payload(), 4))
    assert remark.reason.endswith("), which names posix.system")


def test_an_embedded_pickle_that_is_broken() -> None:
    broken = b"\x80\x02cposix\nsystem\n0."
    (remark,) = embedded_pickles("data.pkl", [(7, broken)], DEFAULT_LIMITS)
    assert "posix.system" in remark.reason
    (remark,) = embedded_pickles("data.pkl", [(7, b"\x80\x020.")], DEFAULT_LIMITS)
    assert remark.reason == "holds a pickle inside a value (data.pkl, byte 7)"


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_under_the_name_of_a_safetensors_file(tmp_path: Path, zipped: bool) -> None:
    state = {"w": torch.zeros(1)}
    (remark,) = remarks(save(state, tmp_path / "x.safetensors", _use_new_zipfile_serialization=zipped))
    kind = "torch-zip" if zipped else "torch-legacy"
    assert remark == Remark("CKPT708", f"is a {kind} file, a pickle, under the name of a safetensors file")
    save_file(state, tmp_path / "x.pth")
    assert remarks(tmp_path / "x.pth") == ()


def test_a_remark_on_many_things_names_a_few() -> None:
    names = [f"n{number}" for number in range(200)]
    remark = about("CKPT707", "holds {} here", "record", names)
    assert remark.reason == "holds 200 records ('n0', 'n1', 'n2' and 197 more) here"
    assert len(remark.keys) == 100
