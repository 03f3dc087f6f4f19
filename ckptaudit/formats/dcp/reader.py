"""Folders of torch.distributed.checkpoint: a ``.metadata``, and files that are archives of ``torch.save`` in a row.

torch's own loader unpickles ``.metadata`` and every value that is no tensor, without a list of what may be named,
and joins the names of files to the folder as they are. Here each archive is read by the reader of ``torch.save``
files, and has to be what ``.metadata`` says of it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import NoReturn

from ...errors import FormatError
from ...manifest import Manifest, TensorSpec
from ...records import replace
from ..base import ByteSource, Candidate, Checkpoint, Global, Limits, RawTensor, Record, Remark, over_limit
from ..candidates import Found, component, find_candidates, unique
from ..choice import choose
from ..identify import identify
from ..oddities import about
from ..pickles.globals import broken_with
from ..pickles.machine import Spent
from ..pickles.nodes import PersistentId, shown, type_name
from ..pickles.rebuild import Rebuilder, Storage
from ..torch_files.pickled import Pickled
from ..torch_files.saved_zip import unpickle_saved
from ..torch_files.zip_directory import read_zip_directory
from .files import FolderFile, SmallSection, open_file
from .metadata import METADATA, Description, Item, Tensor, read_metadata
from .tree import PlaceTakenError, nested

_SUFFIX = ".distcp"
_REFERENCE = type_name(PersistentId(""))
_SMALL = 1 << 14  # bytes of archives that are read in one go
# In opcodes, as the time they take: the pickle of a tensor, with what it takes to begin with it; one record.
_EVERY_ARCHIVE, _RECORD = 640, 12
_EVERY_DIRECTORY = 16  # records of an archive; torch writes seven
_HINT = "save the checkpoint again, or get it again from its source; torch writes no such folder"


def read_dcp(folder: str, *, wanted: str, limits: Limits, allow_refused: bool) -> Checkpoint:
    """Read ``.metadata`` and the structure of every archive that it names.

    Candidates are those of the nested state dict that was saved, where ``.metadata`` says how it was nested. Every
    tensor has a storage of its own. Those in several chunks have no entry in ``raw``; ``parts`` has one checkpoint
    a file, with all chunks. Raises FormatError: as ``read_metadata`` does, and CKPT501 for a file that is not there,
    CKPT705 for one outside of the folder, CKPT502 where a file does not hold what it should.
    """
    metadata = ByteSource(os.path.join(folder, METADATA))
    spent = Spent()
    description = read_metadata(metadata, limits, spent, allow_refused=allow_refused)
    metadata.check_unchanged()
    metadata.close()
    spent.memory = 0  # its nodes are gone
    reader = _Reader(metadata.path, description, limits, spent, allow_refused=allow_refused)
    reader.read_files()
    found = reader.find(folder)
    choice = choose(found.candidates, wanted=wanted, subject=folder)
    return Checkpoint(
        path=folder,
        format="dcp",
        size=metadata.size + sum(part.size for part in reader.parts),
        candidates=found.candidates,
        choice=choice,
        raw={c.path: reader.raw_of(c.manifest) for c in found.candidates},
        globals=tuple(reader.globals.values()),
        siblings=_siblings(found, choice),
        details=_details(description, len(reader.parts)),
        remarks=(*description.remarks, *reader.all_remarks(folder), *found.remarks),
        parts=tuple(reader.parts),
    )


def _siblings(found: Found, choice: Candidate | FormatError) -> dict[str, str]:
    """Return what lies beside the choice; tensors stand in the tree as references to their keys."""
    siblings = found.siblings(None if isinstance(choice, FormatError) else choice)
    return {path: "torch.Tensor" if kind == _REFERENCE else kind for path, kind in siblings.items()}


def _details(description: Description, files: int) -> dict[str, str]:
    tensors = [tensor for tensor in description.keys.values() if tensor is not None]
    details = {
        "files": str(files),
        "items": str(len(description.items)),
        "sharded": f"{sum(1 for tensor in tensors if tensor.chunks > 1)} of {len(tensors)} tensors",
    }
    return {**details, "version": component(description.version)[:40]} if description.version else details


class _Reader:
    """Opens one file after the other and collects what its archives hold."""

    def __init__(
        self, subject: str, description: Description, limits: Limits, spent: Spent, *, allow_refused: bool
    ) -> None:
        self.subject = subject
        self.description = description
        self.limits = limits
        self.spent = spent
        self.left = limits  # less the records of zip archives that were read already
        self.allow_refused = allow_refused
        self.globals: dict[object, Global] = {}
        self.add_globals(description.globals)
        self.parts: list[Checkpoint] = []
        self.remarks: dict[str, list[Remark]] = {}
        self.loose: list[str] = []  # files with bytes that no item covers
        self.chunks: dict[str, list[RawTensor]] = {}
        self.values: dict[str, object] = {}
        self.specs: dict[str, TensorSpec] = {}
        self.whole: dict[str, RawTensor] = {}  # by the names of storages
        self.memory: dict[str, tuple[FolderFile, int, int, str]] = {}  # of tensors inside of values
        self.storages: dict[int, Storage] = {}
        self.persistent_ids: list[PersistentId] = []  # kept, as storages knows them by their address

    def disagree(self, what: str) -> NoReturn:
        raise FormatError(self.subject, what, _HINT, code="CKPT502")

    def read_files(self) -> None:
        """Check every file; afterwards all are closed."""
        files: dict[str, list[Item]] = {}
        for item in self.description.items:
            files.setdefault(item.file, []).append(item)
        for name, items in files.items():
            file = open_file(self.subject, name)
            items.sort(key=lambda item: item.start)
            part = _Part(file)
            tail = self.safetensors_tail(file, items)
            for item in items[: len(items) - len(tail)]:
                self.read_item(part, item)
            if tail:
                self.read_safetensors(part, tail)
            file.check_unchanged()
            file.close()
            self.parts.append(part.checkpoint())
        self.specs = {key: self.spec(key, tensor) for key, tensor in self.description.keys.items() if tensor}

    # -- bytes of files ----------------------------------------------------------------------------------------------

    def safetensors_tail(self, file: FolderFile, items: list[Item]) -> list[Item]:
        """Check that items lie in the file and share no byte of it; return those in safetensors at its end.

        ``SerializationFormat.SAFETENSORS`` writes all tensors of a file as one safetensors file behind the values,
        and gives each of them the offset of that file, and the length of its own bytes.
        """
        start = items[-1].start
        tail = [item for item in items if item.start == start and item.sizes is not None]
        inside = 0 <= start <= file.size - 9
        if not inside or file.read(start + 4, 5) != b"\0\0\0\0{" or items[-len(tail) :] != tail:
            tail = []
        end, covered = 0, 0
        for before, item in zip([None, *items], items[: len(items) - len(tail)], strict=False):
            if item.start < 0 or item.length < 0 or item.start + item.length > file.size:
                where = f"puts {shown(item.key)} at byte {item.start:,}, {item.length:,} bytes long,"
                self.disagree(f"{where} into {item.file}, which has {file.size:,} bytes")
            if before is not None and item.start < end:
                self.disagree(f"puts {shown(before.key)} and {shown(item.key)} on the same bytes of {item.file}")
            end = item.start + item.length
            covered += item.length
        if tail and start < end:
            self.disagree(f"puts {shown(tail[0].key)} inside of another item of {tail[0].file}")
        if covered + (file.size - start if tail else 0) != file.size:
            self.loose.append(items[0].file)
        return tail

    def section(self, part: _Part, item: Item, label: str) -> ByteSource:
        if item.length <= _SMALL:
            return SmallSection(part.file, item.start, item.length, label)
        return part.file.section(item.start, item.length, label)

    def archive(self, section: ByteSource) -> Pickled:
        """Return the object that ``torch.save`` put into an archive."""
        try:
            if section.read(0, min(4, section.size)) != b"PK\x03\x04":
                self.stranger(section)
            found = read_zip_directory(section, self.left)
            if any(name.endswith("/constants.pkl") for name in found):
                reason = "is a TorchScript archive, which torch would load as a program"
                raise FormatError(section.path, reason, "do not load it; torch writes no such item", code="CKPT502")
            allow_refused = self.allow_refused
            content = unpickle_saved(section, found, self.limits, allow_refused=allow_refused, spent=self.spent)
        except FormatError as error:
            if error.code == "CKPT001":  # what .metadata points at is something else, or cut
                error.code = "CKPT502"
            if "--limit zip_entries" in (error.hint or "") and self.left is not self.limits:
                error.hint = over_limit("", "", "pickle_opcodes", self.limits).hint
            raise
        self.account(content)
        return content

    def account(self, content: Pickled) -> None:
        """Settle what an archive has cost: all together may cost what one file may, plus what any archive costs."""
        result, records = content.result, len(content.records)
        assert result is not None
        embedded = sum(len(data) for _, data in result.embedded)
        self.charge(embedded - min(result.opcodes, _EVERY_ARCHIVE))
        if records > _EVERY_DIRECTORY:
            self.charge(records * _RECORD)
            left = (self.limits.pickle_opcodes - self.spent.opcodes) // _RECORD
            self.left = replace(self.limits, zip_entries=min(self.limits.zip_entries, left))

    def charge(self, cost: int) -> None:
        self.spent.opcodes += cost
        if self.spent.opcodes > self.limits.pickle_opcodes:
            reason = f"is not read: its archives together cost as much as {self.spent.opcodes:,} opcodes"
            raise over_limit(self.subject, reason, "pickle_opcodes", self.limits)

    def stranger(self, section: ByteSource) -> NoReturn:
        kind = identify(section, self.limits)
        if kind == "pickle":
            from ..torch_files.plain_pickle import refuse_plain_pickle

            refuse_plain_pickle(section, self.limits)
        reason = f"is a {kind} file, where torch writes a zip archive"
        raise FormatError(section.path, reason, _HINT, code="CKPT502")

    # -- items -------------------------------------------------------------------------------------------------------

    def read_item(self, part: _Part, item: Item) -> None:
        label = part.label(item)
        section = self.section(part, item, label)
        content = self.archive(section)
        self.add_globals(content.globals, f"{item.file}:{component(item.key)}:")
        for remark in content.remarks:
            reason = f"{remark.reason} (in {item.file}, {shown(item.key)})"
            self.remarks.setdefault(remark.code, []).append(replace(remark, reason=reason))
        part.add_records(label, item.start, content)
        tensor = self.description.keys[item.key]
        if tensor is None:
            self.add_value(part, item, content)
            return
        self.spent.memory -= content.result.memory if content.result else 0  # only its description is kept
        try:
            spec = self.tensor(content, item, tensor, section.path)
        except FormatError as error:
            raise broken_with(error, content.globals) from None
        offset = item.start + content.offsets[spec.storage or ""]
        named = replace(spec, storage=f"{item.file}:{offset}")
        self.place(label, item, part, RawTensor(named, part.file, offset, spec.storage_nbytes or 0, content.byteorder))

    def add_globals(self, found: Iterable[Global], where: str = "") -> None:
        """Keep a name once for each verdict, at its first use: a class of .metadata is allowed there alone."""
        for one in found:
            if (one.name, one.verdict) not in self.globals:
                self.globals[one.name, one.verdict] = replace(one, member=where + one.member)

    def tensor(self, content: Pickled, item: Item, tensor: Tensor, subject: str) -> TensorSpec:
        """Describe the tensor that an archive holds, which is the chunk that .metadata describes."""
        spec = Rebuilder(subject, content.resolve, self.limits).tensor(content.value, item.key)
        if spec is None or spec.storage is None or spec.layout != "strided":
            held = type_name(content.value) if spec is None else f"a tensor that is {spec.location or spec.layout}"
            self.no_chunk(subject, item, tensor, held)
        if (spec.shape, spec.dtype) != (item.sizes, tensor.dtype):
            self.no_chunk(subject, item, tensor, f"a {spec.dtype} tensor of {spec.shape}")
        return spec

    def no_chunk(self, subject: str, item: Item, tensor: Tensor, held: str) -> NoReturn:
        reason = f"holds {held}, where .metadata says a {tensor.dtype} tensor of {item.sizes}"
        raise FormatError(subject, reason, _HINT, code="CKPT502")

    def place(self, label: str, item: Item, part: _Part, raw: RawTensor) -> None:
        part.raw[label] = raw
        self.chunks.setdefault(item.key, []).append(raw)

    def add_value(self, part: _Part, item: Item, content: Pickled) -> None:
        """Keep a value; what tensors are in it get storages that differ from those of other items."""
        persistent_ids = content.result.persistent_ids if content.result else ()
        for pid in persistent_ids:
            storage = content.resolve(pid)
            assert isinstance(storage, Storage)
            offset = item.start + content.offsets[storage.key]
            name = f"{item.file}:{offset}"
            self.memory[name] = (part.file, offset, storage.nbytes, content.byteorder)
            self.storages[id(pid)] = replace(storage, key=name)
        self.persistent_ids += persistent_ids
        self.values[item.key] = content.value

    def read_safetensors(self, part: _Part, items: list[Item]) -> None:
        from ..safetensors import read_safetensors

        start = items[0].start
        section = part.file.section(start, part.file.size - start, "safetensors")
        content = read_safetensors(section, wanted="", limits=self.limits)
        raws = dict(content.raw[""])
        self.charge(len(raws) * _RECORD)
        for item in items:
            tensor, raw = self.description.keys[item.key], raws.pop(item.key, None)
            assert tensor is not None
            held = "nothing" if raw is None else f"a {raw.spec.dtype} tensor of {raw.spec.shape}"
            if raw is None or (raw.spec.shape, raw.spec.dtype) != (item.sizes, tensor.dtype):
                self.no_chunk(f"{section.path}:{component(item.key)}", item, tensor, held)
            label = part.label(item)
            named = replace(raw.spec, storage=f"{item.file}:{start}:{label}")  # those without bytes share their offset
            self.place(label, item, part, replace(raw, spec=named, source=part.file, offset=start + raw.offset))
        if raws:
            self.disagree(f"does not name {shown(next(iter(raws)))}, which lies in {items[0].file}")

    # -- the state dict ------------------------------------------------------------------------------------------

    def spec(self, key: str, tensor: Tensor) -> TensorSpec:
        """Describe a tensor as it is once it is loaded: in one piece, in rows."""
        chunks = self.chunks.get(key, [])
        chunks = [raw for raw in chunks if raw.spec.numel] or chunks[:1]
        first = chunks[0] if chunks else None
        if first is not None and first.spec.shape == tensor.shape and first.spec.storage is not None:
            self.whole[first.spec.storage] = first
        return TensorSpec(
            tensor.shape,
            tensor.dtype,
            stride=_row_major(tensor.shape),
            storage=first.spec.storage if first else None,
            storage_nbytes=sum(raw.nbytes for raw in chunks) if first else None,
            requires_grad=False,
            location=first.spec.location if first else None,
        )

    def find(self, folder: str) -> Found:
        """Find the candidates of what was saved. Raises FormatError as ``find_candidates`` does."""
        rebuilder = Rebuilder(folder, self.resolve, self.limits)
        try:
            return find_candidates(self.saved(), rebuilder, subject=folder, limits=self.limits)
        except FormatError as error:
            raise broken_with(error, self.globals.values()) from None

    def saved(self) -> object:
        """Return the nested state dict that was saved."""
        keys, paths = self.description.keys, self.description.paths
        leaves = {key: PersistentId(key) if tensor else self.values[key] for key, tensor in keys.items()}
        try:
            return nested((paths.get(key, (key,)), leaf) for key, leaf in leaves.items())
        except PlaceTakenError as fault:
            reason = f"puts two values at {component(fault.args[0])} of the nested state dict"
            raise FormatError(self.subject, reason, _HINT, code="CKPT002") from None

    def resolve(self, pid: PersistentId) -> Storage | TensorSpec:
        """Return the tensor that stands under a key, or the storage of a tensor inside a value."""
        return self.specs[pid.id] if isinstance(pid.id, str) else self.storages[id(pid)]

    def raw_of(self, manifest: Manifest) -> dict[str, RawTensor]:
        """Say where the bytes of a candidate's tensors lie that are in one piece."""
        found: dict[str, RawTensor] = {}
        for key, spec in manifest.tensors.items():
            if spec.storage in self.whole:
                found[key] = self.whole[spec.storage]
            elif spec.storage in self.memory and spec.layout == "strided":
                found[key] = RawTensor(spec, *self.memory[spec.storage])
        return found

    def all_remarks(self, folder: str) -> Iterator[Remark]:
        """Yield one remark of each kind that archives give rise to, and what lies beside them."""
        for remarks in self.remarks.values():
            more = f", and {len(remarks) - 1:,} more of the kind" if len(remarks) > 1 else ""
            yield replace(remarks[0], reason=f"{remarks[0].reason}{more}")
        if self.loose:
            yield about("CKPT707", "holds bytes that its .metadata does not refer to, in {}", "file", self.loose)
        known = {os.path.basename(part.path) for part in self.parts}
        others = sorted(name for name in os.listdir(folder) if name.endswith(_SUFFIX) and name not in known)
        others = [name for name in others if _holds_bytes(os.path.join(folder, name))]
        if others:
            yield about("CKPT707", "holds {} that its .metadata does not name", "file", others)


class _Part:
    """What is known of one file: its chunks, and the records of its archives."""

    def __init__(self, file: FolderFile) -> None:
        self.file = file
        self.raw: dict[str, RawTensor] = {}
        self.records: dict[str, Record] = {}
        self.labels: set[str] = set()

    def label(self, item: Item) -> str:
        """Name an item: its key, and the offsets of a chunk that does not begin where the tensor does."""
        offsets = f"[{', '.join(map(str, item.offsets))}]" if item.offsets and any(item.offsets) else ""
        label = unique(component(item.key) + offsets, self.labels)
        self.labels.add(label)
        return label

    def add_records(self, label: str, start: int, content: Pickled) -> None:
        for record in content.records.values():
            name = f"{label}:{record.name}"
            self.records[name] = Record(name, start + record.offset, record.size, record.crc, record.stored)

    def checkpoint(self) -> Checkpoint:
        """Return the file as a checkpoint of its own, without a state dict to choose."""
        reason = "is a part of a distributed checkpoint"
        none = FormatError(self.file.path, reason, "name its folder", code="CKPT006")
        return Checkpoint(
            self.file.path,
            "dcp",
            self.file.size,
            (),
            none,
            {"": self.raw},
            source=self.file,
            records=self.records,
        )


def _holds_bytes(path: str) -> bool:
    """Tell files from the empty ones that torch makes for ranks that have nothing to write."""
    try:
        return os.lstat(path).st_size > 0
    except OSError:
        return True


def _row_major(shape: tuple[int, ...]) -> tuple[int, ...]:
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= max(size, 1)
    return tuple(reversed(strides))
