"""``ckptaudit manifest``: written, shown, and accepted wherever a model or a checkpoint is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from ckptaudit import Manifest

from .support import describe, run, saved

NET = {"conv.weight": (4, 3, 3, 3), "fc.weight": (10, 4), "fc.bias": (10,)}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def manifest(capsys, *arguments):
    return run(capsys, "manifest", *arguments)


def test_what_was_written_is_what_the_file_holds(capsys):
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    torch.save({"model": model.state_dict(), "epoch": 1}, "net.pth")
    result = manifest(capsys, "write", "net.pth#model", "-o", "net.json")
    assert result == (0, "net.json: 7 tensors of net.pth#model\n", "")
    assert Manifest.load("net.json").tensors.keys() == model.state_dict().keys()
    assert run(capsys, "diff", "net.json", "net.pth").status == 0
    assert run(capsys, "diff", "net.pth", "net.json").status == 0


def test_one_tensor_is_counted_as_one(capsys):
    saved("one.json", {"w": (2,)})
    assert manifest(capsys, "write", "one.json", "-o", "two.json").out == "two.json: 1 tensor of one.json\n"
    assert Path("one.json").read_text() == Path("two.json").read_text()


def test_a_manifest_of_a_model_is_shown_a_line_a_tensor(capsys):
    model = nn.Module()
    model.a, model.b = nn.Linear(2, 2), nn.Linear(2, 2, bias=False)
    model.b.weight = model.a.weight
    model.lazy = nn.LazyLinear(3, bias=False)
    model.register_buffer("kept", torch.zeros((), dtype=torch.int64))
    model.register_buffer("hidden", torch.zeros(2), persistent=False)
    Manifest.of(model).save("m.json")
    assert manifest(capsys, "show", "m.json").lines == [
        "kept  () int64 buffer",
        "a.weight  (2, 2) float32 parameter",
        "a.bias  (2,) float32 parameter",
        "b.weight  (2, 2) float32 parameter",
        "lazy.weight  float32 uninitialized parameter",
        "hidden  (2,) float32 buffer persistent=False",
        "a.weight = b.weight  tied",
    ]


def test_entries_that_are_no_tensors_are_shown(capsys):
    describe({"w": (2,)}, entries={"bn._extra_state": "dict"}).save("m.json")
    assert manifest(capsys, "show", "m.json").lines == ["w  (2,) float32 tensor", "bn._extra_state  dict"]


def test_a_change_of_one_layer_changes_its_lines_alone(capsys):
    before = manifest(capsys, "show", saved("a.json", NET)).lines
    after = manifest(capsys, "show", saved("b.json", {**NET, "fc.bias": (20,), "new.bias": (3,)})).lines
    assert set(before) ^ set(after) == {
        "fc.bias  (10,) float32 tensor",
        "fc.bias  (20,) float32 tensor",
        "new.bias  (3,) float32 tensor",
    }
    lines = [Path(name).read_text().splitlines() for name in ("a.json", "b.json")]
    assert len(lines[1]) == len(lines[0]) + 1
    assert len(set(lines[0]) - set(lines[1])) == 1


def test_json_on_the_terminal_is_ascii_and_in_the_file_utf8(capsys):
    saved("m.json", {"ключ": (2,), "a\x9b\u2028\ud800\n": (3,)})
    text = Path("m.json").read_bytes().decode()
    assert "ключ" in text
    assert text.count("\n") == len(text.splitlines())
    shown = manifest(capsys, "show", "m.json", "--format", "json").out
    assert shown.isascii()
    assert json.loads(shown) == json.loads(text)
    assert Manifest.load("m.json").all_keys == ("ключ", "a\x9b\u2028\ud800\n")


def test_a_key_cannot_forge_a_line(capsys):
    saved("m.json", {"a\nb  (1,) float32 parameter": (2,)})
    assert manifest(capsys, "show", "m.json").lines == [r"a\nb  (1,) float32 parameter  (2,) float32 tensor"]


def test_a_manifest_rewritten_by_other_tools_is_still_one(capsys):
    data = json.loads(describe({**NET, **{f"x{i}": (1,) for i in range(50)}}).dumps())
    Path("sorted.json").write_text(json.dumps(data, sort_keys=True, indent=2))
    Path("bom.json").write_text("\n" + json.dumps(data), encoding="utf-8-sig")
    saved("net.json", {**NET, **{f"x{i}": (1,) for i in range(50)}})
    for name in ("sorted.json", "bom.json"):
        assert run(capsys, "diff", "net.json", name).status == 0
        assert run(capsys, "diff", name, "net.json").status == 0


def test_a_link_keeps_pointing_at_what_is_written(capsys):
    saved("real.json", {"old": (1,)})
    saved("new.json", NET)
    Path("link.json").symlink_to("real.json")
    assert manifest(capsys, "write", "new.json", "-o", "link.json").status == 0
    assert Path("link.json").is_symlink()
    assert len(Manifest.load("real.json")) == 3
