"""Tensors that are still in their file: they are read when they are used, right into the model where they fit it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch.utils._pytree import tree_map

from ..dtypes import DTYPES
from ..errors import FormatError
from ..formats.base import MIB, ByteSource, RawTensor
from ..mapping.effect import Recipe
from ..mapping.execute import execute


class StoredTensor(torch.Tensor):  # type: ignore[misc]
    """Stands for a tensor on the CPU that ``make`` reads or computes; ``raw`` is where its bytes lie, if they do.

    Shape and dtype are known; whatever else is asked of it is asked of the tensor that ``make`` returns, each time
    anew. ``copy_`` from one whose bytes lie in its file as they will in memory reads them there.
    """

    make: Callable[[], torch.Tensor]
    raw: RawTensor | None
    later: Later | None = None

    @staticmethod
    def of(shape: tuple[int, ...], dtype: str, make: Callable[[], torch.Tensor], raw: RawTensor | None) -> StoredTensor:
        """Return a stand-in for what ``make`` makes."""
        stored: StoredTensor = torch.Tensor._make_wrapper_subclass(
            StoredTensor, shape, dtype=getattr(torch, dtype), device="cpu"
        )
        stored.make, stored.raw = make, raw
        return stored

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.copy_.default and isinstance(args[1], StoredTensor) and args[1]._fill(args[0]):
            return args[0]
        args, kwargs = tree_map(_made, (args, kwargs or {}))
        return func(*args, **kwargs)

    def fits(self, target: torch.Tensor) -> bool:
        """Tell whether the bytes in the file are those that ``target`` will have, in their order."""
        return (
            self.raw is not None
            and is_plain(self.raw)
            and (target.shape, target.dtype, target.layout) == (self.shape, self.dtype, torch.strided)
            and target.device.type == "cpu"
            and target.is_contiguous()
            and not (target.is_conj() or target.is_neg() or isinstance(target, StoredTensor))
        )

    def _fill(self, target: torch.Tensor) -> bool:
        """Read the values right into ``target`` where they fit, now or later."""
        if not self.fits(target):
            return False
        assert self.raw is not None
        if self.later is not None:
            self.later.add(self.raw, target)
        elif target.numel():
            self.raw.source.read_into(_start(self.raw), _bytes_of(target))
        return True


class Later:
    """Copies that are put off until nothing else can fail any more.

    ``prepare`` reads all the bytes that are not in memory already, as the system keeps files there; only then ``copy``
    overwrites anything. What it reads is what was read a moment before: it gives up only where that fails three times.
    """

    def __init__(self) -> None:
        self._pieces: list[tuple[ByteSource, int, memoryview]] = []

    def add(self, raw: RawTensor, target: torch.Tensor) -> None:
        """Put a copy off."""
        if target.numel():
            start, view = _start(raw), _bytes_of(target)
            self._pieces += [(raw.source, start + at, view[at : at + _PIECE]) for at in range(0, len(view), _PIECE)]

    def prepare(self) -> None:
        """Have every byte in memory. Raises FormatError and OSError; nothing has changed then."""
        if all(source.is_cached(start, end - start) for source, start, end in self._spans()):
            return
        scratch = threading.local()

        def read(piece: tuple[ByteSource, int, memoryview]) -> None:
            source, start, view = piece
            if not hasattr(scratch, "buffer"):
                scratch.buffer = memoryview(bytearray(_PIECE))
            source.read_into(start, scratch.buffer[: len(view)])

        self._each(read)

    def _spans(self) -> Iterator[tuple[ByteSource, int, int]]:
        """Yield each file with where its first piece begins and its last one ends."""
        spans: dict[int, tuple[ByteSource, int, int]] = {}
        for source, start, view in self._pieces:
            _, first, last = spans.get(id(source), (source, start, start))
            spans[id(source)] = source, min(first, start), max(last, start + len(view))
        yield from spans.values()

    def copy(self) -> None:
        """Read every byte to where it belongs."""
        self._each(_read_piece)
        self._pieces.clear()

    def _each(self, act: Callable[[tuple[ByteSource, int, memoryview]], None]) -> None:
        if len(self._pieces) < _FEW:
            for piece in self._pieces:
                act(piece)
            return
        with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:  # the kernel copies, without Python's lock
            for _ in pool.map(act, self._pieces):
                pass


_PIECE = 4 * MIB
_FEW = 8  # pieces, for which threads do not pay


def _read_piece(piece: tuple[ByteSource, int, memoryview]) -> None:
    source, start, view = piece
    for attempt in range(3):
        try:
            source.read_into(start, view)
            return
        except (OSError, FormatError):
            if attempt == 2:
                raise


def _made(value: Any) -> Any:
    return value.make() if isinstance(value, StoredTensor) else value


def is_plain(raw: RawTensor) -> bool:
    """Tell whether the bytes in the file are, in their order, those of a contiguous tensor on this machine."""
    spec = raw.spec
    return spec.contiguous and raw.byteorder == "little" and not (spec.conj or spec.neg)


def read_tensor(raw: RawTensor) -> torch.Tensor:
    """Read a tensor into memory of its own: dense, contiguous, its conj and neg bits carried out."""
    spec = raw.spec
    dtype, item = getattr(torch, spec.dtype), DTYPES[spec.dtype].itemsize
    if is_plain(raw):
        tensor = torch.empty(spec.shape, dtype=dtype)
        if tensor.numel():
            raw.source.read_into(_start(raw), _bytes_of(tensor))
        return tensor
    stride = spec.stride or ()
    extent = 1 + sum((size - 1) * step for size, step in zip(spec.shape, stride, strict=True)) if spec.numel else 0
    span = torch.empty(extent, dtype=dtype)
    if extent:
        raw.source.read_into(_start(raw), _bytes_of(span))
    if raw.byteorder == "big" and extent:
        width = item // 2 if dtype.is_complex else item
        span = span.view(torch.uint8).reshape(-1, width).flip(1).contiguous().reshape(-1).view(dtype)
    view = span.as_strided(spec.shape, stride)
    view = view.conj() if spec.conj else view
    view = torch._neg_view(view) if spec.neg else view
    return view.resolve_conj().resolve_neg().clone(memory_format=torch.contiguous_format)


def _start(raw: RawTensor) -> int:
    return raw.offset + raw.spec.storage_offset * DTYPES[raw.spec.dtype].itemsize


def _bytes_of(tensor: torch.Tensor) -> memoryview:
    return memoryview(tensor.detach().reshape(-1).view(torch.uint8).numpy())


class Workshop:
    """Carries out recipes on the tensors of a checkpoint; the results of the last operation are kept."""

    def __init__(self, tensor: Callable[[str], torch.Tensor]) -> None:
        self._tensor = tensor
        self._last: tuple[Any, list[torch.Tensor]] | None = None

    def make(self, recipe: Recipe) -> torch.Tensor:
        """Return what a recipe makes."""
        work = (recipe.op, recipe.sources)
        if self._last is None or self._last[0] != work:
            self._last = None
            self._last = work, execute(recipe.op, [self._tensor(key) for key in recipe.sources])
        output = self._last[1][recipe.output]
        return output if recipe.cast is None else execute(recipe.cast, [output])[0]


def python_value(written: Any) -> Any:
    """Return the value that ``formats/payload.py`` wrote as JSON."""
    if isinstance(written, list):
        return [python_value(item) for item in written]
    if not isinstance(written, Mapping):
        return written
    if len(written) == 1:
        ((tag, content),) = written.items()
        if tag in _UNTAGGED:
            return _UNTAGGED[tag](content)
    return {key: python_value(item) for key, item in written.items()}


def _pairs(content: Any) -> list[tuple[Any, Any]]:
    return [(python_value(key), python_value(item)) for key, item in content]


def _bytes(content: str) -> bytes:
    from binascii import a2b_base64

    return a2b_base64(content)


def _ordered(content: Any) -> Any:
    from collections import OrderedDict

    return OrderedDict(_pairs(content))


_UNTAGGED: dict[str, Callable[[Any], Any]] = {
    "$tuple": lambda content: tuple(map(python_value, content)),
    "$dict": lambda content: dict(_pairs(content)),
    "$ordered": _ordered,
    "$set": lambda content: set(map(python_value, content)),
    "$bytes": _bytes,
    "$float": float,
    "$size": torch.Size,
    "$device": torch.device,
    "$dtype": lambda content: getattr(torch, content),
}
