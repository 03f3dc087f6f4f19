"""The matrix: every test of the plugin runs pytest plainly, with -n0 and with -n2."""

from __future__ import annotations

import pytest

# Within one process, what the runs use has to be there before them: classes that are imported anew are others.
import ckptaudit.pytest_session
import ckptaudit.report.table  # noqa: F401

PLUGIN = "ckptaudit.pytest_plugin"
LOADED = ("-p", PLUGIN, "-p", "no:cacheprovider")

# What stands for a model in most tests: its description, for which torch need not be imported.
MODELS = """
from ckptaudit import Manifest, TensorSpec

def Net(classes=10, seen=False):
    shapes = {"fc.weight": (classes, 4), "fc.bias": (classes,)}
    tensors = {key: TensorSpec(shape, "float32", kind="parameter") for key, shape in shapes.items()}
    return Manifest(tensors, non_persistent={"seen": TensorSpec((4,), "float32", kind="buffer")} if seen else {})
"""
NETWORKS = """
from torch import nn

class Net(nn.Module):
    def __init__(self, classes=10):
        super().__init__()
        self.norm = nn.BatchNorm1d(4)
        self.fc = nn.Linear(4, classes)
"""


@pytest.fixture(params=[(), ("-p", "xdist", "-n0"), ("-p", "xdist", "-n2")], ids=["plain", "n0", "n2"])
def arguments(request):
    return request.param


@pytest.fixture
def project(pytester, monkeypatch):
    """Write what every project here has."""
    monkeypatch.setenv("COLUMNS", "104")
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # those of others take most of the time
    pytester.makepyfile(models=MODELS, networks=NETWORKS)
    pytester.makefile(".toml", pyproject="[tool.pytest.ini_options]\nfilterwarnings = ['error']\n")


@pytest.fixture
def run(pytester, arguments, project):
    """Return what runs pytest on the project in the current folder, once in each way."""
    return lambda *more: pytester.runpytest_inprocess(*LOADED, *arguments, *more)


@pytest.fixture
def run_plainly(pytester, project):
    """Return the same for what is not a matter of workers."""
    return lambda *more: pytester.runpytest_inprocess(*LOADED, *more)


@pytest.fixture
def run_apart(pytester, project):
    """Return the same in a process of its own: torch can be imported into a process but once."""
    return lambda *more: pytester.runpytest_subprocess(*LOADED, *more)


@pytest.fixture
def manifest(pytester):
    """Write a manifest of the small network, with some shapes changed, and return its path as text."""
    from ckptaudit import Manifest, TensorSpec

    def write(path, classes=10, **changes):
        shapes = {"fc.weight": (classes, 4), "fc.bias": (classes,), **changes}
        file = pytester.path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        Manifest({key: TensorSpec(shape, "float32", kind="parameter") for key, shape in shapes.items()}).save(file)
        return str(path)

    return write
