"""Reports in files, the summary of a step on GitHub, and the folder that paths start from."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from ckptaudit.cli.outputs import source_root
from ckptaudit.report import FORMATS, SCAN_FORMATS

from .support import run, saved

NET = {"fc.weight": (10, 4), "fc.bias": (10,)}
UNSAFE = Path(__file__).parents[2] / "fixtures" / "rules" / "CKPT702" / "fires" / "checkpoint.pth"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    for name in ("GITHUB_WORKSPACE", "GITHUB_STEP_SUMMARY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    saved("net.json", NET)
    saved("head.json", {**NET, "fc.bias": (7,)})
    return tmp_path


@pytest.mark.parametrize(("command", "formats"), [("diff", FORMATS), ("scan", SCAN_FORMATS)])
def test_every_format_can_be_printed_and_written(command, formats, capsys):
    inputs = ["net.json", "head.json"] if command == "diff" else [str(UNSAFE)]
    for form in formats:
        printed = run(capsys, command, *inputs, "--format", form)
        written = run(capsys, command, *inputs, "--format", "concise", "-o", f"{form}=out")
        assert (printed.status, written.status) == (1, 1)
        assert Path("out").read_text() == printed.out


def test_a_scan_never_overwrites_what_it_reads(capsys):
    Path("x.pth").write_bytes(UNSAFE.read_bytes())
    result = run(capsys, "scan", "x.pth", "-o", "json=x.pth")
    assert (result.status, result.out) == (2, "")
    assert "x.pth: is an input of this command and would be overwritten" in result.err


def test_formats_of_comparisons_are_not_all_those_of_scans(capsys):
    for form in set(FORMATS) - set(SCAN_FORMATS):
        assert run(capsys, "scan", str(UNSAFE), "-o", f"{form}=x").status == 2


def test_nothing_is_compared_for_a_page_that_cannot_be_made(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    for options in (["--format", "html"], ["-o", "html=x.html"]):
        result = run(capsys, "diff", "net.json", "missing.json", *options)
        assert (result.status, result.out) == (2, "")
        assert result.err.splitlines() == [
            "ckptaudit: error: html: needs jinja2, which is not installed",
            "hint: pip install 'ckptaudit[html]'",
        ]


class TestSummary:
    def test_it_is_added_to_what_other_steps_wrote(self, capsys, monkeypatch):
        monkeypatch.setenv("GITHUB_STEP_SUMMARY", "summary.md")
        Path("summary.md").write_text("# before\n")
        assert run(capsys, "diff", "net.json", "head.json", "--format", "github").status == 1
        run(capsys, "diff", "net.json", "net.json", "--format", "github")
        text = Path("summary.md").read_text()
        assert text.startswith("# before\n### ")
        assert text.count("### ") == 3  # two reports, and the one finding of the first

    def test_other_formats_leave_it_alone(self, capsys, monkeypatch):
        monkeypatch.setenv("GITHUB_STEP_SUMMARY", "summary.md")
        run(capsys, "diff", "net.json", "head.json", "-o", "github=log.txt")
        assert not Path("summary.md").exists()

    def test_a_summary_that_cannot_be_written_is_an_error(self, capsys, monkeypatch):
        monkeypatch.setenv("GITHUB_STEP_SUMMARY", "no/such/folder/summary.md")
        result = run(capsys, "diff", "net.json", "head.json", "--format", "github")
        assert (result.status, result.out) == (2, "")
        assert result.err.startswith("ckptaudit: error: no/such/folder/summary.md: cannot be written")


class TestRoot:
    def test_github_names_it(self, monkeypatch):
        monkeypatch.setenv("GITHUB_WORKSPACE", "/work")
        assert source_root() == "/work"

    def test_else_it_is_the_repository_and_else_the_current_folder(self, folder, monkeypatch):
        Path("a/b").mkdir(parents=True)
        monkeypatch.chdir("a/b")
        if not any(os.path.exists(parent / ".git") for parent in folder.parents):
            assert source_root() == str(folder / "a" / "b")
        (folder / ".git").mkdir()
        assert source_root() == str(folder)

    def test_paths_start_there(self, capsys, folder, monkeypatch):
        (folder / ".git").mkdir()
        Path("models").mkdir()
        monkeypatch.chdir("models")
        saved("net.json", NET)
        result = run(capsys, "diff", "net.json", "../head.json", "--format", "sarif")
        (finding,) = json.loads(result.out)["runs"][0]["results"]
        uris = [
            one["physicalLocation"]["artifactLocation"]["uri"]
            for one in [*finding["locations"], *finding["relatedLocations"]]
        ]
        assert uris == ["models/net.json", "head.json"]
