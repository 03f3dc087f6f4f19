"""What is odd about a file that can be read: remarks that all formats share."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from ..errors import FormatError
from ..records import replace
from .base import Candidate, Limits, Remark

_LISTED = 100  # keys a remark carries
_METADATA = 1 << 20  # characters; what training tools write of a run stays far below
_SHOWN = 3  # names in a sentence
_SHARES = 64
_ARCHIVE_RECORDS = frozenset(
    {".data/serialization_id", ".format_version", ".storage_alignment", "byteorder", "data.pkl", "version"}
)
_DRIVE = re.compile(r"[A-Za-z]:[\\/]")


def odd_keys(candidates: Iterable[Candidate]) -> Iterator[Remark]:
    """Remark on keys that others would take for something else: paths, terminal commands, other formats' own names."""
    found: dict[str, dict[str, None]] = {}
    for candidate in candidates:
        for key in candidate.manifest.all_keys:
            if what := key_oddity(key):
                found.setdefault(what, {})[key] = None
    for what, keys in found.items():
        yield about("CKPT706", f"has {{}} {what}", "key", list(keys))


def key_oddity(key: str) -> str:
    """Say what is odd about a key, or return the empty string."""
    if not key:
        return "without a single character"
    if key == "__metadata__":
        return "that safetensors reserves for its metadata"
    if not key.isprintable():
        return "with characters that act on a terminal or are none"
    drive = key[1:2] == ":" and _DRIVE.match(key)
    if key[0] in "/\\" or drive or (".." in key and ".." in re.split(r"[/\\]", key)):
        return "that reads as a path out of its folder"
    return ""


def unaccounted_records(names: Iterable[str], accounted: Iterable[str]) -> Iterator[Remark]:
    """Remark on the records of a ``torch.save`` archive that neither torch nor a tensor refers to."""
    rest = sorted(set(names) - _ARCHIVE_RECORDS - set(accounted))
    if rest:
        yield about("CKPT707", "holds {} that nothing refers to", "record", rest)


def large_metadata(details: Mapping[str, str]) -> Iterator[Remark]:
    """Remark on metadata of a safetensors file that could hold a file of its own."""
    size = sum(len(name.removeprefix("metadata.")) + len(text) for name, text in details.items())
    if size > _METADATA:
        yield Remark("CKPT707", f"has metadata of {size:,} characters, more than any writer needs")


def odd_alignment(text: str) -> Iterator[Remark]:
    """Remark on a ``.storage_alignment`` that is no power of two: readers may compute offsets from it."""
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0
    if number < 1 or number & (number - 1):
        shown = text[:20] if text.isprintable() else "no text"
        reason = f"says in .storage_alignment {shown!a}, where torch.save writes a power of two"
        yield Remark("CKPT707", reason, (".storage_alignment",))


def byteorder_remarks(facts: Mapping[str, str]) -> Iterator[Remark]:
    """Remark on a stream or tar of a big-endian machine: torch swaps when it writes, other writers may not have."""
    if "written on" in facts:
        reason = f"was written on {facts['written on']}; its numbers are read as little-endian, as torch reads them"
        yield Remark("CKPT707", reason)


def embedded_pickles(member: str, embedded: Sequence[tuple[int, bytes]], limits: Limits) -> Iterator[Remark]:
    """Remark on bytes values that are pickles themselves: nothing runs them until somebody unpickles them."""
    for offset, data in embedded:
        names = _named(data, member, limits)
        what = f", which names {', '.join(names[:_SHOWN])}" if names else ""
        yield Remark("CKPT707", f"holds a pickle inside a value ({member}, byte {offset:,}){what}", (member,))


def _named(data: bytes, member: str, limits: Limits) -> list[str]:
    """Return the names in an embedded pickle that are not allowed; none where it cannot be read."""
    from .pickles.machine import run

    try:
        found = run(data, subject=member, member=member, limits=_share(limits)).globals
    except FormatError as error:
        return [error.reason] if error.code == "CKPT702" else []
    return [one.name for one in found if one.verdict in ("dangerous", "refused")]


def _share(limits: Limits) -> Limits:
    """Return limits of which a file may use up many, one for each pickle in its values."""
    return replace(
        limits,
        pickle_opcodes=limits.pickle_opcodes // _SHARES,
        pickle_memory=limits.pickle_memory // _SHARES,
        globals=limits.globals // _SHARES,
    )


def disguise(path: str, form: str) -> Iterator[Remark]:
    """Remark on a pickle under the name of a safetensors file, which promises that there is none."""
    if os.path.splitext(path)[1].lower() == ".safetensors" and form.startswith(("torch", "sharded-torch")):
        yield Remark("CKPT708", f"is a {form} file, a pickle, under the name of a safetensors file")


def about(code: str, reason: str, noun: str, names: Sequence[str]) -> Remark:
    """Return a remark on several things; ``{}`` in the reason becomes ``2 keys (a, b)``."""
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    listed = ", ".join(map(ascii, names[:_SHOWN])) + more
    count = f"{len(names):,} {noun}" + ("" if len(names) == 1 else "s")
    return Remark(code, reason.replace("{}", f"{count} ({listed})"), tuple(names[:_LISTED]))
