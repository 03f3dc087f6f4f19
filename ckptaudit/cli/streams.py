"""Where text goes: width and colour of the terminal, output files, error sentences."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterable
from typing import TextIO

from ..errors import CkptauditError, UsageError
from ..words import visible

_CHUNK = 1 << 16  # characters
MIN_WIDTH, MAX_WIDTH = 40, 100
_COLOURS = {"error": "31", "warning": "33", "note": "36"}
_CONTROL = {code: f"\\x{code:02x}" for code in (*range(0x0A), *range(0x0B, 0x20), *range(0x7F, 0xA0))}


def terminal_width(wanted: int | None) -> int:
    """Return the width to write for: the one asked for, else COLUMNS, else the terminal's, from 40 to 100."""
    return wanted or max(MIN_WIDTH, min(_columns() or MAX_WIDTH, MAX_WIDTH))


def _columns() -> int:
    with contextlib.suppress(ValueError):
        if (columns := int(os.environ.get("COLUMNS", ""))) > 0:
            return columns
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns
    except (OSError, ValueError, AttributeError):  # no terminal, a closed stream, no stream at all
        return 0


def byte_progress() -> Callable[[int, int], None] | None:
    """Return what shows how many bytes are done: a bar, where somebody is there to see it."""
    if not (sys.stderr and sys.stderr.isatty()):
        return None
    from .progress import bar

    return bar()


def wants_colour(choice: str, stream: TextIO | None) -> bool:
    """Decide on colour: the option, then NO_COLOR, then FORCE_COLOR, then whether it is a terminal."""
    if choice != "auto":
        return choice == "always"
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR") or os.environ.get("CLICOLOR_FORCE", "0") not in ("", "0"):
        return True
    return stream is not None and stream.isatty() and os.environ.get("TERM") != "dumb"


def write_report(text: str, colour: str = "never") -> None:
    """Write a finished report to standard output; control characters from a file are shown, not sent."""
    text = text.translate(_CONTROL)
    if wants_colour(colour, sys.stdout):
        text = "".join(_coloured(line) for line in text.splitlines(keepends=True))
    write(sys.stdout, text)


def write_pieces(pieces: Iterable[str]) -> None:
    """Write a report while it is made, so that a long one is never in memory whole."""
    held: list[str] = []
    size = 0
    for piece in pieces:
        held.append(piece)
        size += len(piece)
        if size > _CHUNK:
            text = "".join(held)
            held.clear()
            size = 0
            for start in range(0, len(text), _CHUNK):
                write_report(text[start : start + _CHUNK])
    write_report("".join(held))


def _coloured(line: str) -> str:
    level = line.partition("[")[0]
    if level not in _COLOURS:
        return line
    head, bracket, rest = line.partition("]")
    return f"\x1b[1;{_COLOURS[level]}m{head}{bracket}\x1b[0m{rest}"


def write(stream: TextIO | None, text: str) -> None:
    """Write text that the stream's encoding may not hold, without an exception for it.

    A reader that has gone away (``| head``) wants no more, and changes no exit status. Raises UsageError where
    standard output cannot be written for another reason.
    """
    if stream is None:  # the process was started with this stream closed
        return
    encoding = stream.encoding or "utf-8"
    try:
        stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        stream.flush()
    except OSError as error:
        _silence(stream)
        if stream is sys.stdout and not isinstance(error, BrokenPipeError):
            raise UsageError("standard output", f"cannot be written: {error.strerror}") from None


def _silence(stream: TextIO) -> None:
    """Point a stream at nothing: the interpreter's last flush would fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def write_error(error: Exception, *, debug: bool = False) -> None:
    """Write an error's sentence and its hint to standard error, after its traceback where that is wanted."""
    if debug:
        import traceback

        write(sys.stderr, "".join(traceback.format_exception(error)))
    if not isinstance(error, CkptauditError):
        what = " ".join(f"{type(error).__name__}: {error}".split())
        error = CkptauditError("internal error", what, "run it again with --debug and report the traceback")
    write(sys.stderr, f"ckptaudit: error: {visible(error.subject)}: {visible(error.reason)}\n")
    if error.hint:
        write(sys.stderr, f"hint: {visible(error.hint)}\n")
