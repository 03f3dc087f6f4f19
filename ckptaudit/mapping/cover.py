"""Name a set of keys with the fewest patterns: whole modules as ``fc.*``, the rest one by one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator


def cover(keys: Iterable[str], universe: Iterable[str]) -> list[str]:
    """Return patterns that match exactly ``keys`` among ``universe``, in order of first appearance.

    A module of two or more keys whose keys are all in the set becomes ``module.*``, the outermost such module
    first. Linear in the total length of the keys.
    """
    chosen = list(dict.fromkeys(keys))
    wanted = Counter(prefix for key in chosen for prefix in _prefixes(key))
    present = Counter(prefix for key in dict.fromkeys(universe) for prefix in _prefixes(key))
    patterns = (
        next((f"{prefix}.*" for prefix in _prefixes(key) if 1 < wanted[prefix] == present[prefix]), key)
        for key in chosen
    )
    return list(dict.fromkeys(patterns))


def _prefixes(key: str) -> Iterator[str]:
    end = key.find(".")
    while end >= 0:
        yield key[:end]
        end = key.find(".", end + 1)
