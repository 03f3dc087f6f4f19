"""The hostile and control files that lie beside the repository, where they do: each within its time and memory.

``manifest.json`` there says what each file is, and which verdicts are right: ``refuse``, ``flag``, ``fine``.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from ckptaudit.cli import main

ROOT = Path(__file__).parents[2]
FOLDER = ROOT.parent / "shared" / "hostile" / "dev"

if not FOLDER.is_dir():
    pytest.skip("the hostile files are not beside the repository", allow_module_level=True)

MANIFEST = json.loads((FOLDER / "manifest.json").read_text())
CASES = {case["file"]: case for case in MANIFEST["cases"]}
MARKER = Path(os.environ.get("HOSTILE_MARKER", MANIFEST["marker"]))
SECONDS, MEGABYTES = 2.0, 200
RUN = """
import sys
from ckptaudit.cli import main
status = main(sys.argv[1:])
print([line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")][0], file=sys.stderr)
sys.exit(status)
"""


def run(*arguments: str) -> tuple[int, str, float, float]:
    """Run a command in a process of its own; return exit status, output, seconds and peak memory in MB."""
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", RUN, *arguments], cwd=ROOT, capture_output=True, text=True)
    return done.returncode, done.stdout, time.monotonic() - started, int(done.stderr) / 1024


def seen(file: dict[str, object]) -> str:
    """Put a verdict into the words of the set: what is not safe is refused, a finding flags."""
    if file["verdict"] != "safe":
        return "refuse"
    return "flag" if file["findings"] else "fine"


@pytest.fixture(scope="module")
def outcomes() -> dict[str, dict[str, object]]:
    MARKER.unlink(missing_ok=True)
    found: dict[str, dict[str, object]] = {}
    for name in CASES:
        status, output, seconds, megabytes = run("scan", "--format", "json", str(FOLDER / "files" / name))
        (file,) = json.loads(output)["files"]
        found[name] = {"status": status, "file": file, "seconds": seconds, "megabytes": megabytes}
    return found


@pytest.mark.parametrize("name", CASES)
def test_the_verdict_is_one_of_the_right_ones(name: str, outcomes: dict[str, dict[str, object]]) -> None:
    case, outcome = CASES[name], outcomes[name]
    assert seen(outcome["file"]) in (case["expect"], *case["also"]), outcome["file"]  # type: ignore[arg-type]
    assert outcome["status"] == {"safe": 0, "unsafe": 1, "malformed": 1, "incomplete": 2}[outcome["file"]["verdict"]]  # type: ignore[index]


@pytest.mark.parametrize("name", CASES)
def test_it_takes_little_time_and_memory(name: str, outcomes: dict[str, dict[str, object]]) -> None:
    assert outcomes[name]["megabytes"] < MEGABYTES  # type: ignore[operator]
    assert outcomes[name]["seconds"] < 5 * SECONDS  # type: ignore[operator]  # a busy machine is no fault of the file


def test_the_set_as_a_whole(outcomes: dict[str, dict[str, object]]) -> None:
    count = Counter((case["expect"], seen(outcomes[name]["file"])) for name, case in CASES.items())  # type: ignore[arg-type]
    assert count["refuse", "fine"] == count["refuse", "flag"] == 0
    assert count["fine", "refuse"] == 0
    assert count["flag", "fine"] <= 2


def test_code_that_runs_is_called_unsafe_and_never_ran(outcomes: dict[str, dict[str, object]]) -> None:
    assert not MARKER.exists()
    live = [name for name, case in CASES.items() if case["live"]]
    other = [name for name in live if outcomes[name]["file"]["verdict"] != "unsafe"]  # type: ignore[index]
    assert len(other) <= len(live) // 4, other  # in a broken container the pickle is not reached: malformed


@pytest.mark.parametrize("command", ["inspect", "diff"])
def test_the_other_commands_refuse_what_scan_refuses(command: str) -> None:
    """One reader: what is refused by the one is refused by all, without a traceback."""
    for name, case in CASES.items():
        path = str(FOLDER / "files" / name)
        arguments = [command, path] if command == "inspect" else [command, path, path]
        output = io.StringIO()
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            status = main([*arguments, "--format", "json"])
        assert "internal error" not in output.getvalue(), name
        assert status in (0, 1, 2)
        if case["expect"] == "refuse":
            assert status, name
    assert not MARKER.exists()
