"""Where text goes: width and colour of the terminal, output files, error sentences."""

from __future__ import annotations

import os
import sys
from typing import TextIO

from ..errors import CkptauditError

MAX_WIDTH = 100
_COLOURS = {"error": "31", "warning": "33", "note": "36"}
_CONTROL = {code: f"\\x{code:02x}" for code in (*range(0x0A), *range(0x0B, 0x20), *range(0x7F, 0xA0))}


def terminal_width(wanted: int | None) -> int:
    """Return the width to write for: the one asked for, else COLUMNS, else the terminal's, at most 100."""
    if wanted:
        return wanted
    if os.environ.get("COLUMNS", "").isdigit() and int(os.environ["COLUMNS"]) > 0:
        return min(int(os.environ["COLUMNS"]), MAX_WIDTH)
    try:
        return min(os.get_terminal_size(sys.stdout.fileno()).columns or MAX_WIDTH, MAX_WIDTH)
    except (OSError, ValueError, AttributeError):
        return MAX_WIDTH


def wants_colour(choice: str, stream: TextIO) -> bool:
    """Decide on colour: the option, then NO_COLOR, then FORCE_COLOR, then whether it is a terminal."""
    if choice != "auto":
        return choice == "always"
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR") or os.environ.get("CLICOLOR_FORCE", "0") != "0":
        return True
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def write_report(text: str, colour: str = "never") -> None:
    """Write a finished report to standard output; control characters from a file are shown, not sent."""
    text = text.translate(_CONTROL)
    if wants_colour(colour, sys.stdout):
        text = "".join(_coloured(line) for line in text.splitlines(keepends=True))
    write(sys.stdout, text)


def _coloured(line: str) -> str:
    level = line.partition("[")[0]
    if level not in _COLOURS:
        return line
    head, bracket, rest = line.partition("]")
    return f"\x1b[1;{_COLOURS[level]}m{head}{bracket}\x1b[0m{rest}"


def write(stream: TextIO, text: str) -> None:
    """Write text that the stream's encoding may not hold, without an exception for it."""
    encoding = stream.encoding or "utf-8"
    stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
    stream.flush()


def write_error(error: CkptauditError) -> None:
    """Write an error's sentence and its hint to standard error."""
    lines = [f"ckptaudit: error: {error.subject}: {error.reason}"]
    if error.hint:
        lines.append(f"hint: {error.hint}")
    write(sys.stderr, "\n".join(lines).translate(_CONTROL) + "\n")
