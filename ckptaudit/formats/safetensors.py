"""safetensors: a JSON header with names, dtypes, shapes and offsets, then the bytes of the tensors.

Layout, as the format's README and its reference reader (safetensors 0.8.0) have it: a little-endian u64
with the length of the header, the header, and the tensors without a hole between them. Only the header is
read. What the reference reader rejects is rejected here; repeated names, entries with other fields than the
three of the format, and a header that does not start at once are rejected too.
"""

from __future__ import annotations

import json
from math import prod
from typing import Any, TypeGuard

from ..errors import FormatError
from ..manifest import TensorSpec
from .base import ByteSource, Candidate, Checkpoint, Limits, RawTensor, over_limit
from .choice import choose
from .noted import METADATA, noted_in
from .oddities import large_metadata
from .strict_json import RepeatedKey, strict_object, tokens_of

_LENGTH_BYTES = 8
_MAX_HEADER = 100_000_000  # of the reference reader
_METADATA = "__metadata__"
_FIELDS = ("dtype", "shape", "data_offsets")
_MAX_BYTES = 1 << 63
_MAX_DIGITS = 19  # a count below 2**63
_SHOWN_DIGITS = 24
_SHOWN = 80  # characters of a name
_HINT = "the file is damaged or was not written by the safetensors library; get it again from its source"
_CUT_HINT = "download or copy it again; this copy is incomplete"

_DTYPES: dict[str, tuple[str | None, int]] = {  # name in the file: torch's name (None: it has none), bits
    "BOOL": ("bool", 8),
    "F4": ("float4_e2m1fn_x2", 4),
    "F6_E2M3": (None, 6),
    "F6_E3M2": (None, 6),
    "U8": ("uint8", 8),
    "I8": ("int8", 8),
    "F8_E5M2": ("float8_e5m2", 8),
    "F8_E4M3": ("float8_e4m3fn", 8),
    "F8_E8M0": ("float8_e8m0fnu", 8),
    "F8_E4M3FNUZ": ("float8_e4m3fnuz", 8),
    "F8_E5M2FNUZ": ("float8_e5m2fnuz", 8),
    "I16": ("int16", 16),
    "U16": ("uint16", 16),
    "F16": ("float16", 16),
    "BF16": ("bfloat16", 16),
    "I32": ("int32", 32),
    "U32": ("uint32", 32),
    "F32": ("float32", 32),
    "C64": ("complex64", 64),
    "F64": ("float64", 64),
    "I64": ("int64", 64),
    "U64": ("uint64", 64),
}

NAMES = {name: written for written, (name, _) in _DTYPES.items() if name is not None}  # torch's name: that in the file


class _Entry:
    """One tensor of the header: names as in the file, ``begin`` and ``end`` in bytes after the header."""

    __slots__ = ("begin", "dtype", "end", "shape")

    def __init__(self, dtype: str, shape: tuple[int, ...], begin: int, end: int) -> None:
        self.dtype = dtype
        self.shape = shape
        self.begin = begin
        self.end = end


def read_safetensors(source: ByteSource, *, wanted: str, limits: Limits) -> Checkpoint:
    """Read the header of a safetensors file.

    Keys keep the header's order. Every tensor has a storage of its own, as the format has no ties; those that
    ``ckptaudit convert`` has noted in the metadata are restored. A tensor of a dtype that torch lacks (F6) is an
    entry of the manifest, by its name in the file. Raises FormatError: CKPT001 where the file ends early, CKPT003 where
    the header breaks the format, or its notes are broken.
    """
    header, start = _read_header(source, limits)
    if len(header) > limits.tensors:
        reason = f"holds {len(header):,} tensors"
        raise over_limit(source.path, reason, "tensors", limits, len(header))
    details = _metadata(source.path, header.pop(_METADATA)) if _METADATA in header else {}
    entries: dict[str, str] = {}
    raw: dict[str, RawTensor] = {}
    ranges: list[tuple[int, int, str]] = []
    dimensions = 0
    for key in list(header):
        entry = _entry(source.path, key, header.pop(key), limits)
        dimensions += len(entry.shape)
        if dimensions > limits.sizes:
            reason = f"holds more than {limits.sizes:,} dimensions of tensors together"
            raise over_limit(source.path, reason, "sizes", limits)
        ranges.append((entry.begin, entry.end, key))
        spec = _spec(source.path, key, entry)
        if spec is None:
            entries[key] = entry.dtype
        else:
            raw[key] = RawTensor(spec, source, start + entry.begin, entry.end - entry.begin)
    _check_ranges(source, start, ranges)
    noted = noted_in(source.path, details, raw, limits)
    manifest = noted.manifest({key: tensor.spec for key, tensor in raw.items()}, entries, source.path)
    only = Candidate("", "state_dict", manifest)
    choice = choose((only,), wanted=wanted, subject=source.path)
    size = source.size
    return Checkpoint(
        source.path,
        "safetensors",
        size,
        (only,),
        choice,
        {"": noted.raw},
        details=noted.details(details),
        remarks=tuple(large_metadata(details)),
        source=source,
        read_payload=lambda: noted.payload,
    )


def _read_header(source: ByteSource, limits: Limits) -> tuple[dict[str, object], int]:
    """Return the header's JSON object, and the offset of the first byte after it."""
    if source.size < _LENGTH_BYTES:
        raise _cut(source, f"the length of a safetensors header takes {_LENGTH_BYTES}")
    length = int.from_bytes(source.read(0, _LENGTH_BYTES), "little")
    start = _LENGTH_BYTES + length
    what = f"has a safetensors header of {length:,} bytes"
    if length > _MAX_HEADER:
        raise _invalid(source.path, f"{what}, the limit of the format is {_MAX_HEADER:,}")
    if start > source.size:
        raise _cut(source, f"its safetensors header ends at byte {start:,}")
    if length > limits.safetensors_header_bytes:
        raise over_limit(source.path, what, "safetensors_header_bytes", limits, length)
    return _parse(source.path, _decode(source.path, source.read(_LENGTH_BYTES, length), limits)), start


def _decode(path: str, data: bytes, limits: Limits) -> str:
    if tokens_of(data) > limits.json_tokens:
        what = f"has a safetensors header of more than {limits.json_tokens:,} JSON tokens"
        raise over_limit(path, what, "json_tokens", limits)
    if not data.startswith(b"{"):
        raise _invalid(path, "has a safetensors header that does not begin with '{'")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        fault = f"{error.reason} at byte {error.start}"
        raise _invalid(path, f"has a safetensors header that is not UTF-8: {fault}") from None


def _parse(path: str, text: str) -> dict[str, object]:
    """Return the header, a JSON object: its text begins with a brace."""

    def number(digits: str) -> FormatError:
        shown = digits if len(digits) <= _SHOWN_DIGITS else digits[:_SHOWN_DIGITS] + "..."
        return _invalid(path, f"has a safetensors header with the number {shown}, where only counts can be")

    def integer(digits: str) -> int:
        if len(digits) > _MAX_DIGITS or digits.startswith("-"):
            raise number(digits)
        return int(digits)

    def real(digits: str) -> float:
        raise number(digits)

    def constant(name: str) -> float:
        raise _invalid(path, f"has a safetensors header that is not JSON: {name} is no number")

    try:
        header = json.loads(
            text,
            object_pairs_hook=_object,
            parse_int=integer,
            parse_float=real,
            parse_constant=constant,
        )
    except ValueError as error:
        raise _invalid(path, f"has a safetensors header that is not JSON: {error}") from None
    except RecursionError:
        raise _invalid(path, "has a safetensors header that is nested too deeply") from None
    if isinstance(header, RepeatedKey):
        raise _invalid(path, f"names {header.key!r} twice")
    whole: dict[str, object] = _unpacked(header)
    return whole


def _object(pairs: list[tuple[str, object]]) -> object:
    """Build one JSON object. What has the fields of a tensor becomes a tuple of them, which takes a third of a dict."""
    if len(pairs) == len(_FIELDS):
        (first, dtype), (second, shape), (third, offsets) = pairs
        if (first, second, third) == _FIELDS:
            return dtype, shape, offsets
    return strict_object(pairs)


def _unpacked(value: Any) -> Any:
    """Return an object that happens to have the names of the fields as the dict that it is."""
    return dict(zip(_FIELDS, value, strict=True)) if isinstance(value, tuple) else value


def _metadata(path: str, value: object) -> dict[str, str]:
    value = _unpacked(value)
    if isinstance(value, RepeatedKey):
        raise _invalid(path, f"names the metadata {value.key!r} twice")
    if not isinstance(value, dict):
        raise _invalid(path, "has metadata that are no JSON object")
    for key, text in value.items():
        if not (isinstance(text, str) and _encodes(key) and _encodes(text)):
            raise _invalid(path, f"has the metadata {key[:_SHOWN]!r}, which are no text")
    return {f"{METADATA}{key}": text for key, text in value.items()}


def _entry(path: str, key: str, value: object, limits: Limits) -> _Entry:
    """Check the form of one tensor's entry; whether its numbers fit together is checked later."""
    _check_key(path, key, limits)
    if isinstance(value, tuple):
        return _checked_entry(path, key, value, limits)
    if isinstance(value, RepeatedKey):
        raise _invalid(path, f"has the tensor {key!r}, which names its field {value.key!r} twice")
    if not isinstance(value, dict):
        raise _invalid(path, f"describes the tensor {key!r} by something else than a JSON object")
    for field in _FIELDS:
        if field not in value:
            raise _invalid(path, f"has the tensor {key!r} without {field}")
    if len(value) > len(_FIELDS):
        unknown = next(field for field in value if field not in _FIELDS)
        raise _invalid(path, f"has the tensor {key!r} with the unknown field {unknown[:_SHOWN]!r}")
    return _checked_entry(path, key, tuple(value[field] for field in _FIELDS), limits)


def _checked_entry(path: str, key: str, fields: tuple[object, ...], limits: Limits) -> _Entry:
    dtype, shape, offsets = fields
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        shown = type(dtype).__name__ if isinstance(dtype, dict | list | tuple) else repr(dtype)[:_SHOWN]
        raise _invalid(path, f"has the tensor {key!r} of the unknown dtype {shown}")
    if not _are_counts(shape):
        raise _invalid(path, f"has the tensor {key!r}, whose shape is no list of sizes")
    if len(shape) > limits.dimensions:
        reason = f"has the tensor {key!r} of {len(shape):,} dimensions"
        raise over_limit(path, reason, "dimensions", limits, len(shape))
    if not _are_counts(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise _invalid(path, f"has the tensor {key!r}, whose data_offsets are not a begin and an end")
    return _Entry(dtype, tuple(shape), *offsets)


def _check_key(path: str, key: str, limits: Limits) -> None:
    if not _encodes(key):
        raise _invalid(path, f"names the tensor {key[:_SHOWN]!r}, which is no valid text")
    length = len(key) if key.isascii() else len(key.encode())
    if length > limits.key_bytes:
        reason = f"has a tensor name of {length:,} bytes ({key[:40]!r}...)"
        raise over_limit(path, reason, "key_bytes", limits, length)


def _encodes(text: str) -> bool:
    """Tell whether UTF-8 can hold the text: JSON escapes may name half of a surrogate pair."""
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            return False
    return True


def _are_counts(value: object) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(item) is int for item in value)


def _spec(path: str, key: str, entry: _Entry) -> TensorSpec | None:
    """Return the tensor as torch sees it, or None where torch has no such dtype."""
    name, bits = _DTYPES[entry.dtype]

    def invalid(what: str) -> FormatError:
        label = f"the tensor {key!r} ({entry.dtype}, shape {'x'.join(map(str, entry.shape)) or '()'})"
        return _invalid(path, f"has {label}{what}")

    if prod(size or 1 for size in entry.shape) * bits >= 8 * _MAX_BYTES:
        raise invalid(", which is too large to exist")
    nbytes, rest = divmod(prod(entry.shape) * bits, 8)
    if rest:
        raise invalid(", which ends inside a byte")
    if nbytes != entry.end - entry.begin:
        raise invalid(f" in {entry.end - entry.begin:,} bytes, its shape needs {nbytes:,}")
    shape = entry.shape
    if entry.dtype == "F4":  # torch packs two F4 numbers into one element of its last dimension
        if shape[-1] % 2:
            raise invalid(", whose last size is not even, as torch's pairs of F4 need it")
        shape = (*shape[:-1], shape[-1] // 2)
    if name is None:
        return None
    return TensorSpec(shape, name, stride=_row_major(shape), storage=key, storage_nbytes=nbytes)


def _row_major(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return torch's stride of a contiguous tensor: sizes of 0 count as 1."""
    stride = []
    step = 1
    for size in reversed(shape):
        stride.append(step)
        step *= size or 1
    return tuple(reversed(stride))


def _check_ranges(source: ByteSource, start: int, ranges: list[tuple[int, int, str]]) -> None:
    """Check that the tensors cover every byte after the header exactly once."""
    path, covered, owner = source.path, 0, ""
    for begin, end, key in sorted(ranges):
        if begin > covered:
            raise _invalid(path, f"has {_bytes(begin - covered)} of no tensor before the tensor {key!r}")
        if begin < covered:
            overlap = _bytes(min(covered, end) - begin)
            raise _invalid(path, f"has the tensor {key!r}, which overlaps the tensor {owner!r} by {overlap}")
        covered, owner = end, key
    if start + covered > source.size:
        raise _cut(source, f"its tensors end at byte {start + covered:,}")
    if start + covered < source.size:
        rest = _bytes(source.size - start - covered)
        raise _invalid(path, f"has {rest} of no tensor after the last one")


def _bytes(count: int) -> str:
    return f"{count:,} byte" + ("" if count == 1 else "s")


def _cut(source: ByteSource, needed: str) -> FormatError:
    return FormatError(source.path, f"ends early: it has {_bytes(source.size)}, {needed}", _CUT_HINT)


def _invalid(path: str, reason: str) -> FormatError:
    return FormatError(path, reason, _HINT, code="CKPT003")
