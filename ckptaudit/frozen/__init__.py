"""Prove from two checkpoints what a run changed: frozen tensors held bit for bit, trainable ones moved."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Any

from ..errors import UsageError
from ..formats import DEFAULT_LIMITS, Limits
from ..mapping.mapping import KeyMapping
from ..policy import Report, grade, verdict_of
from ..rules import Contract, Finding
from ..rules.base import Fix
from ..rules.fates import Fates
from ..rules.freezing import FREEZE_PATTERN_UNMATCHED, FROZEN_STATISTICS_DRIFTED, findings
from ..rules.verdicts import TensorVerdict, is_statistic
from ..selection import Selection, closest_name, overlap, select_names
from ..sources import Source, open_source
from ..words import plural, shell_word
from .tuned import Run, Side, is_trainable

Progress = Callable[[int, int], None]
Patterns = str | Iterable[str]


def compare_frozen(
    base: Any,
    tuned: Any,
    patterns: Patterns = (),
    *,
    trainable: Patterns | None = None,
    mapping: KeyMapping | str | os.PathLike[str] | Iterable[str | os.PathLike[str]] | None = None,
    limits: Limits = DEFAULT_LIMITS,
    progress: Progress | None = None,
) -> Report:
    """Compare the checkpoint that a run began with and one that it wrote; the report is graded by ``exact``.

    ``base`` and ``tuned`` are each a path, ``FILE#inner``, an open Checkpoint, a state dict or a live ``nn.Module``.
    What ``patterns`` select (the language of ``audit_training``, but for types of modules) has to be equal bit for bit,
    running statistics included; what ``trainable`` selects has to differ. Without ``trainable`` the rest is held to
    nothing, and what did not change is a warning; without ``patterns`` too, the report says what was evidently frozen.
    Names are those without wrappers (``module.``, ``_orig_mod.``); ``mapping`` gives the keys of ``base`` the names of
    ``tuned``. ``progress(done, total)`` is told the bytes so far.

    Raises UsageError for a side without values, a pattern that cannot be read, a tensor that is selected as both, and
    two sides that have no name in common; CkptauditError for a file that cannot be opened.
    """
    rules = KeyMapping.of(mapping) if mapping else None
    with ExitStack() as stack:
        sides = [stack.enter_context(open_source(given, limits=limits)) for given in (base, tuned)]
        run = Run(Side(sides[0], rules), Side(sides[1]))
        _check_names(run)
        fates, found = _judged(run, _listed(patterns), None if trainable is None else _listed(trainable), progress)
        for side in sides:
            side.check_unchanged()
        return _report(sides, fates, found)


def _listed(patterns: Patterns) -> list[str]:
    return [patterns] if isinstance(patterns, str) else list(patterns)


def _check_names(run: Run) -> None:
    """Raise UsageError where no tensor of one side has a name of the other; the hint is a mapping that would help."""
    if any(name in run.base.specs for name in run.tuned.specs) or not run.base.specs:
        return
    from ..mapping.causes import propose

    proposal = propose(run.base.manifest, run.tuned.manifest)
    rules = proposal.mapping.to_json() if proposal else []
    hint = "give its tensors the other's names: " + " ".join(f"--map {shell_word(rule)}" for rule in rules[:3])
    reason = f"has no tensor of a name that {run.tuned.name} has"
    raise UsageError(run.base.name, reason, hint if rules else f"compare the names: {_diff(run)}")


def _diff(run: Run) -> str:
    return f"ckptaudit diff {shell_word(run.tuned.name)} {shell_word(run.base.name)}"


def _judged(
    run: Run, patterns: list[str], trainable: list[str] | None, progress: Progress | None
) -> tuple[Fates, list[Finding]]:
    shapes = run.shapes
    frozen, missed = select_names(shapes, patterns)
    unmatched = [(pattern, "frozen") for pattern in missed]
    moving = _rest(run, frozen)
    if trainable is not None:
        moving, missed = select_names(shapes, trainable)
        unmatched += [(pattern, "trainable") for pattern in missed]
        _check_claims(frozen, moving)
    declared = bool(patterns) or trainable is not None
    if not declared:
        moving = Selection(dict.fromkeys(name for name in run.tuned.specs if name in run.base.specs))
    judged = list(_verdicts(run, frozen, moving, progress))
    known = {one.name for one in judged}
    new = tuple(name for name in run.tuned.specs if name not in run.base.specs and name not in known)
    gone = tuple(name for name in run.base.specs if name not in run.tuned.specs and name not in known)
    fates = Fates(tuple(judged), declared, trainable is not None, tuple(shapes), new, gone)
    found = findings(judged, declared=trainable is not None, of_files=True) if declared else _evident(fates)
    return fates, [*found, *_unmatched(unmatched, shapes)]


def _rest(run: Run, frozen: Selection) -> Selection:
    """Return what may be parameters, is on both sides, and is not frozen, not even in part."""
    specs = run.tuned.specs
    names = [n for n in specs if n in run.base.specs and n not in frozen and is_trainable(specs[n], n)]
    return Selection(dict.fromkeys(names))


def _check_claims(frozen: Selection, trainable: Selection) -> None:
    for name, rows in trainable.tensors.items():
        if name in frozen and overlap(rows, frozen.tensors[name]):
            raise UsageError(name, "is selected twice, as frozen and as trainable", f"take it out of one with !{name}")


def _verdicts(run: Run, frozen: Selection, moving: Selection, progress: Progress | None) -> Iterable[TensorVerdict]:
    specs = {**run.base.specs, **run.tuned.specs}
    total, done = sum(specs[name].nbytes for name in (*frozen, *moving)), 0
    for selection, judge in ((frozen, run.frozen), (moving, run.trainable)):
        for name in selection:
            if (verdict := judge(name, selection)) is not None:
                yield verdict
            done += specs[name].nbytes
            if progress is not None and total:
                progress(done, total)


def _evident(fates: Fates) -> list[Finding]:
    """Return what is odd though nothing was declared: statistics that moved of norms whose weights did not."""
    still, moved = set(fates.of("unchanged")), fates.of("trained")
    drifted = []
    for name in filter(is_statistic, moved):
        module = name.rpartition(".")[0]
        if f"{module}.weight" in still and f"{module}.bias" in still:
            drifted.append(name)
    if not drifted:
        return []
    rows = tuple((name, "changed", "its weight and bias did not") for name in drifted)
    return [Finding(FROZEN_STATISTICS_DRIFTED, tuple(drifted), "evident", rows=rows, breaks=Contract.resume)]


def _unmatched(missed: list[tuple[str, str]], names: Iterable[str]) -> list[Finding]:
    if not missed:
        return []
    rows = tuple((pattern, role, closest_name(pattern, names), "1") for pattern, role in missed)
    fix = Fix("display", "see the names of tensors: ckptaudit inspect FILE -v")
    return [Finding(FREEZE_PATTERN_UNMATCHED, tuple(row[0] for row in rows), rows=rows, fixes=(fix,))]


def _report(sides: list[Source], fates: Fates, found: list[Finding]) -> Report:
    graded = grade(found, Contract.exact)
    return Report(
        command="frozen",
        contract=Contract.exact,
        verdict=verdict_of(graded),
        checkpoint=sides[0].side("base"),
        model=sides[1].side("tuned"),
        alignment=None,
        outcome_as_is=None,
        outcome=None,
        mapping=None,
        findings=graded,
        remarks=_remarks(fates),
        fates=fates,
    )


def _remarks(fates: Fates) -> tuple[str, ...]:
    if not fates.declared:
        same, changed = len(fates.of("unchanged")), len(fates.of("trained"))
        both = plural(len(fates.verdicts), "tensor")
        return (f"Of {both} that both have {same:,} are equal bit for bit and {changed:,} changed.",)
    counts = []
    for expected, verdict, word in (("frozen", "held", "held bit for bit"), ("trainable", "trained", "changed")):
        all_of = [one for one in fates.verdicts if one.expected == expected]
        if all_of:
            what = f"{expected} tensor" if expected == "frozen" or fates.names_trainable else "other tensor"
            counts.append(f"of {plural(len(all_of), what)} {len(fates.of(verdict)):,} {word}")
    return (f"{' and '.join(counts).capitalize()}.",) if counts else ()
