"""``ckptaudit inspect``: what a file holds, for people and for programs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from .support import run, saved

ROOT = Path(__file__).parents[2]
ARTICLE = ROOT / "fixtures" / "article" / "resnet18.pth"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def inspect(capsys, *arguments):
    return run(capsys, "inspect", *arguments)


def test_a_small_file_in_full(capsys):
    tied = nn.Linear(2, 2, bias=False)
    state = {"a.weight": tied.weight, "b.weight": tied.weight, "c.bias": torch.zeros(2, dtype=torch.float16)}
    torch.save({"epoch": 3, "model": state}, "net.pth")
    size = Path("net.pth").stat().st_size
    assert inspect(capsys, "net.pth", "--width", "80") == (
        0,
        f"""net.pth   torch-zip, {size / 1024:.1f} KiB
  *  #model  state dict  3 tensors  6 values
  beside it: epoch (int)

  3 tensors   6 values   20 B   float32 (2), float16 (1)
  tied: a.weight = b.weight
  no module versions (_metadata)

  key           shape   dtype    tensors
  {{a,b}}.weight  (2, 2)  float32  2
  c.bias        (2,)    float16  1
""",
        "",
    )


def test_several_files_have_a_blank_line_between_them(capsys):
    for name in ("a.safetensors", "b.safetensors"):
        save_file({"w": torch.zeros(2)}, name)
    out = inspect(capsys, "a.safetensors", "b.safetensors").out
    assert out.startswith("a.safetensors   safetensors, ")
    assert "\n\nb.safetensors   safetensors, " in out


def test_several_files_in_json_are_one_object_each(capsys):
    save_file({"w": torch.zeros(2)}, "a.safetensors")
    text, decoder, objects = inspect(capsys, "a.safetensors", ARTICLE, "--format", "json").out, json.JSONDecoder(), []
    while text:
        data, end = decoder.raw_decode(text)
        objects.append(data)
        text = text[end:].lstrip()
    assert [(data["path"], data["format"], len(data["manifest"]["tensors"])) for data in objects] == [
        ("a.safetensors", "safetensors", 1),
        (str(ARTICLE), "torch-zip", 122),
    ]


def test_the_fields(capsys):
    data = inspect(capsys, ARTICLE, "--format", "json").json
    assert list(data) == [
        "schema",
        "path",
        "format",
        "size",
        "details",
        "candidates",
        "choice",
        "fault",
        "siblings",
        "globals",
        "manifest",
        "findings",
    ]
    assert data["candidates"] == [{"path": "", "kind": "state_dict", "tensors": 122, "elements": 11_699_132}]
    assert {item["verdict"] for item in data["globals"]} == {"allowed"}
    assert (data["choice"], data["fault"]) == ("", None)


def test_a_file_with_a_choice_lists_it_and_names_the_next_command(capsys):
    torch.save({"g.1": {"w": torch.zeros(2)}, "it's": {"w": torch.zeros(3)}}, "gan.pth")
    result = inspect(capsys, "gan.pth", "--width", "80")
    assert result.status == 1
    assert result.lines[1:4] == [
        "    #g.1   state dict  1 tensor  2 values",
        "    #it's  state dict  1 tensor  3 values",
        "  top level: g.1 (dict), it's (dict)",
    ]
    assert result.lines[-1] == "  fix [display]  pick one: ckptaudit inspect 'gan.pth#g.1'"
    assert inspect(capsys, "gan.pth#g.1").status == 0
    assert inspect(capsys, "gan.pth#it's").status == 0


def test_a_refused_pickle_is_described_and_not_run(capsys):
    class Payload:
        def __reduce__(self):
            return (open, ("ran.txt", "w"))

    torch.save({"w": torch.zeros(2), "x": Payload()}, "evil.pth")
    result = inspect(capsys, "evil.pth")
    assert result.status == 1
    assert "error[CKPT70" in result.out
    assert "io.open" in result.out
    assert not Path("ran.txt").exists()


def test_verbose_shows_every_row_and_the_container(capsys):
    torch.save({f"{'x' * i}": torch.zeros(i) for i in range(1, 60)}, "many.pth")
    short, long = inspect(capsys, "many.pth"), inspect(capsys, "many.pth", "-v")
    assert short.lines[-1] == "  and 19 more rows: add -v"
    assert len(long.lines) > len(short.lines)
    assert "byteorder little" in long.out
    assert "more row" not in long.out


def test_an_empty_state_dict(capsys):
    save_file({}, "none.safetensors")
    result = inspect(capsys, "none.safetensors")
    assert (result.status, result.err) in ((0, ""), (1, ""))
    assert "0 tensors" in result.out


def test_a_folder_and_an_index_are_named_by_their_file(capsys):
    Path("shards").mkdir()
    save_file({"a": torch.zeros(2)}, "shards/model-1.safetensors")
    save_file({"b": torch.zeros(3)}, "shards/model-2.safetensors")
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    Path("shards/model.safetensors.index.json").write_text(json.dumps(index))
    data = inspect(capsys, "shards", "--format", "json").json
    assert (data["path"], data["format"]) == ("shards/model.safetensors.index.json", "sharded-safetensors")
    assert [row["key"] for row in data["manifest"]["tensors"]] == ["a", "b"]


def test_a_manifest_leads_to_the_command_that_shows_it(capsys):
    saved("my net.json", {"w": (2,)})
    result = inspect(capsys, "my net.json")
    assert result.status == 2
    assert result.err.splitlines()[0].endswith("it describes a state dict and holds no tensors")


def test_a_file_without_a_tensor(capsys):
    torch.save({"epoch": 1}, "none.pth")
    result = inspect(capsys, "none.pth")
    assert (result.status, result.err) == (1, "")
    assert "no-state-dict: holds no tensors" in result.out
