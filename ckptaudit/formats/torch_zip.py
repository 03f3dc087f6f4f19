"""The zip archives of ``torch.save`` since 1.6 and of ``torch.jit.save``: their structure, and no values."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from functools import partial
from typing import NoReturn

from ..errors import FormatError
from ..records import replace
from .base import ByteSource, Checkpoint, Global, Limits
from .candidates import find_candidates
from .globals import refuse_globals
from .nodes import PersistentId
from .pickle_vm import PickleResult, run
from .pickled import Pickled, describe
from .rebuild import Storage, storage_of_id
from .torchscript import declared_state, find_in_script
from .zip_directory import Record, read_zip_directory

_NEWEST_VERSION = 10  # torch's kMaxSupportedFileFormatVersion
_HINT = "get the file again from its source; torch.save writes no such archive"


def read_torch_zip(source: ByteSource, *, wanted: str, limits: Limits, allow_refused: bool) -> Checkpoint:
    """Describe a zip checkpoint; ``wanted`` is what follows ``#`` in its name, or empty.

    Raises FormatError: CKPT701 or CKPT702 where its pickle names globals that are not plain data, unless
    ``allow_refused``; CKPT001 for zip archives that are no checkpoint; CKPT704 where bytes follow the pickle;
    CKPT002 and CKPT703 as the parts do.
    """
    archive = _Archive(source, limits)
    result, notes = archive.unpickle()
    scripted = "constants.pkl" in archive.records
    judged = tuple(map(_in_script, result.globals)) if scripted else result.globals
    if not allow_refused:
        refuse_globals(source.path, judged)
    for pid in result.persistent_ids:
        archive.declare(pid)
    find = partial(find_in_script, declared=archive.script_state(judged)) if scripted else find_candidates
    content = Pickled(
        "torchscript" if scripted else "torch-zip",
        result.value,
        judged,
        archive.resolve,
        archive.offsets,
        {**archive.facts(), **notes},
        archive.byteorder,
        find,
    )
    return describe(source, content, wanted=wanted, limits=limits)


class _Archive:
    """The records of one archive, by their names without the top folder."""

    def __init__(self, source: ByteSource, limits: Limits) -> None:
        self.source = source
        self.limits = limits
        found = read_zip_directory(source, limits)
        self.top = self.top_folder(found)
        self.records = {name.removeprefix(f"{self.top}/"): record for name, record in found.items()}
        self.byteorder = self.small("byteorder", "little")
        self.version = self.small("version", "")
        self.storages: dict[str, Storage] = {}
        self.resolved: dict[int, Storage] = {}
        self.offsets: dict[str, int] = {}
        if self.byteorder not in ("little", "big"):
            self.broken("its byte order is neither little nor big")
        if not self.version.isdecimal() or not 1 <= int(self.version) <= _NEWEST_VERSION:
            self.broken(f"its version is {self.version[:20]!a}, not a number from 1 to {_NEWEST_VERSION}")

    def broken(self, what: str, code: str = "CKPT002") -> NoReturn:
        raise FormatError(self.source.path, f"is a broken torch archive: {what}", _HINT, code=code)

    def top_folder(self, found: dict[str, Record]) -> str:
        """Return the one folder all records lie in; archives without a data.pkl in it are told apart."""
        tops = {name.partition("/")[0] for name in found}
        roots = [top for top in tops if f"{top}/data.pkl" in found]
        if not roots:
            raise _stranger(self.source.path, found)
        if len(tops) > 1:
            self.broken(f"its records lie in {len(tops)} folders, not in one")
        return roots[0]

    def stored(self, name: str) -> Record:
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
        return self.source.read(record.offset, record.size).decode("ascii", "replace").strip()

    def unpickle(self) -> tuple[PickleResult, dict[str, str]]:
        """Interpret data.pkl; the notes tell where torch was told to write no checksums."""
        record = self.stored("data.pkl")
        if record.size > self.limits.pickle_bytes:
            self.broken(f"its data.pkl of {record.size:,} bytes is not read", "CKPT703")
        data = self.source.read(record.offset, record.size)
        notes = {}
        if record.crc == 0 and record.size:
            notes["checksums"] = "none"
        elif zlib.crc32(data) != record.crc:
            self.broken("the checksum of its data.pkl is wrong")
        result = run(data, subject=self.source.path, member=record.name, limits=self.limits)
        if result.end != len(data):
            self.broken(f"{len(data) - result.end:,} bytes follow the pickle in its data.pkl", "CKPT704")
        return result, notes

    def declare(self, pid: PersistentId) -> None:
        """Read a persistent id; the record of its storage must have the size the pickle says."""
        declared = storage_of_id(pid, self.source.path)
        known = self.storages.get(declared.key)
        self.resolved[id(pid)] = known or declared
        if known is not None:
            if (known.dtype, known.nbytes) != (declared.dtype, declared.nbytes):
                self.broken(f"its pickle describes the storage {declared.key!r} in two ways")
            return
        record = self.stored(f"data/{declared.key}")
        if record.size != declared.nbytes:
            self.broken(
                f"its pickle gives the storage {declared.key!r} {declared.nbytes:,} bytes, "
                f"the record has {record.size:,}"
            )
        self.storages[declared.key] = declared
        self.offsets[declared.key] = record.offset

    def resolve(self, pid: PersistentId) -> Storage:
        """Return the storage of a persistent id that was declared."""
        return self.resolved[id(pid)]

    def script_state(self, named: Iterable[Global]) -> dict[str, frozenset[str]]:
        """Return the parameters and buffers of the archive's own classes, as its code records list them."""
        modules = {g.name.rpartition(".")[0] for g in named if g.name.startswith("__torch__")}
        declared: dict[str, frozenset[str]] = {}
        for module in sorted(modules):
            name = f"code/{module.replace('.', '/')}.py"
            if name in self.records:
                declared |= declared_state(self.text(name), module)
        return declared

    def text(self, name: str) -> str:
        """Return a record of code, which may be deflated, up to the limit for strings."""
        record, most = self.records[name], self.limits.string_bytes
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
            self.broken(f"its record {name} has more than {most:,} bytes of text", "CKPT703")
        return plain.decode("utf-8", "replace")

    def facts(self) -> dict[str, str]:
        """Return what people may want to know about the container."""
        facts = {"archive version": self.version, "byteorder": self.byteorder}
        data = [name for name in self.records if name.startswith("data/")]
        unused = len(data) - len(self.storages)
        if unused:
            facts["unused records"] = str(unused)
        return facts


def _in_script(found: Global) -> Global:
    """TorchScript names its own classes; they exist in the archive's code alone, which is never run."""
    plain = found.name.startswith("__torch__.") or found.name in _SCRIPT_GLOBALS
    return replace(found, verdict="inert") if plain and found.verdict == "refused" else found


_SCRIPT_GLOBALS = frozenset(
    f"torch.jit._pickle.{name}"
    for name in (
        "build_boollist",
        "build_doublelist",
        "build_intlist",
        "build_tensorlist",
        "restore_type_tag",
    )
)


def _stranger(path: str, found: dict[str, Record]) -> FormatError:
    """Name the zip archives that are not written by torch.save."""
    names = {name.partition("/")[2] for name in found}
    inside = [name for name in found if name.endswith((".pt", ".pth", ".ckpt", ".bin", ".safetensors"))]
    if ".data/extern_modules" in names:
        what = "is a torch.package archive, which holds code and pickles, not one state dict"
        hint = "load it with torch.package.PackageImporter, and save its model's state_dict() with torch.save"
    elif "archive_format" in names or any(name.startswith("models/") for name in names):
        what = "is an exported program (torch.export), not a checkpoint"
        hint = "load it with torch.export.load, and save its state_dict with torch.save"
    elif "model.json" in names or any(name.startswith("code/") for name in names):
        what = "is a TorchScript archive of torch before 1.4, whose weights have another layout"
        hint = "load it with torch.jit.load, and save its state_dict() with torch.save"
    elif found and all(name.endswith(".npy") for name in found):
        what = "is a NumPy archive (.npz), not a checkpoint"
        hint = "load it with numpy.load, and save a dict of tensors with torch.save"
    elif inside:
        what = f"is a zip archive around other files, such as {inside[0]!a}"
        hint = "unzip it, and name the checkpoint inside"
    else:
        what = "is a zip archive, but no checkpoint: it has no data.pkl"
        hint = "name a file that torch.save or safetensors has written"
    return FormatError(path, what, hint, code="CKPT001")
