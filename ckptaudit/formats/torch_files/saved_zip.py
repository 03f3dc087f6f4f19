"""Zip archives around a data.pkl, as ``torch.save`` writes them since 1.6 and ``torch.jit.save``; structure alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from ...errors import FormatError
from ..base import ByteSource, Checkpoint, Limits, Record, Remark
from ..candidates import find_candidates
from ..oddities import embedded_pickles, odd_alignment, unaccounted_records
from ..pickles.globals import broken_with, refuse_globals
from ..pickles.machine import PickleResult, Spent
from .pickled import Pickled, describe
from .zip_archive import Archive, Storages

if TYPE_CHECKING:
    from .script import Script

_ALIGNMENT = ".storage_alignment"
_PROGRAMS = ("models/", "data/aotinductor/")  # what torch.export.load looks for, in any archive
_NEWEST_VERSION = 10  # torch's kMaxSupportedFileFormatVersion


def read_saved(
    source: ByteSource,
    found: Mapping[str, Record],
    *,
    wanted: str,
    limits: Limits,
    allow_refused: bool,
    spent: Spent | None = None,
) -> Checkpoint:
    """Describe an archive around a data.pkl: one of ``torch.save`` or ``torch.jit.save``."""
    content = unpickle_saved(source, found, limits, allow_refused=allow_refused, spent=spent)
    return describe(source, content, wanted=wanted, limits=limits)


def unpickle_saved(
    source: ByteSource,
    found: Mapping[str, Record],
    limits: Limits,
    *,
    allow_refused: bool,
    spent: Spent | None = None,
) -> Pickled:
    """Return the object in such an archive, whatever it is; ``spent`` is what the file around it has cost."""
    archive = Archive(source, found, limits, top=_top_folder(source, found), spent=spent)
    if any(name.startswith(_PROGRAMS) for name in archive.records):
        archive.broken("it is an archive of torch.save and an exported program at once")
    version = _version(archive)
    result = archive.unpickle("data.pkl")
    script = _script(archive, result)
    judged = script.globals if script else result.globals
    if not allow_refused:
        refuse_globals(source.path, judged)
    try:
        return _pickled(archive, version, result, script)
    except FormatError as error:
        raise broken_with(error, judged) from None


def _pickled(archive: Archive, version: str, result: PickleResult, script: Script | None) -> Pickled:
    storages = Storages(archive, "data", result.persistent_ids)
    known = script.check() if script else set()
    return Pickled(
        "torchscript" if script else "torch-zip",
        result.value,
        script.globals if script else result.globals,
        storages.resolve,
        storages.offsets,
        {"archive version": version, **_facts(archive, storages)},
        archive.byteorder,
        script.find if script else find_candidates,
        (
            *unaccounted_records((name for name in archive.records if not storages.hold(name)), known),
            *_alignment_remarks(archive),
            *embedded_pickles("data.pkl", result.embedded, archive.limits),
            *(script.remarks() if script else ()),
        ),
        archive.records,
        result,
        result.rebuilt,
    )


def _top_folder(source: ByteSource, found: Mapping[str, Record]) -> str:
    """Return the folder that a data.pkl lies in; archives without one are told apart."""
    roots = [top for top, _, name in (name.partition("/") for name in found) if name == "data.pkl"]
    if not roots:
        raise _stranger(source.path, found)
    return roots[0]


def _version(archive: Archive) -> str:
    # torch prefers the first of the two
    version = archive.small(".data/version" if ".data/version" in archive.records else "version", "")
    if not version.isdecimal() or not 1 <= int(version) <= _NEWEST_VERSION:
        archive.broken(f"its version is {version[:20]!a}, not a number from 1 to {_NEWEST_VERSION}")
    return version


def _script(archive: Archive, data: PickleResult) -> Script | None:
    """Return what TorchScript keeps beside data.pkl; torch.load goes by this one record, too."""
    if "constants.pkl" not in archive.records:
        return None
    from .script import Script

    return Script(archive, data)


def _alignment_remarks(archive: Archive) -> Iterator[Remark]:
    if _ALIGNMENT in archive.records:
        text = archive.small(_ALIGNMENT, "")
        try:
            int(text)  # as torch does
        except ValueError:
            archive.broken(f"its {_ALIGNMENT} is no number")
        yield from odd_alignment(text)


def _facts(archive: Archive, storages: Storages) -> dict[str, str]:
    """Return what people may want to know about the container."""
    facts = {"byteorder": archive.byteorder}
    unused = sum(name.startswith("data/") for name in archive.records) - len(storages.known)
    if unused:
        facts["unused records"] = str(unused)
    data = archive.records["data.pkl"]
    if data.size and not data.crc:
        facts["checksums"] = "none"  # torch was told to write none
    return facts


def _stranger(path: str, found: Mapping[str, Record]) -> FormatError:
    """Name the zip archives that are not written by torch.save."""
    names = {name.partition("/")[2] for name in found}
    inside = [name for name in found if name.endswith((".pt", ".pth", ".ckpt", ".bin", ".safetensors"))]
    if ".data/extern_modules" in names:
        what = "is a torch.package archive, which holds code and pickles, not one state dict"
        hint = "load it with torch.package.PackageImporter, and save its model's state_dict() with torch.save"
    elif any(name.startswith("models/") for name in names):
        inner = "archive_format" in names
        what = f"is an exported program (torch.export) {'inside another file' if inner else 'without archive_format'}"
        hint = "get the file again from its source; torch.export.save writes no such archive"
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
