"""Assertions for tests, in pytest or plain Python; a failure's message is the report's text.

They raise AssertionError where something does not hold, and CkptauditError where it cannot be checked at all.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from .audit import diff
from .scanning import scan

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

    from .mapping.mapping import KeyMapping
    from .policy import Report
    from .training.audit import FreezeAudit
    from .training.membership import Misfit
    from .training.select import Patterns

_WIDTH = 100


def assert_loads(
    model: Any,
    checkpoint: Any,
    *,
    contract: str = "strict",
    mapping: KeyMapping | str | os.PathLike[str] | Iterable[str | os.PathLike[str]] | None = None,
) -> None:
    """Assert that a checkpoint keeps the contract with a model, as ``ckptaudit.diff`` sees it. Nothing is loaded."""
    __tracebackhide__ = True
    report = diff(model, checkpoint, contract=contract, mapping=mapping)
    if not report.ok:
        raise AssertionError(f"\n{report.text(_WIDTH)}\n")


def assert_safe(*paths: str | os.PathLike[str], integrity: bool = False) -> None:
    """Assert that files and folders are safe and whole checkpoints, as ``ckptaudit.scan`` sees them."""
    __tracebackhide__ = True
    report = scan(*paths, integrity=integrity)
    if not report.ok:
        from .report.scan import render_scan

        raise AssertionError("\n" + render_scan(report, _WIDTH, verbose=False))


def assert_frozen(
    model: nn.Module, patterns: Patterns, step: Callable[[], object], *, steps: int = 3, **options: Any
) -> FreezeAudit:
    """Call ``step()`` so many times; assert that what ``patterns`` select has the same bits afterwards.

    ``step`` is one step of your own training. ``options`` are those of ``audit_training`` (``optimizers``,
    ``against``, ``blame``). Returns the audit.
    """
    __tracebackhide__ = True
    audit = _audited(model, step, steps, frozen=patterns, **options)
    if any(one.verdict != "held" for one in audit.verdicts if one.expected == "frozen"):
        raise AssertionError(f"\n{audit.text(_WIDTH)}")
    return audit


def assert_trained(
    model: nn.Module, patterns: Patterns, step: Callable[[], object], *, steps: int = 3, **options: Any
) -> FreezeAudit:
    """Call ``step()`` so many times; assert that each tensor that ``patterns`` select has changed.

    Two optimizer steps are needed for tensors whose first gradient is zero by design (LoRA, zero-initialised
    residuals). A tensor that is not known to have changed has not passed. ``options`` as for ``assert_frozen``.
    """
    __tracebackhide__ = True
    audit = _audited(model, step, steps, frozen=(), trainable=patterns, **options)
    if any(one.verdict != "trained" for one in audit.verdicts):
        raise AssertionError(f"\n{audit.text(_WIDTH)}")
    return audit


def assert_matches_checkpoint(
    model: nn.Module, checkpoint: Any, patterns: Patterns = "*", *, mapping: Any = None
) -> FreezeAudit:
    """Assert that the tensors that ``patterns`` select have the bits that a checkpoint has for them.

    ``checkpoint`` is a path, a state dict or an open Checkpoint; ``mapping`` gives its keys the model's names.
    Buffers that no state dict has are passed over.
    """
    __tracebackhide__ = True
    audit = _audited(model, lambda: None, 0, frozen=patterns, trainable=(), against=checkpoint, mapping=mapping)
    if not audit.report.ok:
        raise AssertionError(f"\n{audit.text(_WIDTH)}")
    return audit


def assert_param_groups(
    model: nn.Module, optimizer: Optimizer, groups: Mapping[str | tuple[str, ...], Mapping[str, Any] | str]
) -> None:
    """Assert that the parameters of each pattern are in one group with these options, or frozen and in none.

    ``groups`` is what ``ckptaudit.param_groups`` takes: ``{"backbone.*": "freeze", "fc.*": {"lr": 1e-2}}``. Options
    that are not named may be anything.
    """
    __tracebackhide__ = True
    from .training.membership import misgrouped

    _fail_with(misgrouped(model, optimizer, groups), "the parameter groups are not as expected")


def assert_training_setup(
    model: nn.Module,
    optimizers: Optimizer | Iterable[Optimizer],
    *,
    frozen: Patterns,
    trainable: Patterns | None = None,
    **options: Any,
) -> Report:
    """Assert that ``ckptaudit.lint_training`` has nothing to warn of; nothing is run. Returns the report.

    ``options`` are those of ``lint_training`` (``schedulers``, ``averaged``). Notes do not fail; warnings do, with
    ``trainable`` or without: a setup that is right has none.
    """
    __tracebackhide__ = True
    from .training.lint import lint_training

    report = lint_training(model, optimizers, frozen=frozen, trainable=trainable, **options)
    if any(graded.level != "note" for graded in report.findings):
        raise AssertionError(f"\n{report.text(_WIDTH)}")
    return report


def assert_optimizer_covers(model: nn.Module, *optimizers: Optimizer) -> None:
    """Assert that each trainable parameter is in exactly one group, and that optimizers hold the model's alone."""
    __tracebackhide__ = True
    from .training.membership import uncovered

    _fail_with(uncovered(model, optimizers), "the optimizer does not cover the trainable parameters")


def _audited(model: nn.Module, step: Callable[[], object], steps: int, **options: Any) -> FreezeAudit:
    from .training.audit import audit_training

    with audit_training(model, **options) as audit:
        for _ in range(steps):
            step()
    return audit


def _fail_with(misfits: Iterable[Misfit], headline: str) -> None:
    __tracebackhide__ = True
    rows = [(one.name, one.expected, one.found) for one in misfits]
    if rows:
        from .report.table import grid

        table = "\n".join(line.rstrip() for line in grid(rows, ("parameter", "expected", "found"), _WIDTH))
        raise AssertionError(f"{headline}\n\n{table}\n")
