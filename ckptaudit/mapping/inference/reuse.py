"""One tensor of the checkpoint for several of the model: tied weights and shared modules."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from ..assignment import Assignment
from .fusing import ATTENTION, part_of, part_op
from .units import Shape, Unit
from .words import words

TWIN = 0.9
VOCABULARY = 0.85
TOKENS = {"embed", "token", "head", "out", "decoder", "shared", "generator"}
FEWEST = 1000  # words of a vocabulary
TIMES = 2  # as many words as dimensions, at least


def reuse(units: Iterable[Unit], source: Iterable[Unit], found: dict[str, Assignment]) -> None:
    """Add assignments for tensors of the model that are left and that share another's source."""
    open_ = [unit for unit in units if any(leaf.key not in found for leaf in unit.leaves.values())]
    if not open_:
        return
    _twins(units, open_, found)
    _vocabularies(open_, source, found)
    _fused_biases(open_, units, source, found)


def _twins(units: Iterable[Unit], open_: list[Unit], found: dict[str, Assignment]) -> None:
    """Share the tensors of a module whose path ends with the whole path of one that is left: it is that module."""
    by_end: defaultdict[tuple[str, ...], list[Unit]] = defaultdict(list)
    ends = {unit.path for unit in open_}
    lengths = {len(path) for path in ends}
    for unit in units:
        for n in lengths:
            if n < len(unit.path) and unit.path[-n:] in ends:
                by_end[unit.path[-n:]].append(unit)
    for unit in open_:
        twins = [twin for twin in by_end.get(unit.path, ()) if _same_shapes(unit, twin)]
        if len(unit.path) < 2 or len(twins) != 1:
            continue
        for role, leaf in unit.leaves.items():
            known = found.get(twins[0].leaves[role].key)
            if known and leaf.key not in found and leaf.op == "copy":
                reason = f"shared with {known.target}, {known.reason}"
                found[leaf.key] = Assignment(leaf.key, known.sources, known.op, min(TWIN, known.confidence), reason)


def _same_shapes(a: Unit, b: Unit) -> bool:
    return {r: leaf.shape for r, leaf in a.leaves.items()} == {r: leaf.shape for r, leaf in b.leaves.items()}


def _vocabularies(open_: list[Unit], source: Iterable[Unit], found: dict[str, Assignment]) -> None:
    """Embeddings and heads over the same vocabulary are often one matrix."""
    tables: defaultdict[Shape, list[Unit]] = defaultdict(list)
    for unit in source:
        if _is_table(unit):
            tables[unit.leaves["weight"].shape].append(unit)
    for unit in open_:
        leaf = unit.leaves.get("weight")
        if leaf is None or leaf.key in found or leaf.op != "copy" or not _is_table(unit):
            continue
        rows = tables.get(leaf.shape) or tables.get(leaf.shape[::-1]) or []
        rows = [one for one in rows if "embed" in {w for segment in one.path for w in words(segment)}] or rows
        if rows:
            stored = rows[0].leaves["weight"]
            op = "copy" if stored.shape == leaf.shape else "transpose"
            reason = "the only matrix over this vocabulary" if len(rows) == 1 else "a matrix over this vocabulary"
            found[leaf.key] = Assignment(
                leaf.key, (stored.key,), op, VOCABULARY, reason, tuple(r.main.key for r in rows[1:4])
            )


def _fused_biases(
    open_: list[Unit], units: Iterable[Unit], source: Iterable[Unit], found: dict[str, Assignment]
) -> None:
    """Cut up the bias of a fused projection whose weight stays whole: the model has the parts beside the weight."""
    wholes = {u.path[:-1]: u for u in units if u.leaves.keys() == {"weight"} and "qkv" in words(u.path[-1])}
    if not wholes:
        return
    stored = {u.leaves["weight"].key: u.leaves["bias"] for u in source if {"weight", "bias"} <= u.leaves.keys()}
    used = {key for one in found.values() for key in one.sources}
    for unit in open_:
        whole, leaf, part = wholes.get(unit.path[:-1]), unit.leaves.get("bias"), part_of(unit.path[-1])
        known = found.get(whole.leaves["weight"].key) if whole else None
        if leaf is None or known is None or known.op != "copy" or part not in ATTENTION:
            continue
        bias = stored.get(known.sources[0])
        if bias and bias.op == "copy" and bias.key not in used and bias.shape == (len(ATTENTION) * leaf.shape[0],):
            op = part_op(leaf.shape * len(ATTENTION), ATTENTION.index(part))
            reason = f"a part of the bias that goes with {known.sources[0]}"
            found[leaf.key] = Assignment(leaf.key, (bias.key,), op, min(TWIN, known.confidence), reason)


def _is_table(unit: Unit) -> bool:
    leaf = unit.leaves.get("weight")
    if leaf is None or len(leaf.shape) != 2:
        return False
    short, long = sorted(leaf.shape)
    if long < FEWEST or long < TIMES * short:
        return False
    return bool(TOKENS & {word for segment in unit.path[-2:] for word in words(segment)})
