"""``--ckptaudit-report FORMAT=PATH``: what all assertions of a run found, in one file."""

from __future__ import annotations

import json

import pytest

TESTS = """
    import pytest
    from models import Net

    @pytest.mark.parametrize("version", ["v1", "v2"])
    def test_loads(ckptaudit, version):
        ckptaudit.assert_loads("net.json", f"{version}.json")

    def test_accepts(ckptaudit):
        ckptaudit.assert_loads(Net(), "v2.json", contract="open")
"""


@pytest.fixture(autouse=True)
def project(pytester, manifest):
    manifest("net.json"), manifest("v1.json"), manifest("v2.json", 7)
    pytester.makepyfile(test_net=TESTS)


def test_json(run, pytester):
    run("--ckptaudit-report", "json=found.json").assert_outcomes(passed=2, failed=1)
    data = json.loads((pytester.path / "found.json").read_text())
    assert (data["schema"], data["verdict"]) == ("ckptaudit.check/1", "broken")
    found = [(one["target"], one["command"], one["verdict"]) for one in data["reports"]]
    assert found == [
        ("test_net.py::test_accepts", "pytest", "kept"),
        ("test_net.py::test_loads[v1]", "pytest", "kept"),
        ("test_net.py::test_loads[v2]", "pytest", "broken"),
    ]
    assert [finding["code"] for finding in data["reports"][2]["findings"]] == ["CKPT201"]


@pytest.mark.parametrize("form", ["table", "concise"])
def test_others(run, pytester, form):
    run("--ckptaudit-report", f"{form}=found.txt", "--ckptaudit-report", "json=found.json")
    text = (pytester.path / "found.txt").read_text()
    assert "CKPT201" in text
    assert "3 checks: 2 kept, 1 broken" in text


@pytest.mark.parametrize("value", ["json", "xml=x", "json="])
def test_another_form_is_refused_before_a_test_runs(run, pytester, value):
    result = run("--ckptaudit-report", value)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: ckptaudit: --output {value}*: is not FORMAT=PATH; *"])


def test_an_empty_run_has_an_empty_report(run, pytester):
    pytester.makepyfile(test_net="def test_nothing(): pass\n")
    run("--ckptaudit-report", "json=found.json").assert_outcomes(passed=1)
    assert json.loads((pytester.path / "found.json").read_text())["reports"] == []
