"""What the plugin costs a run that does not use it: under 30 million instructions, and no heavy import."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys

import pytest
from conftest import PLUGIN

HEAVY = (
    "torch",
    "numpy",
    "tabulate",
    "xxhash",
    "safetensors",
    "tqdm",
    "ckptaudit.testing",
    "ckptaudit.pytest_session",
    "ckptaudit.pytest_bench",
)
PROBE = """
def test_it({fixture}):
    import sys
    print("heavy:", [name for name in {heavy!r} if name in sys.modules])
"""


@pytest.fixture
def folder(pytester):
    pytester.makepyfile(PROBE.format(fixture="", heavy=HEAVY))
    return pytester


def pytest_command(*plugins):
    quiet = ["-p", "no:cacheprovider", "-q", "-s"]
    return [sys.executable, "-m", "pytest", *quiet, *[word for name in plugins for word in ("-p", name)]]


def environment(folder):
    import os

    import ckptaudit

    root = os.path.dirname(os.path.dirname(ckptaudit.__file__))
    return {
        **os.environ,
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "PYTHONHASHSEED": "0",
        "PYTHONPATH": f"{root}:{folder.path}",
    }


def heavy_modules(folder):
    done = subprocess.run(
        pytest_command(PLUGIN), cwd=folder.path, env=environment(folder), capture_output=True, text=True, timeout=120
    )
    return re.findall(r"heavy: (.*)", done.stdout + done.stderr)


def test_nothing_heavy_is_imported(folder):
    assert heavy_modules(folder) == ["[]"]


def test_the_guard_can_fail(folder):
    folder.makepyfile(PROBE.format(fixture="ckptaudit", heavy=HEAVY))
    (found,) = heavy_modules(folder)
    assert "ckptaudit.testing" in found


def instructions(folder, plugin):
    """Count the instructions of collecting one test, by valgrind: the count hardly varies from run to run."""
    command = [
        "valgrind",
        "--tool=callgrind",
        "--callgrind-out-file=/dev/null",
        *pytest_command(plugin),
        "--collect-only",
    ]
    done = subprocess.run(
        command, cwd=folder.path, env=environment(folder), capture_output=True, text=True, timeout=550
    )
    assert done.returncode == 0, done.stderr
    return int(re.search(r"Collected : (\d+)", done.stderr)[1])


@pytest.mark.skipif(shutil.which("valgrind") is None, reason="counts instructions by valgrind, which is not installed")
def test_under_thirty_million_instructions(folder):
    folder.makepyfile(empty_plugin="")  # looking for any plugin at all has its price, which is not ours
    for plugin in (PLUGIN, "empty_plugin"):
        subprocess.run(
            [*pytest_command(plugin), "--collect-only"], cwd=folder.path, env=environment(folder), check=True
        )
    bare = instructions(folder, "empty_plugin")
    cost = instructions(folder, PLUGIN) - bare
    print(f"the plugin costs {cost / 1e6:.1f} million instructions of {bare / 1e6:.0f}")
    assert 0 < cost < 30_000_000
