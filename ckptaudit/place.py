"""A place in the source code of a model: where a tensor's module is assigned."""

from __future__ import annotations

from typing import Any

from .records import dataclass


@dataclass(frozen=True)
class Place:
    """A file and a line of it (from 1). The path is relative to the current folder where it lies below it."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form: the fields by name."""
        return {"file": self.file, "line": self.line}
