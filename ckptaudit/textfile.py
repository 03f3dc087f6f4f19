"""Text files: read with a sentence where that fails; whole or not there when written, moved into place at the end."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable

from .errors import UsageError


def read_text(path: str | os.PathLike[str]) -> str:
    """Read a text file in UTF-8. Raises UsageError."""
    name = os.fspath(path)
    try:
        with open(name, encoding="utf-8-sig") as file:
            return file.read()
    except OSError as error:
        raise UsageError(name, f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UsageError(name, f"is not UTF-8 at byte {error.start:,}") from None


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file in UTF-8 through a temporary file beside it; a device or a pipe is written to directly.

    A failure leaves an older file as it was. Raises UsageError.
    """
    name = os.fspath(path)
    try:
        if os.path.exists(name) and not os.path.isfile(name):  # /dev/stdout is not to be replaced by a file
            _write(name, text, "w")
        else:
            _replace(os.path.realpath(name), text)
    except OSError as error:
        raise UsageError(name, f"cannot be written: {error.strerror}") from None


def _replace(target: str, text: str) -> None:
    folder, name = os.path.split(target)
    temporary = os.path.join(folder, f".{name}.{os.getpid()}.tmp")
    try:
        _write(temporary, text, "x")
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def _write(name: str, text: str, mode: str) -> None:
    with open(name, mode, encoding="utf-8", errors="backslashreplace") as file:
        file.write(text)


def append_text(path: str | os.PathLike[str], text: str) -> None:
    """Add text in UTF-8 to the end of a file that others write to as well. Raises UsageError."""
    name = os.fspath(path)
    try:
        _write(name, text, "a")
    except OSError as error:
        raise UsageError(name, f"cannot be written: {error.strerror}") from None


def refuse_input(path: str, inputs: Iterable[str]) -> None:
    """Raise UsageError where writing ``path`` would overwrite one of ``inputs`` (``FILE#inner``, ``FILE.py:Net``)."""
    for given in inputs:
        for name in (given, given.partition("#")[0], given.rpartition(":")[0]):
            if os.path.isfile(name) and os.path.exists(path) and os.path.samefile(name, path):
                raise UsageError(path, "is an input of this command and would be overwritten", "name another file")
