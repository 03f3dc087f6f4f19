"""One verdict per tensor of an audit, and what a report says of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from ..records import dataclass
from ..rules import Contract, Finding, Rule
from ..rules.freezing import FROZEN_STATISTICS_DRIFTED, FROZEN_TENSOR_CHANGED, TRAINABLE_TENSOR_UNCHANGED
from ..rules.meta import CHECK_SKIPPED
from .blame import Blame
from .causes import Cause, Standstill, is_statistic, why_moved, why_stuck
from .difference import Difference, compare
from .names import NamedTensor
from .watch import Moved, Watch

Verdict = Literal["held", "moved", "trained", "not checked"] | Standstill


@dataclass(frozen=True)
class TensorVerdict:
    """What became of one tensor.

    ``kind`` is ``parameter``, ``buffer`` or ``attribute``, ``expected`` is ``frozen`` or ``trainable``. ``first_step``
    is the step by which it was first seen changed: 0 before the audit, None where it did not move, or after the last
    step; ``when`` says it in words. ``difference`` is how far a frozen tensor moved, as far as is known.
    ``requires_grad`` and ``training`` (the mode of its module) are those at the end.
    """

    name: str
    kind: str
    expected: Literal["frozen", "trainable"]
    verdict: Verdict
    cause: Cause | None = None
    when: str = ""
    first_step: int | None = None
    difference: Difference | None = None
    blame: Blame | None = None
    requires_grad: bool = False
    training: bool = False
    optimizer: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the entry of ``data.verdicts`` in a finding of the report."""
        data: dict[str, Any] = {"key": self.name, "kind": self.kind, "expected": self.expected, "verdict": self.verdict}
        data |= {"cause": self.cause.kind if self.cause else None, "when": self.when, "first_step": self.first_step}
        if self.difference is not None:
            changed = {name: getattr(self.difference, name) for name in ("changed", "looked", "total", "max_ulp")}
            data |= {**changed, "max_abs": _finite(self.difference.max_abs), "rows": list(self.difference.rows)}
        if self.blame is not None:
            data |= {"operation": self.blame.operation, "stack": list(self.blame.stack)}
        return data


def _finite(value: float | None) -> float | None:
    """Leave out what JSON has no number for."""
    return value if value is not None and value - value == 0 else None


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


# Findings ---------------------------------------------------------------------------------------------


def findings(judged: Iterable[TensorVerdict], *, declared: bool) -> list[Finding]:
    """Put verdicts into findings; ``declared`` says that the user named the trainable tensors, and holds them to it."""
    judged = list(judged)
    moved = [one for one in judged if one.verdict == "moved"]
    statistics = [one for one in moved if is_statistic(one.name)]
    attributes = [one for one in moved if one.kind == "attribute"]
    rest = [one for one in moved if one not in statistics and one not in attributes]
    found = [_moved(FROZEN_TENSOR_CHANGED, rest)] if rest else []
    if attributes:
        found.append(_moved(FROZEN_TENSOR_CHANGED, attributes, case="attribute", breaks=Contract.resume))
    if statistics:
        found.append(_moved(FROZEN_STATISTICS_DRIFTED, statistics))
    stuck = [one for one in judged if one.expected == "trainable" and one.verdict not in ("trained", "inconclusive")]
    if stuck:
        found.append(_stuck(stuck, breaks=Contract.exact if declared else None))
    if open_ := [one for one in judged if one.verdict == "inconclusive"]:
        found.append(_stuck(open_, case="inconclusive", breaks=Contract.resume))
    if unread := [one for one in judged if one.verdict == "not checked" and one.expected == "frozen"]:
        data = {"reason": f"{unread[0].name} {unread[0].cause.text if unread[0].cause else ''}"}
        found.append(Finding(CHECK_SKIPPED, tuple(one.name for one in unread), "unread", data))
    return found


def _moved(rule: Rule, moved: list[TensorVerdict], **rest: Any) -> Finding:
    """Word tensors that moved at one time for one cause alike, by the largest change of all, so that they fold."""
    groups: dict[tuple[str, str, bool], list[TensorVerdict]] = {}
    for one in moved:
        counts = one.difference is not None and one.difference.max_ulp is None  # num_batches_tracked
        groups.setdefault((one.when, _why(one), counts), []).append(one)
    how = {id(one): text for (when, *_), group in groups.items() for text in [_how(when, group)] for one in group}
    rows = tuple((one.name, how[id(one)], _why(one)) for one in moved)
    data = {"verdicts": [one.to_json() for one in moved]}
    return Finding(rule, tuple(one.name for one in moved), data=data, rows=rows, **rest)


def _how(when: str, group: list[TensorVerdict]) -> str:
    known = [one.difference for one in group if one.difference is not None and one.difference.looked]
    if not known:
        return when
    if len(group) == 1:
        return f"{when}, {known[0].text}"
    largest = max(known, key=lambda one: (one.max_abs or 0.0, one.max_ulp or 0))
    return f"{when}, {Difference(1, 1, 1, largest.max_abs, largest.max_ulp).text}"


def _why(one: TensorVerdict) -> str:
    text = one.cause.text if one.cause else ""
    return f"{text}; {one.blame.text}" if one.blame else text


def _stuck(stuck: list[TensorVerdict], case: str = "", breaks: Contract | None = None) -> Finding:
    rows = tuple((one.name, one.verdict, one.cause.text if one.cause else "") for one in stuck)
    data = {"verdicts": [one.to_json() for one in stuck]}
    return Finding(TRAINABLE_TENSOR_UNCHANGED, tuple(one.name for one in stuck), case, data, rows, breaks=breaks)
