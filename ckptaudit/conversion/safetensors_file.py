"""safetensors files, written without the library and read back through it; and indexes of their shards.

Keys are in the header in the order of the state dict. Tensors lie behind it such that as many as the format permits
begin at a multiple of 64 bytes: the header is padded to one, and as there may be no holes, those come first whose size
is a multiple of 64, then of 32, and so on. Each of them at least begins at a multiple of the size of its elements.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ..dtypes import DTYPES
from ..errors import CkptauditError
from ..formats.base import ByteSource
from ..formats.noted import NAME
from ..formats.notes import SCHEMA
from ..formats.safetensors import NAMES
from ..newfile import NewFile
from .content import Content, of_bytes
from .outputs import Output, Seen, differs, same_bytes
from .plan import Item, Plan

_ALIGNMENT = 64
_MAX_HEADER = 100_000_000  # of the reference reader


class SafetensorsFile(Output):
    """One file of tensors; ``metadata`` are texts."""

    def __init__(self, path: str, tensors: Sequence[tuple[Item, Content]], metadata: Mapping[str, str]) -> None:
        self.path = path
        self._metadata = metadata
        self._contents = {item.key: content for item, content in sorted(tensors, key=_alignment)}
        self._shapes = {item.key: stored_as(item) for item, _ in tensors}
        self._header = self._written_header([item.key for item, _ in tensors])
        self.work = sum(content.size for content in self._contents.values())
        self.size = len(self._header) + self.work

    def _written_header(self, keys: Sequence[str]) -> bytes:
        ranges: dict[str, list[int]] = {}
        end = 0
        for key, content in self._contents.items():
            ranges[key] = [end, end := end + content.size]
        header: dict[str, Any] = {"__metadata__": self._metadata}
        for key in keys:
            dtype, shape = self._shapes[key]
            header[key] = {"dtype": dtype, "shape": shape, "data_offsets": ranges[key]}
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
        text += b" " * (-(8 + len(text)) % _ALIGNMENT)
        if len(text) > _MAX_HEADER:
            reason = f"would have a header of {len(text):,} bytes, and safetensors reads {_MAX_HEADER:,}"
            raise CkptauditError(self.path, reason, "leave out what is no tensor: --drop-non-tensors")
        return len(text).to_bytes(8, "little") + text

    def write(self, file: NewFile, seen: Seen) -> None:
        """Write the header and every tensor."""
        file.write(self._header)
        for content in self._contents.values():
            content.copy_to(file, lambda data: seen(len(data)))

    def verify(self, path: str, seen: Seen) -> None:
        """Let the safetensors library say what is where, and compare that, and every byte, with the source."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, "np") as library:
                keys = library.offset_keys()
                told = {key: (s.get_dtype(), s.get_shape()) for key in keys for s in [library.get_slice(key)]}
                metadata = library.metadata()
        except SafetensorError as error:
            raise differs(self.path, f"the safetensors library says {error}") from None
        if (told, metadata) != (self._shapes, dict(self._metadata)):
            raise differs(self.path, "its header")
        written = ByteSource(path)
        offset = written.size - self.work  # the library has checked that the tensors fill the rest, without a hole
        for key in keys:
            same_bytes(key, self._contents[key], written, offset, seen)
            offset += self._contents[key].size


def _alignment(tensor: tuple[Item, Content]) -> int:
    size = tensor[1].size
    return -min(size & -size, _ALIGNMENT) if size else -_ALIGNMENT


def stored_as(item: Item) -> tuple[str, list[int]]:
    """Return the dtype and shape of a tensor as the format has them; torch packs two F4 numbers into one element."""
    *outer, last = item.spec.shape or (0,)
    shape = [*outer, 2 * last] if item.spec.dtype == "float4_e2m1fn_x2" else list(item.spec.shape)
    return NAMES[item.spec.dtype], shape


def safetensors_fault(item: Item) -> str | None:
    """Return why this format alone cannot take a tensor, as the end of a sentence, or None."""
    if item.spec.dtype not in NAMES:
        return f"is {item.spec.dtype}, which safetensors has no dtype for"
    if item.key == "__metadata__":
        return "has a name that safetensors reserves"
    if not item.spec.shape and DTYPES[item.spec.dtype].kind == "bits" and item.spec.dtype.startswith("float4"):
        return "is float4_e2m1fn_x2 without a dimension"
    return None


def notes_of(plan: Plan, aliases: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Return the notes on what safetensors has no place for (formats/notes.py), or None where there is nothing."""
    place = {key: number for number, key in enumerate(plan.order)} if aliases or plan.entries else {}
    kinds = {kind: [item.key for item in plan.items if item.spec.kind == kind] for kind in ("parameter", "buffer")}
    sections = {
        "aliases": {key: {"of": note["of"], "at": place[key], **note} for key, note in aliases.items()},
        "entries": {key: {"at": place[key], "value": value} for key, value in plan.entries.items()},
        "around": plan.around,
        "versions": plan.versions,
        "parameters": kinds["parameter"],
        "buffers": kinds["buffer"],
        "requires_grad": [item.key for item in plan.items if item.spec.requires_grad],
    }
    given = {name: value for name, value in sections.items() if value or (name == "versions" and value is not None)}
    return json.dumps({"schema": SCHEMA, **given}, separators=(",", ":")) if given else None


def metadata_of(plan: Plan, notes: str | None) -> dict[str, str]:
    """Return the metadata of a file: what its user gave, the word that transformers looks for, and the notes."""
    return {"format": "pt", **plan.metadata, **({NAME: notes} if notes else {})}


class ShardIndex(Output):
    """The index of a set of shards; keys are in the order of the state dict."""

    def __init__(self, path: str, places: Mapping[str, str], total_size: int, notes: str | None) -> None:
        self.path = path
        metadata = {"total_size": total_size, **({NAME: notes} if notes else {})}
        self._text = (json.dumps({"metadata": metadata, "weight_map": places}, indent=2) + "\n").encode()
        self.size = len(self._text)

    def write(self, file: NewFile, seen: Seen) -> None:  # noqa: ARG002  (there are no tensors in it)
        """Write the JSON."""
        file.write(self._text)

    def verify(self, path: str, seen: Seen) -> None:
        """Compare the file with the JSON."""
        same_bytes("its text", of_bytes(self._text), ByteSource(path), 0, lambda _: seen(0))
