"""JSON as text that line-based tools can diff: one line per field, one per row of a list."""

from __future__ import annotations

import json
import re
from typing import Any

# What a terminal or a line-based tool would act on, and what UTF-8 has no bytes for.
_ACTING = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def to_lines(data: dict[str, Any], *, ascii_only: bool = True) -> str:
    """Return JSON text of an object; lists of objects get a line an item. ``ascii_only`` escapes the rest."""

    def text(value: Any) -> str:
        line = json.dumps(value, ensure_ascii=ascii_only)
        return line if ascii_only else _ACTING.sub(lambda match: f"\\u{ord(match[0]):04x}", line)

    fields = []
    for name, value in data.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            rows = ",\n".join(f"  {text(row)}" for row in value)
            fields.append(f"{text(name)}: [\n{rows}\n ]")
        else:
            fields.append(f"{text(name)}: {text(value)}")
    return "{" + ",\n ".join(fields) + "}\n"
