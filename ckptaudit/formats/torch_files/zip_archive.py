"""What torch's zip archives have in common: one top folder, small records, pickles with their storages beside them."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import NoReturn

from ...errors import FormatError
from ..base import ByteSource, Global, Limits, Record, over_limit
from ..pickles.machine import PickleResult, Spent, run
from ..pickles.nodes import PersistentId
from ..pickles.rebuild import Storage, storage_of_id

_NAMES = frozenset(  # records that torch opens by name; it takes names without regard to case
    {
        ".data/version", ".format_version", ".storage_alignment", "archive_format", "archive_version", "byteorder",
        "bytecode.pkl", "callstack_debug_map.pkl", "constants.pkl", "data.pkl", "delegated_backends.debug_pkl",
        "mobile_debug_handles.pkl", "traced_inputs.pkl", "version",
    }
)  # fmt: skip


class Archive:
    """The records of one archive, by their names without the top folder. ``writer`` words the hints."""

    def __init__(
        self,
        source: ByteSource,
        found: Mapping[str, Record],
        limits: Limits,
        *,
        top: str,
        writer: str = "torch.save",
        spent: Spent | None = None,
    ) -> None:
        self.source = source
        self.limits = limits
        self.writer = writer
        self.spent = spent or Spent()  # an archive inside another one shares what its pickles may cost
        prefix = f"{top}/" if top else ""
        self.records = {name.removeprefix(prefix): record for name, record in found.items()}
        if not all(name.startswith(prefix) or name == top for name in found):
            tops = {name.partition("/")[0] for name in found}
            self.broken(f"its records lie in {len(tops)} folders, not in one")
        for name in self.records:
            if not name.islower() and name.casefold() in _NAMES:
                self.broken(f"its record {name} would be {name.casefold()} to torch")
        self.byteorder = self.small("byteorder", "little")
        written = self.records["byteorder"].size if "byteorder" in self.records else len(self.byteorder)
        if self.byteorder not in ("little", "big") or written != len(self.byteorder):  # torch wants no blanks
            self.broken("its byte order is neither little nor big")

    def broken(self, what: str, code: str = "CKPT002") -> NoReturn:
        """Refuse the archive; ``what`` is a sentence about it."""
        hint = f"get the file again from its source; {self.writer} writes no such archive"
        raise FormatError(self.source.path, f"is a broken torch archive: {what}", hint, code=code)

    def exceeded(self, what: str, limit: str, needed: int = 0) -> NoReturn:
        """Refuse the archive for more than a limit; ``what`` is a sentence about it."""
        raise over_limit(self.source.path, f"is over a limit: {what}", limit, self.limits, needed)

    def stored(self, name: str) -> Record:
        """Return a record that lies in the archive as it is."""
        record = self.records.get(name)
        if record is None:
            self.broken(f"it has no record {name}")
        if not record.stored:
            self.broken(f"its record {name} is compressed")
        return record

    def small(self, name: str, default: str) -> str:
        """Return the text of a record that holds one word."""
        if name not in self.records:
            return default
        record = self.stored(name)
        if record.size > self.limits.small_record_bytes:
            self.broken(f"its record {name} has {record.size:,} bytes")
        # Stripped as bytes, which have fewer blanks than text: what is left is what torch takes for a number.
        return self.source.read(record.offset, record.size).strip().decode("ascii", "replace")

    def content(self, name: str, limit: str) -> bytes:
        """Return the bytes of a record, which may be deflated; more than the limit of that name are refused."""
        record, most = self.records[name], int(getattr(self.limits, limit))
        packed = self.source.read(record.offset, min(record.size, most))
        if record.stored:
            plain, whole = packed, record.size <= most
        else:
            unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
            try:
                plain, whole = unpacker.decompress(packed, most), unpacker.eof
            except zlib.error:
                self.broken(f"its record {name} does not unpack")
        if not whole:
            size = f"{record.size:,}" if record.stored else f"more than {most:,}"
            self.exceeded(f"its record {name} of {size} bytes is not read", limit, record.size)
        return plain

    def text(self, name: str) -> str:
        """Return a record of code, up to the limit for strings."""
        return self.content(name, "string_bytes").decode("utf-8", "replace")

    def unpickle(self, name: str, *, packed: bool = False) -> PickleResult:
        """Interpret the pickle in a record; ``packed`` where it may be deflated."""
        record = self.records[name] if packed and name in self.records else self.stored(name)
        data = self.content(name, "pickle_bytes")
        if record.crc and zlib.crc32(data) != record.crc:
            self.broken(f"the checksum of its {name} is wrong")
        result = run(data, subject=self.source.path, member=record.name, limits=self.limits, spent=self.spent)
        if result.end != len(data):
            self.broken(f"{len(data) - result.end:,} bytes follow the pickle in its {name}", "CKPT704")
        return result


class Storages:
    """The storages one pickle refers to: records in a folder of the archive, each of the size the pickle says.

    Raises FormatError CKPT002 where a record is missing or has another size. ``suffix`` may end the names of the
    records; ``hollow`` ones may be empty.
    """

    def __init__(
        self,
        archive: Archive,
        folder: str,
        pids: Iterable[PersistentId],
        *,
        suffix: str = "",
        hollow: bool = False,
    ) -> None:
        self.known: dict[str, Storage] = {}
        self.offsets: Mapping[str, int] = _Offsets(archive.records, folder)
        self._archive = archive
        self._folder = folder
        for pid in pids:
            self._declare(pid, suffix, hollow)

    @property
    def names(self) -> set[str]:
        """The names of their records."""
        return {f"{self._folder}/{key}" for key in self.known}

    def hold(self, name: str) -> bool:
        """Tell whether a record is that of one of the storages."""
        folder, _, key = name.partition("/")
        return folder == self._folder and key in self.known

    def _declare(self, pid: PersistentId, suffix: str, hollow: bool) -> None:
        archive = self._archive
        declared = storage_of_id(pid, archive.source.path, suffix=suffix)
        known = self.known.get(declared.key)
        pid.meant = known or declared
        if known is not None:
            if (known.dtype, known.nbytes) != (declared.dtype, declared.nbytes):
                archive.broken(f"its pickle describes the storage {declared.key!r} in two ways")
            return
        record = archive.stored(f"{self._folder}/{declared.key}")
        if record.size != declared.nbytes and not (hollow and not record.size):
            archive.broken(
                f"its pickle gives the storage {declared.key!r} {declared.nbytes:,} bytes, "
                f"the record has {record.size:,}"
            )
        self.known[declared.key] = declared

    def resolve(self, pid: PersistentId) -> Storage:
        """Return the storage of one of the persistent ids."""
        assert isinstance(pid.meant, Storage)
        return pid.meant


class _Offsets(Mapping[str, int]):
    """Where the bytes of storages lie, by their keys."""

    def __init__(self, records: Mapping[str, Record], folder: str) -> None:
        self._records = records
        self._folder = f"{folder}/"

    def __getitem__(self, key: str) -> int:
        return self._records[self._folder + key].offset

    def __iter__(self) -> Iterator[str]:
        return (name.removeprefix(self._folder) for name in self._records if name.startswith(self._folder))

    def __len__(self) -> int:
        return sum(1 for _ in self)


def merged(found: Iterable[Global]) -> tuple[Global, ...]:
    """Join the globals of several pickles: plain data once, what is refused at every place."""
    seen: set[object] = set()
    kept = []
    for one in found:
        identity = one.name if one.verdict in ("allowed", "inert") else (one.name, one.member)
        if identity not in seen:
            seen.add(identity)
            kept.append(one)
    return tuple(kept)
