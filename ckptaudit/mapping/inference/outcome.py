"""From pairs of units to what is said of every key: operations, confidence, reasons, and what is left open."""

from __future__ import annotations

from collections import defaultdict

from ...manifest import Manifest
from ...records import dataclass
from ..assignment import Assignment, Assignments
from .doubts import Doubts
from .forms import Forms, combined
from .rounds import Pair
from .scoring import Scorer
from .tree import Side
from .units import Unit, locate

LEAST = 0.5  # below this nothing is said
LOW = 0.45
SHOWN = 3  # words of a reason
STATISTICS = ("running_mean", "running_var")

# Shares of right pairs among those of the development corpus, rounded down (docs/explanation/inference.md): for a
# lead without the order of the files above the first bound, and one with it above the second. Order alone never
# reaches 0.9.
_CONFIDENCE = (
    (0.6, ((1.5, 0.99), (0.6, 0.96), (0.3, 0.88), (-0.5, 0.8))),
    (0.1, ((1.0, 0.93), (0.3, 0.85), (-0.5, 0.7))),
    (-0.2, ((1.0, 0.88), (0.3, 0.8), (0.0, 0.7), (-0.5, 0.6))),
)


@dataclass(frozen=True, slots=True)
class Evidence:
    """How sure a pair of units is, why, and which other units of the checkpoint came close."""

    confidence: float
    reason: str
    rivals: tuple[Unit, ...] = ()


def confidence_of(lead: float, free: float) -> float:
    """Return how likely a pair is right, from its lead over every alternative with and without the files' order."""
    for least, steps in _CONFIDENCE:
        if free > least:
            return next((value for bound, value in steps if lead > bound), LOW)
    return LOW


def evidence_of(pair: Pair, s: Side, t: Side, scorer: Scorer, doubts: Doubts) -> Evidence:
    """Return the confidence in a pair and the clause that tells a person where to look."""
    cap, doubt = doubts.about(pair.source, pair.target)
    confidence = min(cap, confidence_of(pair.lead, pair.free))
    clauses = [_names_clause(s.units[pair.source], t.units[pair.target], scorer)]
    if pair.candidates == 1:
        clauses.append("nothing else has its shape")
    elif pair.free <= 0.1 < pair.lead:
        clauses.append(f"the order of the keys decides among {pair.candidates} that fit")
    else:
        clauses.append(f"the best of {pair.candidates} that fit, by {pair.lead:.1f}")
    if doubt:
        clauses.append(doubt)
    return Evidence(confidence, "; ".join(clauses), tuple(s.units[i] for i in pair.rivals))


def _names_clause(a: Unit, b: Unit, scorer: Scorer) -> str:
    if a.path == b.path:
        return "same name"
    short, long = sorted((a.path, b.path), key=len)
    if long[len(long) - len(short) :] == short:
        return "same name under another prefix"
    shared = scorer.names.shared(a.stem, b.stem)[:SHOWN]
    return f"names share {', '.join(shared)}" if shared else "names share nothing"


class Ledger:
    """Collects assignments; gives no tensor of the checkpoint away twice."""

    def __init__(self, forms: Forms) -> None:
        self.found: dict[str, Assignment] = {}
        self._forms = forms
        self._taken: set[tuple[str, str]] = set()
        self._pieces: defaultdict[str, dict[int, Assignment]] = defaultdict(dict)

    def add(self, a: Unit, b: Unit, evidence: Evidence) -> None:
        """Assign the tensors of source unit ``a`` to those of target unit ``b``, role by role."""
        for role, leaf in b.leaves.items():
            other = a.leaves.get(role)
            known = self._forms.between(role, a, b) if other else None
            if other is None or known is None or (other.key, other.op) in self._taken:
                continue
            if leaf.key in self.found or leaf.part in self._pieces.get(leaf.key, ()):
                continue
            self._taken.add((other.key, other.op))
            rivals = tuple(unit.leaves[role].key for unit in evidence.rivals if role in unit.leaves)
            op = combined(other, known[0])
            made = Assignment(leaf.key, (other.key,), op, evidence.confidence, evidence.reason, rivals)
            if leaf.op == "copy":
                self.found[leaf.key] = made
            else:
                self._pieces[leaf.key][leaf.part] = made

    def join(self, sizes: dict[str, int]) -> None:
        """Put fused tensors of the model together, those of which every part was found as it is."""
        for key, parts in self._pieces.items():
            made = [parts[k] for k in sorted(parts)]
            if len(made) == sizes[key] and all(one.op == "copy" for one in made):
                worst = min(made, key=lambda one: one.confidence)
                sources = tuple(one.sources[0] for one in made)
                self.found[key] = Assignment(key, sources, "concat(0)", worst.confidence, worst.reason, worst.rivals)

    @property
    def partial(self) -> set[str]:
        """Fused tensors of the model of which only some parts were found."""
        return self._pieces.keys() - self.found.keys()


def conclude(source: Manifest, target: Manifest, ledger: Ledger) -> Assignments:
    """Return what is said of every key: assigned, without a source, or open where one could be meant.

    A source is possible where an unused tensor has the role and the shape; for a bias only if for its weight as well.
    Statistics of a norm that is assigned need but the shape: left at their init they would be wrong without a word.
    """
    sure = {key: made for key, made in ledger.found.items() if made.confidence >= LEAST}
    used = {key for made in sure.values() for key in made.sources}
    dropped = tuple(key for key in source.tensors if key not in used)
    spare = {(locate(key)[1], source[key].shape) for key in dropped}
    doubtful = ledger.found.keys() | ledger.partial
    shapes = {source[key].shape for key in dropped}
    assigned = {locate(key)[0] for key in sure}
    open_, bare = set(), set()
    rest = [key for key in target.tensors if key not in sure]
    for key in sorted(rest, key=lambda key: locate(key)[1] != "weight"):
        path, role, _ = locate(key)
        shape = target[key].shape
        lost = role in STATISTICS and path in assigned and shape in shapes
        if key in doubtful or lost or ((role, shape) in spare and path not in bare):
            open_.add(key)
        elif role == "weight":
            bare.add(path)
    return Assignments(
        tuple(sure[key] for key in target.tensors if key in sure),
        tuple(key for key in target.tensors if key not in sure and key not in open_),
        dropped,
        tuple(key for key in target.tensors if key in open_),
    )
