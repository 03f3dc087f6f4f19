"""What the writers of all formats have in common: a file of known size that is written, and then read back."""

from __future__ import annotations

from collections.abc import Callable

from ..errors import CkptauditError
from ..formats.base import ByteSource
from ..newfile import NewFile
from .content import Content

Seen = Callable[[int], None]  # is told the bytes that were written or compared


class Output:
    """One file of a result. ``work`` counts the bytes of tensors in it."""

    path: str
    size: int
    work = 0

    def write(self, file: NewFile, seen: Seen) -> None:
        """Write everything."""
        raise NotImplementedError

    def verify(self, path: str, seen: Seen) -> None:
        """Compare what was written, for now under the name ``path``, with its source. Raises CkptauditError."""
        raise NotImplementedError


def same_bytes(name: str, content: Content, written: ByteSource, offset: int, seen: Seen) -> None:
    """Compare content, made once more, with what lies in a file. Raises CkptauditError."""
    back = bytearray()
    for piece in content.pieces():
        if len(back) != len(piece):
            back = bytearray(len(piece))
        written.read_into(offset, memoryview(back))
        if back != piece:
            raise differs(written.path, name)
        offset += len(piece)
        seen(len(piece))


def differs(path: str, what: str) -> CkptauditError:
    """Return the error of a file that is not what was written."""
    hint = "run it again; if it fails again, the disk or the memory of this machine is at fault"
    return CkptauditError(path, f"was written, and reads back differently: {what}", hint)
