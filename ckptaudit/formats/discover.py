"""Which files below a folder are checkpoints, or claim to be: by name, and by content whatever the name."""

from __future__ import annotations

import os
from collections.abc import Iterator

from ..errors import UsageError
from ..records import dataclass
from .base import ByteSource

SUFFIXES = (".bin", ".ckpt", ".distcp", ".pickle", ".pkl", ".pt", ".pt2", ".pth", ".ptl", ".safetensors")
_INDEX = ".index.json"
_METADATA = ".metadata"
_DISTRIBUTED = ".distcp"
_WINDOW = 1 << 16
_TAR_MEMBERS = (b"sys_info\0", b"storages\0")


@dataclass(frozen=True)
class Found:
    """One path below a folder: ``kind`` is ``checkpoint``, ``other``, or ``unread`` with the reason in ``why``."""

    path: str
    kind: str
    why: str = ""


def discover(folder: str) -> Iterator[Found]:
    """Yield everything below a folder, in the order of names; links to folders are not followed.

    A folder of torch.distributed.checkpoint is one checkpoint; what else lies in it is yielded besides.
    """
    distributed = is_distributed(folder)
    if distributed:
        yield Found(folder, "checkpoint")
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        yield Found(folder, "unread", f"cannot be listed: {error.strerror}")
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from discover(entry.path)
        elif not entry.is_dir() and not (distributed and entry.name.endswith((_METADATA, _DISTRIBUTED))):
            yield _judged(entry)


def is_distributed(folder: str) -> bool:
    """Tell a folder that torch.distributed.checkpoint wrote, perhaps with a .metadata for each rank."""
    try:
        names = os.listdir(folder)
    except OSError:
        return False
    described = any(name.endswith(_METADATA) and os.path.isfile(os.path.join(folder, name)) for name in names)
    return described and any(name.endswith(_DISTRIBUTED) for name in names)


def _judged(entry: os.DirEntry[str]) -> Found:
    if entry.name.lower().endswith((*SUFFIXES, _INDEX)):
        return Found(entry.path, "checkpoint")
    if not entry.is_file():  # a pipe, a device, a broken link
        return Found(entry.path, "other")
    try:
        source = ByteSource(entry.path)
    except UsageError as error:
        return Found(entry.path, "unread", error.reason)
    try:
        return Found(entry.path, "checkpoint" if holds_checkpoint(source) else "other")
    finally:
        source.close()


def holds_checkpoint(source: ByteSource) -> bool:
    """Tell by a look at both ends of a file whether a loader of checkpoints might open it."""
    head = source.read(0, min(_WINDOW, source.size))
    tail = source.read(max(0, source.size - _WINDOW), min(_WINDOW, source.size))
    if head[8:9] == b"{" and head[4:8] == bytes(4):
        return True  # the length of a safetensors header, and the header
    if head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05" and tail[-1:] == b".":
        return True
    if b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19" in head[:64]:  # the magic number of the stream format
        return True
    if tail[-22:-18] == b"PK\x05\x06" or head[:4] == b"PK\x03\x04":
        return b"data.pkl" in (head + tail).lower() or b"archive_format" in head + tail
    return head[257:262] == b"ustar" and any(name in head for name in _TAR_MEMBERS)
