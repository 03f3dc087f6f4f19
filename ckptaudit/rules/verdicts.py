"""What became of one tensor in a run, as a live audit saw it or as two files tell; and why."""

from __future__ import annotations

import os
from typing import Any, Literal

from ..compare.difference import Difference, number
from ..records import dataclass

Standstill = Literal["no gradient", "zero gradient", "rounded away", "not in optimizer", "inconclusive", "unchanged"]
Verdict = Literal["held", "moved", "trained", "not checked"] | Standstill

_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
_PACKAGES = f"{os.sep}site-packages{os.sep}"


@dataclass(frozen=True)
class Cause:
    """A cause: ``kind`` for programs, ``text`` for people."""

    kind: str
    text: str


def is_statistic(name: str) -> bool:
    """Tell a running statistic by its name, which is the one in all norms of torch and in those made after them."""
    return name.rpartition(".")[2] in _STATISTICS


@dataclass(frozen=True)
class Blame:
    """The operation (``aten._fused_adamw_.default``), and the callers as ``file:line in name``, innermost first."""

    operation: str
    stack: tuple[str, ...]

    @property
    def text(self) -> str:
        """The operation, and the innermost line that is not of an installed package."""
        if not self.stack:
            return self.operation
        own = next((frame for frame in self.stack if _PACKAGES not in frame), self.stack[0])
        return f"{self.operation} from {own.partition(_PACKAGES)[2] or own.removeprefix(os.getcwd() + os.sep)}"


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
            data |= {**changed, "max_abs": number(self.difference.max_abs), "rows": list(self.difference.rows)}
        if self.blame is not None:
            data |= {"operation": self.blame.operation, "stack": list(self.blame.stack)}
        return data
