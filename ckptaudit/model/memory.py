"""Tensors in memory as the readers of files give them: raw bytes with a description, and no copy."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from ..errors import FormatError
from ..formats.base import ByteSource, RawTensor
from .describe import StorageNames, spec_of

_view_of: Any = ctypes.pythonapi.PyMemoryView_FromMemory
_view_of.argtypes = (ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_int)
_view_of.restype = ctypes.py_object
_READ = 0x100  # PyBUF_READ


def view_of(address: int, size: int) -> memoryview:
    """Return so many bytes of memory, which must outlive the view."""
    view: memoryview = _view_of(address, size, _READ) if size else memoryview(b"")
    return view


class MemorySource(ByteSource):
    """The storage of a tensor on the CPU, read by position like a file."""

    def __init__(self, storage: torch.UntypedStorage, name: str) -> None:
        self.path, self.size, self._storage = name, storage.nbytes(), storage
        self._view = view_of(storage.data_ptr(), self.size)

    def read(self, offset: int, length: int) -> bytes:
        """Return exactly ``length`` bytes from ``offset``."""
        self._check(offset, length)
        return bytes(self._view[offset : offset + length])

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill ``buffer`` with the bytes from ``offset`` on."""
        self._check(offset, len(buffer))
        buffer[:] = self._view[offset : offset + len(buffer)]

    def _check(self, offset: int, length: int) -> None:
        if offset < 0 or length < 0 or offset + length > self.size:
            raise FormatError(self.path, f"has {self.size:,} bytes of memory, fewer than its shape needs")

    @property
    def identity(self) -> tuple[int, int]:
        """The address: equal where two tensors share their memory. No device has the number -1."""
        return -1, self._storage.data_ptr()

    def check_unchanged(self) -> None:
        """Do nothing: who compares a live model does not train it meanwhile."""

    def close(self) -> None:
        """Do nothing: the memory belongs to the tensor."""


def raw_tensors(state: Mapping[str, Any], name: str = "state dict") -> dict[str, RawTensor | str]:
    """Return the tensors of a state dict where they lie, copies of those on an accelerator, or why they have no bytes.

    The reason is the end of a sentence that the key begins.
    """
    return {key: _raw_of(value, name) for key, value in state.items() if isinstance(value, Tensor)}


def _raw_of(tensor: Tensor, name: str) -> RawTensor | str:
    if reason := why_not(tensor):
        return reason
    tensor = tensor.detach() if tensor.is_cpu else tensor.detach().cpu()
    storage = tensor.untyped_storage()
    spec = spec_of(tensor, StorageNames(), ("tensor", False))
    return RawTensor(spec, MemorySource(storage, name), 0, storage.nbytes())


_NO_DISPATCH = Tensor.__torch_dispatch__


def why_not(tensor: Tensor) -> str:
    """Say why a tensor cannot be read, or return the empty string."""
    if is_lazy(tensor):
        return "is lazy and has no values yet"
    if tensor.is_meta:
        return "is on the meta device and has no values"
    if tensor.layout != torch.strided or tensor.is_nested:
        return f"has the layout {str(tensor.layout).removeprefix('torch.')}"
    if type(tensor).__torch_dispatch__ is not _NO_DISPATCH:
        return f"is a {type(tensor).__name__}, which keeps its values elsewhere"
    if tensor.is_quantized:
        return "is quantized"
    if not tensor.untyped_storage().nbytes() and tensor.numel():
        return "has no memory at the moment (a sharded parameter outside its forward pass)"
    return ""
