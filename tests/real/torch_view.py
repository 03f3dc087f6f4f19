"""What torch.load shows of a file: every tensor by its path, and the state dicts' ``_metadata``."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from .catalogue import File


def load(path: Path, file: File) -> Any:
    """Load with ``weights_only=True``, with the plain data allowed that the catalogue names for this file."""
    with warnings.catch_warnings(), torch.serialization.safe_globals([_allowed(name) for name in file.allow]):
        warnings.filterwarnings("ignore", message="Validating sparse tensor invariants")
        return torch.load(path, map_location="cpu", weights_only=True)


def _allowed(name: str) -> tuple[Any, str]:
    """Return what the name stands for, with the name itself where it goes by another name today."""
    module, _, attribute = name.rpartition(".")
    try:
        home = importlib.import_module(module.replace("numpy.core", "numpy._core"))
    except ModuleNotFoundError:  # numpy 1
        home = importlib.import_module(module)
    return getattr(home, attribute), name


def tensors(node: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield every tensor inside dicts, lists and tuples, in order, with its path joined by dots.

    A bare tensor has no path; it is called ``tensor``, as ckptaudit calls it.
    """
    if isinstance(node, torch.Tensor):
        yield ".".join(path) or "tensor", node
    elif isinstance(node, dict):
        for key, value in node.items():
            yield from tensors(value, (*path, str(key)))
    elif isinstance(node, (list, tuple)):
        for index, value in enumerate(node):
            yield from tensors(value, (*path, str(index)))


def at(node: Any, path: str) -> Any:
    """Return what lies at a candidate's path (``state_dict``, ``optimizer_states.0``)."""
    for step in path.split(".") if path else ():
        node = node[int(step)] if isinstance(node, (list, tuple)) else node[step]
    return node


def facts(tensor: torch.Tensor) -> dict[str, Any]:
    """Describe one tensor in the words of a TensorSpec; only strided tensors have strides and a storage."""
    said: dict[str, Any] = {
        "shape": tuple(tensor.shape),
        "dtype": str(tensor.dtype).removeprefix("torch."),
        "requires_grad": tensor.requires_grad,
        "layout": str(tensor.layout).removeprefix("torch."),
    }
    if tensor.layout == torch.strided:
        said["stride"] = tensor.stride()
        said["storage_offset"] = tensor.storage_offset()
        said["storage_nbytes"] = tensor.untyped_storage().nbytes()
    return said


def shared_storages(named: dict[str, torch.Tensor]) -> list[tuple[str, ...]]:
    """Return the groups of two or more names whose tensors live in one storage."""
    groups: dict[int, list[str]] = {}
    for name, tensor in named.items():
        if tensor.layout == torch.strided:
            groups.setdefault(tensor.untyped_storage()._cdata, []).append(name)
    return [tuple(names) for names in groups.values() if len(names) > 1]


def versions(node: Any) -> dict[str, int | None] | None:
    """Return the module versions of a state dict's ``_metadata``, or None where it has none."""
    metadata = getattr(node, "_metadata", None)
    return None if metadata is None else {name: facts.get("version") for name, facts in metadata.items()}
