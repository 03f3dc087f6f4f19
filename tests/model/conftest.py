"""A folder to write model files into, and an interpreter that forgets them."""

from __future__ import annotations

import sys
import textwrap

import pytest


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A folder of its own, and the interpreter as it was afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    monkeypatch.setattr(sys, "argv", sys.argv)
    known = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - known:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


@pytest.fixture
def write(workplace):
    def write(text, name="model.py"):
        path = workplace / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text), encoding="utf-8")
        return path

    return write
