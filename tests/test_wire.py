"""Values packed for another process and unpacked again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import ckptaudit
from ckptaudit.errors import CkptauditError
from ckptaudit.policy import Side, failed
from ckptaudit.report import render
from ckptaudit.rules import Contract
from ckptaudit.wire import pack, unpack

FIXTURES = Path(__file__).parents[1] / "fixtures"
FIRES = sorted(path for path in (FIXTURES / "rules").glob("*/fires") if (path / "model.manifest.json").exists())


@pytest.mark.parametrize("folder", FIRES, ids=lambda path: path.parent.name)
def test_a_report_says_the_same_afterwards(folder):
    checkpoint = max(folder.glob("checkpoint.*"), key=lambda path: len(path.name))
    try:
        report = ckptaudit.diff(folder / "model.manifest.json", checkpoint)
    except CkptauditError as error:
        sides = Side("checkpoint", "", "a", 0, 0, 0), Side("model", "", "b", 0, 0, 0)
        report = failed(error, "diff", Contract.strict, *sides)
    packed = pack(report)
    again = unpack(json.loads(json.dumps(packed)))  # builtin types alone
    assert again.to_json() == report.to_json()
    assert render(again, "table") == render(report, "table")
    assert [one.finding.rule is other.finding.rule for one, other in zip(again.findings, report.findings, strict=True)]


def test_groups_keep_their_type():
    value = {"a": (1, [2.5, None], frozenset({"x"}), {True}), 3: b"bytes"}
    assert unpack(pack(value)) == value


@pytest.mark.parametrize("value", [object(), Path("x"), lambda: None])
def test_what_is_no_value_of_ours_is_refused(value):
    with pytest.raises(TypeError, match="is no value of ckptaudit"):
        pack(value)


def test_nothing_from_elsewhere_is_made():
    with pytest.raises(AssertionError):
        unpack({"record": ["os", "system", ["true"]]})
