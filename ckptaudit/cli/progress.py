"""A bar on standard error for work that takes long. The only importer of tqdm."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tqdm import tqdm


def bar() -> Callable[[int, int], None]:
    """Return a function that is told (done, total) in bytes; each new total begins a new bar."""
    shown: list[Any] = []

    def update(done: int, total: int) -> None:
        if not shown:
            shown.append(tqdm(total=total, unit="B", unit_scale=True, unit_divisor=1024, leave=False))
        shown[0].update(done - shown[0].n)
        if done >= total:
            shown.pop().close()

    return update


def steps_bar() -> Callable[[int, int, str], None]:
    """Return a function that is told (done, total, what); another ``what`` begins a new bar, an empty one ends it."""
    shown: list[tuple[str, Any]] = []

    def update(done: int, total: int, what: str) -> None:
        if shown and shown[0][0] != what:
            shown.pop()[1].close()
        if not what:
            return
        if not shown:
            shown.append((what, tqdm(total=total or None, desc=what, leave=False)))
        bar = shown[0][1]
        bar.total = total or None
        bar.update(done - bar.n)

    return update
