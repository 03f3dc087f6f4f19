"""JSON as text that line-based tools can diff: one line per field, one per row of a list."""

from __future__ import annotations

import json
from typing import Any


def to_lines(data: dict[str, Any], *, ascii_only: bool = True) -> str:
    """Return JSON text of an object; lists of objects get a line an item. ``ascii_only`` escapes the rest."""

    def text(value: Any) -> str:
        return json.dumps(value, ensure_ascii=ascii_only)

    fields = []
    for name, value in data.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            rows = ",\n".join(f"  {text(row)}" for row in value)
            fields.append(f"{text(name)}: [\n{rows}\n ]")
        else:
            fields.append(f"{text(name)}: {text(value)}")
    return "{" + ",\n ".join(fields) + "}\n"
