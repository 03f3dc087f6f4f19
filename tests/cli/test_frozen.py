"""``ckptaudit frozen`` as it is typed."""

from __future__ import annotations

import pytest
import torch

from .support import run


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = ["layer1.weight", "layer1.bias", "layer2.weight", "layer2.bias", "fc.weight", "fc.bias"]
    base = {name: torch.arange(4.0) + number for number, name in enumerate(names)}
    tuned = {name: value + (0.5 if name.startswith("fc") else 0) for name, value in base.items()}
    torch.save(base, "base.pth")
    torch.save({"epoch": 3, "model": tuned, "ema": base}, "tuned.pth")


TUNED = "tuned.pth#model"


def test_what_is_kept_is_said_in_groups(capsys):
    result = run(capsys, "frozen", "base.pth", TUNED, "layer*", "--trainable", "fc", "--width", 80)
    assert (result.status, result.err) == (0, "")
    assert result.lines[3:] == [
        "",
        "  key           tensors  meant to be  is",
        "  layer{1,2}.*  4        frozen       identical",
        "  fc.*          2        trainable    changed",
        "",
        "Of 4 frozen tensors 4 held bit for bit and of 2 trainable tensors 2 changed.",
        'Contract "exact": kept.',
    ]


def test_without_patterns_it_says_what_was_seen(capsys):
    result = run(capsys, "frozen", "base.pth", TUNED)
    assert result.status == 0
    assert "  layer{1,2}.*  4        identical" in result.lines
    assert "  fc.*          2        changed" in result.lines
    assert (
        result.lines[-1] == 'Of 6 tensors that both have 4 are equal bit for bit and 2 changed. Contract "exact": kept.'
    )


def test_a_broken_freeze_exits_1(capsys):
    result = run(capsys, "frozen", "base.pth", TUNED, "fc.*")
    assert result.status == 1
    assert "error[CKPT801] frozen-tensor-changed: 2 frozen tensors changed" in result.lines
    assert result.lines[-1] == "next: ckptaudit explain CKPT801"
    assert run(capsys, "frozen", "base.pth", "tuned.pth#ema", "fc.*").status == 0


def test_concise_and_json(capsys):
    lines = run(capsys, "frozen", "base.pth", TUNED, "fc.*", "--format", "concise").lines
    assert lines[0] == "base.pth: error CKPT801 frozen-tensor-changed: 2 frozen tensors changed: fc.{bias,weight}"
    report = run(capsys, "frozen", "base.pth", TUNED, "fc.*", "--format", "json").json
    assert report["tensors"]["moved"] == ["fc.weight", "fc.bias"] and report["exit_status"] == 1


@pytest.mark.parametrize(
    ("arguments", "error", "hint"),
    [
        (["missing.pth", TUNED], "missing.pth: no such file", None),
        (["base.pth", TUNED, "{"], "{: has an opening brace", None),
        (
            ["base.pth", TUNED, "module:Linear"],
            "module:Linear: goes by the type of a module, which no checkpoint records",
            "write a glob (backbone.*) or re:REGEX",
        ),
        (
            ["base.pth", TUNED, "fc", "--trainable", "fc.bias"],
            "fc.bias: is selected twice, as frozen and as trainable",
            None,
        ),
        (["base.pth", TUNED, "--map", "nothing -> x"], "matches nothing", None),
    ],
)
def test_failures_are_sentences(capsys, arguments, error, hint):
    result = run(capsys, "frozen", *arguments)
    assert result.status == 2 and result.out == ""
    assert error in result.err
    assert hint is None or f"hint: {hint}" in result.err


def test_a_pattern_without_a_match_exits_2(capsys):
    result = run(capsys, "frozen", "base.pth", TUNED, "lair1.*", "layer2")
    assert result.status == 2
    assert "error[CKPT804] freeze-pattern-unmatched: no tensor matches 1 pattern" in result.lines


def test_help_says_what_a_pattern_is(capsys):
    result = run(capsys, "frozen", "--help")
    assert result.status == 0 and "rows:NAME[0:100]" in result.out
