"""Pickles and raw numbers one after another, as torch wrote them before 1.6: read with small reads only."""

from __future__ import annotations

import struct
from typing import NoReturn

from ...errors import FormatError
from ..base import ByteSource, Limits, over_limit
from ..pickles.machine import PickleResult, Spent, run
from ..pickles.nodes import PDict

_OBJECT_WINDOW = 1 << 18  # bytes; the pickle of a ResNet-50 takes 40 kB
_SMALL_WINDOW = 1 << 13
_HINT = "get the file again from its source; torch.save writes no such file"
_CUT_HINT = "download or copy it again; this copy is incomplete"


class PickleStream:
    """A part of a file, from ``position`` to ``end`` (bytes), read from its beginning to its end.

    Where a pickle ends is known only after it was read, and the tensors behind it may be large: a pickle is read
    through a small window, and where that is too small, once more through one that holds any pickle.
    """

    def __init__(self, source: ByteSource, limits: Limits, start: int, end: int, *, spent: Spent | None = None) -> None:
        self.spent = spent or Spent()
        self.source = source
        self.limits = limits
        self.position = start
        self.end = end

    def saved_object(self, *, module_ids: bool = False) -> PickleResult:
        """Interpret the pickle of what was saved."""
        return self.pickle("the object", window=_OBJECT_WINDOW, module_ids=module_ids)

    def pickle(self, member: str, *, window: int = _SMALL_WINDOW, module_ids: bool = False) -> PickleResult:
        """Interpret the next pickle and move behind it. ``member`` names it in errors.

        ``window`` is the number of bytes that are read at first.
        """
        left = self._left(member, 1)
        whole = min(left, self.limits.pickle_bytes)
        fault = ""
        for size in (window, whole) if window < whole else (whole,):
            try:
                result = self._run(member, size, module_ids)
            except FormatError as error:
                if size == left or error.code == "CKPT703" or error.reason == fault:
                    raise  # the fault is not that the window ends: there is no more, or more did not move it
                fault = error.reason
            else:
                self.position += result.end
                return result
        reason = f"is not read to its end: {member} takes more than {whole:,} bytes"
        raise over_limit(self.source.path, reason, "pickle_bytes", self.limits)

    def _run(self, member: str, size: int, module_ids: bool) -> PickleResult:
        data = self.source.read(self.position, size)
        path, limits = self.source.path, self.limits
        return run(data, subject=path, member=member, limits=limits, module_ids=module_ids, spent=self.spent)

    def literal(self, member: str, *, window: int = _SMALL_WINDOW) -> object:
        """Interpret the next pickle, which must be plain data: it names nothing and refers to nothing.

        Raises FormatError: CKPT702 or CKPT701 where it names a global, CKPT002 where it is not plain.
        """
        result = self.pickle(member, window=window)
        if result.globals:
            worst = next((one for one in result.globals if one.verdict == "dangerous"), result.globals[0])
            code = "CKPT702" if worst.verdict == "dangerous" else "CKPT701"
            reason = f"names {worst.name} in {member}, where torch.save writes plain data only"
            raise FormatError(self.source.path, reason, "do not load it", code=code)
        if result.persistent_ids:
            self.fail(f"refers to a storage in {member}, where torch.save writes plain data only")
        return result.value

    def integers(self, layout: str, member: str) -> tuple[int, ...]:
        """Read little-endian integers; ``layout`` is that of the struct module, without the byte order."""
        width = struct.calcsize("<" + layout)
        self._left(member, width)
        data = self.source.read(self.position, width)
        self.position += width
        return struct.unpack("<" + layout, data)

    def skip(self, nbytes: int, member: str) -> int:
        """Move over raw bytes and return where they begin in the file."""
        start = self.position
        self._left(member, nbytes)
        self.position += nbytes
        return start

    def finish(self, what: str) -> None:
        """Check that nothing is left. Raises FormatError CKPT704 where something is."""
        rest = self.end - self.position
        if rest:
            self.fail(f"has {_bytes(rest)} behind {what}", "CKPT704")

    def fail(self, reason: str, code: str = "CKPT002") -> NoReturn:
        """Raise FormatError: the file is not what torch.save writes."""
        raise FormatError(self.source.path, reason, _HINT, code=code)

    def _left(self, member: str, needed: int) -> int:
        left = self.end - self.position
        if left < needed:
            reason = f"ends early: {member} needs {_bytes(needed)} at byte {self.position:,}, {left:,} are left"
            raise FormatError(self.source.path, reason, _CUT_HINT)
        return left


def system_facts(stream: PickleStream) -> dict[str, str]:
    """Read the facts about the machine that wrote the file. Its numbers are little-endian all the same."""
    system = stream.literal("the system facts")
    if not isinstance(system, PDict):
        stream.fail("has system facts that are no dict")
    written = {"written on": "a big-endian machine"} if system.get("little_endian") is False else {}
    return {"byteorder": "little", **written}


def _bytes(count: int) -> str:
    return f"{count:,} byte" + ("" if count == 1 else "s")
