"""``ckptaudit bench``: its texts, its formats, its exit status. What is measured is never compared with anything."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from .support import run

MODEL = """\
import torch
from torch import nn

import ckptaudit


class Net(nn.Module):
    def __init__(self, width=8):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.ReLU())
        self.body = nn.Sequential(nn.Conv2d(width, width, 3), nn.ReLU())
        self.fc = nn.Linear(width, 2)

    def forward(self, images):
        print("the model speaks")
        return self.fc(self.body(self.stem(images)).mean((2, 3)))


def make_step(model, parameters):
    images, labels = torch.randn(4, 3, 8, 8), torch.zeros(4, dtype=torch.int64)
    loss = lambda: nn.functional.cross_entropy(model(images), labels)
    return ckptaudit.TrainStep(loss, torch.optim.SGD(parameters, lr=0.1), samples=4)
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.py").write_text(MODEL)


def bench(capsys, *options):
    return run(capsys, "bench", "model.py:Net", *options)


def test_a_plan_is_a_table_without_a_figure_that_was_measured(capsys):
    result = bench(capsys, "--input", "2,3,8,8", "--plan", "--width", "80")
    assert (result.status, result.err) == (0, "")
    assert result.lines[:2] == ["  model    model.py:Net", "  step     batch 2x3x8x8, adamw"]
    assert "  stages: stem | body | fc" in result.lines
    rows = {line.split("  ")[1]: line for line in result.lines if line.startswith("  ")}
    assert {"full", "last 2", "frozen eval", "lr=0"} <= set(rows)
    assert rows["full"].split()[2:4] == ["k", "1.00"]
    assert max(map(len, result.lines)) <= 80
    assert result.out == bench(capsys, "--input", "2,3,8,8", "--plan", "--width", "80").out


def test_a_plan_by_timed_operations_has_another_column(capsys):
    result = bench(capsys, "--input", "2,3,8,8", "--plan", "--timed")
    assert result.status == 0
    assert "predicted" in result.out


def test_a_benchmark_prints_every_variant(capsys):
    result = bench(capsys, "--step", "model.py:make_step", "--rounds", "8", "--format", "json", "--threads", "1")
    data = result.json
    assert result.status == data["exit_status"] == {"kept": 0, "unchecked": 2}[data["verdict"]]
    assert data["rounds"] == 8
    assert [v["name"] for v in data["variants"] if v["measured"] is None] == []
    assert {f["code"] for f in data["findings"]} >= {"CKPT851"}
    assert data["variants"][0]["measured"]["samples"] == 4


def test_rounds_too_few_to_know_the_noise_are_exit_2(capsys):
    result = bench(capsys, "--input", "2,3,8,8", "--rounds", "3", "--variants", "frozen", "--format", "markdown")
    assert result.status == 2
    assert "Not measured: 3 rounds are too few to know the noise" in result.out


def test_variants_are_chosen(capsys):
    result = bench(capsys, "--input", "2,3,8,8", "--plan", "--variants", "frozen eval, depth", "--format", "json")
    names = [variant["name"] for variant in result.json["variants"]]
    assert names == ["full", "full again", "last 2", "frozen eval"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "has no batch"),
        (["--input", "2,3"], "the step raised"),
        (["--input", "nought"], "--input nought: is no shape"),
        (["--input", "2,3,8,8", "--freeze", "bdoy"], "hint: the closest name is body"),
        (["--input", "2,3,8,8", "--variants", "forzen"], "forzen: is no variant"),
        (["--input", "2,3,8,8", "--device", "nowhere"], "--device nowhere: cannot be used"),
        (["--input", "2,3,8,8", "--dtype", "int64"], "is no floating-point dtype"),
        (["--input", "2,3,8,8", "--min-speedup", "fast"], "gives no number"),
        (["--input", "2,3,8,8", "--min-speedup", "nothing=2"], "nothing"),
        (["--step", "model.py"], "names a file and no function in it"),
        (["--step", "model.py:make_stpe"], "the closest is 'make_step'"),
    ],
)
def test_errors_are_sentences(capsys, options, words):
    result = bench(capsys, *options)
    assert result.status == 2
    assert words in result.err
    assert "Traceback" not in result.err
    assert result.out == ""


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_ctrl_c_prints_what_was_measured_so_far(tmp_path):
    """Wait until rounds are there, told by a file that the step writes, then interrupt as a terminal does."""
    step = MODEL.replace("def make_step", "import pathlib\ncount = 0\n\n\ndef make_step").replace(
        "    loss = lambda: nn.functional.cross_entropy(model(images), labels)\n",
        "    def loss():\n"
        "        global count\n"
        "        count += 1\n"
        "        pathlib.Path('count').write_text(str(count))\n"
        "        return nn.functional.cross_entropy(model(images), labels)\n",
    )
    (tmp_path / "train.py").write_text(step)
    command = [sys.executable, "-m", "ckptaudit", "bench", "train.py:Net", "--step", "train.py:make_step"]
    process = subprocess.Popen(
        [*command, "--rounds", "100000", "--variants", "frozen"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # which jobs in the background ignore
    )
    try:
        deadline = time.monotonic() + 120
        counted = tmp_path / "count"
        while not (counted.exists() and int(counted.read_text() or 0) > 150):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, err
    assert "Interrupted. " in out
    assert "  frozen " in out
