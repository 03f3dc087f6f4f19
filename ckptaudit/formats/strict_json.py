"""JSON objects that say so when they name a key twice, which Python's parser would pass over."""

from __future__ import annotations


class RepeatedKey:
    """Stands in for a JSON object that names ``key`` twice."""

    def __init__(self, key: str) -> None:
        self.key = key


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
