"""Fingerprints of tensors: 128 bits over every bit of every value in order, in one pass and without a copy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from ctypes import c_ubyte
from typing import Literal, NamedTuple

import torch
import xxhash
from torch import Tensor

from ..model.memory import view_of, why_not
from .select import Rows

Method = Literal["xxh3_128", "index_mix"]

# Bytes of a tensor that are made contiguous, or mixed, at a time.
_CHUNK = 8 << 20
_TYPES, _STRIDED = (Tensor, torch.nn.Parameter), torch.strided
_DTYPES = {value for value in vars(torch).values() if isinstance(value, torch.dtype)}
_REAL = frozenset(one for one in _DTYPES if not one.is_complex and not str(one).startswith("torch.q"))


class Fingerprint(NamedTuple):
    """The digest of a tensor's bytes, with what says how to read them.

    Taken alike (see ``take``), two are equal exactly where dtype, shape and every bit are equal, but for a chance of
    2^-128: -0.0 differs from 0.0, a NaN equals the same NaN, and the memory format does not matter. ``order`` is that
    of the dimensions in which the bytes were read, the empty tuple for the logical one.
    """

    method: Method
    dtype: torch.dtype
    shape: torch.Size
    order: tuple[int, ...]
    digest: bytes


_AS_IT_LIES = ("xxh3_128", ())  # the method and the order of a fingerprint


def take(
    tensors: Mapping[str, tuple[Tensor, Rows | None]], like: Mapping[str, Fingerprint] | None = None
) -> tuple[dict[str, Fingerprint], dict[str, str]]:
    """Return the fingerprints of tensors, or of some rows of them, and the names of those without one with the reason.

    Tensors on the CPU are hashed where they lie, by xxh3_128 at the speed of memory. Those on an accelerator are mixed
    there (``index_mix``), and all their digests come over in one copy per device. ``like`` are earlier fingerprints:
    what has one is read by the same method and in the same order, wherever and in which memory format it is now.
    """
    found: dict[str, Fingerprint] = {}
    unchecked: dict[str, str] = {}
    waiting: dict[torch.device, dict[str, Tensor]] = {}
    for name, (tensor, rows) in tensors.items():
        known = like.get(name) if like else None
        usual = rows is None and type(tensor) in _TYPES and (known is None or known[::3] == _AS_IT_LIES)
        if usual and (plain := _of_plain(tensor)) is not None:
            found[name] = plain
            continue
        if reason := why_not(tensor):
            unchecked[name] = reason
            continue
        method = known.method if known else "xxh3_128" if tensor.is_cpu else "index_mix"
        order = known.order if known and len(known.order) in (0, tensor.dim()) else _order(tensor, rows)
        digest = b""
        if method == "index_mix":
            waiting.setdefault(tensor.device, {})[name] = _index_mix(tensor.detach(), rows, order)
        else:
            digest = _xxh3(tensor, rows, order)
        found[name] = Fingerprint(method, tensor.dtype, tensor.shape, order, digest)
    for mixed in waiting.values():
        for name, words in zip(mixed, torch.stack(list(mixed.values())).tolist(), strict=True):
            digest = b"".join(word.to_bytes(8, "little", signed=True) for word in words)
            found[name] = found[name]._replace(digest=digest)
    return found, unchecked


def _of_plain(tensor: Tensor) -> Fingerprint | None:
    """Return the fingerprint of a tensor whose bytes lie on the CPU in the order in which they are read, else None.

    Of most they do, and then nothing of what ``why_not`` looks for is so; asking here takes half the time of all that.
    """
    address, dtype = tensor.data_ptr() if tensor.layout is _STRIDED else 0, tensor.dtype
    if not (address and dtype in _REAL and tensor.is_cpu and tensor.is_contiguous()):
        return None
    if tensor.is_neg() or tensor.is_nested:
        return None
    memory = (c_ubyte * tensor.nbytes).from_address(address)  # half the time of a memoryview
    values = ("xxh3_128", dtype, tensor.shape, (), xxhash.xxh3_128_digest(memory))
    return tuple.__new__(Fingerprint, values)  # a third of the time of Fingerprint(...)


def _order(tensor: Tensor, rows: Rows | None) -> tuple[int, ...]:
    """Return the dimensions in the order in which they lie in memory (channels_last), or () for the logical order."""
    if rows is not None or tensor.is_contiguous():
        return ()
    order = tuple(sorted(range(tensor.dim()), key=tensor.stride, reverse=True))
    return order if tensor.permute(order).is_contiguous() else ()


def _parts(tensor: Tensor, rows: Rows | None, order: tuple[int, ...]) -> Iterator[Tensor]:
    """Yield contiguous pieces that make up the tensor in that order; what lies contiguous already is not copied."""
    if tensor.is_conj() or tensor.is_neg():
        tensor = tensor.resolve_conj().resolve_neg()
    if order:
        tensor = tensor.permute(order)
    for piece in [tensor] if rows is None else [tensor[start:stop] for start, stop in rows]:
        if piece.is_contiguous():
            yield piece
        else:
            step = max(1, _CHUNK // max(1, piece[0].numel() * piece.element_size()))
            yield from (part.contiguous() for part in piece.split(step))


def _xxh3(tensor: Tensor, rows: Rows | None, order: tuple[int, ...]) -> bytes:
    digest = xxhash.xxh3_128()
    # One of an accelerator comes over where its first fingerprint was taken on the CPU.
    for piece in _parts(tensor.detach().cpu(), rows, order):
        digest.update(view_of(piece.data_ptr(), piece.nbytes))
    return digest.digest()


# Odd 64-bit constants as signed integers: 2^64 divided by the golden ratio (Knuth, TAOCP 6.4), and the
# multipliers of splitmix64 (Steele, Lea and Flood, OOPSLA 2014, as Vigna published it).
_GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)
_FIRST = 0xBF58476D1CE4E5B9 - (1 << 64)
_SECOND = 0x94D049BB133111EB - (1 << 64)
_SEEDS = (0, 0x2545F4914F6CDD1D)
_LOW = 0xFFFFFFFF
_WORDS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int32, 16: torch.int32}


def _index_mix(tensor: Tensor, rows: Rows | None, order: tuple[int, ...]) -> Tensor:
    """Return two int64 sums, modulo 2^64, of words mixed with where they stand: order counts, and tiling does not."""
    sums = torch.zeros(2, dtype=torch.int64, device=tensor.device)
    start = 0
    for piece in _parts(tensor, rows, order):
        flat = piece.reshape(-1).view(_WORDS[piece.element_size()])
        for words in flat.split(_CHUNK // 8):
            index = torch.arange(start, start + len(words), dtype=torch.int64, device=tensor.device)
            keyed = words.to(torch.int64) ^ (index * _GOLDEN)
            sums += torch.stack([_mixed(keyed ^ seed) for seed in _SEEDS])
            start += len(words)
    return sums


def _mixed(words: Tensor) -> Tensor:
    mixed = words * _FIRST
    mixed = (mixed ^ ((mixed >> 32) & _LOW)) * _SECOND
    return (mixed ^ ((mixed >> 29) & (_LOW | (0b111 << 32)))).sum()
