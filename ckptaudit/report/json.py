"""The machine format. Its schema lies in docs/reference/."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..json_text import pieces, to_lines


def render_json(data: dict[str, Any]) -> str:
    """Return JSON text in ASCII: keys of a checkpoint may hold anything, a terminal's control codes too."""
    return to_lines(data)


def json_pieces(data: dict[str, Any]) -> Iterator[str]:
    """Yield the same text part by part."""
    return pieces(data)
