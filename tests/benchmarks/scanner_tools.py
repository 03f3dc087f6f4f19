"""The scanners that are compared: how each is called, and what its exit status and output mean.

Each tool's own words decide, the worst of them first: what it calls dangerous, then what it warns of, then what it says
it could not read, and only then is a file clean. A tool that says it passed a file over has not called it clean.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

Verdict = Literal["dangerous", "suspicious", "not scanned", "error", "clean"]

HERE = Path(__file__).parent
PACKAGES = ("picklescan", "modelscan", "fickling")
# What pip is told: picklescan reads 7z and npy files with these; fickling 0.1.12 imports typing_extensions
# before Python 3.12 and does not ask for it.
REQUIREMENTS = ("picklescan[7z]", "numpy", "modelscan", "fickling", "typing_extensions")


class Outcome(NamedTuple):
    """What a process left behind. ``status`` is None where it was stopped for its time; ``report`` is its report file."""

    status: int | None
    output: str
    report: str = ""


class Tool(NamedTuple):
    """One row of the tables: a command line, and the function that reads its outcome."""

    name: str
    command: Callable[[Path, Path], list[str]]
    verdict: Callable[[Outcome], Verdict]
    own_format: bool = False  # an index or a checkpoint folder is a format to it; others are given the folder's files


def read_ckptaudit(outcome: Outcome) -> Verdict:
    """Malformed counts as refused, a finding of any level as a warning, incomplete as not scanned."""
    try:
        files = json.loads(outcome.output)["files"]
    except (ValueError, KeyError):
        return "error"
    verdicts = {file["verdict"] for file in files}
    if verdicts & {"unsafe", "malformed"}:
        return "dangerous"
    if verdicts != {"safe"}:
        return "not scanned"
    return "suspicious" if any(file["findings"] for file in files) else "clean"


def read_picklescan(outcome: Outcome) -> Verdict:
    """Read the summary; exit status 2 is an error. It warns of what it could not parse, and still ends with 0."""
    counts = {name: int(value) for name, value in re.findall(r"^([A-Z][a-z]+ [a-z]+): (\d+)$", outcome.output, re.M)}
    if counts.get("Dangerous globals"):
        return "dangerous"
    if counts.get("Suspicious globals"):
        return "suspicious"
    if outcome.status != 0 or not counts:
        return "error"
    passed_over = re.search(r"could not parse .* as pickle|^Invalid file .* in zip archive", outcome.output, re.M)
    return "not scanned" if passed_over or not counts.get("Scanned files") else "clean"


def read_modelscan(outcome: Outcome) -> Verdict:
    """Read the JSON report; exit status 3 says that nothing was scanned, 2 that a scan failed.

    It lists what it skipped: records of a zip archive are left out here, for tensors are among them in every
    checkpoint, and so are JSON files.
    """
    try:
        report = json.loads(outcome.report)
    except ValueError:
        return "not scanned" if outcome.status == 3 else "error"
    if report["issues"]:
        return "dangerous"
    if outcome.status == 2 or report["errors"]:
        return "error"
    skipped = report["summary"]["skipped"]["skipped_files"]
    if outcome.status == 3 or any(_matters(entry) for entry in skipped):
        return "not scanned"
    return "clean" if outcome.status == 0 else "error"


def _matters(skipped: dict[str, Any]) -> bool:
    if skipped["category"] != "SCAN_NOT_SUPPORTED":
        return True
    return ":" not in skipped["source"] and not skipped["source"].endswith(".json")


def read_fickling(outcome: Outcome) -> Verdict:
    """Read the severities: every torch file is at least LIKELY_UNSAFE to it, so that only what is above is dangerous."""
    return _read_severities(outcome, {"LIKELY_OVERTLY_MALICIOUS", "OVERTLY_MALICIOUS"})


def read_fickling_list(outcome: Outcome) -> Verdict:
    """What is not on the list is refused when the file is loaded; there is one severity."""
    return _read_severities(outcome, {"LIKELY_UNSAFE"})


def _read_severities(outcome: Outcome, dangerous: set[str]) -> Verdict:
    try:
        # both streams are in one file: fickling's warnings stand before the report
        files = json.loads(outcome.output[outcome.output.index('{"files"') :].splitlines()[0])["files"]
    except ValueError:
        return "error"
    results = [result for file in files for result in file["results"] or ()]
    severities = {result["severity"] for result in results if result["read"]}
    if severities & dangerous:
        return "dangerous"
    if severities - {"LIKELY_SAFE"}:
        return "suspicious"
    if any(result["errors"] for result in results):
        return "error"
    return "clean" if severities else "not scanned"


def tools(python: Path) -> list[Tool]:
    """Return the tools; ``python`` is the interpreter of the environment that has the other scanners."""
    programs = python.parent

    def ours(path: Path, report: Path) -> list[str]:
        return [sys.executable, "-m", "ckptaudit", "scan", str(path), "--format", "json"]

    def picklescan(*options: str) -> Callable[[Path, Path], list[str]]:
        return lambda path, report: [str(programs / "picklescan"), *options, "--globals", "--path", str(path)]

    def modelscan(path: Path, report: Path) -> list[str]:
        options = ["--show-skipped", "-r", "json", "-o", str(report)]
        return [str(programs / "modelscan"), "scan", *options, "-p", str(path)]

    def fickling(*options: str) -> Callable[[Path, Path], list[str]]:
        script = str(HERE / "fickling_scan.py")
        return lambda path, report: [str(python), "-I", script, *options, str(path)]

    return [
        Tool("ckptaudit", ours, read_ckptaudit, own_format=True),
        Tool("picklescan", picklescan(), read_picklescan),
        Tool("picklescan --strict", picklescan("--strict"), read_picklescan),
        Tool("modelscan", modelscan, read_modelscan),
        Tool("fickling", fickling(), read_fickling),
        Tool("fickling (ML list)", fickling("--list"), read_fickling_list),
    ]


def target(tool: Tool, folder: Path, case: str) -> Path:
    """Return what a tool is given for a case: the others get the folder that an index or a checkpoint folder is."""
    path = folder / case
    return path.parent if "/" in case and not tool.own_format else path


def floor() -> Sequence[str]:
    """Return the command that starts an interpreter and does nothing."""
    return [sys.executable, "-c", "pass"]
