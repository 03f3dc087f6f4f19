"""Two manifests in, a proposal out: which tensors of a checkpoint become which tensor of a model, and how sure that is.

Nothing here knows a library or a model. docs/explanation/inference.md says how it decides and what it cannot know.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

from ...manifest import Manifest
from ..assignment import Assignments
from .doubts import Doubts
from .folding import fold, unfold
from .forms import Forms
from .fusing import divide, plans
from .outcome import Evidence, Ledger, conclude, evidence_of
from .reuse import reuse
from .rounds import Pair, solve
from .scoring import Scorer
from .tree import Classes, Side, restore_order
from .units import Leaf, Path, Unit, gather


def infer(source: Manifest, target: Manifest) -> Assignments:
    """Return what is to be said of every key of ``target``, a model, given ``source``, a checkpoint.

    Uses names, shapes and the order of the keys, and no values. Never raises for any two manifests; the same two
    give the same answer. A source is given twice only where the model has one tensor under two names.
    """
    with _no_collection():
        return _infer(source, target)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Keep the garbage collector from looking, again and again, through millions of small objects without a cycle."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _infer(source: Manifest, target: Manifest) -> Assignments:
    whole_s, whole_t = _units(source), _units(target)
    splits, joins = plans(whole_s, whole_t)
    units_s, units_t = divide(whole_s, splits), divide(whole_t, joins)
    forms = Forms(units_s, units_t)
    some_s, some_t, runs_s, runs_t = fold(units_s, units_t)
    classes = Classes()
    s, t = Side(some_s, classes, forms.common), Side(some_t, classes, forms.common)
    scorer = Scorer(s, t, classes)
    pairs = solve(s, t, forms, scorer)
    doubts, ledger = Doubts(s, t, scorer.affinity, pairs), Ledger(forms)
    paths_s, paths_t = {unit.path: unit for unit in units_s}, {unit.path: unit for unit in units_t}
    for late in (False, True):
        known = _links(s, t, scorer, doubts, [pair for pair in pairs if pair.late == late])
        for path, (other, evidence) in unfold(known, runs_s, runs_t).items():
            ledger.add(paths_s[other], paths_t[path], evidence)
    ledger.join({leaf.key: len(joins[i].names) for i in joins for leaf in whole_t[i].leaves.values()})
    reuse(units_t, units_s, ledger.found)
    return conclude(source, target, ledger)


def _units(manifest: Manifest) -> list[Unit]:
    leaves = restore_order([Leaf(key, spec.shape) for key, spec in manifest.tensors.items()])
    return gather((leaf.key, leaf.shape) for leaf in leaves)


def _links(s: Side, t: Side, scorer: Scorer, doubts: Doubts, pairs: list[Pair]) -> dict[Path, tuple[Path, Evidence]]:
    return {
        t.units[pair.target].path: (s.units[pair.source].path, evidence_of(pair, s, t, scorer, doubts))
        for pair in pairs
    }
