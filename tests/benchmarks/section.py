"""The sections of docs/performance.md: each is written by its own script, and none touches another's."""

from __future__ import annotations

import re
from pathlib import Path

DOCUMENT = Path(__file__).parents[2] / "docs" / "performance.md"


def replaced(document: str, section: str) -> str:
    """Return the document with ``section``, which begins with its title, in the place of its namesake, or at the end."""
    title, text = section.partition("\n")[0], section.strip("\n") + "\n"
    begin = re.search(rf"^{re.escape(title)}$", document, re.MULTILINE)
    if begin is None:
        return f"{document.rstrip()}\n\n{text}"
    end = re.compile(r"^## ", re.MULTILINE).search(document, begin.end())
    return document[: begin.start()] + text + (f"\n{document[end.start() :]}" if end else "")


def write(section: str) -> None:
    """Put a section into the document."""
    DOCUMENT.write_text(replaced(DOCUMENT.read_text(), section))
