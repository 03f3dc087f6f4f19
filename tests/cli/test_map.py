"""``ckptaudit map``: what it prints and writes, and its exit status."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from ckptaudit import KeyMapping, diff, infer_mapping

from .support import run, saved

ROOT = Path(__file__).parents[2]
NET = {"conv.weight": (4, 3, 3, 3), "conv.bias": (4,), "fc.weight": (10, 4), "fc.bias": (10,)}
LIKE = {f"{word}.weight": (4, 4) for word in ("amber", "birch", "cedar")}
OTHER = {f"{word}.weight": (4, 4) for word in ("lotus", "maple", "north")}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    saved("net.json", NET)
    saved("wrapped.json", {f"module.{key}": shape for key, shape in NET.items()})
    saved("head.json", {**NET, "fc.weight": (7, 4), "fc.bias": (7,)})
    saved("like.json", LIKE)
    saved("other.json", OTHER)
    saved("strange.json", {"x.y": (999,)})


def infer(capsys, *arguments):
    return run(capsys, "map", *arguments)


def test_a_lost_prefix(capsys):
    result = infer(capsys, "wrapped.json", "net.json", "--width", 80)
    assert (result.status, result.err) == (0, "")
    assert result.lines == [
        "  checkpoint  wrapped.json  4 tensors  162 values",
        "  model       net.json      4 tensors  162 values",
        "",
        "  rule           tensors  confidence",
        "  module.* -> *  4        0.99",
        "",
        "Of 4 tensors of the model: 4 with a confidence of 0.9 or more.",
        "next: ckptaudit map wrapped.json net.json -o mapping.toml",
        "      ckptaudit diff net.json wrapped.json --map mapping.toml",
    ]


class TestStatus:
    def test_a_new_head_is_no_question(self, capsys):
        result = infer(capsys, "wrapped.json", "head.json")
        assert result.status == 0
        assert "Of 4 tensors of the model: 2 with a confidence of 0.9 or more, 2 left at initial values." in result.out

    @pytest.mark.parametrize("form", ["table", "json", "toml"])
    def test_what_is_to_be_checked_or_open_is_one(self, form, capsys):
        assert infer(capsys, "like.json", "other.json", "--format", form).status == 1

    def test_nothing_in_common(self, capsys):
        result = infer(capsys, "strange.json", "net.json", "-o", "m.toml")
        assert result.status == 1
        assert result.lines[-3:] == [
            "Of 4 tensors of the model: none with confidence, 4 left at initial values.",
            "Not used: 1 of 1 tensor of the checkpoint.",
            "Nothing was found, and nothing is written.",
        ]
        assert not Path("m.toml").exists()

    @pytest.mark.parametrize(
        ("arguments", "sentence"),
        [
            (["no.pth", "net.json"], "no.pth: no such file"),
            (
                ["net.json", "net.json", "-o", "net.json"],
                "net.json: is an input of this command and would be overwritten",
            ),
            (
                ["wrapped.json", "net.json", "-o", "rules"],
                "rules: does not end in .toml, by which --map knows such a file",
            ),
            (
                ["wrapped.json", "net.json", "-o", "no/m.toml"],
                "no/m.toml: cannot be written: No such file or directory",
            ),
            (["wrapped.json", "net.json", "--arg", "a=1"], "--arg: is for a model spec, and net.json is none"),
        ],
    )
    def test_what_cannot_be_done(self, arguments, sentence, capsys):
        result = infer(capsys, *arguments)
        assert (result.status, result.out) == (2, "")
        assert result.err.startswith(f"ckptaudit: error: {sentence}\n")


class TestFile:
    def test_the_file_is_what_diff_takes(self, capsys):
        result = infer(capsys, "wrapped.json", "head.json", "-o", "m.toml")
        assert result.lines[-2:] == [
            "3 rules written to m.toml.",
            "next: ckptaudit diff head.json wrapped.json --map m.toml",
        ]
        assert KeyMapping.load("m.toml") == infer_mapping("wrapped.json", "head.json").mapping
        after = run(capsys, *result.lines[-1].split()[2:])
        assert after.status == 0
        assert "The mapping leaves 2 to the model's initial values." in " ".join(after.lines)

    def test_it_says_how_sure_each_rule_is(self, capsys):
        infer(capsys, "like.json", "other.json", "-o", "m.toml")
        found = infer_mapping("like.json", "other.json")
        assert found.to_check
        text = Path("m.toml").read_text()
        assert text.count("# TO BE CHECKED: ") == sum(bool(use.to_check) for use in found.uses)
        assert text == infer(capsys, "like.json", "other.json", "--format", "toml").out

    def test_a_failed_write_leaves_the_old_file(self, capsys, monkeypatch):
        Path("m.toml").write_text("old")
        monkeypatch.setattr("ckptaudit.textfile.os.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space")))
        assert infer(capsys, "wrapped.json", "net.json", "-o", "m.toml").status == 2
        assert Path("m.toml").read_text() == "old"
        assert [path.name for path in Path().glob("*m.toml*")] == ["m.toml"]


class TestPage:
    def test_what_is_to_be_checked_is_shown_with_its_reason(self, capsys):
        result = infer(capsys, "like.json", "other.json")
        assert "To be checked:" in result.lines
        assert any("names share nothing" in line for line in result.lines)
        assert any(line.startswith("  lotus") or "lotus" in line for line in result.lines)

    def test_explain_says_why_for_all(self, capsys):
        result = infer(capsys, "wrapped.json", "net.json", "--explain", "--width", 80)
        assert "Every decision, the least sure first:" in result.lines
        for key in ("conv.{bias,weight}", "fc.{bias,weight}"):
            at = next(n for n, line in enumerate(result.lines) if line.endswith(f"  {key}"))
            assert result.lines[at + 1] == f"        <- module.{key}"
            assert result.lines[at + 2].strip().startswith("same name under another prefix; ")

    def test_an_open_tensor_is_shown_with_what_fits(self, capsys):
        chaos = [f"{number * 7919 % 1009:x}" for number in range(40)]
        saved("a.json", {f"{word}.a.weight": (4, 4) for word in chaos})
        saved("b.json", {f"{word}q.z.weight": (4, 4) for word in reversed(chaos)})
        result = infer(capsys, "a.json", "b.json")
        assert "Open: something could be meant, and nothing tells what." in result.lines
        assert result.status == 1

    @pytest.mark.parametrize("width", [40, 60, 80])
    def test_no_line_but_a_command_is_too_wide(self, width, capsys):
        result = infer(capsys, "wrapped.json", "net.json", "--explain", "--width", width)
        assert all(len(line) <= width for line in result.lines)
        commands = result.out.partition("next: ")[2].replace("\\\n", "").splitlines()
        assert [shlex.split(command) for command in commands] == [
            ["ckptaudit", "map", "wrapped.json", "net.json", "-o", "mapping.toml"],
            ["ckptaudit", "diff", "net.json", "wrapped.json", "--map", "mapping.toml"],
        ]

    def test_names_of_a_stranger_do_nothing(self, capsys):
        saved("evil.json", {"a\x1b[31m\n\u202e.weight": (3, 5)})
        saved("good.json", {"b.weight": (3, 5)})
        for form in ("table", "toml", "json"):
            out = infer(capsys, "evil.json", "good.json", "--explain", "--format", form).out
            assert "\x1b" not in out
            assert "\u202e" not in out

    def test_the_json_is_that_of_the_library(self, capsys):
        result = infer(capsys, "wrapped.json", "head.json", "--format", "json")
        assert result.json == json.loads(json.dumps(infer_mapping("wrapped.json", "head.json").to_json()))
        assert result.json["rules"] == infer_mapping("wrapped.json", "head.json").mapping.to_json()


def test_a_model_and_a_checkpoint_in_the_wrong_order(capsys):
    model, old = ROOT / "fixtures/renamed/model.py:Net", ROOT / "fixtures/renamed/old.pth"
    result = infer(capsys, f"{model}", old)
    assert result.status == 0
    assert result.lines[-1] == f'      ckptaudit.load(model, "{old}", mapping="mapping.toml")'
    assert result.out == infer(capsys, old, f"{model}").out


def test_a_status_of_0_is_a_strict_load(capsys, tmp_path):
    for source, target in (("wrapped.json", "net.json"), ("wrapped.json", "head.json"), ("net.json", "net.json")):
        assert infer(capsys, source, target).status == 0
        assert diff(target, source, mapping=infer_mapping(source, target).mapping).ok
