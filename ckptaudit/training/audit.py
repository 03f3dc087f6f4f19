"""The freeze audit: a context manager around somebody's own training loop, and its report."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..errors import UsageError
from ..policy import Report, grade, verdict_of
from ..rules import Contract
from ..rules.freezing import findings
from ..rules.verdicts import TensorVerdict
from ..words import plural
from .blame import BlameMode
from .fingerprint import Fingerprint
from .membership import optimizers_of
from .names import named_tensors
from .saved import Saved
from .select import Patterns, Selection, claims, rest, select
from .sides import selected, side_of
from .verdicts import verdicts
from .watch import Watch

if TYPE_CHECKING:
    from torch.optim import Optimizer


class FreezeAudit:
    """An audit of the training that runs inside its ``with`` block; made by ``audit_training``.

    After the block, ``report`` says what was found and ``verdicts`` has one entry per watched tensor; they are
    there after an exception in the block too. Model, optimizers, gradients, random state, modes and hooks stay as
    they are found.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizers: Iterable[Optimizer],
        frozen: Selection,
        trainable: Selection,
        *,
        declared: bool,
        saved: Saved | None,
        blame: bool,
        every: int | None,
    ) -> None:
        self._model, self._declared, self._saved = model, declared, saved
        self._watch = Watch(model, frozen, trainable, optimizers, every)
        self._start = side_of("start", model, self._watch.tensors, selected(frozen, trainable))
        self._stack = ExitStack()
        self._blame = BlameMode(self._watched, self._changed) if blame else None
        self._verdicts: list[TensorVerdict] | None = None
        self._report: Report | None = None

    @property
    def verdicts(self) -> list[TensorVerdict]:
        """One verdict per watched tensor, frozen ones first. Raises UsageError inside the block."""
        if self._verdicts is None:
            raise UsageError("the audit", "has no result before its block ends", "read it after the with statement")
        return self._verdicts

    @property
    def report(self) -> Report:
        """The report, graded by the contract ``exact``. Raises UsageError inside the block."""
        if self._report is None:
            self._report = self._made_report(self.verdicts)
        return self._report

    def text(self, width: int = 80) -> str:
        """Return the report as a terminal of that width shows it."""
        return self.report.text(width)

    def __str__(self) -> str:
        return self.text()

    @property
    def steps(self) -> int:
        """Optimizer steps so far: those of the optimizer that made most."""
        return self._watch.step

    def __enter__(self) -> FreezeAudit:
        self._watch.start(self._before())
        if self._blame is not None:
            self._stack.enter_context(self._blame)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._stack.close()
        self._watch.stop()
        known = {name: self._old(name) for name in self._watch.moved}
        with torch.no_grad():
            self._verdicts = verdicts(self._watch, known, self._blame.found if self._blame else {})
        if self._saved is not None:
            self._saved.source.close()

    def _before(self) -> dict[str, Fingerprint]:
        """Return the fingerprints of the file; a frozen tensor that it lacks, and should have, cannot be checked."""
        if self._saved is None:
            return {}
        found = self._saved.fingerprints(self._watch.frozen)
        if not found:
            raise UsageError(self._saved.source.name, "has none of the frozen tensors", "give the mapping of its keys")
        named = self._watch.tensors
        for name in self._watch.frozen:
            counter = name.endswith("num_batches_tracked")  # files of torch before 0.4.1 have none
            if name not in found and named[name].persistent and not counter:
                self._watch.absent[name] = f"is not in {self._saved.source.name}"
        return found

    def _old(self, name: str) -> Tensor | None:
        saved = self._saved.tensor(name) if self._saved is not None else None
        return self._watch.kept.get(name) if saved is None else saved

    def _watched(self) -> dict[str, Tensor]:
        return {name: self._watch.tensors[name].tensor for name in self._watch.frozen if name in self._watch.tensors}

    def _changed(self, names: Iterable[str]) -> Iterator[str]:
        return self._watch.changed(names)

    def _made_report(self, judged: list[TensorVerdict]) -> Report:
        watch = self._watch
        graded = grade(findings(judged, declared=self._declared), Contract.exact)
        who = ", ".join(sorted({type(optimizer).__name__ for optimizer in watch.optimizers if watch.took(optimizer)}))
        steps = f"{plural(watch.step, 'step')} of {who}" if who else "no optimizer step"
        end = side_of("end", self._model, watch.tensors, steps)
        start = self._start if self._saved is None else self._saved.source.side("checkpoint")
        return Report(
            command="audit",
            contract=Contract.exact,
            verdict=verdict_of(graded),
            checkpoint=start,
            model=end,
            alignment=None,
            outcome_as_is=None,
            outcome=None,
            mapping=None,
            findings=graded,
            remarks=_remarks(judged, steps),
        )


def audit_training(
    model: nn.Module,
    optimizers: Optimizer | Iterable[Optimizer] = (),
    *,
    frozen: Patterns,
    trainable: Patterns | None = None,
    against: Any = None,
    mapping: Any = None,
    blame: bool = False,
    every: int | None = None,
) -> FreezeAudit:
    """Audit whatever trains ``model`` inside a ``with`` block: what is frozen holds, what is trainable moves.

    ``frozen`` and ``trainable`` are patterns (see ``select``); without ``trainable`` all other parameters are meant,
    and those that do not move are warnings instead of errors. Frozen are parameters, buffers and plain attributes,
    bit for bit. ``optimizers`` are those of the loop; others that step something of the model are noticed.

    Fingerprints are taken at the start, at steps 1 to 4, 8, 16, 32 ... or at every ``every``-th, and at the end; at the
    other steps, tensors whose memory or version counter changed. How far a tensor moved is known of up to 4,096 of its
    values. ``against`` holds the frozen tensors against a checkpoint (path, state dict) instead of their start, under
    ``mapping`` (rules over its keys), and then knows every value. ``blame`` names operation and caller of the first
    write; it slows each operation down.

    Raises UsageError for patterns that match nothing or claim a tensor twice, and CkptauditError for the checkpoint.
    """
    tensors = named_tensors(model)
    still = select(tensors, frozen, role="frozen")
    moving = rest(tensors, still) if trainable is None else select(tensors, trainable, role="trainable")
    claims(tensors, {"frozen": still, "trainable": moving})
    if every is not None and every < 1:
        raise UsageError("every", f"is {every}; it counts steps", "leave it out, or give 1 or more")
    return FreezeAudit(
        model,
        optimizers_of(optimizers),
        still,
        moving,
        declared=trainable is not None,
        saved=None if against is None else Saved(against, mapping),
        blame=blame,
        every=every,
    )


def _remarks(judged: list[TensorVerdict], steps: str) -> tuple[str, ...]:
    frozen = [one for one in judged if one.expected == "frozen"]
    held = sum(one.verdict == "held" for one in frozen)
    trainable = [one for one in judged if one.expected == "trainable"]
    trained = sum(one.verdict == "trained" for one in trainable)
    said = [f"of {plural(len(frozen), 'frozen tensor')} {held:,} held bit for bit"] if frozen else []
    said += [f"of {plural(len(trainable), 'trainable tensor')} {trained:,} moved"] if trainable else []
    return (f"In {steps}, {' and '.join(said)}.",) if said else ()
