"""``ckptaudit convert`` as it is typed."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from .support import run

ROOT = Path(__file__).parents[2]
WEIGHT = torch.ones(2, 3)
STATE = {"module.fc.weight": WEIGHT, "module.head.weight": WEIGHT, "module.fc.bias": torch.zeros(2)}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"epoch": 3, "state_dict": STATE}, "in.pth")


def test_a_conversion_says_what_it_did(capsys):
    result = run(capsys, "convert", "in.pth", "x.safetensors", "--map", "module.* -> *", "--width", 80)
    assert (result.status, result.err) == (0, "")
    size = os.path.getsize("x.safetensors")
    assert result.lines[:-1] == [
        "in.pth#state_dict  torch-zip",
        f"x.safetensors      safetensors, {size} B",
        "  renamed: 3 tensors, first module.fc.weight -> fc.weight",
        "  kept once: head.weight = fc.weight",
        "  kept beside the tensors: epoch (int)",
        "",
        "3 tensors written, and read back the same, bit for bit.",
    ]
    assert result.lines[-1].endswith("/s")
    assert set(load_file("x.safetensors")) == {"fc.weight", "fc.bias"}


def test_a_dry_run_shows_the_plan(capsys):
    arguments = ["--dry-run", "--drop", "*.bias", "--map", "cast *.fc.weight dtype=float16", "--width", 80]
    result = run(capsys, "convert", "in.pth", "x.safetensors", *arguments)
    assert result.lines[2:] == [
        "",
        "  key                 dtype    tensors  operation",
        "  module.fc.weight    float16  1        cast dtype=float16",
        "  module.head.weight  float32  1",
        "",
        "  made anew: 1 tensor, first module.fc.weight by cast dtype=float16",
        "  dropped: module.fc.bias",
        "  kept beside the tensors: epoch (int)",
        "",
        "2 tensors would be written. Nothing was written (--dry-run).",
    ]
    assert os.listdir() == ["in.pth"]


def test_shards_and_what_is_left_out(capsys):
    result = run(capsys, "convert", "in.pth", "out/", "--shard-size", "24", "--drop-non-tensors", "--no-verify")
    assert (result.status, result.err) == (2, "ckptaudit: error: out: cannot be read: No such file or directory\n")
    Path("out").mkdir()
    result = run(capsys, "convert", "in.pth", "out/", "--shard-size", "24", "--drop-non-tensors", "--no-verify")
    assert "out/model.safetensors.index.json  sharded-safetensors, 3 files, " in result.out
    assert "  left out: epoch (int)" in result.lines
    assert "3 tensors written. Not checked: what was written (--no-verify)." in result.lines


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["in.pth", "in.pth"], "in.pth: is an input of this conversion and would be overwritten"),
        (["gone.pth", "x.safetensors"], "gone.pth: no such file"),
        (["in.pth", "x"], "x: says no format by its name; formats are "),
        (["in.pth", "x.safetensors", "--dtype", "float17"], "--dtype float17: is no dtype that tensors are cast to"),
        (["in.pth", "x.safetensors", "--map", "a.* -> *"], "a.* -> *: matches nothing"),
        (["in.pth", "x.safetensors", "--drop", "*"], "in.pth: would be left without a single tensor"),
        (["in.pth", "x.pth", "--shard-size", "5GB"], "x.pth: is no name for shards"),
        (["in.pth", "x.safetensors", "--shard-size", "big"], "--shard-size big: is no size"),
        (["in.pth", "x.safetensors", "--limit", "tensors=1"], "in.pth: holds more than 1 tensors"),
        (["in.pth#nowhere", "x.safetensors"], "in.pth: has no state dict at 'nowhere'"),
    ],
)
def test_what_cannot_be_done_is_a_sentence(arguments, error, capsys):
    result = run(capsys, "convert", *arguments)
    assert (result.status, result.out) == (2, "")
    assert result.err.startswith(f"ckptaudit: error: {error}")
    assert result.err.count("\n") <= 2
    assert os.listdir() == ["in.pth"]


@pytest.mark.parametrize("terminal", [True, False])
def test_a_bar_is_for_terminals(terminal):
    torch.save({"x": torch.zeros(3_000_000)}, "in.pth")
    command = [sys.executable, "-m", "ckptaudit", "convert", "in.pth", "x.safetensors"]
    ours, theirs = pty.openpty() if terminal else os.pipe()
    if terminal:
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm"}
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=theirs, env=environment, check=True)
    shown = os.read(ours, 100_000) if select.select([ours], [], [], 0)[0] and terminal else b""
    for end in (ours, theirs):
        os.close(end)
    assert (b"%|" in shown) == terminal
    assert b"%|" not in done.stdout


def test_the_source_is_listed_by_its_inner_path(capsys):
    data = run(capsys, "convert", "in.pth#state_dict", "x.pth", "--format", "json").json
    assert data["source"] == {"path": "in.pth#state_dict", "format": "torch-zip"}
    assert data["left_out"] == {"epoch": "int"}
    assert list(torch.load("x.pth")) == list(STATE)
