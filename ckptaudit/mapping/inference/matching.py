"""The rounds: candidates by shape, scores, one assignment problem per bucket, and votes of what is secure."""

from __future__ import annotations

from collections import defaultdict

from ...manifest import Manifest
from ..assignment import Assignment, Assignments
from .folding import fold, unfold
from .forms import Forms, combined
from .fusing import divide, plan
from .scoring import Scorer
from .solving import assign
from .tree import Classes, Side, restore_order
from .units import Leaf, Unit, gather

ROUNDS = 5
FLOOR = 1.2
SECURE = 0.35
FITTING = ("weight", "bias", "weight_v")


def match(source: Manifest, target: Manifest) -> Assignments:
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
    pairs = solve(s, t, forms, classes)
    path_s = {u.path: u for u in all_s}
    path_t = {u.path: u for u in all_t}
    found = {}
    pieces = defaultdict(dict)
    used = set()
    for part in range(2):
        known = {t.units[j].path: (s.units[i].path, gap) for n, j, i, gap in pairs if n == part}
        if runs_t:
            known = unfold(known, runs_s, runs_t)
        for p, (q, gap) in known.items():
            a, b = path_s.get(q), path_t.get(p)
            if a is None or b is None: continue
            for role, leaf in b.leaves.items():
                other = a.leaves.get(role)
                op = other and forms.op(role, other.shape, leaf.shape)
                if op and (other.key, other.op) not in used and leaf.key not in found and leaf.part not in pieces.get(leaf.key, ()):
                    used.add((other.key, other.op))
                    conf = 0.95 if gap > 0.35 else 0.7 if gap > 0 else 0.5
                    if leaf.op != "copy":
                        pieces[leaf.key][leaf.part] = (other.key, combined(other, op[0]), conf)
                    else:
                        found[leaf.key] = Assignment(leaf.key, (other.key,), combined(other, op[0]), conf, "")
    sizes = {leaf.key: len(joins[i].names) for i, unit in enumerate(units[1]) if i in joins for leaf in unit.leaves.values()}
    for key, parts in pieces.items():
        if len(parts) == sizes[key] and all(op == "copy" for _, op, _ in parts.values()):
            found[key] = Assignment(key, tuple(parts[k][0] for k in sorted(parts)), "concat(0)", min(p[2] for p in parts.values()))
    return Assignments(
        tuple(found[k] for k in target.tensors if k in found),
        uninitialised=tuple(k for k in target.tensors if k not in found),
    )


def solve(s: Side, t: Side, forms: Forms, classes: Classes):
    scorer = Scorer(s, t, classes)
    used_s, used_t = defaultdict(set), defaultdict(set)
    result = []
    for part in range(2):
        candidates = candidates_of(s, t, forms, used_s, used_t)
        if not any(candidates.values()):
            break
        static = {j: {i: scorer.static(i, j) + fit for i, fit in row.items()} for j, row in candidates.items()}
        chosen = {}
        for _ in range(ROUNDS if not part else 1):
            scores = {j: {i: scorer.score(i, j, value) for i, value in row.items()} for j, row in static.items()}
            chosen = assign(scores, FLOOR + 0.5 * part)
            gaps = gaps_of(scores, chosen)
            if not part:
                scorer.learn([(i, j, min(1.0, gaps[j])) for j, i in chosen.items() if gaps[j] > SECURE])
        for j, i in chosen.items():
            result.append((part, j, i, gaps[j]))
            for role in t.units[j].leaves.keys() & s.units[i].leaves.keys():
                if forms.op(role, s.units[i].leaves[role].shape, t.units[j].leaves[role].shape):
                    used_s[i].add(role)
                    used_t[j].add(role)
    return result


def candidates_of(s: Side, t: Side, forms: Forms, used_s, used_t) -> dict[int, dict[int, float]]:
    """target unit -> source unit -> how its tensors fit (0 is all of them)"""
    index = defaultdict(list)
    for i, unit in enumerate(s.units):
        for role, leaf in unit.leaves.items():
            if role in FITTING and role not in used_s[i]:
                index[role, leaf.shape].append(i)
    result = {}
    for j, unit in enumerate(t.units):
        row = {}
        for role, leaf in unit.leaves.items():
            if role in used_t[j]:
                continue
            for shape in forms.partners(role, leaf.shape):
                for i in index.get((role, shape), ()):
                    if i not in row:
                        row[i] = _fit(s.units[i], unit, forms, used_s[i], used_t[j])
        result[j] = {i: fit for i, fit in row.items() if fit > -2}
    return result


def _fit(a: Unit, b: Unit, forms: Forms, used_a, used_b) -> float:
    same = clash = 0
    cost = 0.0
    for role, leaf in b.leaves.items():
        other = a.leaves.get(role)
        if other and role not in used_b and role not in used_a:
            known = forms.op(role, other.shape, leaf.shape)
            if known:
                same += 1
                cost += known[1]
            elif role == "weight":
                return -9.0
            else:
                clash += 1
    if not same:
        return -9.0
    extra = len(a.leaves.keys() - used_a) + len(b.leaves.keys() - used_b) - 2 * same - 2 * clash
    return -1.5 * clash - 0.4 * extra - cost


def gaps_of(scores, chosen):
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
