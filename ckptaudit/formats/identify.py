"""What a file is, by its bytes and never by its name: one of our formats, or a stranger it names.

Names lie: real checkpoints are called ``.pkl``, ``.tar``, ``.dat`` or nothing at all, and a ``.pth`` may
be a web page.
"""

from __future__ import annotations

import re
from typing import Literal

from ..errors import FormatError
from ..records import dataclass
from .base import ByteSource, Limits, over_limit

Kind = Literal["torch-zip", "torch-legacy", "torch-tar", "safetensors", "index", "manifest", "pickle"]

_HEAD = 4096
_TAR_BLOCK = 512
_LEGACY_MAGIC = (0x1950A86A20F9469CFC6C).to_bytes(10, "little")  # torch.serialization.MAGIC_NUMBER
_LEGACY_MAGIC_WITHIN = 32  # PROTO, a FRAME and LONG1 come before it
_TEXT_PICKLE = rb"\((?:[dl]p|[ci]\w)|c[\w.]+\n[\w.]+\n|[IF]-?\d|S['\"]|[\]}]q"
_LONGEST_MESSAGE = 1 << 16  # bytes of a server's error
_ZIP_END = b"PK\x05\x06"
_ZIP_TAIL = 22 + 0xFFFF  # the end record and the longest comment
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
_AGAIN = "download or copy it again; this copy is incomplete"
_TWO_HINT = "do not load it; ask where it comes from"
_UNKNOWN_HINT = "get the file that torch.save or safetensors wrote, and check that its download was complete"


@dataclass(frozen=True)
class _Stranger:
    """A file format that holds no checkpoint of ours; ``hint`` may name the file as ``{file}``."""

    magic: bytes
    offset: int
    what: str
    hint: str


_UNPACK = "unpack it first: {command} -dc {{file}} > checkpoint, then name the unpacked file"
_EXPORT = "use the checkpoint it was converted from, or convert it to safetensors with the tool that wrote it"
_NUMPY = "read it with numpy.load and save a state dict with safetensors.torch.save_file"
_WEB_PAGE = "download it from the link to the raw file; this link answered with a web page"
_NOT_WEIGHTS = "check the download link or the path; this file holds no weights"
_STRANGERS = (
    _Stranger(b"\x1f\x8b", 0, "a gzip archive", _UNPACK.format(command="gzip")),
    _Stranger(b"BZh", 0, "a bzip2 archive", _UNPACK.format(command="bzip2")),
    _Stranger(b"\xfd7zXZ\0", 0, "an xz archive", _UNPACK.format(command="xz")),
    _Stranger(b"\x28\xb5\x2f\xfd", 0, "a zstd archive", _UNPACK.format(command="zstd")),
    _Stranger(b"PK\x05\x06", 0, "an empty zip archive", _AGAIN),
    _Stranger(b"7z\xbc\xaf\x27\x1c", 0, "a 7z archive", "unpack it first: 7z x {file}"),
    _Stranger(b"Rar!\x1a\x07", 0, "a RAR archive", "unpack it first: unrar x {file}"),
    _Stranger(b"GGUF", 0, "a GGUF file (llama.cpp)", _EXPORT),
    _Stranger(b"\x89HDF\r\n\x1a\n", 0, "an HDF5 file (Keras, TensorFlow)", _EXPORT),
    _Stranger(b"ET12", 4, "an ExecuTorch program (.pte)", _EXPORT),
    _Stranger(b"TFL3", 4, "a TensorFlow Lite model", _EXPORT),
    _Stranger(
        b"\x93NUMPY",
        0,
        "a NumPy array (.npy)",
        _NUMPY,
    ),
    _Stranger(b"\x7fELF", 0, "an ELF executable or library", _NOT_WEIGHTS),
    _Stranger(b"MZ\x90\0", 0, "a Windows executable", _NOT_WEIGHTS),
    _Stranger(b"\x89PNG\r\n\x1a\n", 0, "a PNG image", _NOT_WEIGHTS),
    _Stranger(b"%PDF-", 0, "a PDF document", _NOT_WEIGHTS),
)


def identify(source: ByteSource, limits: Limits) -> Kind:
    """Say which reader a file belongs to, from its first bytes.

    A damaged file of a known format is that format: its reader says what is wrong with it. Raises
    FormatError (CKPT001) for everything else, with a sentence that says what the file is instead.
    """
    head = source.read(0, min(_HEAD, source.size))
    kind = _kind(source, head, limits)
    if kind is None:
        raise _stranger(source, head)
    return kind


def _kind(source: ByteSource, head: bytes, limits: Limits) -> Kind | None:
    # First, as the length of a safetensors header may begin like anything: 67,324,752 reads PK\3\4.
    if head[8:9] == b"{" and head[4:8] == bytes(4):
        if head.startswith(b"PK\x03\x04") and _may_end_as_zip(source):
            raise FormatError(source.path, "is a safetensors file and a zip archive at once", _TWO_HINT, code="CKPT002")
        return "safetensors"
    if head.startswith(b"PK\x03\x04"):
        return "torch-zip"
    if _is_tar(head):  # before the stream, as in torch: the header of a tar can hold the beginning of one
        return "torch-tar"
    if head.startswith(b"\x80") and _LEGACY_MAGIC in head[:_LEGACY_MAGIC_WITHIN]:
        return "torch-legacy"
    return _kind_of_text(source, head, limits) or ("pickle" if _is_pickle(source, head) else None)


def _may_end_as_zip(source: ByteSource) -> bool:
    length = min(source.size, _ZIP_TAIL)
    return _ZIP_END in source.read(source.size - length, length)


def _kind_of_text(source: ByteSource, head: bytes, limits: Limits) -> Kind | None:
    if head.lstrip()[:1] in (b"{", b"["):
        return _json_kind(source, limits)
    if head[8:9] == b"{" and not _stranger_row(head):
        return "safetensors"  # with an impossible length, as its reader will say
    return None


def _is_tar(head: bytes) -> bool:
    """Tell a tar by its magic, or by the checksum of its first header (old tars have no magic).

    Every way is tried in which Python's tarfile, and so torch, may read the checksum.
    """
    if len(head) < _TAR_BLOCK or not head[0]:
        return False
    if head[257:262] == b"ustar":
        return True
    summed = head[:148] + b" " * 8 + head[156:_TAR_BLOCK]
    negative = sum(byte > 127 for byte in summed) * 256  # for those who sum up signed bytes
    return _tar_number(head[148:156]) in (sum(summed), sum(summed) - negative)


def _tar_number(field: bytes) -> int | None:
    """Read a number in octal digits or in binary."""
    if field[0] in (0x80, 0xFF):
        return int.from_bytes(field[1:], "big") - (256 ** (len(field) - 1) if field[0] == 0xFF else 0)
    try:
        return int(field.partition(b"\0")[0].decode("ascii").strip() or "0", 8)
    except ValueError:
        return None


def _json_kind(source: ByteSource, limits: Limits) -> Kind:
    if source.size > limits.index_bytes:
        reason = f"is not read: it is a JSON file of {source.size:,} bytes"
        raise over_limit(source.path, reason, "index_bytes", limits, source.size)
    text = source.read(0, source.size)
    if b'"ckptaudit.manifest/' in text:
        return "manifest"
    if b'"weight_map"' in text:
        return "index"
    message = _error_message(text) if len(text) <= _LONGEST_MESSAGE else None
    if message is not None:
        raise _is_no_checkpoint(source, f"a JSON error message ({message!r})", _NOT_WEIGHTS)
    raise _is_no_checkpoint(source, "a JSON file without a weight_map", _NOT_WEIGHTS)


def _error_message(text: bytes) -> str | None:
    """Return the message of a server's JSON error, or None."""
    import json

    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(data, dict):
        return None
    messages = [data[name] for name in ("error", "message", "detail") if isinstance(data.get(name), str)]
    return messages[0][:80] if messages else None


def _stranger(source: ByteSource, head: bytes) -> FormatError:
    """Word the error for a file that is in no format of ours."""
    if not head:
        return FormatError(source.path, "is empty (0 bytes)", _AGAIN)
    if not any(head):
        return FormatError(source.path, f"begins with {len(head):,} zero bytes: it was never written", _AGAIN)
    row = _stranger_row(head)
    if row is not None:
        return _is_no_checkpoint(source, row.what, row.hint)
    if head.startswith(_LFS_POINTER):
        return _lfs_pointer(source, head)
    if _ends_like_zip(source):
        reason = "is a zip archive that does not begin at the first byte; torch.save writes no such file"
        return FormatError(source.path, reason, "get it again from its source; do not load it")
    return _guess(source, head)


def _guess(source: ByteSource, head: bytes) -> FormatError:
    """Word the error for formats without a magic number, from the likely to the unknown."""
    protobuf = head[:1] == b"\x08" and head[2:3] == b"\x12" and 0 < head[1] < 32
    msgpack = 0x80 < head[0] < 0x90 and b"params" in head[:32]
    for found, what, hint in (
        (_is_html(head), "a web page (HTML)", _WEB_PAGE),
        (protobuf, "a protobuf file, as ONNX models are", _EXPORT),
        (msgpack, "a msgpack file, as Flax checkpoints are", _EXPORT),
        (source.size > 8 and _is_text(head), "a text file", _NOT_WEIGHTS),
    ):
        if found:
            return _is_no_checkpoint(source, what, hint)
    if source.size <= 8:
        return FormatError(source.path, f"ends early: it has {source.size} bytes", _AGAIN)
    begins = head[:8].hex(" ")
    return FormatError(source.path, f"is in no known checkpoint format: it begins with {begins}", _UNKNOWN_HINT)


def _stranger_row(head: bytes) -> _Stranger | None:
    return next((row for row in _STRANGERS if head.startswith(row.magic, row.offset)), None)


def _lfs_pointer(source: ByteSource, head: bytes) -> FormatError:
    size = re.search(rb"\nsize (\d{1,18})\n", head)
    content = f"a file of {int(size[1]):,} bytes" if size else "the file"
    reason = f"is a git-lfs pointer to {content}, not the file itself"
    return FormatError(source.path, reason, "git lfs pull")


def _is_html(head: bytes) -> bool:
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")[:256].lower()
    return start.startswith((b"<!doctype", b"<html", b"<head", b"<body", b"<?xml", b"<!--"))


def _ends_like_zip(source: ByteSource) -> bool:
    length = 22  # of the end record without a comment
    return source.size >= length and source.read(source.size - length, 4) == _ZIP_END


def _is_pickle(source: ByteSource, head: bytes) -> bool:
    if head[:1] == b"\x80" and 2 <= head[1:2].ljust(1, b"\0")[0] <= 5:
        return True
    return re.match(_TEXT_PICKLE, head) is not None and source.read(source.size - 1, 1) == b"."


def _is_text(head: bytes) -> bool:
    try:
        text = head[:256].decode("utf-8", "strict" if len(head) <= 256 else "ignore")
    except UnicodeDecodeError:
        return False
    return all(char.isprintable() or char in "\t\r\n" for char in text)


def _is_no_checkpoint(source: ByteSource, what: str, hint: str) -> FormatError:
    from shlex import quote

    return FormatError(source.path, f"is {what}, not a checkpoint", hint.replace("{file}", quote(source.path)))
