from __future__ import annotations

import os
import pickle
import tarfile
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ckptaudit.formats.base import ByteSource
from ckptaudit.formats.discover import Found, discover, holds_checkpoint

STATE = {"w": torch.ones(2)}


def kinds(folder: Path) -> dict[str, str]:
    return {os.path.relpath(found.path, folder): found.kind for found in discover(str(folder))}


def write_tar(path: Path) -> None:
    member = path.parent / "sys_info"
    member.write_bytes(b"\x80\x02}.")
    with tarfile.open(path, "w") as archive:
        archive.add(member, "sys_info")
    member.unlink()


WRITERS = {
    "torch-zip": lambda path: torch.save(STATE, path),
    "torch-legacy": lambda path: torch.save(STATE, path, _use_new_zipfile_serialization=False),
    "legacy, protocol 4": lambda path: torch.save(STATE, path, _use_new_zipfile_serialization=False, pickle_protocol=4),
    "torch-tar": write_tar,
    "safetensors": lambda path: save_file(STATE, path),
    "plain pickle": lambda path: path.write_bytes(pickle.dumps([1], 4)),
}


@pytest.mark.parametrize("name", WRITERS)
def test_checkpoints_are_found_by_content_under_any_name(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path / "weights.dat")
    assert kinds(tmp_path) == {"weights.dat": "checkpoint"}


@pytest.mark.parametrize("name", ["x.pth", "X.PT", "x.ckpt", "x.bin", "x.safetensors", "x.pkl", "a.index.json"])
def test_what_claims_to_be_one_by_name_is_one(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"not a checkpoint at all")
    assert kinds(tmp_path) == {name: "checkpoint"}


def test_other_files_are_others(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("# hello")
    (tmp_path / "config.json").write_text('{"a": 1}')
    (tmp_path / "empty").write_bytes(b"")
    with zipfile.ZipFile(tmp_path / "wheel.whl", "w") as archive:
        archive.writestr("a.py", "x = 1")
    (tmp_path / "noise.dat").write_bytes(bytes(range(256)) * 10)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "broken").symlink_to("nowhere")
    assert set(kinds(tmp_path).values()) == {"other"}


def test_folders_are_searched_in_the_order_of_names_and_links_to_folders_are_not(tmp_path: Path) -> None:
    for name in ("b/x.pth", "a/deep/y.pth", "c.pth"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    assert list(kinds(tmp_path)) == ["a/deep/y.pth", "b/x.pth", "c.pth"]


def test_a_distributed_checkpoint_is_one(tmp_path: Path) -> None:
    folder = tmp_path / "step_10"
    folder.mkdir()
    for name in (".metadata", "__0_0.distcp"):
        (folder / name).write_bytes(b"")
    assert kinds(tmp_path) == {"step_10": "checkpoint"}
    assert list(discover(str(folder))) == [Found(str(folder), "checkpoint")]
    (folder / "common.pt").write_bytes(b"")
    assert kinds(tmp_path) == {"step_10": "checkpoint", "step_10/common.pt": "checkpoint"}
    (folder / ".metadata").rename(folder / "__0.metadata")
    assert kinds(tmp_path) == {"step_10": "checkpoint", "step_10/common.pt": "checkpoint"}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_said(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"x")
    (tmp_path / "secret").chmod(0)
    (tmp_path / "locked").mkdir(mode=0)
    assert kinds(tmp_path) == {"locked": "unread", "secret": "unread"}


@pytest.mark.parametrize("size", range(0, 40, 3))
def test_short_files_are_looked_at_without_a_fault(tmp_path: Path, size: int) -> None:
    path = tmp_path / "x"
    torch.save(STATE, path)
    path.write_bytes(path.read_bytes()[:size])
    assert holds_checkpoint(ByteSource(path)) in (True, False)
