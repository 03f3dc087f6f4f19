"""Areas 2 and 3: shapes, layouts and dtypes of the tensors that meet by name."""

from __future__ import annotations

from collections.abc import Iterator

from ..compare.align import is_extra_state
from ..dtypes import DTYPES, cast_effect
from ..manifest import TensorSpec
from .base import Contract, Evidence, Finding, Rule, drop_fix, mapping_fix, shape_text, then_matching

SHAPE_MISMATCH = Rule(
    code="CKPT201",
    name="shape-mismatch",
    breaks=Contract.partial,
    summary="a tensor has another shape in the model: load_state_dict raises, strict or not",
    messages={"": "{count} {tensors} with another shape in the model"},
    details={"": "strict=True and strict=False both raise"},
    why="A changed head or input layer stops the load even with strict=False, after a part of it was copied.",
    fix="Drop the old tensors and train the new layer, or build the model with the checkpoint's sizes.",
    example="model.fc = nn.Linear(2048, 10)   # the checkpoint has 1000 classes",
)
SAME_NUMEL_SHAPE = Rule(
    code="CKPT202",
    name="same-numel-shape",
    breaks=Contract.partial,
    summary="a tensor has another shape and as many values: a transpose or a reshape may be what is missing",
    messages={
        "": "{count} {tensors} with another shape and the same number of values in the model",
        "operation": "{count} {tensors} laid out otherwise than in the model",
    },
    details={
        "": "strict=True and strict=False both raise; a transpose or a reshape may be what is missing",
        "operation": "strict=True and strict=False both raise{square}",
    },
    why="Conv1d against Linear, a transposed weight or fused projections hold the same values in another order.",
    fix="Map with the operation that is proposed. Where none is, find it out: the number of values does not tell it.",
    example="nn.Conv2d(8, 4, 1) -> nn.Linear(8, 4)   # (4, 8, 1, 1) against (4, 8)",
)
SCALAR_SHAPE = Rule(
    code="CKPT203",
    name="scalar-shape",
    fixed="note",
    silent="yes",
    summary="(1,) into (): torch accepts it for files of torch 0.3",
    messages={"": "{count} {tensors} of one element loaded into a scalar"},
    details={"": "torch accepts this for the sake of old files; the reverse raises"},
    why="The saved file reads differently elsewhere: the reverse, () into (1,), raises.",
    fix="Nothing to do for this load.",
    example="a num_batches_tracked of shape (1,)",
)
UNINITIALIZED_PARAMETER = Rule(
    code="CKPT204",
    name="uninitialized-parameter",
    fixed="warning",
    summary="a lazy module has no shape yet on one side",
    messages={
        "model": "{count} lazy {tensors} of the model will take whatever shape the checkpoint has",
        "checkpoint": "{count} lazy {tensors} without a shape on both sides",
        "refused": "{count} {tensors} of the checkpoint saved by a lazy module before it had shapes",
    },
    details={
        "model": "nothing can be compared until one batch has gone through the model",
        "checkpoint": "nothing can be compared until one batch has gone through both",
        "refused": "strict=True and strict=False both raise",
    },
    why="No shape can be checked, so a wrong checkpoint is found only in the forward pass.",
    fix="Run one dummy batch through the model first, then compare: lazy parameters get their shapes from it.",
    example="nn.LazyLinear(10)",
)
LAYOUT_MISMATCH = Rule(
    code="CKPT205",
    name="layout-mismatch",
    breaks=Contract.partial,
    summary="a tensor is sparse or quantized on one side alone",
    messages={
        "": "{count} {tensors} stored in another layout than the model's",
        "converted": "{count} {tensors} quantized on the way into the model",
    },
    details={
        "": "strict=True and strict=False both raise",
        "converted": "torch rounds to the model's scales without a word; the loaded values differ from the saved ones",
    },
    why="torch copies no sparse tensor into a dense one, nor a quantized one into a float one.",
    fix="Build the model in the checkpoint's layout, or call to_dense() or dequantize() on the tensors before saving.",
    example="a quint8 weight into an nn.Linear",
)
DTYPE_NARROWED = Rule(
    code="CKPT301",
    name="dtype-narrowed",
    breaks=Contract.exact,
    silent="yes",
    summary="the model's dtype has less precision or range than the checkpoint's",
    messages={"": "{count} {tensors} saved with more precision or range than the model's dtype has"},
    details={"": "torch casts without a warning; the loaded values are rounded"},
    why=(
        "load_state_dict casts and warns of nothing: results stop matching those of training. Rounding changes a "
        "value by up to 2^-11 of itself in float16, and 2^-8 in bfloat16."
    ),
    fix="Build the model in the checkpoint's dtype: model.to(torch.float32) before loading, or load and then cast.",
    example="nn.Linear(3, 4).bfloat16().load_state_dict(float32_state)",
)
DTYPE_KIND_CHANGED = Rule(
    code="CKPT303",
    name="dtype-kind-changed",
    breaks=Contract.exact,
    silent="yes",
    summary="the model has another kind of number: complex goes to real, or float to integer",
    messages={"": "{count} {tensors} of another kind of number in the model"},
    details={"": "torch drops what the model's dtype cannot hold (imaginary part, fraction) and returns normally"},
    why="Part of every value is lost, not its last bits.",
    fix="Build the model with the checkpoint's kind of dtype.",
    example="a complex64 buffer into a float32 one",
)
NON_FINITE_VALUE = Rule(
    code="CKPT304",
    name="non-finite-value",
    breaks=Contract.exact,
    silent="yes",
    summary="a tensor of the file holds NaN or infinity",
    messages={"": "{count} {tensors} with values that are NaN or infinite"},
    columns=("key", "dtype", "values"),
    why="One NaN spreads through everything that is computed from it; infinities are sometimes meant (masks).",
    fix="Look at the run that wrote the file; a loss that overflowed is the usual cause.",
    example="torch.save({'w': torch.tensor([1.0, float('nan')])}, path)   # scan --integrity finds it",
)


Pair = tuple[str, TensorSpec, TensorSpec]


def _loaded_pairs(evidence: Evidence) -> Iterator[Pair]:
    """Yield the pairs that are copied into each other; extra states are handed over as they are."""
    alignment = evidence.alignment
    return (pair for pair in alignment.pairs(alignment.matched_keys) if not is_extra_state(pair[0]))


def check_reordered(evidence: Evidence) -> Iterator[Finding]:
    """Yield the tensors for which the proposed mapping has an operation, where it leaves all of them their names."""
    if evidence.proposal is None or not evidence.proposal.keeps_names:
        return
    causes = evidence.proposal.causes
    keys = tuple(dict.fromkeys(key for cause in causes for key, _ in cause.explained))
    pairs = [(key, evidence.as_is.checkpoint[key], evidence.as_is.model[key]) for key in keys]
    alike = sum(saved.shape == wanted.shape for _, saved, wanted in pairs)
    have = "has" if alike == 1 else "have"
    square = f"; {alike:,} of them {have} the same shape either way, and would load wrong" if alike else ""
    fix = mapping_fix(evidence, causes, then_matching(evidence))
    yield Finding(SAME_NUMEL_SHAPE, keys, "operation", {"square": square}, _shapes(pairs), (fix,))


def check_shapes(evidence: Evidence) -> Iterator[Finding]:
    """Yield the shapes that torch refuses, and the one difference it accepts."""
    groups: dict[Rule, list[Pair]] = {SHAPE_MISMATCH: [], SAME_NUMEL_SHAPE: []}
    for pair in evidence.alignment.pairs(evidence.mismatched):
        if pair[1].layout != "uninitialized":
            groups[SAME_NUMEL_SHAPE if _reshapable(*pair[1:]) else SHAPE_MISMATCH].append(pair)
    for rule, pairs in groups.items():
        if pairs:
            keys = tuple(key for key, _, _ in pairs)
            fixes = drop_fix(evidence, keys)
            yield Finding(rule, keys, rows=_shapes(pairs), fixes=fixes, mapped=evidence.mapped)
    scalars = [pair for pair in _loaded_pairs(evidence) if pair[1].shape == (1,) and pair[2].shape == ()]
    scalars = [pair for pair in scalars if pair[2].layout != "uninitialized"]
    if scalars:
        keys = tuple(key for key, _, _ in scalars)
        yield Finding(SCALAR_SHAPE, keys, rows=_shapes(scalars), mapped=evidence.mapped)


def _reshapable(saved: TensorSpec, wanted: TensorSpec) -> bool:
    return saved.numel == wanted.numel > 1


def _shapes(pairs: list[Pair]) -> tuple[tuple[str, str, str], ...]:
    return tuple((key, _shape_or_lazy(saved), _shape_or_lazy(wanted)) for key, saved, wanted in pairs)


def check_layouts(evidence: Evidence) -> Iterator[Finding]:
    """Yield sparse or quantized against dense: what torch refuses, and what it converts."""
    groups: dict[str, list[Pair]] = {"": [], "converted": []}
    for pair in _loaded_pairs(evidence):
        if differs_in_layout(*pair[1:]):
            groups["" if _copy_raises(evidence, pair) else "converted"].append(pair)
    for case, pairs in groups.items():
        if pairs:
            rows = tuple((key, _layout(saved), _layout(wanted)) for key, saved, wanted in pairs)
            yield Finding(
                LAYOUT_MISMATCH,
                tuple(key for key, _, _ in pairs),
                case=case,
                rows=rows,
                mapped=evidence.mapped,
                breaks=Contract.exact if case else None,
            )


def _copy_raises(evidence: Evidence, pair: Pair) -> bool:
    """Tell whether torch refuses the copy; the one it performs is that of float values into a quantized tensor."""
    key, saved, wanted = pair
    if evidence.outcome.judge == "torch":
        return key in evidence.refused
    return (_layout(saved), _layout(wanted)) != ("strided", "quantized")


def differs_in_layout(saved: TensorSpec, wanted: TensorSpec) -> bool:
    """Tell whether two tensors, both with a shape, are stored in different ways."""
    return _layout(saved) != _layout(wanted) and "uninitialized" not in (saved.layout, wanted.layout)


def _layout(spec: TensorSpec) -> str:
    return "quantized" if DTYPES[spec.dtype].kind == "quantized" else spec.layout


def check_lazy(evidence: Evidence) -> Iterator[Finding]:
    """Yield lazy parameters, whose shapes nobody can compare; a model that has shapes refuses those that have none."""
    groups: dict[str, list[Pair]] = {"model": [], "checkpoint": [], "refused": []}
    alignment = evidence.alignment
    for pair in alignment.pairs(alignment.matched_keys + alignment.mismatched_keys):
        lazy = [spec.layout == "uninitialized" for spec in pair[1:]]
        if any(lazy):
            groups["model" if not lazy[0] else "checkpoint" if lazy[1] else "refused"].append(pair)
    for case, pairs in groups.items():
        if pairs:
            keys = tuple(key for key, _, _ in pairs)
            breaks = Contract.partial if case == "refused" else None
            yield Finding(
                UNINITIALIZED_PARAMETER, keys, case=case, rows=_shapes(pairs), mapped=evidence.mapped, breaks=breaks
            )


def _shape_or_lazy(spec: TensorSpec) -> str:
    return "no shape yet" if spec.layout == "uninitialized" else shape_text(spec.shape)


def check_dtypes(evidence: Evidence) -> Iterator[Finding]:
    """Yield the casts that torch performs in silence and that lose something."""
    groups: dict[str, list[tuple[str, str, str]]] = {"narrowed": [], "kind-changed": []}
    for key, saved, wanted in _loaded_pairs(evidence):
        effect = cast_effect(saved.dtype, wanted.dtype)
        if effect in groups and not differs_in_layout(saved, wanted):  # the layout's finding says more
            groups[effect].append((key, saved.dtype, wanted.dtype))
    for rule, rows in zip((DTYPE_NARROWED, DTYPE_KIND_CHANGED), groups.values(), strict=True):
        if rows:
            yield Finding(rule, tuple(row[0] for row in rows), rows=tuple(rows), mapped=evidence.mapped)


CHECKS = (check_reordered, check_shapes, check_layouts, check_lazy, check_dtypes)
