"""Where the reports of a command go: one format to standard output, any number of others to files."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..errors import UsageError
from ..report import FORMATS, check_installed, render
from ..textfile import append_text, refuse_input, write_text
from ..words import shell_word
from .streams import terminal_width, write_report

if TYPE_CHECKING:
    from ..report.parts import One

Outputs = Sequence[tuple[str, str]]


def parse_outputs(options: argparse.Namespace, inputs: Sequence[str] = (), formats: Sequence[str] = FORMATS) -> Outputs:
    """Take the ``FORMAT=PATH`` texts of ``--output`` apart.

    Raises UsageError for another form, for a path that is an input, and for a format, that of ``--format`` among them,
    whose package is not installed: nothing is compared for a report that cannot be.
    """
    outputs = [_parse(text, formats) for text in options.output]
    for _, path in outputs:
        refuse_input(path, inputs)
    for form in (options.format, *(form for form, _ in outputs)):
        check_installed(form)
    return outputs


def emit(report: One, options: argparse.Namespace, outputs: Outputs) -> None:
    """Write a report to its files, and then to standard output.

    ``--format github`` adds it to the summary of the step as well, where GitHub names a file for that.
    """
    width, root = terminal_width(options.width), source_root()
    for form, path in outputs:
        write_text(path, render(report, form, width, options.verbose, root=root))
    if options.format == "github" and (summary := os.environ.get("GITHUB_STEP_SUMMARY")):
        append_text(summary, render(report, "markdown"))
    write_report(render(report, options.format, width, options.verbose, root=root), options.color)


def source_root() -> str:
    """Return the folder that paths in reports for other tools start from.

    It is the one GitHub names, else the repository around the current folder, else that folder.
    """
    if workspace := os.environ.get("GITHUB_WORKSPACE"):
        return workspace
    here = folder = os.getcwd()
    while not os.path.exists(os.path.join(folder, ".git")):
        above = os.path.dirname(folder)
        if above == folder:
            return here
        folder = above
    return folder


def _parse(text: str, formats: Sequence[str]) -> tuple[str, str]:
    form, equals, path = text.partition("=")
    if not (equals and path and form in formats):
        reason = f"is not FORMAT=PATH; FORMAT is one of {', '.join(formats)}"
        raise UsageError(f"--output {shell_word(text)}", reason, "write it as --output json=report.json")
    return form, path
