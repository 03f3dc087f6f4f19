"""A model whose freezing is planned and measured: its stages, its variants, and a step for each."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from ...benchmark.plan import Cost, FreezePlan, PlannedVariant
from ...errors import CkptauditError, UsageError, first_line
from ..select import Patterns
from .pretend import pretend, pretending, sibling
from .replay import OperationTimer
from .stages import Stage, stages_of
from .step import Groups, MakeStep, TrainStep
from .trace import Operation, trace
from .variants import KINDS, Variant, finish, prepare, variants_of

Now = Callable[[], float]
Progress = Callable[[int, int, str], None]


class Subject:
    """A model and the variants in which it trains; ``model`` keeps its values, modes and flags.

    ``describe_step`` says for people what a step is. A model on the meta device can be planned and not built.
    """

    def __init__(  # noqa: PLR0913  (options, each given by its name)
        self,
        model: nn.Module,
        make_step: MakeStep,
        *,
        freeze: Patterns | None = None,
        depths: int | None = 3,
        only: Sequence[str] | None = None,
        device: torch.device,
        dtype: torch.dtype | None = None,
        name: str = "",
        describe_step: str = "",
    ) -> None:
        self._model, self._make_step = model, make_step
        self.device, self._dtype = device, dtype
        self.name, self.describe_step = name or type(model).__name__, describe_step
        self.stages = self._find_stages()
        self.variants = _chosen(variants_of(model, self.stages, freeze, depths), only)
        self._master: nn.Module | None = None

    @property
    def dtype_name(self) -> str:
        """The dtype of the step."""
        dtype = self._dtype or next((p.dtype for p in self._model.parameters()), torch.float32)
        return str(dtype).removeprefix("torch.")

    def plan(
        self, *, timed: bool = False, now: Now = time.perf_counter, progress: Progress | None = None
    ) -> FreezePlan:
        """Work out the cost of every variant; nothing is run but single operations, where they are ``timed``."""
        traced: dict[str, tuple[Cost | None, list[Operation], str]] = {}
        for index, variant in enumerate(self.variants):
            if progress is not None:
                progress(index, len(self.variants), "planning")
            known = traced[self.variants[0].name] if variant.kind == "again" else None
            traced[variant.name] = known or self._traced(variant)
        if timed:
            timer = OperationTimer(self.device, now)
            timer.measure((one for _, operations, _ in traced.values() for one in operations), progress)
            traced = {
                name: (cost and timer.priced(cost, operations), operations, note)
                for name, (cost, operations, note) in traced.items()
            }
        planned = [
            PlannedVariant(one.name, one.kind, one.trains, traced[one.name][0], one.frozen_stages, traced[one.name][2])
            for one in self.variants
        ]
        labels = tuple(stage.label for stage in self.stages)
        return FreezePlan(self.name, self.describe_step, tuple(planned), labels)

    def _traced(self, variant: Variant) -> tuple[Cost | None, list[Operation], str]:
        """Return the cost of a variant with its operations, or None and why there is none."""
        try:
            return (*self._trace(variant), "")
        except UsageError as error:
            if variant.kind == "full":
                raise
            return None, [], error.reason

    def build(self, name: str) -> TrainStep:
        """Build the step of a variant, on the device. Raises UsageError where it cannot be made."""
        variant = next(variant for variant in self.variants if variant.name == name)
        if self._master is None:
            self._master = self._model.to(self.device, self._dtype) if self._dtype else self._model.to(self.device)
        return self._made(sibling(self._master), variant)

    def _trace(self, variant: Variant) -> tuple[Cost, list[Operation]]:
        with pretending():
            model = pretend(self._model, self.device, self._dtype)
            step = self._made(model, variant)
            traced: tuple[Cost, list[Operation]] = self._guarded(variant, lambda: trace(model, step))
            return traced

    def _find_stages(self) -> list[Stage]:
        with pretending():
            model = pretend(self._model, self.device, self._dtype)
            step = self._step(model, [{"params": list(model.parameters())}])
            return stages_of(model, lambda: self._guarded(None, step.forward))

    def _made(self, model: nn.Module, variant: Variant) -> TrainStep:
        groups = prepare(model, variant)
        step = self._step(model, groups, variant)
        self._guarded(variant, lambda: finish(model, variant, step.forward))
        return step

    def _step(self, model: nn.Module, groups: Groups, variant: Variant | None = None) -> TrainStep:
        """Call the maker on the device. Modes like that one end here: some kernels are not chosen under them."""
        with torch.device(self.device):
            step = self._guarded(variant, lambda: self._make_step(model, groups))
        if not isinstance(step, TrainStep):
            hint = "return ckptaudit.TrainStep(loss, optimizer, samples)"
            raise UsageError("the maker of the step", f"returned a {type(step).__name__} and no TrainStep", hint)
        return step

    def _guarded(self, variant: Variant | None, attempt: Callable[[], Any]) -> Any:
        """Do what runs the user's code; say its failure as a sentence."""
        try:
            return attempt()
        except CkptauditError:
            raise
        except Exception as error:
            what = f" of {variant.name}" if variant else ""
            reason = f"the step{what} raised {first_line(error)}"
            hint = "check --input against the arguments of forward(), or give --step train.py:make_step"
            raise UsageError(self.name, reason, hint) from error


def _chosen(variants: list[Variant], only: Sequence[str] | None) -> list[Variant]:
    """Return the variants that are asked for by name or kind; the baseline and its twin always."""
    if only is None:
        return variants
    known = {variant.name for variant in variants} | set(KINDS)
    for name in only:
        if name not in known:
            raise UsageError(name, "is no variant", f"one of {', '.join(v.name for v in variants)}, depth")
    return [v for v in variants if v.kind in ("full", "again") or v.name in only or v.kind in only]
