"""What every format gives back: an open Checkpoint, its candidate state dicts and raw tensor bytes.

Nothing here knows a format. Readers (one file per format) turn bytes into a ``Checkpoint``.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping

from ..errors import FormatError, UsageError
from ..manifest import Manifest, TensorSpec
from ..records import dataclass, field

MIB = 1 << 20


@dataclass(frozen=True)
class Limits:
    """How much a file may ask for before it is refused. All are counts or bytes; override by ``replace``."""

    pickle_bytes: int = 256 * MIB
    pickle_opcodes: int = 50_000_000
    memo_entries: int = 10_000_000
    stack_depth: int = 10_000_000
    open_marks: int = 10_000
    string_bytes: int = 16 * MIB
    key_bytes: int = 4096
    global_bytes: int = 512
    nesting: int = 512
    dimensions: int = 64
    zip_entries: int = 1_000_000
    zip_directory_bytes: int = 256 * MIB
    zip_name_bytes: int = 1024
    small_record_bytes: int = 4096
    safetensors_header_bytes: int = 100_000_000
    index_bytes: int = 64 * MIB


DEFAULT_LIMITS = Limits()


class ByteSource:
    """A regular file, opened once and read by position: nobody can swap the file between two reads.

    ``read`` raises FormatError where the file ends early. Sizes and offsets are bytes.
    """

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

    def read(self, offset: int, length: int) -> bytes:
        """Return exactly ``length`` bytes from ``offset``."""
        if offset < 0 or length < 0 or offset + length > self.size:
            raise FormatError(
                self.path,
                f"ends early: bytes {offset:,} to {offset + length:,} are needed, the file has {self.size:,}",
                "download it again; the copy is incomplete",
            )
        parts = []
        while length:
            part = os.pread(self._fd, length, offset)
            if not part:
                raise FormatError(self.path, "was cut short while it was read", "read it again once it is written")
            parts.append(part)
            offset += len(part)
            length -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def close(self) -> None:
        """Close the file; reading afterwards is an error of the caller."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __del__(self) -> None:
        self.close()


@dataclass(frozen=True)
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
    member or stream part, ``offset`` the byte of the opcode inside it.
    """

    name: str
    verdict: str
    member: str
    offset: int


@dataclass(frozen=True)
class Checkpoint:
    """An open checkpoint file: what it holds, without its values.

    ``format`` is one of ``torch-zip``, ``torch-legacy``, ``torch-tar``, ``torchscript``, ``safetensors``,
    ``sharded-safetensors``, ``sharded-torch``. ``details`` are facts about the container for people
    (``{"byteorder": "little"}``). ``siblings`` names what lies beside the chosen state dict, with its type.
    ``choice`` is the state dict to use, or the error that says why none could be chosen.
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
