"""Committed files as they were: at a revision of git, or in a folder with an older copy. Nothing is checked out."""

from __future__ import annotations

import os
from typing import Protocol

from .errors import UsageError
from .textfile import read_text


class Past(Protocol):
    """Where the files of an earlier time are. ``name`` is what the user wrote for it."""

    name: str

    def read(self, path: str) -> str | None:
        """Return the text of a file, by its path relative to the configuration's folder; None where there was none."""


def open_past(text: str, folder: str) -> Past:
    """Open a revision of the repository that ``folder`` is in; a text that names a folder by its form is one.

    ``./old``, ``../old`` and ``old/`` are folders, ``old`` is a revision. Raises UsageError.
    """
    if text.startswith(("./", "../", "/")) or text.endswith("/"):
        if not os.path.isdir(text):
            raise UsageError(text, "no such folder", "a revision is written without slashes at its ends: origin/main")
        return FolderPast(text)
    return GitPast(text, folder)


class FolderPast:
    """An older copy of the configuration's folder."""

    def __init__(self, folder: str) -> None:
        self.name = folder
        self._folder = folder

    def read(self, path: str) -> str | None:
        """Return the text of a file, None where there is none."""
        inside = os.path.join(self._folder, path)
        return read_text(inside) if os.path.isfile(inside) else None


class GitPast:
    """A commit, read from git's object store. Raises UsageError where there is no repository or no such commit."""

    def __init__(self, revision: str, folder: str) -> None:
        self.name = revision
        self._folder = folder or "."
        status, answer = self._git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
        if status == 0:
            self._commit = answer.decode().strip()
            return
        if self._git("rev-parse", "--git-dir")[0] != 0:
            raise UsageError(
                os.path.abspath(self._folder), "is in no repository of git", "--against FOLDER/ needs none"
            )
        hint = "fetch it first (in GitHub Actions: actions/checkout with fetch-depth: 0)"
        raise UsageError(revision, "is no revision of this repository", hint)

    def read(self, path: str) -> str | None:
        """Return the text of a file as it was committed, None where there was none."""
        status, listing = self._git("ls-tree", "-z", self._commit, "--", path)
        mode, _, rest = listing.partition(b" ")
        if status != 0 or not mode.startswith(b"100"):  # neither a folder nor a link nor a submodule
            return None
        blob = rest.partition(b" ")[2].partition(b"\t")[0].decode()
        status, content = self._git("cat-file", "blob", blob)
        if status != 0:
            raise UsageError(
                f"{path} at {self.name}", "cannot be read from the repository", f"git fetch, then: git show {blob}"
            )
        try:
            return content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise UsageError(f"{path} at {self.name}", f"is not UTF-8 at byte {error.start:,}") from None

    def _git(self, *arguments: str) -> tuple[int, bytes]:
        import subprocess

        try:
            done = subprocess.run(["git", "-C", self._folder, *arguments], capture_output=True, check=False)
        except OSError as error:
            raise UsageError(
                "git", f"cannot be run: {error.strerror}", "install git, or name a folder: --against old/"
            ) from None
        return done.returncode, done.stdout
