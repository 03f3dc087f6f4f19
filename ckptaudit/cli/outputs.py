"""``--output FORMAT=PATH``: a report in another format, in a file."""

from __future__ import annotations

from collections.abc import Iterable

from ..errors import UsageError
from ..report import FORMATS
from ..words import shell_word


def parse_outputs(texts: Iterable[str]) -> list[tuple[str, str]]:
    """Return format and path of each. Raises UsageError."""
    return [_parse(text) for text in texts]


def _parse(text: str) -> tuple[str, str]:
    form, equals, path = text.partition("=")
    if not (equals and path and form in FORMATS):
        reason = f"is not FORMAT=PATH; FORMAT is one of {', '.join(FORMATS)}"
        raise UsageError(f"--output {shell_word(text)}", reason, "write it as --output json=report.json")
    return form, path
