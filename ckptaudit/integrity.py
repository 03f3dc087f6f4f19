"""``scan --integrity``: every byte is read once, against its checksum and for values that no weights should have.

torch.load checks no checksum, so a flipped bit loads in silence. Needs numpy, and no torch.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator

from .errors import FormatError
from .formats.base import MIB, ByteSource, Checkpoint, Limits, RawTensor, Record
from .records import dataclass, field
from .rules import Finding
from .rules.files import CORRUPT_ARCHIVE, WEIGHTS_NEVER_WRITTEN
from .rules.tensors import NON_FINITE_VALUE

Progress = Callable[[int, int], None]

# dtype: bytes of a word, the bits that tell, and what they are in a NaN or an infinity (IEEE 754; for eight bits
# the OCP formats and their fnuz variants). The tests compare every value of every row with torch.isfinite.
_NON_FINITE = {
    "float64": (8, 0x7FF0000000000000, 0x7FF0000000000000),
    "float32": (4, 0x7F800000, 0x7F800000),
    "float16": (2, 0x7C00, 0x7C00),
    "bfloat16": (2, 0x7F80, 0x7F80),
    "float8_e5m2": (1, 0x7C, 0x7C),
    "float8_e4m3fn": (1, 0x7F, 0x7F),
    "float8_e4m3fnuz": (1, 0xFF, 0x80),
    "float8_e5m2fnuz": (1, 0xFF, 0x80),
    "float8_e8m0fnu": (1, 0xFF, 0xFF),
}
_PART_OF = {"complex128": "float64", "complex64": "float32", "complex32": "float16", "bcomplex32": "bfloat16"}
_SMALL = 1024  # bytes; that so few are all zero says nothing
_SHOWN = 3  # names in a sentence


@dataclass(eq=False)
class _Region:
    """Bytes that are read in one go: a record of an archive, or the memory of a tensor, with what was seen."""

    source: ByteSource
    offset: int
    size: int
    record: Record | None = None
    tensors: dict[str, RawTensor] = field(default_factory=dict)
    crc: int = 0
    blank: bool = True  # every byte is zero
    suspect: bool = False  # a word is no finite number, read as the dtype of the tensors

    @property
    def keys(self) -> list[str]:
        """What a finding about it names: its tensors, or the record."""
        return list(self.tensors) or ([self.record.name] if self.record else [])

    @property
    def unsigned(self) -> bool:
        """True where the archive records no checksum for bytes that have one."""
        return self.record is not None and self.record.crc == 0 and self.crc != 0


def check_integrity(checkpoint: Checkpoint, *, limits: Limits, progress: Progress | None = None) -> Iterator[Finding]:
    """Read every record and every tensor of an open checkpoint and yield what is wrong with them.

    Checksums are those of zip archives; other formats have none. ``progress(done, total)`` is told the bytes
    read so far. Raises FormatError where the file ends early, or a packed record is over a limit.
    """
    regions = [region for part in checkpoint.parts or (checkpoint,) for region in _regions(part)]
    total, done = sum(region.size for region in regions), 0
    reader = _Reader()
    for region in regions:
        for size in reader.read(region, limits):
            done += size
            if progress is not None:
                progress(done, total)
    yield from _checksums(regions)
    yield from _never_written(regions)
    yield from _non_finite(regions, reader)


def _regions(checkpoint: Checkpoint) -> list[_Region]:
    """Return what is to be read, in the order of the file, with the tensors that look at it."""
    found: dict[int, _Region] = {}
    if checkpoint.source is not None:
        for record in checkpoint.records.values():
            found[record.offset] = _Region(checkpoint.source, record.offset, record.size, record)
    for raws in checkpoint.raw.values():
        for key, raw in raws.items():
            region = found.setdefault(raw.offset, _Region(raw.source, raw.offset, raw.nbytes))
            region.tensors[key] = raw
    return [found[offset] for offset in sorted(found)]


class _Reader:
    """Reads regions through one buffer, so that memory does not depend on the size of the file."""

    def __init__(self) -> None:
        import numpy

        self.numpy = numpy
        self.buffer = memoryview(bytearray(MIB))
        self.words = numpy.empty(MIB, numpy.uint8)

    def read(self, region: _Region, limits: Limits) -> Iterator[int]:
        """Read a region to its end and note what is seen there; yield the bytes of each step."""
        if region.record is not None and not region.record.stored:
            region.crc = _packed_crc(region, limits)
            region.blank = False
            yield region.size
            return
        word = _word_of(region)
        for start in range(0, region.size, MIB):
            chunk = self.chunk(region, start, region.size)
            if region.record is not None:
                region.crc = zlib.crc32(chunk, region.crc)
            region.blank = region.blank and self.is_blank(chunk)
            if word is not None and not region.suspect and not region.blank:
                region.suspect = self.count(chunk, word) > 0
            yield len(chunk)

    def chunk(self, region: _Region, start: int, end: int) -> memoryview:
        """Return the bytes from ``start`` on, at most a buffer full."""
        chunk = self.buffer[: min(MIB, end - start)]
        region.source.read_into(region.offset + start, chunk)
        return chunk

    def is_blank(self, chunk: memoryview) -> bool:
        """Tell whether every byte is zero."""
        whole = len(chunk) // 8 * 8
        return not (any(chunk[whole:]) or self.numpy.frombuffer(chunk[:whole], "u8").any())

    def count(self, chunk: memoryview, word: _Word) -> int:
        """Count the words that are no finite numbers."""
        numpy = self.numpy
        whole = len(chunk) // word.size * word.size
        values = numpy.frombuffer(chunk[:whole], word.layout)
        masked = self.words[:whole].view(word.layout)
        numpy.bitwise_and(values, values.dtype.type(word.mask), out=masked)
        return int(numpy.count_nonzero(masked == values.dtype.type(word.pattern)))


@dataclass(frozen=True)
class _Word:
    """How to tell a NaN or an infinity of one dtype by its bits. ``layout`` is numpy's name of the word."""

    layout: str
    size: int
    mask: int
    pattern: int


def _word_of(region: _Region) -> _Word | None:
    raw = next(iter(region.tensors.values()), None)
    return _word(raw) if raw is not None else None


def _word(raw: RawTensor) -> _Word | None:
    row = _NON_FINITE.get(_PART_OF.get(raw.spec.dtype, raw.spec.dtype))
    return _Word(f"{'>' if raw.byteorder == 'big' else '<'}u{row[0]}", *row) if row else None


def _packed_crc(region: _Region, limits: Limits) -> int:
    """Return the checksum of what a deflated record unpacks to."""
    unpacker, crc, unpacked = zlib.decompressobj(-zlib.MAX_WBITS), 0, 0
    packed = region.source.read(region.offset, min(region.size, limits.string_bytes))
    while packed:
        try:
            plain = unpacker.decompress(packed, MIB)
        except zlib.error:
            return ~region.record.crc & 0xFFFFFFFF if region.record else 0
        crc, packed, unpacked = zlib.crc32(plain, crc), unpacker.unconsumed_tail, unpacked + len(plain)
        if unpacked > limits.string_bytes:
            name = region.record.name if region.record else ""
            reason = f"has the record {name!r}, which unpacks to more than {limits.string_bytes:,} bytes"
            raise FormatError(region.source.path, reason, "check where the file comes from", code="CKPT703")
    return crc


# -- what is wrong -----------------------------------------------------------------------------------------------


def _checksums(regions: Iterable[_Region]) -> Iterator[Finding]:
    wrong = [r for r in regions if r.record is not None and r.record.crc not in (0, r.crc)]
    if wrong:
        names = [r.record.name for r in wrong if r.record is not None]
        reason = f"{_counted(len(wrong), 'record')} not what was written: the checksum of {_listed(names)} is wrong"
        yield Finding(CORRUPT_ARCHIVE, _keys(wrong), data={"reason": reason})


def _never_written(regions: list[_Region]) -> Iterator[Finding]:
    """Find the memory of tensors that nobody filled: torch's ``skip_data`` leaves it out, with a checksum of 0.

    Zeros that were written look the same where the file has no checksums; they count as never written where
    all tensors are zero, or where the file system says that nothing was ever stored there.
    """
    tensors = [r for r in regions if r.tensors and r.size]
    blank = [r for r in tensors if r.blank and (r.record is None or r.unsigned)]
    if len(blank) != len(tensors) or sum(r.size for r in blank) < _SMALL:
        blank = [r for r in blank if r.source.data_from(r.offset) >= r.offset + r.size]
    if blank:
        size = sum(r.size for r in blank)
        yield Finding(WEIGHTS_NEVER_WRITTEN, _keys(blank), data={"size": size})


def _non_finite(regions: Iterable[_Region], reader: _Reader) -> Iterator[Finding]:
    """Count again, tensor by tensor, where some word of a storage is no finite number."""
    rows = []
    for region in regions:
        for key, raw in region.tensors.items() if region.suspect else ():
            if (word := _word(raw)) is not None and (count := _count(region, raw, word, reader)):
                rows.append((key, raw.spec.dtype, f"{count:,} of {raw.spec.numel:,}"))
    if rows:
        yield Finding(NON_FINITE_VALUE, tuple(row[0] for row in rows), rows=tuple(rows))


def _count(region: _Region, raw: RawTensor, word: _Word, reader: _Reader) -> int:
    """Count the values of one tensor; of one that skips elements, those between its first and last one."""
    spec = raw.spec
    if 0 in spec.shape:
        return 0
    itemsize = word.size * (2 if spec.dtype in _PART_OF else 1)
    last = sum((size - 1) * step for size, step in zip(spec.shape, spec.stride or (), strict=True))
    start = spec.storage_offset * itemsize
    end = start + (last + 1) * itemsize
    return sum(reader.count(reader.chunk(region, at, end), word) for at in range(start, end, MIB))


def _keys(regions: Iterable[_Region]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(key for region in regions for key in region.keys))


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun} is" if count == 1 else f"{count:,} {noun}s are"


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return ", ".join(map(ascii, names[:_SHOWN])) + more
