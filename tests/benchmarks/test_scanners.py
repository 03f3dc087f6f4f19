"""What the other scanners say is read as they mean it, from recorded outputs; none of them has to be installed."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import scanners
from scanner_tools import (
    Outcome,
    read_ckptaudit,
    read_fickling,
    read_fickling_list,
    read_modelscan,
    read_picklescan,
    target,
    tools,
)
from scanners import BEGIN, END, FLOOR, Row, Run, insert, measure, section

# picklescan 1.0.5 -----------------------------------------------------------------------------------------

SUMMARY = """----------- SCAN SUMMARY -----------
Scanned files: {}
Infected files: {}
Suspicious globals: {}
Dangerous globals: {}
"""
FOUND = "x.pt:archive/data.pkl: dangerous import 'posix system' FOUND\n"
PROMOTED = "x.pt:archive/data.pkl: dangerous import 'zipfile ZipFile' FOUND (promoted by --strict)\n"
BROKEN = "ERROR: parsing pickle in x.pt:archive/data.pkl: pickle exhausted before seeing STOP\n"
NO_MAGIC = "WARNING: Invalid PyTorch magic number for file x.pt: None != 1. Trying to scan as non-PyTorch file.\n"
NO_PICKLE = "WARNING: could not parse x.pt as pickle: at position 5, opcode b'\\n' unknown\n"
NO_MEMBER = "Invalid file archive/data.pkl in zip archive x.pt: That compression method is not supported\n"
RAISED = "Unhandled exception\nTraceback (most recent call last):\nzipfile.BadZipFile: File is not a zip file\n"


@pytest.mark.parametrize(
    ("status", "output", "verdict"),
    [
        (1, FOUND + SUMMARY.format(1, 1, 0, 1), "dangerous"),
        (1, PROMOTED + SUMMARY.format(1, 1, 0, 1), "dangerous"),
        (2, BROKEN + FOUND + SUMMARY.format(1, 1, 0, 1), "dangerous"),
        (0, SUMMARY.format(1, 0, 2, 0) + "All globals found:\n  * zipfile.ZipFile - suspicious\n", "suspicious"),
        (0, SUMMARY.format(1, 0, 0, 0), "clean"),
        (0, NO_MAGIC + SUMMARY.format(1, 0, 0, 0), "clean"),  # it then read the file as a plain pickle
        (0, NO_MAGIC + NO_PICKLE + SUMMARY.format(1, 0, 0, 0), "not scanned"),
        (0, NO_MEMBER + SUMMARY.format(0, 0, 0, 0), "not scanned"),
        (0, SUMMARY.format(0, 0, 0, 0), "not scanned"),
        (2, RAISED, "error"),
        (-9, "", "error"),
    ],
)
def test_picklescan(status, output, verdict):
    assert read_picklescan(Outcome(status, output)) == verdict


# modelscan 0.8.8 ------------------------------------------------------------------------------------------

ISSUE = {"description": "Use of unsafe operator 'eval' from module '__builtin__'", "severity": "CRITICAL"}
GENOPS = {"category": "PICKLE_GENOPS", "description": "Parsing error: pickle exhausted before seeing STOP"}


def modelscan(*skipped, issues=(), errors=()):
    files = [{"category": category, "source": source} for category, source in skipped]
    return json.dumps(
        {"summary": {"skipped": {"skipped_files": files}}, "issues": list(issues), "errors": list(errors)}
    )


TENSOR = ("SCAN_NOT_SUPPORTED", "x.pt:archive/data/0")


@pytest.mark.parametrize(
    ("status", "report", "verdict"),
    [
        (1, modelscan(TENSOR, issues=[ISSUE]), "dangerous"),
        (2, modelscan(TENSOR, issues=[ISSUE], errors=[GENOPS]), "dangerous"),
        (0, modelscan(TENSOR), "clean"),
        (0, modelscan(TENSOR, ("SCAN_NOT_SUPPORTED", "pytorch_model.bin.index.json")), "clean"),
        (0, modelscan(TENSOR, ("SCAN_NOT_SUPPORTED", ".metadata")), "not scanned"),
        (0, modelscan(TENSOR, ("BAD_ZIP", "x.pt:archive/data.pkl")), "not scanned"),
        (3, modelscan(("MAGIC_NUMBER", "x.pt")), "not scanned"),
        (3, modelscan(("SCAN_NOT_SUPPORTED", "x.safetensors")), "not scanned"),
        (3, modelscan(TENSOR, errors=[GENOPS]), "error"),
        (2, "", "error"),  # "Exception: 'utf-8' codec can't decode byte 0xff", and no report
        (-9, "", "error"),
    ],
)
def test_modelscan(status, report, verdict):
    assert read_modelscan(Outcome(status, "Scanning x.pt using PickleUnsafeOpScan model scan\n", report)) == verdict


# fickling 0.1.12, by way of fickling_scan.py --------------------------------------------------------------


def fickling(*results, noise=""):
    said = [{"severity": severity, "read": read, "errors": errors} for severity, read, errors in results]
    return f"{noise}{json.dumps({'files': [{'path': 'x.pt', 'results': said or None}]})}\n"


WARNED = "Warning: malformed pickle file. BINGET references non-existent memo key 101\n"
ENCRYPTED = "RuntimeError: File 'archive/data.pkl' is encrypted"


@pytest.mark.parametrize(
    ("output", "by_severity", "by_list"),
    [
        (fickling(("OVERTLY_MALICIOUS", 1, [])), "dangerous", "suspicious"),
        (fickling(("LIKELY_SAFE", 1, []), ("LIKELY_OVERTLY_MALICIOUS", 1, [])), "dangerous", "suspicious"),
        (fickling(("LIKELY_UNSAFE", 1, [])), "suspicious", "dangerous"),
        (fickling(("SUSPICIOUS", 1, [])), "suspicious", "suspicious"),
        (fickling(("LIKELY_SAFE", 1, [])), "clean", "clean"),
        (fickling(("LIKELY_SAFE", 1, ["invalid or malformed opcodes"]), noise=WARNED), "error", "error"),
        (fickling(("SUSPICIOUS", 0, [ENCRYPTED])), "error", "error"),
        (fickling(), "not scanned", "not scanned"),
        ("Traceback (most recent call last):\nMemoryError\n", "error", "error"),
    ],
)
def test_fickling(output, by_severity, by_list):
    assert read_fickling(Outcome(1, output)) == by_severity
    assert read_fickling_list(Outcome(1, output)) == by_list


# ckptaudit ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verdict", "levels", "expected"),
    [
        ("unsafe", ["error"], "dangerous"),
        ("malformed", ["error", "warning"], "dangerous"),
        ("incomplete", ["error"], "not scanned"),
        ("safe", ["warning"], "suspicious"),
        ("safe", ["note"], "suspicious"),
        ("safe", [], "clean"),
    ],
)
def test_ckptaudit(verdict, levels, expected):
    files = [{"verdict": verdict, "findings": [{"level": level} for level in levels]}]
    assert read_ckptaudit(Outcome(1, json.dumps({"files": files}))) == expected


def test_ckptaudit_that_fails_is_an_error():
    assert read_ckptaudit(Outcome(2, "ckptaudit: error: no such file")) == "error"


# Runs and tables ------------------------------------------------------------------------------------------


def test_others_are_given_the_folder_of_an_index():
    ours, other = tools(Path("bin/python"))[:2]
    assert target(ours, Path("set"), "a/model.json") == Path("set/a/model.json")
    assert target(other, Path("set"), "a/model.json") == Path("set/a")
    assert target(other, Path("set"), "x.pt") == Path("set/x.pt")


def test_a_process_is_measured(tmp_path):
    code = "import sys; print('said'); open('report.json', 'w').write('{}'); sys.exit(3)"
    run = measure([sys.executable, "-c", code], tmp_path)
    assert run.outcome == Outcome(3, "said\n", "{}")
    assert run.peak > 1


def test_a_process_that_does_not_end_is_stopped(tmp_path):
    run = measure([sys.executable, "-c", "import time; print('begun', flush=True); time.sleep(60)"], tmp_path, 0.5)
    assert run.outcome.status is None


def row(verdict, status, *walls):
    return Row(verdict, status, [Run(wall, 20.0, Outcome(status, "")) for wall in walls])


CASES = [
    {"file": "bad.pt", "expect": "refuse", "also": [], "live": True},
    {"file": "odd.pt", "expect": "refuse", "also": ["flag"], "live": False},
    {"file": "good.pt", "expect": "fine", "also": ["flag"], "live": False},
]
RESULTS = {
    "bad.pt": {FLOOR: row(None, 0, 0.01), "us": row("dangerous", 1, 0.02, 0.02), "it": row("clean", 0, 0.04, 0.06)},
    "odd.pt": {FLOOR: row(None, 0, 0.01), "us": row("suspicious", 0, 0.02), "it": row("error", None, 30.0)},
    "good.pt": {FLOOR: row(None, 0, 0.01), "us": row("suspicious", 0, 0.02), "it": row("dangerous", 1, 0.02)},
}


def test_the_tables(monkeypatch, tmp_path):
    template = tmp_path / "section.md"
    template.write_text("{VERSIONS}\n{FILES}\n{VERDICTS}\n{ALARMS}\n{TIMES}\n{FOLDER}\n")
    monkeypatch.setattr(scanners, "SECTION", template)
    broke = Row(None, 2, [Run(0.5, 30.0, Outcome(2, "Exception: [Errno 22] Invalid argument\n"))])
    text = section(CASES, RESULTS, [{"it": broke}, {"it": row(None, 0, 1.5)}], "it 1.0")
    assert text.startswith("it 1.0; Python 3.")
    assert text.splitlines()[1:] == [
        "3",
        "| files | tool | dangerous | suspicious | not scanned | clean | exit 0 |",
        "|---|---|---|---|---|---|---|",
        "| **live payloads, 1** | us | 1 | 0 | 0 | 0 | 0 |",
        "|  | it | 0 | 0 | 0 | 1 | 1 |",
        "| **others to refuse, 1** | us | 0 | 1 | 0 | 0 | 1 |",
        "|  | it | 0 | 0 | 1 | 0 | 0 |",
        "| **legitimate, 1** | us | 0 | 1 | 0 | 0 | 1 |",
        "|  | it | 1 | 0 | 0 | 0 | 0 |",
        "us 0, it 1",
        "| tool | median | worst | peak, median | peak, worst | ratio |",
        "|---|---|---|---|---|---|",
        "| `python -c pass` | 10 ms | 10 ms | 20 MiB | 20 MiB | 0.5 |",
        "| us | 20 ms | 20 ms | 20 MiB | 20 MiB | 1.0 |",
        "| it | 50 ms | 30,000 ms | 20 MiB | 20 MiB | 2.5 |",
        "| tool | all files | end | legitimate files | peak | end |",
        "|---|---|---|---|---|---|",
        "| it | 500 ms | broke off | 1,500 ms | 20 MiB | exit 0 |",
    ]


def test_the_section_goes_between_its_markers():
    document = f"# A\n\n{BEGIN}\nold\n{END}\n\n## B\n"
    once = insert(document, "new\n")
    assert once == f"# A\n\n{BEGIN}\n\nnew\n\n{END}\n\n## B\n"
    assert insert(once, "new\n") == once
    assert insert("# A\n", "new") == f"# A\n\n## Beside other scanners\n\n{BEGIN}\n\nnew\n\n{END}\n"
    with pytest.raises(ValueError, match="without"):
        insert(f"# A\n{BEGIN}\n", "new")


def test_the_template_holds_every_table():
    text = scanners.SECTION.read_text()
    for name in ("VERSIONS", "FILES", "VERDICTS", "ALARMS", "TIMES", "FOLDER"):
        assert text.count(f"{{{name}}}") == 1
    assert max(map(len, text.splitlines())) <= 130
