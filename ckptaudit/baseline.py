"""The baseline: findings that were there when a project began to check. The file only shrinks."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from typing import Any

from .errors import UsageError
from .json_text import to_lines
from .keys import fold
from .policy import Graded, Report
from .records import dataclass
from .rules import RULES
from .textfile import read_text, write_text

SCHEMA = "ckptaudit.baseline/1"
_FIELDS = ("target", "checkpoint", "code", "name", "keys", "fingerprint")


@dataclass(frozen=True)
class Entry:
    """One finding of one target and committed file; ``keys`` are patterns, for people."""

    target: str
    checkpoint: str
    code: str
    fingerprint: str
    keys: tuple[str, ...] = ()

    @classmethod
    def of(cls, report: Report, graded: Graded, folder: str) -> Entry:
        """Return the entry of a finding; ``folder`` is what the names of files are relative to."""
        finding = graded.finding
        keys = tuple(str(pattern) for pattern in fold(finding.keys))
        name = os.path.relpath(report.checkpoint.name, folder) if folder else report.checkpoint.name
        return cls(report.target, name, finding.rule.code, finding.fingerprint, keys)

    @property
    def identity(self) -> tuple[str, str, str]:
        """What an entry is known by: no wording, no line, no path but the file's own."""
        return self.target, self.checkpoint, self.fingerprint

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        name = RULES[self.code].name if self.code in RULES else ""
        data = {"target": self.target, "checkpoint": self.checkpoint, "code": self.code, "name": name}
        return data | {"keys": list(self.keys), "fingerprint": self.fingerprint}


@dataclass(frozen=True)
class Baseline:
    """The entries of a baseline file."""

    entries: tuple[Entry, ...] = ()

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Baseline:
        """Read a file. Raises UsageError where it is unreadable or no baseline."""
        return cls.parse(read_text(path), os.fspath(path))

    @classmethod
    def parse(cls, text: str, name: str) -> Baseline:
        """Read the text of a file; ``name`` is the subject of a fault. Raises UsageError."""
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise UsageError(name, f"is not valid JSON: {error}", _HINT) from None
        if not isinstance(data, dict) or data.get("schema") != SCHEMA or not isinstance(data.get("findings"), list):
            raise UsageError(name, f"is no baseline: it is not of the schema {SCHEMA!r}", _HINT)
        for index, row in enumerate(data["findings"]):
            if not _is_entry(row):
                raise UsageError(name, f"is no baseline: findings[{index}] is none", _HINT)
        return cls(tuple(map(_entry, data["findings"])))

    def without(self, gone: Iterable[Entry]) -> Baseline:
        """Return the baseline without these entries."""
        identities = {entry.identity for entry in gone}
        return Baseline(tuple(entry for entry in self.entries if entry.identity not in identities))

    def with_(self, new: Iterable[Entry]) -> Baseline:
        """Return the baseline with these entries too, each once, by target and file."""
        merged = {entry.identity: entry for entry in (*self.entries, *new)}
        return Baseline(tuple(merged[identity] for identity in sorted(merged)))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the file, one entry a line; a failure leaves an older file. Raises UsageError."""
        write_text(path, to_lines({"schema": SCHEMA, "findings": [entry.to_json() for entry in self.entries]}))


_HINT = "write one with: ckptaudit check --add-to-baseline RULE"


def _entry(row: Mapping[str, Any]) -> Entry:
    return Entry(row["target"], row["checkpoint"], row["code"], row["fingerprint"], tuple(row["keys"]))


def _is_entry(row: Any) -> bool:
    if not isinstance(row, dict) or set(row) != set(_FIELDS):
        return False
    texts = [row[name] for name in _FIELDS if name != "keys"]
    return isinstance(row["keys"], list) and all(isinstance(text, str) for text in (*texts, *row["keys"]))
