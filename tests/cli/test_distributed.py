"""Folders of torch.distributed.checkpoint on the command line."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import save_file

from .support import run

STATE = {"model": {"w": torch.ones(2, 3), "b": torch.ones(3)}, "optimizer": {}, "epoch": 3}


def save(state, folder):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp.save(state, checkpoint_id=folder, no_dist=True)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save(STATE, "step_10")


def test_inspect(capsys):
    size = sum(file.stat().st_size for file in Path("step_10").iterdir())
    assert run(capsys, "inspect", "step_10", "-v", "--width", "80") == (
        0,
        f"""step_10   dcp, {size / 1024:.1f} KiB
  *  #model  state dict  2 tensors  9 values
  beside it: epoch (int)
  container: files 1, items 3, sharded 0 of 2 tensors, version 1.0.0

  2 tensors   9 values   36 B   float32 (2)
  no module versions (_metadata)

  key  shape   dtype    tensors
  w    (2, 3)  float32  1
  b    (3,)    float32  1
""",
        "",
    )
    data = run(capsys, "inspect", "step_10/.metadata", "--format", "json").json
    assert (data["path"], data["format"], data["choice"], data["findings"]) == ("step_10", "dcp", "model", [])


def test_diff_with_what_it_was_converted_to(capsys):
    save_file(STATE["model"], "model.safetensors")
    result = run(capsys, "diff", "step_10", "model.safetensors")
    assert (result.status, result.err) == (0, "")
    assert 'All 2 tensors match by name, shape and dtype. Contract "strict": kept.' in result.lines
    save({"model": {"w": torch.ones(3, 3)}}, "step_20")
    result = run(capsys, "diff", "step_10", "step_20", "--format", "concise")
    assert result.status == 1
    assert run(capsys, "diff", "step_10#nothing", "step_20").status == 2


def test_inspect_of_what_contradicts_itself(capsys):
    Path("step_10/__0_0.distcp").unlink()
    assert run(capsys, "inspect", "step_10") == (
        2,
        "",
        "ckptaudit: error: step_10/.metadata: names the file '__0_0.distcp', which is not there\n"
        "hint: get __0_0.distcp from where the checkpoint comes from\n",
    )


def test_scan_takes_the_folder_for_one_checkpoint_and_looks_at_what_else_is_in_it(capsys):
    Path("step_10/__7_0.distcp").write_bytes(b"x")
    torch.save({"x": Path}, "step_10/common.pt")
    files = run(capsys, "scan", ".", "--format", "json").json["files"]
    assert [(file["path"], file["format"], file["verdict"]) for file in files] == [
        ("./step_10", "dcp", "safe"),
        ("./step_10/common.pt", "torch-zip", "safe"),
    ]
    assert [[finding["code"] for finding in file["findings"]] for file in files] == [["CKPT707"], ["CKPT004"]]


def test_scan_of_a_folder_that_describes_each_rank_by_itself(capsys):
    Path("step_10/.metadata").rename("step_10/__0.metadata")
    (file,) = run(capsys, "scan", ".", "--format", "json").json["files"]
    assert (file["path"], file["verdict"]) == ("./step_10", "incomplete")


def test_scan_reads_every_byte_on_demand(capsys):
    assert run(capsys, "scan", "step_10", "--integrity").status == 0
    file = Path("step_10/__0_0.distcp")
    data = file.read_bytes()
    at = data.index(bytes(torch.ones(6).untyped_storage()))
    file.write_bytes(data[:at] + b"\1" + data[at + 1 :])
    result = run(capsys, "scan", "step_10", "--integrity")
    assert result.status == 1
    assert "'model.w:archive/data/0'" in result.out
