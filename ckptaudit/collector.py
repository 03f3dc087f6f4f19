"""Python's garbage collector, told to wait: half of the time of a large file goes into looking for garbage in vain."""

from __future__ import annotations

import gc


class CollectorPaused:
    """No collection inside of the ``with`` block, for code that makes many objects and no cycles."""

    def __enter__(self) -> None:
        self._collects = gc.isenabled()
        gc.disable()

    def __exit__(self, *_: object) -> None:
        if self._collects:
            gc.enable()
