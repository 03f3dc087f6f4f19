"""Fetching itself: an unreachable registry skips with its reason, a changed archive fails."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from .catalogue import ARCHIVES
from .conftest import UnavailableError, fetch

pytestmark = pytest.mark.real

SMALLEST = ARCHIVES[0]


def test_an_unreachable_registry_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    with pytest.raises(UnavailableError, match=f"No matching distribution found for {SMALLEST.name}"):
        fetch(SMALLEST, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_another_archive_of_that_name_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(write_wheel(tmp_path / "links")))
    with pytest.raises(ValueError, match=f"sha256 is [0-9a-f]{{64}}, the catalogue says {SMALLEST.sha256}"):
        fetch(SMALLEST, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def write_wheel(folder: Path) -> Path:
    """Write an empty wheel of the smallest archive's name and version."""
    folder.mkdir()
    label = f"{SMALLEST.name}-{SMALLEST.version}"
    with zipfile.ZipFile(folder / f"{label}-py3-none-any.whl", "w") as wheel:
        head = f"Metadata-Version: 2.1\nName: {SMALLEST.name}\nVersion: {SMALLEST.version}\n"
        wheel.writestr(f"{label}.dist-info/METADATA", head)
        wheel.writestr(f"{label}.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{label}.dist-info/RECORD", "")
    return folder


def test_a_second_fetch_takes_from_the_cache(
    folders: dict[str, Path | UnavailableError], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = folders[SMALLEST.name]
    if isinstance(folder, UnavailableError):
        pytest.skip(f"{SMALLEST.name} could not be downloaded: {folder}")
    monkeypatch.setattr("sys.executable", "no-python")
    assert fetch(SMALLEST, folder.parent) == folder
