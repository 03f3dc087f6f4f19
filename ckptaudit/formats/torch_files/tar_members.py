"""The members of a tar file, walked strictly: plain ustar headers, and pax records that rename nothing."""

from __future__ import annotations

from typing import NamedTuple

from ...errors import FormatError
from ..base import ByteSource, Limits

_BLOCK = 512
_MAX_MEMBERS = 64
_MAX_PADDING = 1 << 20  # zero bytes behind the end; tarfile fills up a record of 10,240
_PAX_KEYS = frozenset({"atime", "comment", "ctime", "gid", "gname", "mtime", "size", "uid", "uname"})
_HINT = "get the file again from its source; torch.save writes no such tar"
_CUT_HINT = "download or copy it again; this copy is incomplete"


class Member(NamedTuple):
    """Where the bytes of one member lie in the file."""

    start: int
    end: int


def tar_members(source: ByteSource, limits: Limits) -> dict[str, Member]:
    """Return the members by name, in the order of the file. Only headers are read; nothing is unpacked.

    Raises FormatError: CKPT001 where the file ends early, CKPT704 for data behind the end, and CKPT002 for
    links, devices, repeated names, wrong checksums and everything else that tar programs disagree about.
    """
    members: dict[str, Member] = {}
    position = 0
    pax: dict[str, str] | None = None
    while True:
        header = _read(source, position, _BLOCK, "a tar header")
        position += _BLOCK
        if not any(header):
            break
        size = _number(source, header[124:136])
        _check_sum(source, header)
        name, kind = _name(source, header), header[156:157]
        if kind == b"x" and pax is None:  # of two in a row, one program takes the first, and another the last
            pax = _pax_records(source, position, size, limits)
        elif kind in (b"0", b"\0"):
            size = _pax_size(source, pax or {}, size)
            if name in members or len(members) == _MAX_MEMBERS:
                raise _broken(source, f"has two members {name!r}, or more than {_MAX_MEMBERS} of any name")
            members[name], pax = Member(position, position + size), None
        else:
            raise _broken(source, f"has the member {name!r}, which is no plain file")
        position += -(-size // _BLOCK) * _BLOCK
    if pax is not None:
        raise _broken(source, "ends behind a pax header, which describes nothing")
    _check_end(source, position)
    return members


def _read(source: ByteSource, position: int, length: int, what: str) -> bytes:
    if position + length > source.size:
        reason = f"ends early: {what} needs {length:,} bytes at byte {position:,}, the file has {source.size:,}"
        raise FormatError(source.path, reason, _CUT_HINT)
    return source.read(position, length)


def _number(source: ByteSource, field: bytes) -> int:
    """Read an octal field; tar's binary form for larger numbers has no place in a torch file.

    A number that begins with a zero byte is 0 to Python's tarfile, whatever follows.
    """
    digits = field.rstrip(b" \0").lstrip(b" ")
    if not digits or not set(digits) <= set(b"01234567"):
        raise _broken(source, "has a tar header with a number that is not octal")
    return int(digits, 8)


def _check_sum(source: ByteSource, header: bytes) -> None:
    stated = _number(source, header[148:156])
    if stated != sum(header[:148]) + 8 * ord(" ") + sum(header[156:]):
        raise _broken(source, "has a tar header with a wrong checksum")


def _name(source: ByteSource, header: bytes) -> str:
    name = header[:100].partition(b"\0")[0]
    prefix = header[345:500].partition(b"\0")[0]  # whatever the magic says, as tarfile has it
    try:
        text = (prefix + b"/" + name if prefix else name).decode("ascii")
    except UnicodeDecodeError:
        raise _broken(source, "has a tar member whose name is not ASCII") from None
    if not text.isprintable() or not text:
        raise _broken(source, "has a tar member without a printable name")
    return text


def _pax_records(source: ByteSource, position: int, size: int, limits: Limits) -> dict[str, str]:
    """Read the ``LENGTH KEY=VALUE`` lines that describe the next member."""
    if size > limits.small_record_bytes:
        raise _broken(source, f"has a pax header of {size:,} bytes, the limit is {limits.small_record_bytes:,}")
    data = _read(source, position, size, "a pax header")
    records: dict[str, str] = {}
    while data:
        digits, _, _ = data.partition(b" ")
        length = int(digits) if digits.isdigit() and len(digits) < 6 else 0
        line, data = data[len(digits) + 1 : length], data[length:]
        key, equals, value = line.decode("utf-8", "replace").partition("=")
        whole = len(digits) + 1 + len(line) == length and value.endswith("\n")
        if not (equals and whole) or key in records:
            raise _broken(source, "has a pax header with a record that is none")
        if key not in _PAX_KEYS:
            raise _broken(source, f"has a pax header that sets {key!r}")
        records[key] = value[:-1]
    return records


def _pax_size(source: ByteSource, pax: dict[str, str], size: int) -> int:
    text = pax.get("size", str(size))
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise _broken(source, "has a pax header with a size that is no number")
    return int(text)


def _check_end(source: ByteSource, position: int) -> None:
    """Check that the second empty block and padding follow, and nothing else."""
    rest = source.size - position
    if rest > _MAX_PADDING or any(source.read(position, rest)):
        raise FormatError(source.path, "has data behind the end of its tar archive", _HINT, code="CKPT704")


def _broken(source: ByteSource, reason: str) -> FormatError:
    return FormatError(source.path, reason, _HINT, code="CKPT002")
