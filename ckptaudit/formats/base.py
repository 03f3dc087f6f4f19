"""What every format gives back: an open Checkpoint, its candidate state dicts and raw tensor bytes.

Nothing here knows a format. Readers (one file per format) turn bytes into a ``Checkpoint``.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ..errors import FormatError, UsageError
from ..manifest import Manifest, TensorSpec
from ..records import dataclass, field

MIB = 1 << 20


@dataclass(frozen=True)
class Limits:
    """How much a file may ask for before it is refused. All are counts or bytes; override by ``replace``.

    With the defaults a file of 100,000 tensors is read, and no file takes more than about two seconds and 200 MB.
    """

    pickle_bytes: int = 24 * MIB
    pickle_opcodes: int = 4_500_000
    pickle_memory: int = 112 * MIB
    memo_entries: int = 1_500_000
    stack_depth: int = 1_000_000
    open_marks: int = 10_000
    string_bytes: int = 16 * MIB
    key_bytes: int = 4096
    global_bytes: int = 512
    globals: int = 10_000
    storages: int = 120_000
    tensors: int = 105_000
    sizes: int = 1_000_000
    candidates: int = 1_000
    paths: int = 200_000
    work: int = 11_500_000
    path_text: int = 16 * MIB
    nesting: int = 512
    dimensions: int = 64
    zip_entries: int = 105_000
    zip_directory_bytes: int = 16 * MIB
    zip_name_bytes: int = 1024
    small_record_bytes: int = 4096
    safetensors_header_bytes: int = 20 * MIB
    index_bytes: int = 16 * MIB
    json_tokens: int = 2_100_000
    shards: int = 1_000
    dcp_items: int = 10_000


DEFAULT_LIMITS = Limits()


def over_limit(subject: str, reason: str, name: str, limits: Limits, needed: int = 0) -> FormatError:
    """Return the refusal of a file that asks for more than the limit ``name``, and what to raise it to."""
    enough = max(needed, 10 * int(getattr(limits, name)))
    digits = max(0, len(str(enough)) - 2)
    rounded = -(-enough // 10**digits) * 10**digits
    hint = f"raise it if you trust the file: --limit {name}={rounded}"
    return FormatError(subject, reason, hint, code="CKPT703")


class ByteSource:
    """A regular file, opened once and read by position: nobody can swap the file between two reads.

    ``read`` raises FormatError where the file ends early. Sizes and offsets are bytes.
    """

    _fd = -1  # closed

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        flags = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0)
        try:
            self._fd = os.open(self.path, flags | getattr(os, "O_BINARY", 0))
        except OSError as error:
            raise UsageError(self.path, f"cannot be opened: {error.strerror}") from None
        status = os.fstat(self._fd)
        if not stat.S_ISREG(status.st_mode):
            self.close()
            raise UsageError(self.path, "is not a regular file")
        self.size = status.st_size
        self._written = status.st_mtime_ns

    def read(self, offset: int, length: int) -> bytes:
        """Return exactly ``length`` bytes from ``offset``."""
        if offset < 0 or length < 0 or offset + length > self.size:
            raise self._ends_early(offset, length)
        parts = []
        while length:
            part = os.pread(self._fd, length, offset)
            if not part:
                raise FormatError(self.path, "was cut short while it was read", "read it again once it is written")
            parts.append(part)
            offset += len(part)
            length -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _ends_early(self, offset: int, length: int) -> FormatError:
        reason = f"ends early: bytes {offset:,} to {offset + length:,} are needed, the file has {self.size:,}"
        return FormatError(self.path, reason, "download it again; the copy is incomplete")

    def section(self, offset: int, size: int, name: str) -> Section:
        """Return ``size`` bytes from ``offset`` on as a source of their own; ``name`` follows the path in errors.

        Raises FormatError where they do not lie inside this source.
        """
        self.read(offset + size, 0)
        self.read(offset, 0)
        return Section(self, offset, size, name)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill ``buffer`` with the bytes from ``offset`` on, without a copy between. Raises as ``read`` does."""
        if offset < 0 or offset + len(buffer) > self.size:
            raise self._ends_early(offset, len(buffer))
        done = 0
        while done < len(buffer):
            count = os.preadv(self._fd, [buffer[done:]], offset + done)
            if not count:
                raise FormatError(self.path, "was cut short while it was read", "read it again once it is written")
            done += count

    def is_cached(self, offset: int, length: int) -> bool:
        """Tell whether the system keeps these bytes in memory; False where it does not say."""
        from .page_cache import is_cached

        return is_cached(self._fd, offset, length)

    def check_unchanged(self) -> None:
        """Check that nobody wrote to the file while it was open. Raises FormatError CKPT703."""
        if self._fd < 0:
            return
        status = os.fstat(self._fd)
        if (status.st_size, status.st_mtime_ns) != (self.size, self._written):
            reason = "was written to while it was read, so that what was read may be no longer there"
            raise FormatError(self.path, reason, "read it again once it is written", code="CKPT703")

    @property
    def identity(self) -> tuple[int, int]:
        """The device and the number of the file: equal where two names lead to one file."""
        status = os.fstat(self._fd)
        return status.st_dev, status.st_ino

    def data_from(self, offset: int) -> int:
        """Return where the first byte at or behind ``offset`` lies that the file system holds and has not left out.

        The end of the file where there is none; ``offset`` itself where the file system cannot tell.
        """
        try:
            return os.lseek(self._fd, offset, os.SEEK_DATA)
        except OSError as error:
            return self.size if error.errno == errno.ENXIO else offset

    def close(self) -> None:
        """Close the file; reading afterwards is an error of the caller."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __del__(self) -> None:
        self.close()


class Section(ByteSource):
    """A part of a file, read as if it were a file: an archive inside another one."""

    def __init__(self, whole: ByteSource, start: int, size: int, name: str) -> None:
        self.path = f"{whole.path}:{name}"
        self.size = size
        self._whole = whole
        self._start = start

    def read(self, offset: int, length: int) -> bytes:
        """Return exactly ``length`` bytes from ``offset`` of the part."""
        if offset < 0 or length < 0 or offset + length > self.size:
            raise self._ends_early(offset, length)
        return self._whole.read(self._start + offset, length)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill ``buffer`` with the bytes from ``offset`` of the part on."""
        if offset < 0 or offset + len(buffer) > self.size:
            raise self._ends_early(offset, len(buffer))
        self._whole.read_into(self._start + offset, buffer)

    @property
    def identity(self) -> tuple[int, int]:
        """That of the whole file."""
        return self._whole.identity

    def is_cached(self, offset: int, length: int) -> bool:
        """Tell whether the system keeps these bytes of the part in memory."""
        return self._whole.is_cached(self._start + offset, length)

    def check_unchanged(self) -> None:
        """Check the whole file."""
        self._whole.check_unchanged()

    def data_from(self, offset: int) -> int:
        """Return where the first byte at or behind ``offset`` lies that the file system holds."""
        return self._whole.data_from(self._start + offset) - self._start

    def close(self) -> None:
        """Do nothing: the file belongs to the whole."""


@dataclass(frozen=True, slots=True)
class RawTensor:
    """Where the bytes of one tensor's storage lie, and how the tensor looks at them.

    ``offset`` and ``nbytes`` bound the whole storage inside ``source``, in bytes; ``spec`` holds the shape,
    stride and storage offset (in elements) of the tensor's view of it. ``byteorder`` is that of the file.
    """

    spec: TensorSpec
    source: ByteSource
    offset: int
    nbytes: int
    byteorder: str = "little"

    def storage_chunks(self, size: int = MIB) -> Iterator[bytes]:
        """Yield the whole storage's bytes, as they lie in the file, in pieces of at most ``size`` bytes."""
        for start in range(0, self.nbytes, size):
            yield self.source.read(self.offset + start, min(size, self.nbytes - start))


@dataclass(frozen=True, slots=True)
class Record:
    """One file in a zip archive. ``offset`` is that of its data, ``size`` their bytes in the archive.

    ``stored`` tells plain data from deflated; ``crc`` is that of the plain data.
    """

    name: str
    offset: int
    size: int
    crc: int
    stored: bool


@dataclass(frozen=True)
class Candidate:
    """One state dict (or something like it) found inside a file.

    ``path`` is how to write it after ``FILE#``; the empty string is the top level. ``kind`` tells state
    dicts of models from optimizer states, from pickled modules, and from loose tensors that have no
    mapping of names (lists, a bare tensor), whose keys are then their paths.
    """

    path: str
    kind: str  # "state_dict" | "optimizer" | "module" | "tensors"
    manifest: Manifest


@dataclass(frozen=True)
class Global:
    """A global a pickle names: what it would import, and where the file says so.

    ``verdict`` is ``allowed`` (torch's own weights_only list), ``inert`` (outside that list, but plain data
    that real checkpoints carry), ``refused``, or ``dangerous`` (known to run code). ``member`` is the zip
    member or stream part, ``offset`` the byte of the opcode inside it. ``call`` shows its first call, shortened,
    where the verdict is one of the last two and the pickle calls it: ``posix.system('id')``.
    """

    name: str
    verdict: str
    member: str
    offset: int
    call: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        call = {"call": self.call} if self.call else {}
        return {"name": self.name, "verdict": self.verdict, "member": self.member, "offset": self.offset, **call}


@dataclass(frozen=True)
class Remark:
    """Something odd about a file that does not keep it from being read.

    ``code`` is the rule it falls under and ``reason`` a sentence about the file, as in FormatError. ``keys`` names
    what it is about: keys of tensors, records of an archive, files of a folder.
    """

    code: str
    reason: str
    keys: tuple[str, ...] = ()


@dataclass(frozen=True)
class Payload:
    """``entries`` are the values in the state dict that are no tensors, by key; ``around`` is what it lies in.

    Both are JSON, as formats/payload.py writes it. ``around`` is None where the file is the state dict. ``metadata``
    are the texts that its user gave a safetensors file. ``unfit`` maps the path of what JSON cannot hold to the name of
    its type; it is in neither of the others.
    ``places`` says where the entries are among all keys of the state dict.
    """

    entries: Mapping[str, Any] = field(default_factory=dict)
    around: Any = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    unfit: Mapping[str, str] = field(default_factory=dict)
    places: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Checkpoint:
    """An open checkpoint file: what it holds, without its values.

    ``format`` is one of ``torch-zip``, ``torch-legacy``, ``torch-tar``, ``torchscript``, ``torch-export``,
    ``safetensors``, ``sharded-safetensors``, ``sharded-torch``, ``dcp``. ``details`` are facts about the container
    for people (``{"byteorder": "little"}``). ``siblings`` names what lies beside the chosen state dict, with its type.
    ``choice`` is the state dict to use, or the error that says why none could be chosen. ``remarks`` are what
    its reader found odd. ``source`` is the file itself and ``records`` the records of a zip archive; ``parts`` are
    the shards of an index and the items of a distributed checkpoint, each a checkpoint of its own. ``read_payload``
    gives what lies beside the tensors of the choice, where that was asked for and the format can have it.
    """

    path: str
    format: str
    size: int
    candidates: tuple[Candidate, ...]
    choice: Candidate | FormatError
    raw: Mapping[str, Mapping[str, RawTensor]]  # candidate path -> key -> bytes
    globals: tuple[Global, ...] = ()
    siblings: Mapping[str, str] = field(default_factory=dict)
    details: Mapping[str, str] = field(default_factory=dict)
    remarks: tuple[Remark, ...] = ()
    source: ByteSource | None = None
    records: Mapping[str, Record] = field(default_factory=dict)
    parts: tuple[Checkpoint, ...] = ()
    read_payload: Callable[[], Payload] | None = None

    @property
    def manifest(self) -> Manifest:
        """The chosen state dict. Raises FormatError (CKPT006) where there is none, or several and no choice."""
        return self.chosen.manifest

    @property
    def chosen(self) -> Candidate:
        """The chosen candidate; raises as ``manifest`` does."""
        if isinstance(self.choice, FormatError):
            raise self.choice
        return self.choice

    def tensor(self, key: str) -> RawTensor:
        """Return where the bytes of ``key`` of the chosen state dict lie."""
        return self.raw[self.chosen.path][key]
