"""A stranger's project: a git repository of its own, ckptaudit from the wheel, the check before a merge."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
ARTICLE = ROOT / "fixtures" / "article"
ANNOTATION = re.compile(
    r"::(?P<level>error|warning|notice) file=(?P<file>[^,]+),line=(?P<line>\d+),title=(?P<title>[^:]+)::"
)

MODELS = """\
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
        self.fc = nn.Linear(8, CLASSES)

    def forward(self, images):
        return self.fc(self.backbone(images).mean((2, 3)))
"""


def git(folder, *arguments):
    identity = ["-c", "user.name=Somebody", "-c", "user.email=somebody@example.org", "-c", "init.defaultBranch=main"]
    return subprocess.run(["git", *identity, *arguments], cwd=folder, capture_output=True, text=True, check=True).stdout


def commit(folder, message):
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", message)


def readme_lines():
    """Return what README tells to put into pyproject.toml, and the line for the workflow."""
    text = (ROOT / "README.md").read_text()
    return [re.search(rf"```{language}\n(.*?)```", text, re.DOTALL)[1].splitlines() for language in ("toml", "yaml")]


class TestThreeLinesAndOne:
    @pytest.fixture
    def project(self, tmp_path):
        (tmp_path / "weights").mkdir()
        (tmp_path / "models.py").write_text(MODELS.replace("CLASSES", "1000"))
        namespace = {}
        exec((tmp_path / "models.py").read_text(), namespace)
        torch.save(namespace["Net"]().state_dict(), tmp_path / "weights" / "v1.pth")
        (tmp_path / "pyproject.toml").write_text("\n".join(readme_lines()[0]) + "\n")
        git(tmp_path, "init", "--quiet")
        commit(tmp_path, "Train a net")
        return tmp_path

    @pytest.fixture
    def step(self):
        (line,) = readme_lines()[1]
        return re.fullmatch(r"- run: (.+)", line)[1]

    def test_they_are_so_many(self):
        assert [len(lines) for lines in readme_lines()] == [3, 1]

    def test_what_loads_passes(self, run_in, project, step):
        done = run_in(project, step)
        assert (done.returncode, done.stderr) == (0, ""), done.stdout
        assert git(project, "status", "--porcelain") == ""

    def test_what_does_not_load_fails(self, run_in, project, step):
        (project / "models.py").write_text(MODELS.replace("CLASSES", "10"))
        done = run_in(project, step)
        assert (done.returncode, done.stderr) == (1, "")
        assert "error[CKPT201] shape-mismatch: 2 tensors with another shape in the model" in done.stdout

    def test_what_cannot_be_checked_is_not_passed(self, run_in, project, step):
        (project / "models.py").write_text("import no_such_package\n")
        done = run_in(project, step)
        assert done.returncode == 2
        assert "no_such_package" in done.stdout + done.stderr


BASE = """\
from torch import nn
from torchvision.models import resnet18


def build_model() -> nn.Module:
    return resnet18()
"""
PYPROJECT = """\
[tool.ckptaudit.targets.net]
model = "net.py"
manifest = "net.manifest.json"
"""

# change: what is annotated, as level, title and the text of the line that it stands at
EXPECTED = {
    "add_layer": [("error", "CKPT101 missing-key", 'model.add_module("dropout_head"')],
    "delete_layer": [("error", "CKPT102 unexpected-key", "del model.layer4")],
    "replace_layer": [
        ("error", "CKPT101 missing-key", "model.layer1 = nn.Sequential("),
        ("error", "CKPT102 unexpected-key", "model.layer1 = nn.Sequential("),
    ],
    "replace_in_modules": [("error", "CKPT201 shape-mismatch", 'model._modules["fc"] = ')],
    "extract_layers": [
        ("error", "CKPT104 renamed-key", "return nn.Sequential("),
        ("error", "CKPT102 unexpected-key", "return nn.Sequential("),
    ],
    "own_class": [
        ("error", "CKPT103 prefix-mismatch", "self.backbone = resnet18()"),
        ("error", "CKPT101 missing-key", "self.head = nn.Linear("),
        ("error", "CKPT102 unexpected-key", "self.backbone.fc = nn.Identity()"),
    ],
    "changed_head": [("error", "CKPT201 shape-mismatch", "model.fc = nn.Linear(")],
    "changed_input": [("error", "CKPT201 shape-mismatch", "model.conv1 = nn.Conv2d(")],
}


@pytest.fixture(scope="module")
def repository(run_in, tmp_path_factory):
    """A project that has committed the manifest of a torchvision ResNet-18, and a branch for each change."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "net.py").write_text(BASE)
    (folder / "pyproject.toml").write_text(PYPROJECT)
    git(folder, "init", "--quiet")
    done = run_in(folder, "ckptaudit manifest write")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    commit(folder, "Describe the net")
    for name in EXPECTED:
        git(folder, "switch", "--quiet", "--create", name, "main")
        (folder / "net.py").write_text((ARTICLE / name / "model.py").read_text())
        commit(folder, f"Change: {name}")
    git(folder, "switch", "--quiet", "main")
    return folder


def test_nothing_is_said_of_main(run_in, repository):
    git(repository, "switch", "--quiet", "main")
    done = run_in(repository, "ckptaudit check --against main --format github")
    assert (done.returncode, done.stderr) == (0, "")
    assert not list(ANNOTATION.finditer(done.stdout))


@pytest.mark.parametrize("name", EXPECTED)
def test_a_change_is_annotated_once_at_its_line(name, run_in, repository, tmp_path):
    git(repository, "switch", "--quiet", name)
    summary = tmp_path / "summary.md"
    done = run_in(repository, "ckptaudit check --against main --format github", GITHUB_STEP_SUMMARY=str(summary))
    assert (done.returncode, done.stderr) == (1, ""), done.stdout
    lines = (repository / "net.py").read_text().splitlines()
    found = [
        (said["level"], said["title"], lines[int(said["line"]) - 1].strip())
        for said in ANNOTATION.finditer(done.stdout)
        if said["level"] == "error"
    ]
    assert [found_[:2] for found_ in found] == [expected[:2] for expected in EXPECTED[name]]
    for (*_, line), (*_, expected) in zip(found, EXPECTED[name], strict=True):
        assert line.startswith(expected)
    assert "CKPT" in summary.read_text()
    assert git(repository, "status", "--porcelain") == ""


@pytest.mark.parametrize("name", ["add_layer", "changed_head"])
def test_a_new_manifest_hides_nothing_from_main(name, run_in, repository):
    """Who writes the manifest anew on the branch is still told what becomes of the checkpoints that are out there."""
    git(repository, "switch", "--quiet", name)
    try:
        assert run_in(repository, "ckptaudit manifest write").returncode == 0
        assert run_in(repository, "ckptaudit check").returncode == 0
        assert run_in(repository, "ckptaudit check --against main").returncode == 1
    finally:
        git(repository, "restore", ".")


def test_no_old_code_is_imported(run_in, repository):
    """The revision that a branch is compared with may hold anything."""
    git(repository, "switch", "--quiet", "--create", "trap", "main")
    (repository / "net.py").write_text('raise SystemExit("imported")\n')
    commit(repository, "Break the code")
    git(repository, "switch", "--quiet", "--create", "mended")
    (repository / "net.py").write_text(BASE)
    commit(repository, "Mend the code")
    done = run_in(repository, "ckptaudit check --against trap")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
