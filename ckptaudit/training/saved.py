"""The values that frozen tensors are to have: those of a checkpoint file, read without loading it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..errors import UsageError
from ..formats.base import RawTensor
from ..mapping.mapping import KeyMapping
from ..sources import Source, open_source
from .fingerprint import Fingerprint, take

if TYPE_CHECKING:
    from .select import Selection


class Saved:
    """The tensors of a checkpoint or a state dict, one at a time.

    ``given`` is what ``diff`` takes as a checkpoint: a path, ``FILE#inner``, an open Checkpoint, or a state dict.
    ``mapping`` (what ``diff`` takes) gives its tensors the model's names; operations on tensors are refused. Raises
    CkptauditError where it cannot be opened, and UsageError for a manifest, which has no values.
    """

    def __init__(self, given: Any, mapping: Any = None) -> None:
        self.source: Source = open_source(given)
        self._state: Mapping[str, Any] = given if isinstance(given, Mapping) else {}
        if not self._state and self.source.checkpoint is None:
            self.source.close()
            raise UsageError(self.source.name, "has no values to compare with", "name a checkpoint")

        mapped = KeyMapping.of(mapping).apply(self.source.manifest) if mapping else None
        if mapped is not None and mapped.recipes:
            raise UsageError(
                "mapping", "has operations on tensors; an audit compares bits", "convert the checkpoint first"
            )
        self._keys = dict(mapped.origin) if mapped else {name: name for name in self.source.manifest}

    def tensor(self, name: str) -> Tensor | None:
        """Return a tensor by the model's name, on the CPU, or None where the checkpoint has no plain one."""
        key = self._keys.get(name)
        if key is None:
            return None
        if self._state:
            value = self._state[key]
            return value.detach() if isinstance(value, Tensor) else None
        assert self.source.checkpoint is not None
        raw = self.source.checkpoint.tensor(key)
        return _loaded(raw) if raw.spec.layout == "strided" and raw.byteorder == "little" else None

    def fingerprints(self, selection: Selection) -> dict[str, Fingerprint]:
        """Return the fingerprints that the selected tensors should have, of those that the checkpoint has."""
        found: dict[str, Fingerprint] = {}
        for name, rows in selection.tensors.items():
            tensor = self.tensor(name)
            if tensor is not None:
                whole = rows is None or not tensor.dim() or rows[-1][1] > tensor.shape[0]
                found |= take({name: (tensor, None if whole else rows)})[0]
        return found


def _loaded(raw: RawTensor) -> Tensor:
    spec = raw.spec
    dtype = getattr(torch, spec.dtype)
    data = bytearray(raw.nbytes)
    if not data:
        return torch.empty(spec.shape, dtype=dtype)
    raw.source.read_into(raw.offset, memoryview(data))
    flat = torch.frombuffer(data, dtype=dtype)
    stride = spec.stride if spec.stride is not None else torch.empty(spec.shape, device="meta").stride()
    tensor = flat.as_strided(spec.shape, stride, spec.storage_offset)
    tensor = torch.conj(tensor) if spec.conj else tensor
    return torch._neg_view(tensor) if spec.neg else tensor
