"""The commands and code of README and docs: python tests/docs/examples.py runs them and writes their output anew.

A ```console block holds commands (lines that begin with ``$ ``), each followed by exactly what it prints. A ```python
block may be followed by a ```text block with what it prints; the blocks of a file share one namespace. Both run in a
temporary folder that holds the repository's ``fixtures``, so that what they write does not stay.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[2]
FILES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
WIDTH = 80

# What is not run, and why: a command is here in the words of the document, or the test of the documents fails.
NOT_RUN = {
    "pip install": "installs packages",
    "python -m pytest": "runs the tests, these among them",
    "ruff": "the check before a merge runs the linters",
    "mypy": "the check before a merge runs the linters",
    ".ci/run": "installs packages",
    "fixtures/make": "writes fixtures",
    "golden.py": "writes what the tests compare with",
    "docs/generate.py": "writes docs/rules",
    "tests/docs/examples.py": "writes the documents",
    "tests/benchmarks": "takes minutes",
    "tests/fuzz": "takes minutes",
}


class Block(NamedTuple):
    """One fenced block: the line of the file (from 1) where its content begins, its language, its lines."""

    path: Path
    line: int
    language: str
    lines: list[str]

    @property
    def place(self) -> str:
        return f"{self.path.relative_to(ROOT)}:{self.line}"


class Command(NamedTuple):
    """One command of a console block and what the document says it prints (None: nothing is said)."""

    place: str
    text: str
    output: str | None


def blocks(path: Path) -> Iterator[Block]:
    """Yield the fenced blocks of a file."""
    lines = path.read_text().splitlines()
    start, language = None, ""
    for number, line in enumerate(lines):
        if start is None and (match := re.fullmatch(r"```(\w+)", line)):
            start, language = number + 1, match[1]
        elif start is not None and line == "```":
            yield Block(path, start + 1, language, lines[start:number])
            start = None
    assert start is None, f"{path}: the block of line {start} has no end"


def commands(block: Block) -> Iterator[Command]:
    """Yield the commands of a console block."""
    starts = [number for number, line in enumerate(block.lines) if line.startswith("$ ")]
    for start, end in zip(starts, [*starts[1:], len(block.lines)], strict=True):
        output = "".join(f"{line}\n" for line in block.lines[start + 1 : end])
        yield Command(f"{block.path.relative_to(ROOT)}:{block.line + start}", block.lines[start][2:], output or None)


def reason_not_to_run(command: str) -> str | None:
    return next((reason for part, reason in NOT_RUN.items() if part in command), None)


@contextlib.contextmanager
def workplace() -> Iterator[Path]:
    """Make the folder in which examples run."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "fixtures").symlink_to(ROOT / "fixtures")
        tools = folder / ".tools"
        tools.mkdir()
        for tool, arguments in (("ckptaudit", "-m ckptaudit "), ("python", "")):
            (tools / tool).write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {arguments}"$@"\n')
            (tools / tool).chmod(0o755)
        yield folder


def run(command: str, folder: Path) -> tuple[int, str]:
    """Run a command line; return its exit status and what it prints on either stream."""
    unset = ("NO_COLOR", "FORCE_COLOR", "CLICOLOR_FORCE")
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    environment |= {
        "COLUMNS": str(WIDTH),
        "PATH": f"{folder / '.tools'}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return done.returncode, done.stdout


def execute(block: Block, namespace: dict[str, Any]) -> str:
    """Run a python block in the current folder; return what it prints."""
    source = "\n" * (block.line - 1) + "\n".join(block.lines)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(source, str(block.path), "exec"), namespace)
    return printed.getvalue()


def printed_by(block: Block, following: Block | None) -> Block | None:
    """Return the text block that says what a python block prints: the one right behind it."""
    end = block.line + len(block.lines) + 1  # the line after the closing fence
    near = following is not None and following.language == "text" and following.line <= end + 2
    return following if near else None


def _refreshed(path: Path, folder: Path) -> str:
    """Return the document with the output of every command and python block as it is now."""
    lines = path.read_text().splitlines()
    shift, namespace = 0, {"__name__": "__main__"}
    found = list(blocks(path))
    for block, following in zip(found, [*found[1:], None], strict=False):
        target, new = block, None
        if block.language == "console":
            new = []
            for command in commands(block):
                again = None if reason_not_to_run(command.text) else run(command.text, folder)[1]
                shown = command.output if again is None else again
                new += [f"$ {command.text}", *(shown or "").splitlines()]
        elif block.language == "python":
            text, target = execute(block, namespace), printed_by(block, following) or block
            new = text.splitlines() if target is not block else None
        if new is not None:
            start = target.line - 1 + shift
            lines[start : start + len(target.lines)] = new
            shift += len(new) - len(target.lines)
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    for document in [Path(name).resolve() for name in sys.argv[1:]] or FILES:
        with workplace() as here:
            os.chdir(here)
            text = _refreshed(document, here)
            if text != document.read_text():
                document.write_text(text)
                print(f"{document.relative_to(ROOT)}: written anew")
            os.chdir(ROOT)
