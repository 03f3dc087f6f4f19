"""Two manifests in, a proposal out: which tensors of a checkpoint become which tensor of a model, and how sure that is."""

from __future__ import annotations

from ...manifest import Manifest
from ..assignment import Assignments
from .folding import fold, unfold
from .forms import Forms
from .fusing import divide, plan
from .outcome import LEAST, Ledger, Link, confidence_of
from .doubts import Doubts
from .reuse import reuse
from .rounds import Pair, solve
from .scoring import Scorer
from .tree import Classes, Side, restore_order
from .units import Leaf, Path, gather

DEBUG = {}
GAPS={}

def infer(source: Manifest, target: Manifest) -> Assignments:
    """Return what is to be said of every key of ``target``, a model, given ``source``, a checkpoint."""
    units = []
    for manifest in (source, target):
        leaves = restore_order([Leaf(k, spec.shape) for k, spec in manifest.tensors.items()])
        units.append(gather((leaf.key, leaf.shape) for leaf in leaves))
    splits, joins = plan(units[0], units[1]), plan(units[1], units[0])
    all_s, all_t = divide(units[0], splits), divide(units[1], joins)
    forms = Forms(all_s, all_t)
    some_s, some_t, runs_s, runs_t = fold(all_s, all_t)
    classes = Classes()
    s, t = Side(some_s, classes, forms.common), Side(some_t, classes, forms.common)
    scorer = Scorer(s, t, classes)
    pairs = solve(s, t, forms, scorer)
    path_s, path_t = {u.path: u for u in all_s}, {u.path: u for u in all_t}
    ledger = Ledger(forms)
    DEBUG.clear();GAPS.clear()
    doubts = Doubts(s, t, scorer.affinity)
    for late in (False, True):
        known = {}
        for p in pairs:
            if p.late == late:
                cap, why = doubts.about(p.source, p.target)
                conf = min(cap, confidence_of(p.lead, p.free))
                GAPS[t.units[p.target].path]=(p.lead,p.free)
                known[t.units[p.target].path] = (s.units[p.source].path, conf)
        if runs_t:
            known = unfold(known, runs_s, runs_t)
        for path, (other, lead) in known.items():
            a, b = path_s[other], path_t[path]
            link = Link(other, lead, f"{lead:.2f}", ())
            for leaf in b.leaves.values(): DEBUG[leaf.key]=GAPS.get(path,(9,9))
            ledger.add(a, b, link, path_s)
    sizes = {leaf.key: len(joins[i].names) for i, unit in enumerate(units[1]) if i in joins for leaf in unit.leaves.values()}
    ledger.join(sizes)
    found = ledger.found
    reuse(all_t, all_s, found, forms)
    sure = {k: a for k, a in found.items() if a.confidence >= LEAST}
    used = {k for a in sure.values() for k in a.sources}
    return Assignments(
        tuple(sure[k] for k in target.tensors if k in sure),
        tuple(k for k in target.tensors if k not in found),
        tuple(k for k in source.tensors if k not in used),
        tuple(k for k in target.tensors if k in found and k not in sure),
    )
