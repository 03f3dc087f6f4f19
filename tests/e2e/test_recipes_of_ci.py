"""The recipes of docs/guide/ci.md, carried out: workflows, hooks of pre-commit, git diff."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from ckptaudit import Manifest, TensorSpec

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "guide" / "ci.md").read_text()
WORKFLOWS = [yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", GUIDE, re.DOTALL)]
HOOKS = {hook["id"]: hook for hook in yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())}


@pytest.fixture
def project(tmp_path):
    """A clone of a project whose main branch is at origin."""
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "ckptaudit").write_text(f'#!/bin/sh\nexec {sys.executable} -m ckptaudit "$@"\n')
    (tools / "ckptaudit").chmod(0o755)
    origin, clone = tmp_path / "origin", tmp_path / "clone"
    origin.mkdir()
    run(origin, "git init -q -b main", tools)
    save(origin / "net.json", 10), save(origin / "net.manifest.json", 10)
    text = '[tool.ckptaudit.targets.net]\nmodel = "net.json"\nmanifest = "net.manifest.json"\n'
    (origin / "pyproject.toml").write_text(text)
    run(origin, "git add -A && git commit -q -m start", tools)
    run(tmp_path, f"git clone -q {origin} {clone}", tools)
    return lambda command, **more: run(clone, command, tools, **more), clone


def save(path, classes):
    Manifest({"fc.weight": TensorSpec((classes, 4), "float32"), "fc.bias": TensorSpec((classes,), "float32")}).save(
        path
    )


def run(folder, command, tools, **more):
    identity = {f"GIT_{who}_{what}": "n@x" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    own = {"PATH": f"{tools}:{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    environment = {**os.environ, **identity, **own, "GIT_CONFIG_GLOBAL": "/dev/null", "COLUMNS": "100", **more}
    environment.pop("GITHUB_STEP_SUMMARY", None)
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", command], cwd=folder, env=environment,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300)  # fmt: skip
    return done.returncode, done.stdout


def commands_of(workflow):
    """Return the lines that a workflow runs, without those that install."""
    if "jobs" in workflow:
        lines = [step["run"] for job in workflow["jobs"].values() for step in job["steps"] if "run" in step]
    else:
        lines = [line for job in workflow.values() if isinstance(job, dict) for line in job.get("script", [])]
    return [line for line in lines if not line.startswith("pip install")]


@pytest.mark.parametrize("number", [0, 1], ids=["github", "gitlab"])
def test_the_workflows(project, number):
    shell, clone = project
    (command,) = commands_of(WORKFLOWS[number])
    branch = {"GITHUB_BASE_REF": "main", "CI_MERGE_REQUEST_TARGET_BRANCH_NAME": "main"}
    assert shell(command, **branch)[0] == 0
    save(clone / "net.json", 7), save(clone / "net.manifest.json", 7)
    status, output = shell(command, **branch)
    assert (status, "CKPT201" in output) == (1, True)
    if number:
        assert (clone / WORKFLOWS[1]["checkpoints"]["artifacts"]["reports"]["junit"]).exists()
    else:
        assert "::error " in output


def test_the_hooks_of_the_guide_are_those_there_are():
    (repository,) = WORKFLOWS[2]["repos"]
    assert [hook["id"] for hook in repository["hooks"]] == list(HOOKS)


PRE_COMMIT = pytest.mark.skipif(shutil.which("pre-commit", path=str(Path(sys.executable).parent)) is None,
                                reason="pre-commit is not installed beside this python")  # fmt: skip


@PRE_COMMIT
def test_the_hooks_are_run_by_pre_commit(project):
    """In this environment, both of them: that of a hook in an environment of its own would be installed from an index."""
    shell, clone = project
    hooks = [{**hook, "language": "system"} for hook in HOOKS.values()]
    config = {"repos": [{"repo": "local", "hooks": hooks}]}
    (clone / ".pre-commit-config.yaml").write_text(yaml.safe_dump(config))
    home = {"PRE_COMMIT_HOME": str(clone.parent / "pre-commit")}
    torch.save({"w": torch.zeros(2)}, clone / "good.pth")
    assert shell("pre-commit install && git add -A && git commit -q -m good", **home)[0] == 0
    torch.save({"w": print}, clone / "bad.pth")
    status, output = shell("git add -A && git commit -q -m bad", **home)
    assert (status, "checkpoints are safe" in output, "UNSAFE" in output) == (1, True, True)
    (clone / "bad.pth").unlink()
    save(clone / "net.json", 7)
    (clone / "model.py").write_text("")
    status, output = shell("git add -A && git commit -q -m broken", **home)
    assert (status, "checkpoints still load" in output, "CKPT201" in output) == (1, True, True)


def test_git_diff_shows_checkpoints_as_lists_of_tensors(project):
    shell, clone = project
    attributes = re.search(r"```text\n(\*\.pth.*?)```", GUIDE, re.DOTALL)[1]
    (clone / ".gitattributes").write_text(attributes)
    configured = "\n".join(re.findall(r"^    (git config .*)$", GUIDE, re.MULTILINE))
    assert configured.count("\n") == 1
    torch.save({"w": torch.zeros(2)}, clone / "net.pth")
    assert shell(f"{configured}\ngit add -A && git commit -q -m one")[0] == 0
    torch.save({"w": torch.zeros(3)}, clone / "net.pth")
    save(clone / "net.manifest.json", 7)
    (clone / "broken.pth").write_bytes(b"this is no checkpoint")
    status, output = shell("git add -N broken.pth; git diff")
    assert status == 0, output
    assert {"-w  (2,) float32 tensor", "+w  (3,) float32 tensor"} <= set(output.splitlines())
    assert {"-fc.bias  (10,) float32 tensor", "+fc.bias  (7,) float32 tensor"} <= set(output.splitlines())
    assert "+is " in output
