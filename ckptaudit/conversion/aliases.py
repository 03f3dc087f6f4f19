"""Which tensors safetensors keeps where several share memory, and how the others are views of those."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ..dtypes import DTYPES
from ..manifest import TensorSpec
from ..records import dataclass
from .plan import Item


@dataclass(frozen=True)
class Sharing:
    """``kept`` are the tensors to write; ``aliases`` the others, each with its note (``of``, and its view).

    ``copied`` are those among the kept whose memory overlaps that of another, and is written for each of them.
    """

    kept: tuple[Item, ...]
    aliases: dict[str, dict[str, Any]]
    copied: tuple[str, ...]


def share(items: Sequence[Item]) -> Sharing:
    """Keep each memory once.

    Of tied tensors the name is kept that safetensors' ``save_model`` keeps: of those that cover the whole storage, the
    first one in alphabetical order. A tensor that lies inside another, dense one becomes a view of it.
    """
    storages: dict[str, list[Item]] = {}
    for item in items:
        if item.spec.storage is not None:
            storages.setdefault(item.spec.storage, []).append(item)
    aliases: dict[str, dict[str, Any]] = {}
    copied: list[str] = []
    for group in storages.values():
        if len(group) > 1:
            firsts = list(_untied(group, aliases))
            for cluster in _clusters(firsts):
                _settle(cluster, aliases, copied)
    for note in aliases.values():
        note.update(aliases.get(note["of"], {}))  # a tie of what became a view
    kept = tuple(item for item in items if item.key not in aliases)
    return Sharing(kept, aliases, tuple(copied))


def _untied(group: Sequence[Item], aliases: dict[str, dict[str, Any]]) -> Iterator[Item]:
    """Yield one tensor of each tie, and note the others."""
    ties: dict[object, list[Item]] = {}
    for item in group:
        spec = item.spec
        view = (spec.storage_offset, spec.shape, spec.stride, spec.dtype, spec.conj, spec.neg)
        ties.setdefault(view, []).append(item)
    for tied in ties.values():
        keep = min(tied, key=lambda item: (not _is_complete(item.spec), item.key))
        for item in tied:
            if item is not keep:
                aliases[item.key] = {"of": keep.key}
        yield keep


def _is_complete(spec: TensorSpec) -> bool:
    return spec.storage_offset == 0 and spec.nbytes == spec.storage_nbytes


def _clusters(items: Sequence[Item]) -> Iterator[list[Item]]:
    """Yield the groups of two or more tensors whose bytes, from the first to the last, overlap."""
    cluster: list[Item] = []
    end = 0
    for item in sorted((item for item in items if 0 not in item.spec.shape), key=lambda item: _range(item.spec)):
        start, stop = _range(item.spec)
        if cluster and start >= end:
            if len(cluster) > 1:
                yield cluster
            cluster, end = [], 0
        cluster.append(item)
        end = max(end, stop)
    if len(cluster) > 1:
        yield cluster


def _range(spec: TensorSpec) -> tuple[int, int]:
    """Return the bytes of the storage between which a tensor lies."""
    item = DTYPES[spec.dtype].itemsize
    if spec.stride is None:
        return 0, spec.nbytes
    last = sum((size - 1) * step for size, step in zip(spec.shape, spec.stride, strict=True))
    return spec.storage_offset * item, (spec.storage_offset + last + 1) * item


def _settle(cluster: list[Item], aliases: dict[str, dict[str, Any]], copied: list[str]) -> None:
    """Make the others views of a dense tensor that covers them all; where there is none, each is written."""
    start, stop = _range(cluster[0].spec)[0], max(_range(item.spec)[1] for item in cluster)
    plain = {item.spec.dtype for item in cluster}, {(item.spec.conj, item.spec.neg) for item in cluster}
    whole = [item for item in cluster if item.spec.contiguous and _range(item.spec) == (start, stop)]
    if plain != ({cluster[0].spec.dtype}, {(False, False)}) or not whole:
        copied += [item.key for item in cluster]
        return
    base = min(whole, key=lambda item: item.key)
    for item in cluster:
        if item is not base:
            spec = item.spec
            view = {"offset": spec.storage_offset - base.spec.storage_offset, "shape": list(spec.shape)}
            aliases[item.key] = {"of": base.key, **view, "stride": list(spec.stride or ())}
