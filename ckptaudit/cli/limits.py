"""``--limit NAME=N``: how much a file may ask for before it is refused."""

from __future__ import annotations

from collections.abc import Iterable

from ..errors import UsageError
from ..formats import DEFAULT_LIMITS, Limits
from ..records import replace


def parse_limits(texts: Iterable[str]) -> Limits:
    """Return the default limits with those that were given. Raises UsageError, with the closest name."""
    changes: dict[str, int] = {}
    for text in texts:
        name, _, number = text.partition("=")
        if name not in vars(DEFAULT_LIMITS):
            raise UsageError(f"--limit {text}", f"{name or 'it'} is no limit", _hint(name))
        if not (number.isascii() and number.isdigit() and len(number) < 19):
            raise UsageError(f"--limit {text}", "gives no number", f"--limit {name}={vars(DEFAULT_LIMITS)[name]}")
        changes[name] = int(number)
    return replace(DEFAULT_LIMITS, **changes) if changes else DEFAULT_LIMITS


def _hint(name: str) -> str:
    from difflib import get_close_matches

    close = get_close_matches(name, vars(DEFAULT_LIMITS), n=1)
    return f"did you mean {close[0]}?" if close else f"one of {', '.join(vars(DEFAULT_LIMITS))}"
