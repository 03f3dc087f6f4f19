"""The rounds: candidates by shape, scores, one assignment problem per bucket, and votes of what is secure."""

from __future__ import annotations

from collections import defaultdict

from ...manifest import Manifest
from ..assignment import Assignment, Assignments
from .fusing import divide, plan
from .scoring import Scorer
from .solving import assign
from .tree import Classes, Side, restore_order
from .units import Leaf, Unit, gather

ROUNDS = 5
FLOOR = 1.2
SECURE = 0.35


def match(source: Manifest, target: Manifest) -> Assignments:
    classes = Classes()
    units = []
    for manifest in (source, target):
        leaves = restore_order([Leaf(k, spec.shape) for k, spec in manifest.tensors.items()])
        units.append(gather((leaf.key, leaf.shape) for leaf in leaves))
    splits, joins = plan(units[0], units[1]), plan(units[1], units[0])
    s = Side(divide(units[0], splits), classes)
    t = Side(divide(units[1], joins), classes)
    scorer = Scorer(s, t, classes)
    candidates = candidates_of(s, t)
    static = {j: {i: scorer.static(i, j) + fit for i, fit in row.items()} for j, row in candidates.items()}
    chosen = {}
    for _ in range(ROUNDS):
        scores = {j: {i: scorer.score(i, j, value) for i, value in row.items()} for j, row in static.items()}
        chosen = assign(scores, FLOOR)
        gaps = gaps_of(scores, chosen)
        scorer.learn([(i, j, min(1.0, gaps[j])) for j, i in chosen.items() if gaps[j] > SECURE])
    found = {}
    pieces = defaultdict(dict)
    for j, i in chosen.items():
        a, b = s.units[i], t.units[j]
        for role, leaf in b.leaves.items():
            other = a.leaves.get(role)
            if other and other.shape == leaf.shape:
                g = gaps[j]
                conf = 0.95 if g > 0.35 else 0.7 if g > 0 else 0.5
                if leaf.op != "copy":
                    pieces[leaf.key][leaf.part] = (other.key, other.op, conf)
                else:
                    found[leaf.key] = Assignment(leaf.key, (other.key,), other.op, conf, "")
    sizes = {leaf.key: len(joins[i].names) for i, unit in enumerate(units[1]) if i in joins for leaf in unit.leaves.values()}
    for key, parts in pieces.items():
        if len(parts) == sizes[key] and all(op == "copy" for _, op, _ in parts.values()):
            found[key] = Assignment(key, tuple(parts[k][0] for k in sorted(parts)), "concat(0)", min(p[2] for p in parts.values()))
    return Assignments(
        tuple(found[k] for k in target.tensors if k in found),
        uninitialised=tuple(k for k in target.tensors if k not in found),
    )


def candidates_of(s: Side, t: Side) -> dict[int, dict[int, float]]:
    """target unit -> source unit -> how its tensors fit (0 is all of them)"""
    index = defaultdict(list)
    for i, unit in enumerate(s.units):
        for role, leaf in unit.leaves.items():
            if role in ("weight", "bias", "weight_v"):
                index[role, leaf.shape].append(i)
    result = {}
    for j, unit in enumerate(t.units):
        row = {}
        for role, leaf in unit.leaves.items():
            for i in index.get((role, leaf.shape), ()):
                if i not in row:
                    row[i] = _fit(s.units[i], unit)
        result[j] = {i: fit for i, fit in row.items() if fit > -2}
    return result


def _fit(a: Unit, b: Unit) -> float:
    same = clash = 0
    for role, leaf in b.leaves.items():
        other = a.leaves.get(role)
        if other:
            if other.shape == leaf.shape:
                same += 1
            else:
                clash += 1
    if not same:
        return -9.0
    extra = len(a.leaves) + len(b.leaves) - 2 * same
    return -1.5 * clash - 0.4 * extra


def gaps_of(scores, chosen):
    best_other_row = {}
    column = defaultdict(list)
    for j, row in scores.items():
        for i, v in row.items():
            column[i].append((v, j))
    for i in column:
        column[i].sort(reverse=True)
    gaps = {}
    for j, i in chosen.items():
        row = scores[j]
        mine = row[i]
        other = max((v for k, v in row.items() if k != i), default=mine - 3)
        rival = next((v for v, k in column[i] if k != j), mine - 3)
        gaps[j] = mine - max(other, rival)
    return gaps
