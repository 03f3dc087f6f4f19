"""The matrix: every test of the plugin runs pytest plainly, with -n0 and with -n2."""

from __future__ import annotations

from importlib.metadata import entry_points

import pytest

PLUGIN = "ckptaudit.pytest_plugin"
INSTALLED = any(point.value == PLUGIN for point in entry_points(group="pytest11"))
LOADED = () if INSTALLED else ("-p", PLUGIN)

MODELS = """
from torch import nn

class Net(nn.Module):
    def __init__(self, classes=10):
        super().__init__()
        self.norm = nn.BatchNorm1d(4)
        self.fc = nn.Linear(4, classes)
"""


@pytest.fixture(params=[(), ("-n0",), ("-n2",)], ids=["plain", "n0", "n2"])
def arguments(request):
    return request.param


@pytest.fixture
def run(pytester, arguments, monkeypatch):
    """Return what runs pytest, in a process of its own, on the project in the current folder."""
    monkeypatch.setenv("COLUMNS", "104")
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # those of others take most of the time
    pytester.makepyfile(models=MODELS)
    pytester.makefile(".toml", pyproject="[tool.pytest.ini_options]\nfilterwarnings = ['error']\n")

    def call(*more):
        loaded = ("-p", PLUGIN, *(("-p", "xdist") if arguments else ()))
        return pytester.runpytest_subprocess(*loaded, "-p", "no:cacheprovider", *arguments, *more)

    return call


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
