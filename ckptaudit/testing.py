"""Assertions for tests, in pytest or plain Python; a failure's message is the report's text.

They raise AssertionError where something does not hold, and CkptauditError where it cannot be checked at all.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from .audit import diff
from .frozen import compare_frozen
from .report import render
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
    _kept(diff(model, checkpoint, contract=contract, mapping=mapping))


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


def assert_frozen_between(
    base: Any,
    tuned: Any,
    patterns: str | Iterable[str],
    *,
    trainable: str | Iterable[str] | None = None,
    mapping: Any = None,
) -> Report:
    """Assert that a run left what ``patterns`` select as it was, from the checkpoints of before and after.

    Everything is as in ``ckptaudit.compare_frozen``, whose report is returned.
    """
    __tracebackhide__ = True
    return _kept(compare_frozen(base, tuned, patterns, trainable=trainable, mapping=mapping))


def assert_same_values(first: Any, second: Any, *, rtol: float = 0.0, atol: float = 0.0, mapping: Any = None) -> Report:
    """Assert that two checkpoints, state dicts or live models have the same keys, and values equal bit for bit.

    With a tolerance ``|first - second| <= atol + rtol * |second|`` is enough. ``mapping`` gives the keys of ``second``
    the names of ``first``. Returns the report of ``ckptaudit.diff(values=True)``.
    """
    __tracebackhide__ = True
    return _kept(diff(first, second, mapping=mapping, values=True, rtol=rtol, atol=atol))


def _kept(report: Report) -> Report:
    __tracebackhide__ = True
    if not report.ok:
        raise AssertionError("\n" + render(report, "table", _WIDTH))
    return report


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
