"""Whatever a file says about itself, reading it ends in time and takes little memory: whole processes, measured."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hostile_files import CASES

from ckptaudit.errors import FormatError
from ckptaudit.formats import DEFAULT_LIMITS, open_checkpoint

SECONDS = 2.0
MEMORY = 200_000_000
# Other machines, and this one when it is busy, may be slower; how much memory a file takes does not depend on that.
PATIENCE = float(os.environ.get("CKPTAUDIT_TEST_PATIENCE", "8"))

# A small process in between: the memory of a child counts from that of the process that starts it.
MEASURE = """
import json, os, subprocess, sys, time
began = time.perf_counter()
child = subprocess.Popen(sys.argv[2:], stdout=open(sys.argv[1], "wb"), stderr=subprocess.PIPE)
errors = child.stderr.read().decode()
_, status, usage = os.wait4(child.pid, 0)
seconds = min(time.perf_counter() - began, usage.ru_utime + usage.ru_stime)
kilobyte = 1 if sys.platform == "darwin" else 1024
print(json.dumps([os.waitstatus_to_exitcode(status), errors, seconds, usage.ru_maxrss * kilobyte]))
"""


def inspected(path: Path, tmp_path: Path) -> tuple[int, str, float, int]:
    """Run ``ckptaudit inspect --format json``; return its exit status, errors, seconds and bytes of memory."""
    command = [sys.executable, "-m", "ckptaudit", "inspect", "--format", "json", str(path)]
    arguments = [sys.executable, "-S", "-c", MEASURE, str(tmp_path / "out"), *command]
    measured = subprocess.run(arguments, capture_output=True, text=True, check=True, timeout=20 * SECONDS * PATIENCE)
    status, errors, seconds, memory = json.loads(measured.stdout)
    return status, errors, seconds, memory


@pytest.mark.parametrize("name", CASES)
def test_every_file_is_read_or_refused_in_time_and_in_little_memory(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    path = case.make(tmp_path)
    status, errors, seconds, memory = inspected(path, tmp_path)
    assert memory < MEMORY
    assert seconds < SECONDS * PATIENCE
    assert "Traceback" not in errors
    if not case.sentence:
        assert (status in (0, 1), errors) == (True, "")
        assert json.loads((tmp_path / "out").read_text())["format"]
        return
    assert status == 2
    assert errors.startswith("ckptaudit: error: ")
    assert case.sentence in errors
    assert len(errors) < 2000
    if case.limit:
        assert f"\nhint: raise it if you trust the file: --limit {case.limit}=" in errors
    else:
        with pytest.raises(FormatError) as caught:
            open_checkpoint(path)
        assert caught.value.code == case.code


def test_every_limit_that_a_file_can_be_over_has_a_case() -> None:
    elsewhere = {
        "key_bytes", "global_bytes", "dimensions", "zip_name_bytes", "small_record_bytes", "dcp_items",
    }  # fmt: skip
    assert {case.limit for case in CASES.values()} - {""} == set(vars(DEFAULT_LIMITS)) - elsewhere
