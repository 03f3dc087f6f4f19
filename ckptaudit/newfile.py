"""New files, whole or not there: written beside their name, flushed to the disk, and moved into place at the end.

The one place that writes what is not text. A process that is killed leaves the old file under the name, and at most a
hidden ``.NAME.*.tmp`` beside it, which the next write of the same name removes.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from .errors import UsageError
from .words import binary_size

if TYPE_CHECKING:
    from threading import Thread

BUFFER = 1 << 20  # bytes; larger buffers were slower, and this many keep every write on a page boundary
_PORTION = 128 << 20  # bytes after which the disk is set to work, while the rest is written; twice and half are slower
_SUFFIX = ".tmp"
_LONGEST = 200  # bytes of a name that are kept, so that the temporary name is no longer than names may be


class NewFile:
    """A file of a known size that is written from its beginning to its end. Raises UsageError where that fails.

    Fill what ``room`` returns and say so by ``filled``, or hand bytes to ``write``; then ``finish`` and ``publish``.
    The disk works in the background: after ``finish`` the file may be read under its ``temporary`` name, and
    ``publish`` waits. In a ``with`` block, whatever was not published is gone at its end.
    """

    def __init__(self, path: str, size: int) -> None:
        self.path = path
        self._target = os.path.realpath(path)
        folder, name = os.path.split(self._target)
        self._folder = folder or "."
        self._kept = os.fsdecode(os.fsencode(name)[-_LONGEST:])
        self.temporary = os.path.join(self._folder, f".{self._kept}.{os.urandom(4).hex()}{_SUFFIX}")
        self._size = size
        self._buffer = memoryview(bytearray(min(BUFFER, max(size, 1))))
        self._held = 0
        self._written = 0
        self._unsynced = 0
        self._sync: Thread | None = None
        self._error: OSError | None = None
        self._fd = -1
        with self._failing():
            self._open()

    def _open(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            status = os.stat(self._target)
            if not stat.S_ISREG(status.st_mode):
                raise UsageError(self.path, "is not a regular file and is not replaced by one", "name another file")
            if os.access(self._folder, os.W_OK) and not os.access(self._target, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        sweep(self._folder, self._kept.__eq__)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0)
        self._fd = os.open(self.temporary, flags, 0o666)
        try:
            _lock(self._fd)
            self._reserve()
        except BaseException:
            self.discard()
            raise

    def _reserve(self) -> None:
        """Ask for all of the space first: a disk that is too full says so before anything is written."""
        if self._size and hasattr(os, "posix_fallocate"):
            try:
                os.posix_fallocate(self._fd, 0, self._size)
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                    raise

    def room(self, wanted: int) -> memoryview:
        """Return where the next bytes go, at least one and at most ``wanted`` of them."""
        if self._held == len(self._buffer):
            self._flush()
        return self._buffer[self._held : self._held + wanted]

    def filled(self, count: int) -> None:
        """Take over that many bytes of what ``room`` returned."""
        self._held += count

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append bytes."""
        rest = memoryview(data)
        while rest:
            room = self.room(len(rest))
            room[:] = rest[: len(room)]
            self.filled(len(room))
            rest = rest[len(room) :]

    def _flush(self) -> None:
        rest = self._buffer[: self._held]
        with self._failing():
            while rest:
                count = os.pwrite(self._fd, rest, self._written)
                self._written += count
                self._unsynced += count
                rest = rest[count:]
        self._held = 0
        if self._unsynced >= _PORTION and (self._sync is None or not self._sync.is_alive()):
            self._unsynced = 0
            self._start(os.fdatasync if hasattr(os, "fdatasync") else os.fsync)

    def finish(self) -> None:
        """Write the last bytes, and begin to bring all that is left to the disk."""
        self._flush()
        assert self._written == self._size, f"{self._written:,} bytes instead of {self._size:,}"
        self._start(os.fsync)

    def _start(self, synchronise: Callable[[int], None]) -> None:
        """Let the disk work while this process goes on; what fails is raised by ``publish``."""
        from threading import Thread

        self._wait()

        def work() -> None:
            try:
                synchronise(self._fd)
            except OSError as error:
                self._error = self._error or error

        self._sync = Thread(target=work)
        self._sync.start()

    def _wait(self) -> None:
        if self._sync is not None:
            self._sync.join()
            self._sync = None

    def publish(self) -> None:
        """Wait for the disk, move the file to its name, in one step, and bring that to the disk too."""
        self._wait()
        with self._failing():
            if self._error is not None:
                raise self._error
            os.replace(self.temporary, self._target)
            self._close()
            _flush_folder(self._folder)

    def discard(self) -> None:
        """Remove what was not published."""
        if self._fd >= 0:
            self._wait()
            self._close()
            with contextlib.suppress(OSError):
                os.unlink(self.temporary)

    def _close(self) -> None:
        os.close(self._fd)
        self._fd = -1

    def __enter__(self) -> NewFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.discard()

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            hint = None
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                hint = f"it needs {binary_size(self._size)}; make room, or name a file on another disk"
            raise UsageError(self.path, f"cannot be written: {error.strerror}", hint) from None


def remove(path: str) -> None:
    """Remove a file that nothing refers to any more; it may be gone already."""
    with contextlib.suppress(OSError):
        os.unlink(path)


def sweep(folder: str, is_ours: Callable[[str], bool]) -> None:
    """Remove what earlier writes of such names left behind when they were killed; living ones hold a lock."""
    for name in os.listdir(folder):
        kept, _, random = name.removesuffix(_SUFFIX)[1:].rpartition(".")
        if not (name.startswith(".") and name.endswith(_SUFFIX) and len(random) == 8 and is_ours(kept)):
            continue
        path = os.path.join(folder, name)
        with contextlib.suppress(OSError):
            fd = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0))
            try:
                _lock(fd)
                os.unlink(path)
            finally:
                os.close(fd)


def _lock(fd: int) -> None:
    """Lock a file for as long as it is open. Raises OSError where another process holds it."""
    try:
        import fcntl
    except ImportError:  # not on Windows, where an open file cannot be removed anyway
        return
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _flush_folder(folder: str) -> None:
    with contextlib.suppress(OSError):  # not every file system lets a folder be opened, or flushed
        fd = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
