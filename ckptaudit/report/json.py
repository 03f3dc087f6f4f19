"""The machine format. Its schema lies in docs/reference/."""

from __future__ import annotations

from typing import Any

from ..json_text import to_lines


def render_json(data: dict[str, Any]) -> str:
    """Return JSON text in ASCII: keys of a checkpoint may hold anything, a terminal's control codes too."""
    return to_lines(data)
