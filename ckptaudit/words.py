"""Numbers and foreign text as people read them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def plural(count: int, noun: str) -> str:
    """Return ``1 error``, ``2 errors``."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def listed(names: Sequence[str], most: int = 3) -> str:
    """Write the first few names, and how many more there are."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more:,} more" if more > 0 else "")


def binary_size(nbytes: int) -> str:
    """Return bytes in binary units, one decimal: ``97.8 MiB``."""
    return f"{nbytes} B" if nbytes < 1024 else _scaled(nbytes, 1024, ("KiB", "MiB", "GiB", "TiB"))


def decimal_count(count: int) -> str:
    """Return a number of values in decimal units: ``25.6 M``."""
    return f"{count}" if count < 1000 else _scaled(count, 1000, ("k", "M", "G", "T"))


def value_count(count: int) -> str:
    """Return ``1 value``, ``25.6 M values``."""
    return f"{decimal_count(count)} value" + ("" if count == 1 else "s")


def _scaled(number: int, base: int, units: tuple[str, ...]) -> str:
    """Divide by ``base`` until what is shown, after rounding, is below it; the last unit takes the rest."""
    size = number / base
    for unit in units[:-1]:
        if round(size, 1) < base:
            return f"{size:.1f} {unit}"
        size /= base
    return f"{size:.1f} {units[-1]}"


def visible(text: str) -> str:
    """Write what would act on a terminal or forge a line of it as escapes; a key of a file may hold anything.

    That is all that ``str.isprintable`` denies: control and format characters, line separators, lone surrogates.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def shell_word(text: str) -> str:
    """Write text as one word of a command line, for hints; most names need no quotes, and no import for them."""
    if text and text.isascii() and all(char.isalnum() or char in "@%+=:,./-_" for char in text):
        return text
    from shlex import quote

    return quote(text)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``; did you mean ...?`` where a known name is close, else nothing."""
    from difflib import get_close_matches

    close = get_close_matches(name, list(known), 1)
    return f"; did you mean {close[0]!r}?" if close else ""
