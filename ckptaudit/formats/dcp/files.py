"""The files beside a ``.metadata``: found without a way out of their folder, open only while they are read."""

from __future__ import annotations

import os

from ...errors import FormatError
from ..base import ByteSource
from ..sharded import within


class FolderFile(ByteSource):
    """One of perhaps thousands of files. Once closed it is opened anew for each read, and must be the same file."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._mark = self.mark()

    def mark(self) -> tuple[int, ...]:
        """Return what tells the open file from another, and from itself once it was written to."""
        status = os.fstat(self._fd)
        return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns

    @property
    def identity(self) -> tuple[int, int]:
        """The device and the number of the file, as they were."""
        device, number, _, _ = self._mark if self._fd < 0 else self.mark()
        return device, number

    def read(self, offset: int, length: int) -> bytes:
        """Return exactly ``length`` bytes from ``offset``."""
        if self._fd >= 0:
            return super().read(offset, length)
        again = self._again()
        try:
            return again.read(offset, length)
        finally:
            again.close()

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill ``buffer`` with the bytes from ``offset`` on."""
        if self._fd >= 0:
            super().read_into(offset, buffer)
            return
        again = self._again()
        try:
            again.read_into(offset, buffer)
        finally:
            again.close()

    def data_from(self, offset: int) -> int:
        """Return where the first byte at or behind ``offset`` lies that the file system holds."""
        if self._fd >= 0:
            return super().data_from(offset)
        again = self._again()
        try:
            return again.data_from(offset)
        finally:
            again.close()

    def _again(self) -> FolderFile:
        again = FolderFile(self.path)
        if again.mark() != self._mark:
            again.close()
            reason = "was changed since it was checked"
            raise FormatError(self.path, reason, "read it again once it is written", code="CKPT703")
        return again


class SmallSection(ByteSource):
    """A part of a file that is read in one go: the headers of a small archive are many small reads."""

    def __init__(self, whole: ByteSource, start: int, size: int, name: str) -> None:
        self.path = f"{whole.path}:{name}"
        self.size = size
        self._whole = whole
        self._data = whole.read(start, size)

    @property
    def identity(self) -> tuple[int, int]:
        """That of the whole file."""
        return self._whole.identity

    def read(self, offset: int, length: int) -> bytes:
        """Return exactly ``length`` bytes from ``offset`` of the part."""
        if offset < 0 or length < 0 or offset + length > self.size:
            raise self._ends_early(offset, length)
        return self._data[offset : offset + length]

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill ``buffer`` with the bytes from ``offset`` of the part on."""
        buffer[:] = self.read(offset, len(buffer))


def open_file(metadata: str, name: str) -> FolderFile:
    """Open the file that ``metadata`` (a path) names.

    Raises FormatError: CKPT705 for a name with a way out of the folder, CKPT501 where there is no such file.
    """
    if name in ("", ".", "..") or any(char in "/\\:" or not char.isprintable() for char in name):
        reason = f"names the file {name[:200]!a}, which is not the name of a file in its folder"
        raise FormatError(metadata, reason, "do not load it; ask where it comes from", code="CKPT705")
    folder = os.path.dirname(metadata) or "."
    path = os.path.join(os.path.dirname(metadata), name)
    if not os.path.isfile(path):
        reason = f"names the file {name[:200]!a}, which is not there"
        raise FormatError(metadata, reason, f"get {name[:200]} from where the checkpoint comes from", code="CKPT501")
    if os.path.islink(path) and not within(os.path.realpath(path), os.path.realpath(folder)):
        reason = f"names the file {name[:200]!a}, a link to a file outside of its folder"
        raise FormatError(metadata, reason, f"copy the file itself into {folder}", code="CKPT705")
    return FolderFile(path)
