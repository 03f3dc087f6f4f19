"""Where the tensors of a checkpoint go: ``map_location``, as torch.load has it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ..errors import UsageError, first_line


class Places:
    """Moves tensors to their places, given the location that the file records for each.

    ``map_location`` is a device or its name; a mapping of locations to them, whose gaps are filled by the location
    itself; a function of a storage on the CPU and its location that returns a storage, or None for the location; or
    None for the location itself (https://docs.pytorch.org/docs/stable/generated/torch.load.html). Raises UsageError
    for what is none of these, and for a device that this machine has not.
    """

    def __init__(self, map_location: Any) -> None:
        self._function = None
        self._table: dict[str, torch.device] = {}
        self._one: torch.device | None = None
        if isinstance(map_location, (str, torch.device)):
            self._one = _device(map_location)
        elif isinstance(map_location, Mapping):
            self._table = {str(location): _device(target) for location, target in map_location.items()}
        elif callable(map_location):
            self._function = map_location
        elif map_location is not None:
            given = type(map_location).__name__
            raise UsageError("map_location", f"is a {given}", "give the name of a device: map_location='cpu'")

    def stays(self, location: str) -> bool:
        """Tell whether a tensor of that location is left on the CPU, where it is read."""
        return self._function is None and self._target(location).type == "cpu"

    def place(self, tensor: torch.Tensor, location: str) -> torch.Tensor:
        """Return the tensor at its place; itself, where that is the CPU and it is there."""
        if self._function is not None:
            result = self._function(tensor.untyped_storage(), location)
            if result is not None:
                return _on(result, tensor)
        return tensor.to(self._target(location))

    def _target(self, location: str) -> torch.device:
        return self._one or self._table.get(location) or _device(location)


def _device(name: str | torch.device) -> torch.device:
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except Exception as error:
        reason = f"leads to {name}, which cannot be used here: {first_line(error)}"
        raise UsageError("map_location", reason, "give map_location='cpu'") from None
    return device


def _on(storage: Any, tensor: torch.Tensor) -> torch.Tensor:
    """Return the tensor on a storage that a function has returned."""
    storage = getattr(storage, "_untyped_storage", storage)  # a typed storage holds one without a type
    if not isinstance(storage, torch.UntypedStorage):
        raise UsageError("map_location", f"returned a {type(storage).__name__} and no storage", "return a storage")
    empty = torch.empty(0, dtype=tensor.dtype, device=storage.device)
    return empty.set_(storage, tensor.storage_offset(), tensor.shape, tensor.stride())
