"""Area 3, as far as values tell: what a comparison of them found (``diff --values``)."""

from __future__ import annotations

from collections.abc import Iterator

from ..compare.summary import Compared
from ..words import listed
from .base import Contract, Evidence, Finding, Fix, Rule
from .meta import CHECK_SKIPPED
from .tensors import NON_FINITE_VALUE

VALUE_OVERFLOW = Rule(
    code="CKPT302",
    name="value-overflow",
    breaks=Contract.exact,
    silent="yes",
    summary="finite values of the checkpoint become infinite, or other numbers, in the model's dtype",
    messages={"": "{count} {tensors} with values that the model's dtype has no room for"},
    details={"": "torch casts without a warning; what is too large becomes infinite, and an integer wraps around"},
    columns=("key", "cast", "values"),
    why="One infinite weight makes every output NaN; a file in float32 or bfloat16 can hold what float16 cannot.",
    fix="Build the model in the checkpoint's dtype, or in bfloat16, which has the range of float32.",
    example="nn.Linear(1, 1).half().load_state_dict({'weight': torch.tensor([[70000.0]]), 'bias': torch.zeros(1)})",
)
VALUE_CHANGED = Rule(
    code="CKPT305",
    name="value-changed",
    breaks=Contract.exact,
    summary="a tensor holds other values than its counterpart, beyond the tolerance",
    messages={
        "": "{count} {tensors} with other values",
        "tolerance": "{count} {tensors} with values beyond the tolerance",
    },
    columns=(),  # the table of values says more
    why="Two files of one name are taken for one; a converted or re-saved checkpoint is taken for its source.",
    fix="Find out which of the two is meant. --rtol and --atol let small changes pass.",
    example="ckptaudit diff last.ckpt exported.safetensors --values",
)


def check_values(evidence: Evidence) -> Iterator[Finding]:
    """Yield what the comparison of values found, and what it could not see."""
    values = evidence.values
    if values is None:
        return
    if values.overflows:
        model, saved = evidence.alignment.model, evidence.alignment.checkpoint
        rows = tuple(
            (key, f"{saved[key].dtype} -> {model[key].dtype}", f"{count:,} of {total:,}")
            for key, (count, total) in values.overflows.items()
        )
        yield Finding(VALUE_OVERFLOW, tuple(values.overflows), rows=rows, mapped=evidence.mapped)
    changed = values.of("changed")
    if changed:
        case = "tolerance" if values.tolerance.any else ""
        rows = tuple((one.key, _dtypes(one), one.difference.text if one.difference else "") for one in changed)
        yield Finding(VALUE_CHANGED, tuple(one.key for one in changed), case, rows=rows, mapped=evidence.mapped)
    if odd := [row for one in values.tensors for row in _odd_rows(one)]:
        yield Finding(NON_FINITE_VALUE, tuple(row[0] for row in odd), rows=tuple(odd), mapped=evidence.mapped)
    if values.absent:
        yield Finding(CHECK_SKIPPED, case="values", data={"reason": values.absent}, fixes=(_NAME_ANOTHER,))
    elif values.unread:
        key, reason = next(iter(values.unread.items()))
        yield Finding(
            CHECK_SKIPPED, tuple(values.unread), "unread", {"reason": f"{key} {reason}"}, mapped=evidence.mapped
        )


_NAME_ANOTHER = Fix("display", "name a second checkpoint, or load the file into the model: --witness")


def _dtypes(one: Compared) -> str:
    return one.dtypes[0] if one.dtypes[0] == one.dtypes[1] else " and ".join(one.dtypes)


def _odd_rows(one: Compared) -> Iterator[tuple[str, str, str]]:
    """Word what is no finite number; of tensors that differ, as identical ones are not looked into."""
    found = one.difference
    if found is None or not any((*found.nan, *found.inf)):
        return
    sides = [_odd_words(nan, inf) for nan, inf in zip(found.nan, found.inf, strict=True)]
    text = sides[0] if sides[0] == sides[1] else f"{sides[0] or 'none'}; in the model {sides[1] or 'none'}"
    yield one.key, _dtypes(one), f"{text} of {one.total:,}"


def _odd_words(nan: int, inf: int) -> str:
    return listed([*([f"{nan:,} NaN"] if nan else []), *([f"{inf:,} infinite"] if inf else [])])


CHECKS = (check_values,)
