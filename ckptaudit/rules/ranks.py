"""Area 5, as shapes tell it: one rank's file of a checkpoint that tensor parallelism split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from ..manifest import TensorSpec
from .base import Contract, Evidence, Finding, Fix, Rule, shape_text

Pair = tuple[str, TensorSpec, TensorSpec]

UNMERGED_PARALLEL_SHARD = Rule(
    code="CKPT506",
    name="unmerged-parallel-shard",
    breaks=Contract.partial,
    summary="tensors are 1/N of the model's along one axis, as one rank of N of a tensor-parallel run saves them",
    messages={"": "{count} {tensors} {are} 1/{ranks} of the model's along one axis, as one rank of {ranks} saves"},
    details={"": "strict=True and strict=False both raise"},
    columns=("key", "checkpoint", "model", "axis"),
    why=(
        "Megatron, DeepSpeed and others save one file per rank, and torch's message lists shapes that no model has: "
        "the others are in the files of the other ranks."
    ),
    fix=(
        "Merge the ranks with the converter of the library that wrote them: torch.cat along the axis is wrong for "
        "fused projections, which are split part by part."
    ),
    example="mp_rank_00_model_states.pt, one of two",
)


def check_ranks(evidence: Evidence) -> Iterator[Finding]:
    """Yield the tensors that are one rank's parts, as the cause of their shapes."""
    alignment = evidence.alignment
    differing = list(alignment.pairs(evidence.mismatched))
    ranks, axes = _split(differing)
    if not _parallel(axes, alignment.pairs(alignment.matched_keys + alignment.mismatched_keys)):
        return
    shapes = ((key, saved.shape, wanted.shape) for key, saved, wanted in differing if key in axes)
    advice = f"merge the files of the {ranks} ranks first, with the converter of the library that wrote them"
    yield Finding(
        UNMERGED_PARALLEL_SHARD,
        tuple(axes),
        data={"ranks": ranks},
        rows=tuple((key, shape_text(part), shape_text(whole), str(axes[key])) for key, part, whole in shapes),
        fixes=(Fix("display", advice),),
        explains=frozenset(axes),
        mapped=evidence.mapped,
    )


def _split(differing: list[Pair]) -> tuple[int, dict[str, int]]:
    """Return the number of ranks, and along which axis each tensor was split into as many parts; or (0, {}).

    A rank's tensors differ along one axis each. Some may do so by another number: a vocabulary that was padded first.
    """
    axes = {key: axis for key, saved, wanted in differing if (axis := _axis(saved, wanted)) is not None}
    if not axes or len(axes) < len(differing):
        return 0, {}
    parts = {key: _parts(saved.shape[axes[key]], wanted.shape[axes[key]]) for key, saved, wanted in differing}
    ranks = Counter(parts.values()).most_common(1)[0][0]
    return (ranks, {key: axis for key, axis in axes.items() if parts[key] == ranks}) if ranks > 1 else (0, {})


def _parallel(axes: dict[str, int], pairs: Iterable[Pair]) -> bool:
    """Tell tensor parallelism from a model of another size.

    It splits most matrices, the outputs of some (axis 0) and the inputs of others. The axes it splits are of several
    sizes; they are of one where only an inner width differs, or the rank of an adapter.
    """
    matrices = {key: wanted.shape for key, _, wanted in pairs if len(wanted.shape) > 1 and wanted.kind != "buffer"}
    split = [(axes[key] > 0, shape[axes[key]]) for key, shape in matrices.items() if key in axes]
    sides, sizes = {side for side, _ in split}, {size for _, size in split}
    return len(sides) == 2 and len(sizes) > 1 and 3 * len(split) > 2 * len(matrices)


def _axis(saved: TensorSpec, wanted: TensorSpec) -> int | None:
    """Return the one axis along which two shapes differ, if there is just one; kernels of convolutions are whole."""
    if len(saved.shape) != len(wanted.shape) or len(wanted.shape) > 3:
        return None
    differing = [axis for axis, sizes in enumerate(zip(saved.shape, wanted.shape, strict=True)) if sizes[0] != sizes[1]]
    return differing[0] if len(differing) == 1 else None


def _parts(size: int, whole: int) -> int:
    """Return how many parts of this size make the whole, or 0."""
    return whole // size if size and whole % size == 0 else 0


CHECKS = (check_ranks,)
