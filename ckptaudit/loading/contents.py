"""The state dict of a load: what it holds is known before, and read when torch asks for it."""

from __future__ import annotations

import copy
import os
from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..dtypes import DTYPES
from ..errors import UsageError
from ..formats import Limits, open_checkpoint
from ..formats.base import Checkpoint, Payload
from ..manifest import Manifest
from ..model.describe import manifest_of
from .result import LoadError
from .stored import StoredTensor, Workshop, python_value, read_tensor

if TYPE_CHECKING:
    import torch

    from ..mapping.mapping import KeyMapping, Mapped


class Contents:
    """What a checkpoint holds under a mapping: ``manifest`` describes it, ``value`` gives one entry.

    The tensors of a file come as StoredTensor, those of a state dict in memory as they are, or as the results of the
    mapping's operations. Nothing of the given state dict is changed.
    """

    def __init__(self, name: str, raw_manifest: Manifest, mapping: KeyMapping | None) -> None:
        self.name = name
        self.mapped: Mapped | None = None
        if mapping is not None:
            self.mapped = mapping.apply(raw_manifest)
        self.manifest = raw_manifest if self.mapped is None else self.mapped.manifest
        self._workshop = Workshop(self.tensor)

    def tensor(self, key: str) -> torch.Tensor:
        """Return a tensor of the checkpoint under its name there, in memory."""
        raise NotImplementedError

    def stored(self, key: str) -> torch.Tensor:
        """Return a tensor of the checkpoint under its name there, read or not."""
        return self.tensor(key)

    def entry(self, key: str) -> Any:
        """Return what is no tensor, under its name in the checkpoint."""
        raise NotImplementedError

    def check(self, key: str) -> None:
        """Raise LoadError where the entry of that name, after the mapping, cannot be had."""

    def check_unchanged(self) -> None:
        """Raise FormatError where the file was written to since it was opened."""

    def location(self, key: str) -> str:
        """Return the device that the checkpoint records for a tensor, under its name after the mapping."""
        return self.manifest.tensors[key].location or "cpu"

    def sources(self, key: str) -> tuple[str, ...]:
        """Return the names in the checkpoint of what is made into ``key``."""
        recipe = self.mapped.recipes.get(key) if self.mapped else None
        if recipe is not None:
            return recipe.sources
        return (self.mapped.origin[key] if self.mapped else key,)

    def value(self, key: str) -> Any:
        """Return one entry under its name after the mapping."""
        recipe = self.mapped.recipes.get(key) if self.mapped else None
        if recipe is None:
            (source,) = self.sources(key)
            return self.stored(source) if key in self.manifest.tensors else self.entry(source)
        spec = self.manifest.tensors[key]
        return StoredTensor.of(spec.shape, spec.dtype, lambda: self._workshop.make(recipe), None)

    def metadata(self) -> OrderedDict[str, Any] | None:
        """Return new ``_metadata`` with the versions of the modules, or None where the checkpoint has none."""
        if self.manifest.versions is None:
            return None
        versions = self.manifest.versions.items()
        return OrderedDict((path, {} if version is None else {"version": version}) for path, version in versions)


class _OfFile(Contents):
    def __init__(self, checkpoint: Checkpoint, mapping: KeyMapping | None) -> None:
        super().__init__(checkpoint.path, checkpoint.manifest, mapping)
        self._checkpoint = checkpoint
        self._raw = checkpoint.raw[checkpoint.chosen.path]
        self._payload: Payload | None = None

    def tensor(self, key: str) -> torch.Tensor:
        return read_tensor(self._raw[key])

    def stored(self, key: str) -> torch.Tensor:
        raw = self._raw[key]
        return StoredTensor.of(raw.spec.shape, raw.spec.dtype, lambda: read_tensor(raw), raw)

    def entry(self, key: str) -> Any:
        return python_value(self._entries()[key])

    def check(self, key: str) -> None:
        for source in self.sources(key):
            if key in self.manifest.tensors:
                spec = self._checkpoint.manifest.tensors[source]
                quantized = DTYPES[spec.dtype].kind == "quantized"
                if source not in self._raw or quantized:
                    layout = "quantized" if quantized else spec.layout
                    what = "lies in several pieces" if layout == "strided" else f"is {layout}"
                    hint = "leave it out: mapping=['drop KEY'], contract='partial'"
                    raise LoadError(self.name, f"{source} {what}, which is not read yet", hint)
            elif source not in self._entries():
                kind = self._checkpoint.manifest.entries[source]
                raise LoadError(self.name, f"{source} is a {kind}, which is not made out of a file", "leave it out")

    def check_unchanged(self) -> None:
        for part in (self._checkpoint, *self._checkpoint.parts):
            if part.source is not None:
                part.source.check_unchanged()

    def _entries(self) -> Mapping[str, Any]:
        if self._payload is None:
            read = self._checkpoint.read_payload
            self._payload = read() if read is not None else Payload()
        return self._payload.entries


class _OfState(Contents):
    def __init__(self, state: Mapping[str, Any], mapping: KeyMapping | None) -> None:
        super().__init__("state dict", manifest_of(state), mapping)
        self._state = state

    def tensor(self, key: str) -> torch.Tensor:
        value: torch.Tensor = self._state[key].detach()
        return value

    def entry(self, key: str) -> Any:
        return copy.deepcopy(self._state[key])

    def location(self, key: str) -> str:
        return str(self._state[self.sources(key)[0]].device)

    def metadata(self) -> OrderedDict[str, Any] | None:
        given = getattr(self._state, "_metadata", None)
        return copy.deepcopy(given) if self.mapped is None and given is not None else super().metadata()


def contents_of(given: Any, mapping: KeyMapping | None, limits: Limits) -> Contents:
    """Open what a load is given: a path, a Checkpoint, a state dict in memory. Raises CkptauditError."""
    if isinstance(given, (str, os.PathLike)):
        return _OfFile(open_checkpoint(given, limits=limits, with_payload=True), mapping)
    if isinstance(given, Checkpoint):
        return _OfFile(given, mapping)
    if isinstance(given, Mapping):
        return _OfState(given, mapping)
    raise UsageError(type(given).__name__, "is neither a path, a Checkpoint nor a state dict", "give the file's path")
