"""Numbers as people read them."""

from __future__ import annotations


def plural(count: int, noun: str) -> str:
    """Return ``1 error``, ``2 errors``."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def binary_size(nbytes: int) -> str:
    """Return bytes in binary units, one decimal: ``97.8 MiB``."""
    size = float(nbytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{nbytes} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def decimal_count(count: int) -> str:
    """Return a number of values in decimal units: ``25.6 M``."""
    value = float(count)
    for unit in ("", " k", " M", " G"):
        if value < 1000:
            return f"{count}" if not unit else f"{value:.1f}{unit}"
        value /= 1000
    return f"{value:.1f} T"
