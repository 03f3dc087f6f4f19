"""JSON objects that say so when they name a key twice, which Python's parser would pass over."""

from __future__ import annotations

_SHOWN = 200  # characters


def tokens_of(data: bytes) -> int:
    """Return how many values a JSON text may have, about: what it has brackets, commas and quotes for."""
    return sum(map(data.count, (b"[", b"{", b",", b'"')))


class RepeatedKey:
    """Stands in for a JSON object that names ``key`` twice. A long key is shortened."""

    def __init__(self, key: str) -> None:
        self.key = key if len(key) <= _SHOWN else f"{key[:_SHOWN]}..."

    def __repr__(self) -> str:
        return f"an object that names {self.key!r} twice"


def strict_object(pairs: list[tuple[str, object]]) -> dict[str, object] | RepeatedKey:
    """Build one JSON object; the ``object_pairs_hook`` of ``json.loads``."""
    result = dict(pairs)
    if len(result) == len(pairs):
        return result
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            break
        seen.add(key)
    return RepeatedKey(key)
