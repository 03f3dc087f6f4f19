"""The Manifest of a live model, or of a state dict that is in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from ..errors import UsageError
from ..manifest import Kind, Manifest, TensorSpec

EXTRA_STATE = "_extra_state"


def manifest_of(model: Any) -> Manifest:
    """Describe what ``state_dict()`` of a live module holds, its own hooks included, or a state dict itself.

    The values are neither copied nor read. Of a module the kinds, ``requires_grad`` and the buffers with
    ``persistent=False`` are known; of a mapping only what its tensors say. Storages are numbered in order of
    appearance. Raises UsageError for anything else, and for keys that are no text.
    """
    if isinstance(model, nn.Module):
        return _of_module(model)
    if isinstance(model, Mapping):
        return _of_state(model, {}, StorageNames())
    raise UsageError(type(model).__name__, "is neither a torch.nn.Module nor a mapping of names to tensors")


def named_tensors(module: nn.Module) -> Iterator[tuple[str, torch.Tensor, Kind, bool]]:
    """Yield the key, tensor, kind and persistence of every parameter and buffer, under each of its names."""
    for path, owner in module.named_modules(remove_duplicate=False):
        prefix = f"{path}." if path else ""
        for name, parameter in owner._parameters.items():
            if parameter is not None:
                yield prefix + name, parameter, "parameter", True
        for name, buffer in owner._buffers.items():
            if buffer is not None:
                yield prefix + name, buffer, "buffer", name not in owner._non_persistent_buffers_set


def device_of(module: nn.Module) -> str:
    """Name the device of a module's tensors, all of them where they differ; ``cpu`` where it has none."""
    devices = dict.fromkeys(str(tensor.device) for _, tensor, _, _ in named_tensors(module))
    return " and ".join(devices) or "cpu"


def type_name(value: object) -> str:
    """Name a value's type: ``int``, ``collections.OrderedDict``."""
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


class StorageNames:
    """Names for storages: ``0``, ``1``, ... in order of appearance."""

    def __init__(self) -> None:
        self._names: dict[int, str] = {}

    def name(self, storage: torch.UntypedStorage) -> str:
        """Return the name of a storage, a new one where it was not seen before."""
        # All tensors of one manifest are alive while it is made, so that addresses are not reused.
        return self._names.setdefault(storage._cdata, str(len(self._names)))


_Known = dict[Any, tuple[Kind, bool]]


def _of_module(module: nn.Module) -> Manifest:
    known: _Known = {}
    hidden: dict[str, tuple[torch.Tensor, Kind]] = {}
    for key, tensor, kind, persistent in named_tensors(module):
        known[key] = known[_view(tensor)] = (kind, tensor.requires_grad)
        if not persistent:
            hidden[key] = (tensor, kind)
    storages = StorageNames()
    manifest = _of_state(module.state_dict(), known, storages)
    non_persistent = {
        key: spec_of(tensor, storages, (kind, tensor.requires_grad)) for key, (tensor, kind) in hidden.items()
    }
    return Manifest(manifest.tensors, manifest.entries, manifest.versions, non_persistent)


def _of_state(state: Mapping[Any, Any], known: _Known, storages: StorageNames) -> Manifest:
    tensors: dict[str, TensorSpec] = {}
    entries: dict[str, str] = {}
    for key, value in state.items():
        if not isinstance(key, str):
            raise UsageError("state dict", f"has a key that is no text: {key!r}")
        if isinstance(value, torch.Tensor):
            # A hook may rename a parameter; its memory still tells what it is.
            origin = known.get(key) or known.get(_view(value)) or _guess(key, value)
            tensors[key] = spec_of(value, storages, origin)
        else:
            entries[key] = type_name(value)
    return Manifest(tensors, entries, _versions(getattr(state, "_metadata", None)))


def _guess(key: str, tensor: torch.Tensor) -> tuple[Kind, bool]:
    if key.rpartition(".")[2] == EXTRA_STATE:
        return "extra_state", tensor.requires_grad
    return "parameter" if isinstance(tensor, nn.Parameter) else "tensor", tensor.requires_grad


def _versions(metadata: Any) -> dict[str, int | None] | None:
    if not isinstance(metadata, Mapping):
        return None
    found = {
        str(path): entry.get("version") if isinstance(entry, Mapping) else None for path, entry in metadata.items()
    }
    return {path: version if type(version) is int else None for path, version in found.items()}


def _view(tensor: torch.Tensor) -> Any:
    """Return a value equal for two tensors that are the same elements of the same memory."""
    storage = storage_of(tensor)
    if storage is None or not storage.nbytes():
        return id(tensor)
    return storage._cdata, tensor.storage_offset(), tensor.shape, tensor.stride(), tensor.dtype


def storage_of(tensor: torch.Tensor) -> torch.UntypedStorage | None:
    """Return the memory of a tensor; sparse, lazy and some wrapped tensors have none of their own."""
    if is_lazy(tensor) or tensor.layout is not torch.strided:
        return None
    try:
        return tensor.untyped_storage()
    except (NotImplementedError, RuntimeError):
        return None


def spec_of(tensor: torch.Tensor, storages: StorageNames, origin: tuple[Kind, bool]) -> TensorSpec:
    """Describe one tensor; ``origin`` is its kind and the ``requires_grad`` of what it stands for."""
    kind, requires_grad = origin
    if is_lazy(tensor):
        dtype = str(tensor.data.dtype).removeprefix("torch.")
        return TensorSpec((), dtype, kind, requires_grad=requires_grad, layout="uninitialized")
    storage = storage_of(tensor)
    strided = tensor.layout is torch.strided
    return TensorSpec(
        shape=tuple(tensor.shape),
        dtype=str(tensor.dtype).removeprefix("torch."),
        kind=kind,
        stride=tuple(tensor.stride()) if strided else None,
        storage_offset=tensor.storage_offset() if strided else 0,
        storage=None if storage is None else storages.name(storage),
        storage_nbytes=None if storage is None else storage.nbytes(),
        requires_grad=requires_grad,
        layout=str(tensor.layout).removeprefix("torch."),
        conj=tensor.is_conj(),
        neg=tensor.is_neg(),
    )
