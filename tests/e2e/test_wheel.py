"""The wheel: it holds the package and its types, and works where the repository is not."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import ckptaudit

ROOT = Path(__file__).parents[2]
PAIR = ("model.manifest.json", "dataparallel.pth")


def test_it_holds_the_package_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    own = {name for name in names if ".dist-info/" not in name}
    tracked = (path for path in (ROOT / "ckptaudit").rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    assert own == {str(path.relative_to(ROOT)) for path in tracked}
    assert "ckptaudit/py.typed" in own


def test_it_works_without_the_repository(run_in, installed, tmp_path):
    for name in PAIR:
        shutil.copy(ROOT / "fixtures" / "resnet50" / name, tmp_path)
    where = run_in(tmp_path, "python -c 'import ckptaudit; print(ckptaudit.__file__)'").stdout
    assert Path(where.strip()).is_relative_to(installed.parent)
    assert run_in(tmp_path, "ckptaudit --version").stdout == f"ckptaudit {ckptaudit.__version__}\n"
    here = run_in(tmp_path, f"ckptaudit diff {' '.join(PAIR)}")
    assert (here.returncode, here.stderr) == (1, "")
    assert "fix [safe]  --map 'module.* -> *'" in here.stdout


def test_it_builds_models_in_its_own_environment(run_in, tmp_path):
    shutil.copytree(ROOT / "fixtures" / "article" / "changed_head", tmp_path / "net")
    shutil.copy(ROOT / "fixtures" / "article" / "resnet18.pth", tmp_path)
    done = run_in(tmp_path, "ckptaudit diff net/model.py resnet18.pth --format concise")
    assert (done.returncode, done.stderr) == (1, "")
    assert "error CKPT201" in done.stdout
