"""``ckptaudit explain``: every rule has a page that fits the terminal."""

from __future__ import annotations

import pytest

from ckptaudit.rules import RULES

from .support import run


@pytest.mark.parametrize("width", [40, 80, 100])
@pytest.mark.parametrize("code", RULES)
def test_every_page_fits_and_says_everything(code, width, capsys):
    rule = RULES[code]
    result = run(capsys, "explain", code, "--width", width)
    assert (result.status, result.err) == (0, "")
    assert result.lines[0] == f"{code} {rule.name}"
    assert max(map(len, result.lines)) <= width
    squeezed = "".join(result.out.split())
    for text in (rule.summary, rule.why, rule.fix, rule.example):
        assert "".join(text.split()) in squeezed


def test_code_and_name_are_both_accepted_in_any_case(capsys):
    pages = {run(capsys, "explain", text).out for text in ("CKPT201", "ckpt201", "shape-mismatch", "Shape-Mismatch")}
    assert len(pages) == 1


@pytest.mark.parametrize("width", [40, 60, 80, 89, 90, 100, 200])
def test_the_list_names_every_rule_and_contract(width, capsys):
    result = run(capsys, "explain", "--width", width)
    assert result.status == 0
    assert max(map(len, result.lines)) <= width
    assert [line.split()[0] for line in result.lines if line.startswith("CKPT")] == list(RULES)
    for rule in RULES.values():
        assert rule.name in result.out
    assert [name for name in ("open", "partial", "strict", "exact", "resume") if f"\n  {name} " not in result.out] == []


def test_a_wide_terminal_gets_a_row_a_rule(capsys):
    (row,) = (line for line in run(capsys, "explain", "--width", 200).lines if line.startswith("CKPT101"))
    assert row == "CKPT101  missing-key                  strict     " + RULES["CKPT101"].summary
