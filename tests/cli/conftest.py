from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def no_columns(monkeypatch):
    """Reports into a pipe are 100 columns wide, unless the environment says otherwise."""
    monkeypatch.delenv("COLUMNS", raising=False)
