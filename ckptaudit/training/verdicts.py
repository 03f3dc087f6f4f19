"""One verdict per tensor of an audit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..rules.verdicts import Blame, Cause, TensorVerdict
from .causes import why_moved, why_stuck
from .difference import compare
from .names import NamedTensor
from .watch import Moved, Watch


def verdicts(watch: Watch, before: Mapping[str, Any], blames: Mapping[str, Blame]) -> list[TensorVerdict]:
    """Judge every tensor that was watched; ``before`` has the old values that are known, whole or sampled."""
    judged = [_frozen(name, watch, before.get(name), blames.get(name)) for name in watch.frozen]
    return judged + [_trainable(name, watch) for name in watch.trainable]


def _facts(name: str, watch: Watch) -> dict[str, Any]:
    named: NamedTensor = watch.tensors[name]
    member = watch.members.get(name)
    optimizer = type(member.optimizer).__name__ if member else ""
    return {
        "name": name,
        "kind": named.kind,
        "requires_grad": named.tensor.requires_grad,
        "training": named.module.training,
        "optimizer": optimizer,
    }


def _frozen(name: str, watch: Watch, old: Any, blame: Blame | None) -> TensorVerdict:
    moved = watch.moved.get(name)
    facts = _facts(name, watch) if name in watch.tensors else {"name": name, "kind": "parameter"}
    if moved is None:
        reason = watch.unread.get(name)
        cause = Cause("unread", reason) if reason else None
        return TensorVerdict(expected="frozen", verdict="not checked" if reason else "held", cause=cause, **facts)
    difference = None
    if old is not None and name in watch.tensors and watch.last.get(name) is not None:
        difference = compare(old, watch.tensors[name].tensor, watch.frozen.tensors[name])
    return TensorVerdict(
        expected="frozen",
        verdict="moved",
        cause=why_moved(name, moved, watch, difference, blamed=blame is not None),
        when=_when(moved, watch.step),
        first_step=moved.step,
        difference=difference,
        blame=blame,
        **facts,
    )


def _when(moved: Moved, steps: int) -> str:
    if moved.step == 0:
        return "before the audit"
    if moved.step is None:
        return f"after step {steps}" if steps else "without an optimizer step"
    return f"at step {moved.step}" if moved.since == moved.step - 1 else f"in steps {moved.since + 1} to {moved.step}"


def _trainable(name: str, watch: Watch) -> TensorVerdict:
    if name not in watch.tensors:
        return TensorVerdict(name, "parameter", "trainable", "inconclusive", Cause("gone", "the model has it no more"))
    facts = _facts(name, watch)
    if watch.untrained.get(name) != watch.trained.get(name):
        return TensorVerdict(expected="trainable", verdict="trained", **facts)
    if name not in watch.untrained:
        cause = Cause("unread", watch.unread[name])
        return TensorVerdict(expected="trainable", verdict="not checked", cause=cause, **facts)
    stuck = why_stuck(name, watch)
    return TensorVerdict(expected="trainable", verdict=stuck.verdict, cause=stuck.cause, **facts)
