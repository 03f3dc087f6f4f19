"""Sharing: one tensor under two names, and two tensors in one memory, across the border of what is frozen."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ...model.memory import why_not
from ...rules import Finding
from ...rules.training_flags import MEMORY_SHARED, TIED_NAMES_DISAGREE
from ...selection import overlap
from ..names import NamedTensor
from ..watch import extent
from .findings import Row, finding
from .setup import Setup


def check_ties(setup: Setup) -> Iterator[Finding]:
    """Find tensors that are frozen by one of their names, and not by another; and names declared both ways."""
    frozen, trainable = setup.frozen.tensors, setup.trainable.tensors
    both = [name for name in frozen if name in trainable and overlap(frozen[name], trainable[name])]
    claimed: list[Row] = [(name, "frozen and trainable", "patterns of both match it") for name in both]
    training: list[Row] = []
    for names in setup.shared:
        still = [name for name in names if name in frozen]
        others = [name for name in names if name not in frozen]
        if not still or not others:
            continue
        tensor, same = setup.tensors[still[0]].tensor, f"it is the same tensor as {others[0]}, which"
        if any(name in trainable for name in others):
            claimed += [(name, "frozen", f"{same} is trainable") for name in still]
        elif tensor.requires_grad and id(tensor) in setup.places:
            training += [(name, "frozen", f"{same} {setup.places[id(tensor)][0].who} trains") for name in still]
    if claimed:
        tied = {other for row in claimed for other in setup.names[id(setup.tensors[row[0]].tensor)]}
        yield finding(setup, TIED_NAMES_DISAGREE, claimed, case="claimed")
        setup.explained |= tied
    if training:
        yield finding(setup, TIED_NAMES_DISAGREE, training)


def check_memory(setup: Setup) -> Iterator[Finding]:
    """Find frozen tensors whose memory a parameter has that is not frozen and may be written."""
    storages: dict[int, list[NamedTensor]] = {}
    for names in setup.names.values():
        named = setup.tensors[names[0]]
        if pointer := _storage(named.tensor):
            storages.setdefault(pointer, []).append(named)
    rows: list[Row] = []
    for several in storages.values():
        if len(several) > 1:
            rows += _across(setup, [named for named in several if not why_not(named.tensor)])
    if rows:
        yield finding(setup, MEMORY_SHARED, rows)


def _storage(tensor: Tensor) -> int:
    """Return the address of a tensor's storage, 0 where it has none: lazy, sparse, on the meta device."""
    try:
        return int(tensor.untyped_storage().data_ptr())
    except (NotImplementedError, RuntimeError, ValueError):
        return 0


def _across(setup: Setup, several: list[NamedTensor]) -> Iterator[Row]:
    still = [n for n in several if any(name in setup.frozen for name in setup.names[id(n.tensor)])]
    moving = [n for n in several if n not in still and n.kind == "parameter" and n.tensor.requires_grad]
    for frozen in still:
        for other in moving:
            if _meet(frozen.tensor, other.tensor):
                yield frozen.name, "frozen", f"it has memory in common with {other.name}, which is not frozen"
                break


def _meet(first: Tensor, second: Tensor) -> bool:
    """Tell whether two tensors of one storage have an element in common; of strided ones by marking the first's."""
    (a, b), (c, d) = extent(first), extent(second)
    if b <= c or d <= a:
        return False
    if first.is_contiguous() and second.is_contiguous():
        return True
    start, size = min(a, c), first.element_size()
    if size != second.element_size() or (a - c) % size:
        return True  # seen as different types: not told apart by elements
    marks = torch.zeros((max(b, d) - start) // size, dtype=torch.bool)
    marks.as_strided(first.shape, first.stride(), (a - start) // size).fill_(True)
    return bool(marks.as_strided(second.shape, second.stride(), (c - start) // size).any())
