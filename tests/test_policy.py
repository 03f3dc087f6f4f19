"""Grading, order and verdict of a report."""

import pytest

import ckptaudit
from ckptaudit import Manifest
from ckptaudit.manifest import TensorSpec
from ckptaudit.policy import EXIT_STATUS, Graded, Report, grade, verdict_of
from ckptaudit.rules import RULES, Contract, Finding


def finding(code, **rest):
    return Finding(RULES[code], data={"reason": "r", "total": 1}, case=next(iter(RULES[code].messages)), **rest)


def graded(*codes, contract=Contract.strict):
    return [(g.level, g.finding.rule.code) for g in grade(map(finding, codes), contract)]


def test_errors_come_before_warnings_before_notes_each_by_code():
    assert graded("CKPT301", "CKPT106", "CKPT201", "CKPT903", "CKPT101") == [
        ("error", "CKPT101"),
        ("error", "CKPT201"),
        ("error", "CKPT903"),
        ("warning", "CKPT301"),
        ("note", "CKPT106"),
    ]


def test_what_holds_under_the_proposed_mapping_comes_last():
    findings = [finding("CKPT101", mapped=True), finding("CKPT106")]
    assert [g.finding.rule.code for g in grade(findings, Contract.strict)] == ["CKPT106", "CKPT101"]


def test_findings_of_one_rule_keep_their_order():
    findings = [finding("CKPT403", keys=(key,)) for key in ("b", "a", "c")]
    assert [g.finding.keys for g in grade(findings, Contract.strict)] == [("b",), ("a",), ("c",)]


@pytest.mark.parametrize(
    ("contract", "levels"),
    [
        ("open", ["warning", "note", "note"]),
        ("partial", ["error", "warning", "note"]),
        ("strict", ["error", "error", "warning"]),
        ("exact", ["error", "error", "error"]),
        ("resume", ["error", "error", "error"]),
    ],
)
def test_the_contract_grades(contract, levels):
    assert [level for level, _ in graded("CKPT201", "CKPT101", "CKPT301", contract=Contract[contract])] == levels


@pytest.mark.parametrize(
    ("codes", "verdict", "status"),
    [
        ([], "kept", 0),
        (["CKPT106"], "kept", 0),
        (["CKPT301"], "kept", 0),
        (["CKPT301", "CKPT903"], "broken", 1),
        (["CKPT101"], "broken", 1),
        (["CKPT301", "CKPT201"], "broken", 1),
        (["CKPT905"], "unchecked", 2),
        (["CKPT101", "CKPT905"], "unchecked", 2),
        (["CKPT703"], "unchecked", 2),
    ],
)
def test_the_verdict_and_the_exit_status(codes, verdict, status):
    assert verdict_of(grade(map(finding, codes), Contract.strict)) == verdict
    assert EXIT_STATUS[verdict] == status


def test_any_iterable_of_findings_will_do():
    assert verdict_of(iter([Graded("error", finding("CKPT101"))])) == "broken"


def report(contract="strict"):
    model = Manifest({"w": TensorSpec((2,), "bfloat16"), "v": TensorSpec((1,), "float32")}, source="m")
    saved = Manifest({"w": TensorSpec((2,), "float32")}, source="c")
    return ckptaudit.diff(model, saved, contract=contract)


def test_a_report_counts_by_level():
    found = report()
    assert isinstance(found, Report)
    assert [found.count(level) for level in ("error", "warning", "note")] == [1, 1, 0]
    assert (found.ok, found.verdict, found.exit_status) == (False, "broken", 1)


@pytest.mark.parametrize(("contract", "ok"), [("open", True), ("partial", True), ("strict", False), ("exact", False)])
def test_a_stronger_contract_is_harder_to_keep(contract, ok):
    found = report(contract)
    assert found.ok is ok
    assert found.exit_status == (0 if ok else 1)


def test_the_json_form_agrees_with_the_report():
    data = report().to_json()
    assert (data["schema"], data["command"], data["contract"]) == ("ckptaudit.report/1", "diff", "strict")
    assert (data["verdict"], data["exit_status"]) == ("broken", 1)
    assert [(f["level"], f["code"]) for f in data["findings"]] == [("error", "CKPT101"), ("warning", "CKPT301")]
    assert data["loads"]["strict"] == {"as_is": False, "with_mapping": False}
    non_strict = data["loads"]["non_strict"]
    assert (non_strict["as_is"], non_strict["with_mapping"], non_strict["loaded"]) == (True, True, 1)
    assert data["alignment"]["missing_keys"] == ["v"]
    assert data["mapping"] is None
    assert data["accepted"] == []


def test_rules_without_evidence_are_listed_as_skipped():
    assert report().skipped_rules == ("CKPT004", "CKPT005", "CKPT106", "CKPT408", "CKPT409")
