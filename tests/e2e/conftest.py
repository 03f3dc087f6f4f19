"""A fresh environment that knows ckptaudit by its wheel alone, as a user's project has it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def wheel(tmp_path_factory):
    """Build the wheel from a copy of what it is made of; where there is no connection, from the installed setuptools."""
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "ckptaudit", source / "ckptaudit", ignore=shutil.ignore_patterns("__pycache__"))
    built = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(built), str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode and "setuptools" in done.stderr:
        pytest.skip("the build's requirements cannot be downloaded")
    assert done.returncode == 0, done.stderr
    (path,) = built.glob("ckptaudit-*.whl")
    return path


@pytest.fixture(scope="session")
def installed(wheel, tmp_path_factory):
    """Return the ``bin`` folder of a new environment with the wheel; its dependencies are those of this interpreter."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = folder / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", str(wheel)], check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    borrowed = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    (packages / "borrowed.pth").write_text("\n".join(borrowed) + "\n")
    return folder / "bin"


@pytest.fixture(scope="session")
def run_in(installed):
    """Return a function that runs a command line in a folder, the new environment first on the path."""
    unset = ("PYTHONPATH", "GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY", "CI", "NO_COLOR", "FORCE_COLOR", "CLICOLOR_FORCE")
    environment = {name: value for name, value in os.environ.items() if name not in (*unset, "GITHUB_WORKSPACE")}
    environment |= {"PATH": f"{installed}:{os.environ['PATH']}", "COLUMNS": "80", "PYTHONDONTWRITEBYTECODE": "1"}

    def run_in(folder, command, **more):
        arguments = ["bash", "-c", command]
        return subprocess.run(arguments, cwd=folder, env=environment | more, capture_output=True, text=True)

    return run_in
