"""Assertions for tests, in pytest or plain Python; a failure's message is the report's text.

They raise AssertionError where something does not hold, and CkptauditError where it cannot be checked at all.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from .audit import compare, diff, parse_contract
from .frozen import compare_frozen
from .manifest import Manifest
from .policy import Graded, Report, verdict_of
from .records import replace
from .report import render
from .rules.upkeep import check_outdated
from .scanning import scan
from .sources import Source, open_source
from .words import shell_word

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

    from .mapping.mapping import KeyMapping
    from .policy import Report
    from .training.audit import FreezeAudit
    from .training.membership import Misfit
    from .training.select import Patterns

_WIDTH = 100


class AuditAssertionError(AssertionError):
    """What an assertion found, as ``report``; the message is its table, and the command that says the same."""

    def __init__(self, report: Report, width: int = _WIDTH, command: str = "", text: str = "") -> None:
        again = f"\nreproduce: {command}\n" if command else ""
        super().__init__(f"\n{text or render(report, 'table', width)}{again}")
        self.report = report


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
    _kept(report, diff_command(model, checkpoint, contract, mapping))


def assert_manifest(
    model: Any, manifest: str | os.PathLike[str], *, frozen: bool = False, contract: str = "strict"
) -> None:
    """Assert that a model is still the one that a manifest file describes.

    ``frozen`` is for the manifest of a release: the model need not equal it, but what the release saved has to load
    by the contract.
    """
    __tracebackhide__ = True
    report = manifest_report(model, manifest, frozen=frozen, contract=contract)
    _kept(report, diff_command(model, manifest, contract, None))


def manifest_report(
    model: Any, manifest: str | os.PathLike[str], *, frozen: bool = False, contract: str = "strict"
) -> Report:
    """Compare a model, as ``diff`` takes it or opened, with a manifest file; they are equal unless ``frozen``."""
    chosen, committed = parse_contract(contract), Manifest.load(manifest)
    opened = model if isinstance(model, Source) else open_source(model)
    with nullcontext() if opened is model else opened:
        report = compare(Source(os.fspath(manifest), "manifest", committed), opened, None, chosen)
        if frozen or not report.ok:
            return report
        outdated = tuple(Graded("error", finding) for finding in check_outdated(committed, opened.manifest))
    findings = (*outdated, *report.findings)
    return replace(report, findings=findings, verdict=verdict_of(findings))


def diff_command(model: Any, checkpoint: Any, contract: str, mapping: Any) -> str:
    """Return the command line that compares the same, where it can name both sides and the mapping; else nothing."""
    paths = [os.fspath(side) for side in (model, checkpoint) if isinstance(side, (str, os.PathLike))]
    if len(paths) < 2:
        return ""
    words = ["ckptaudit", "diff", *map(shell_word, paths)]
    if contract != "strict":
        words += ["--contract", contract]
    for rule in _rules(mapping):
        words += ["--map", shell_word(rule)]
    return " ".join(words)


def _rules(mapping: Any) -> list[str]:
    """Return a mapping as the values of ``--map``."""
    if mapping is None:
        return []
    if isinstance(mapping, (str, os.PathLike)):
        return [os.fspath(mapping)]
    from .mapping.mapping import KeyMapping

    return KeyMapping.of(mapping).to_json()


def assert_safe(*paths: str | os.PathLike[str], integrity: bool = False) -> None:
    """Assert that files and folders are safe and whole checkpoints, as ``ckptaudit.scan`` sees them."""
    __tracebackhide__ = True
    report = scan(*paths, integrity=integrity)
    if not report.ok:
        from .report.scan import render_scan

        command = " ".join(["ckptaudit", "scan", *(shell_word(os.fspath(path)) for path in paths)])
        again = f"\nreproduce: {command}{' --integrity' if integrity else ''}\n"
        raise AssertionError(f"\n{render_scan(report, _WIDTH, verbose=False)}{again}")


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
        raise AuditAssertionError(audit.report, text=audit.text(_WIDTH))
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


def _kept(report: Report, command: str = "") -> Report:
    __tracebackhide__ = True
    if not report.ok:
        raise AuditAssertionError(report, command=command)
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
        raise AuditAssertionError(audit.report, text=audit.text(_WIDTH))
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
        raise AuditAssertionError(audit.report, text=audit.text(_WIDTH))
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
