"""From pairs of units to what is said of every key: operations, confidence, reasons, and what is left open."""

from __future__ import annotations

from collections import defaultdict

from ..assignment import Assignment
from .forms import Forms, combined
from .units import Path, Unit
from ...records import dataclass

LEAST = 0.5
LOW = 0.45


@dataclass(frozen=True, slots=True)
class Link:
    """What is known of a target's unit: the source's unit, how sure, why, and which others were close."""

    source: Path
    confidence: float
    reason: str
    rivals: tuple[Path, ...]


# Shares of right pairs among those of the development corpus, on families that were not tuned on: for a lead without the
# order of the files above the first bound, and a lead with it above the second. Order alone never reaches 0.9.
_CONFIDENCE = (
    (0.6, ((1.5, 0.99), (0.6, 0.96), (0.3, 0.88), (-0.5, 0.8))),
    (0.1, ((1.0, 0.93), (0.3, 0.85), (-0.5, 0.7))),
    (-9.0, ((1.0, 0.88), (0.3, 0.8), (0.0, 0.7), (-0.5, 0.6))),
)


def confidence_of(lead: float, free: float) -> float:
    """Return how likely a pair is right, from its lead over every alternative with and without the files' order."""
    for least, steps in _CONFIDENCE:
        if free > least:
            return next((value for bound, value in steps if lead > bound), LOW)
    return LOW


class Ledger:
    """Collects assignments; gives no tensor of the checkpoint away twice."""

    def __init__(self, forms: Forms) -> None:
        self.forms = forms
        self.found: dict[str, Assignment] = {}
        self.taken: set[tuple[str, str]] = set()
        self.pieces: defaultdict[str, dict[int, tuple[Assignment, str]]] = defaultdict(dict)

    def add(self, a: Unit, b: Unit, link: Link, path_s: dict[Path, Unit]) -> None:
        for role, leaf in b.leaves.items():
            other = a.leaves.get(role)
            known = self.forms.op(role, other.shape, leaf.shape) if other else None
            if other is None or known is None or (other.key, other.op) in self.taken:
                continue
            if leaf.key in self.found or leaf.part in self.pieces.get(leaf.key, ()):
                continue
            self.taken.add((other.key, other.op))
            rivals = tuple(
                path_s[p].leaves[role].key for p in link.rivals if p in path_s and role in path_s[p].leaves
            )
            made = Assignment(leaf.key, (other.key,), combined(other, known[0]), link.confidence, link.reason, rivals)
            if leaf.op == "copy":
                self.found[leaf.key] = made
            else:
                self.pieces[leaf.key][leaf.part] = made, leaf.op

    def join(self, sizes: dict[str, int]) -> None:
        """Put fused tensors of the model together, those of which every part was found as it is."""
        for key, parts in self.pieces.items():
            made = [parts[k][0] for k in sorted(parts)]
            if len(made) == sizes[key] and all(one.op == "copy" for one in made):
                worst = min(made, key=lambda one: one.confidence)
                sources = tuple(one.sources[0] for one in made)
                self.found[key] = Assignment(key, sources, "concat(0)", worst.confidence, worst.reason, worst.rivals)
