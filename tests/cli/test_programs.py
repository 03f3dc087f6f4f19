"""Files that are programs with weights: what the commands say of TorchScript and of torch.export."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.export.pt2_archive._package import PT2ArchiveWriter

from .support import run

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    path = tmp_path_factory.mktemp("program") / "net.pt2"
    torch.export.save(torch.export.export(nn.Linear(3, 2), (torch.ones(1, 3),)), path)
    return path.read_bytes()


@pytest.fixture(autouse=True)
def folder(archive, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("net.pt2").write_bytes(archive)
    torch.save(nn.Linear(3, 2).state_dict(), "net.pth")


def test_inspect(capsys):
    size = Path("net.pt2").stat().st_size
    assert run(capsys, "inspect", "net.pt2", "--width", "80", "-v") == (
        0,
        f"""net.pt2   torch-export, {size / 1024:.1f} KiB
  container: archive version 0, byteorder little

  2 tensors   8 values   32 B   float32 (2)
  no module versions (_metadata)

  key     shape   dtype    tensors
  weight  (2, 3)  float32  1
  bias    (2,)    float32  1

warning[CKPT709] holds-program: holds an exported program (models/model.json),
  which runs when the loaded module is called; only its weights were judged
""",
        "",
    )


def test_a_difference_to_a_state_dict(capsys):
    assert run(capsys, "diff", "net.pt2", "net.pth").status == 0
    torch.save(nn.Linear(4, 2).state_dict(), "other.pth")
    result = run(capsys, "diff", "net.pt2", "other.pth", "--format", "json")
    assert result.status == 1
    assert [row["key"] for row in result.json["alignment"]["mismatched_keys"]] == ["weight"]


class Odd:
    def __reduce__(self):
        return os.system, ("touch ran",)


def test_what_would_run_is_named(capsys):
    torch.save(Odd(), "inputs.pt")
    with PT2ArchiveWriter("bad.pt2") as writer:
        writer.write_string("models/model.json", "{}")
        for folder in ("weights", "constants"):
            writer.write_string(f"data/{folder}/model_{folder}_config.json", '{"config": {}}')
        writer.write_bytes("data/sample_inputs/model.pt", Path("inputs.pt").read_bytes())
        writer.write_bytes("data/aotinductor/model/model.so", b"\x7fELF")
    assert run(capsys, "diff", "bad.pt2", "net.pth").err.splitlines() == [
        "ckptaudit: error: bad.pt2: runs code when it is unpickled: it names posix.system",
        "hint: see what it holds, without running anything: ckptaudit inspect bad.pt2",
    ]
    result = run(capsys, "inspect", "bad.pt2", "--width", "200")
    assert result.status == 1
    assert "data/sample_inputs/model.pt:inputs/data.pkl, byte 2" in result.out
    assert "code-execution: holds compiled code (data/aotinductor/model/model.so), which" in result.out
    assert not Path("ran").exists()


def test_scan(capsys):
    torch.jit.save(torch.jit.script(nn.Linear(3, 2)), "net.pt")
    result = run(capsys, "scan", "net.pt", "net.pt2", "--integrity", "--format", "json")
    assert result.status == 0
    for row, form in zip(result.json["files"], ("torchscript", "torch-export"), strict=True):
        assert (row["format"], row["verdict"]) == (form, "safe")
        assert [finding["code"] for finding in row["findings"]] == ["CKPT709"]
