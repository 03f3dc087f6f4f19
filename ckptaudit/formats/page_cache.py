"""Whether the system keeps the bytes of a file in memory, so that no disk takes part in reading them."""

from __future__ import annotations

import sys

_CACHESTAT = 451  # the system call of Linux 6.5: https://man7.org/linux/man-pages/man2/syscalls.2.html
_PAGE = 4096


def is_cached(fd: int, offset: int, length: int) -> bool:
    """Tell whether all pages of a range are in memory; False where the system does not say."""
    if not sys.platform.startswith("linux") or length <= 0:
        return False
    import ctypes

    start = offset - offset % _PAGE
    pages = -(-(offset + length - start) // _PAGE)
    span = (ctypes.c_uint64 * 2)(start, offset + length - start)
    counts = (ctypes.c_uint64 * 5)()  # cached, dirty, in writeback, evicted, recently evicted
    try:
        failed = ctypes.CDLL(None).syscall(_CACHESTAT, fd, ctypes.byref(span), ctypes.byref(counts), 0)
    except (OSError, AttributeError):
        return False
    return not failed and counts[0] >= pages
