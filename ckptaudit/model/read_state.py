"""A checkpoint's state dict with its values, read by torch or safetensors themselves: the witness's own way to a file.

Nothing of a file is executed: torch reads with ``weights_only=True`` or not at all.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import torch

from ..dtypes import DTYPES
from ..errors import first_line
from ..formats import Checkpoint, RawTensor
from ..formats.candidates import component, join
from .trial import placeholder, with_versions
from .twin import UndecidedError

State = Mapping[str, Any]
_TORCH = ("torch-zip", "torch-legacy", "torch-tar")
_PLAIN = ("state_dict", "optimizer")


def read_state(checkpoint: Checkpoint) -> tuple[State, str, str]:
    """Return the chosen state dict, who read it, and why that was not the format's own library ("" where it was).

    Tensors of zip archives and safetensors files stay in the file until they are used. Raises UndecidedError
    where the values are of a kind that cannot be read without torch.
    """
    try:
        whole, reader = _read(checkpoint)
        return _inner(whole, checkpoint.chosen.path), reader, ""
    except _NoReaderError as error:
        note = str(error)
    except Exception as error:
        note = f"torch's own reader refuses it: {first_line(error)}"
    return _ours(checkpoint), "ckptaudit", note


class _NoReaderError(Exception):
    """Why neither torch nor safetensors reads a file without executing it, or not this part of it."""


def _read(checkpoint: Checkpoint) -> tuple[Any, str]:
    if checkpoint.format in _TORCH and checkpoint.chosen.kind in _PLAIN:
        mapped = checkpoint.format == "torch-zip"
        return torch.load(checkpoint.path, map_location="cpu", weights_only=True, mmap=mapped), "torch.load"
    if checkpoint.format == "safetensors":
        try:
            from safetensors.torch import load_file
        except ImportError:
            raise _NoReaderError("safetensors is not installed") from None
        return load_file(checkpoint.path), "safetensors"
    if checkpoint.format.startswith("sharded-"):
        shards = [_read(shard) for shard in checkpoint.parts]
        return {key: value for shard, _ in shards for key, value in shard.items()}, shards[0][1]
    raise _NoReaderError(f"torch has no reader of {checkpoint.format} that gives its tensors alone")


def _inner(value: Any, path: str, above: str = "") -> State:
    """Return what lies at a path as ``formats.candidates`` writes it; keys may hold dots themselves."""
    if above == path and isinstance(value, Mapping):
        return value
    pairs = (
        value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, (list, tuple)) else ()
    )
    for key, below in pairs:
        name = join(above, component(key))
        if path == name or path.startswith(f"{name}."):
            try:
                return _inner(below, path, name)
            except _NoReaderError:
                continue
    raise _NoReaderError(f"what torch reads has no state dict at {path or 'the top level'}")


def _ours(checkpoint: Checkpoint) -> State:
    """Build the tensors of plain strided storages from their bytes."""
    raws, storages = checkpoint.raw[checkpoint.chosen.path], dict[Any, torch.UntypedStorage]()
    state: dict[str, Any] = {}
    for key, spec in checkpoint.manifest.tensors.items():
        if key not in raws or spec.layout != "strided" or DTYPES[spec.dtype].kind == "quantized":
            raise UndecidedError(f"the values of {key} can be read by torch alone")
        state[key] = _tensor(raws[key], storages)
    state |= {key: placeholder(kind) for key, kind in checkpoint.manifest.entries.items()}
    return with_versions(state, checkpoint.manifest)


def _tensor(raw: RawTensor, storages: dict[Any, torch.UntypedStorage]) -> torch.Tensor:
    spec, dtype = raw.spec, getattr(torch, raw.spec.dtype)
    place = (raw.source.path, raw.offset, raw.nbytes, raw.spec.dtype)
    if place not in storages:
        content = torch.frombuffer(bytearray(raw.source.read(raw.offset, raw.nbytes) or b"\0"), dtype=torch.uint8)
        if raw.byteorder != sys.byteorder and raw.nbytes:
            width = dtype.itemsize // (2 if dtype.is_complex else 1)
            content = content.reshape(-1, width).flip(1).contiguous()
        storages[place] = content.untyped_storage()
    stride = spec.stride if spec.stride is not None else torch.empty(spec.shape, device="meta").stride()
    tensor = torch.empty(0, dtype=dtype).set_(storages[place], spec.storage_offset, spec.shape, stride)
    tensor = tensor.conj() if spec.conj else tensor
    return torch._neg_view(tensor) if spec.neg else tensor
