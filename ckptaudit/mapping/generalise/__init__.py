"""From what is said of every tensor to rules: as few and as general as say the same."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from functools import cached_property

from ...keys import KeyPattern, fold
from ...manifest import Manifest
from ...records import dataclass
from ..assignment import Assignments
from ..cover import cover
from ..keyrules import ExpectMissing
from ..mapping import KeyMapping
from ..ops.layout import Copy
from ..pattern import escape
from ..rules import Drop, Rename, Rule
from .moves import Move, Moves, moves_of
from .names import Wishes, rename
from .operations import tensor_rules
from .replay import differences
from .ties import tie_rules


def generalise(assignments: Assignments, source: Manifest, target: Manifest) -> KeyMapping:
    """Return a mapping under which ``source`` gives every tensor that is assigned, and no other key of ``target``.

    Keys that are ambiguous are not spoken of: they stay missing and unexpected, and a strict load complains. A key
    that nothing uses though the model knows its name is dropped, for it would be loaded without anybody's word.
    """
    task = _Task(assignments, source, target)
    mapping = task.general()
    return task.literal() if differences(mapping, assignments, source, target) else mapping


@dataclass(frozen=True)
class _Task:
    """What is to be said."""

    assignments: Assignments
    source: Manifest
    target: Manifest

    @cached_property
    def moves(self) -> Moves:
        """The assignments, sorted by what a mapping does for them."""
        return moves_of(self.assignments.assigned, self.source.tensors)

    @cached_property
    def dropped(self) -> dict[str, None]:
        """The keys that are left out: those that nothing uses, and those that would load under their own name."""
        used = {key for each in self.assignments.assigned for key in each.sources}
        unasked = (key for key in self.source.tensors if key not in used and key in self.target)
        return dict.fromkeys((*self.assignments.dropped, *unasked))

    def general(self) -> KeyMapping:
        """Return few rules."""
        kept = [key for key in self.source.tensors if key not in self.dropped]
        wishes = Wishes({key: self.moves.renamed.get(key) for key in kept}, frozenset(self.target.all_keys))
        return self._whole(rename(wishes), self.moves)

    def literal(self) -> KeyMapping:
        """Return one rule for every tensor, where no general ones say the same; names in a ring are copied across."""
        moves = self.moves
        changed = {key: name for key, name in moves.renamed.items() if key != name}
        blocked = {key for key, name in changed.items() if name in self.source.tensors and name not in self.dropped}
        copies = [Move(Copy(), (key,), (changed[key],)) for key in changed if key in blocked]
        rules = [Rename(escape(key), escape(name)) for key, name in changed.items() if key not in blocked]
        renamed = {key: name for key, name in moves.renamed.items() if key not in blocked}
        return self._whole(rules, Moves(renamed, [*moves.moves, *copies], moves.ties))

    def _whole(self, rules: Sequence[Rule], moves: Moves) -> KeyMapping:
        """Put all rules together: what is left out, names, operations, ties, and what may be missing."""
        names = KeyMapping(tuple(rules))
        new = {key: names.key(key) or key for key in self.source.tensors if key not in self.dropped}
        tensors = {new[key]: self.source[key] for key in new}
        moved = [Move(move.op, tuple(new[key] for key in move.sources), move.targets) for move in moves.moves]
        taken = {name for move in moved for name in move.sources}
        made = [name for name in tensors if name not in taken]
        made += [name for move in moved for name in move.targets] + list(moves.ties)
        return KeyMapping(
            (
                *map(Drop, patterns(self.dropped, self.source.all_keys)),
                *rules,
                *tensor_rules(moved, tensors),
                *tie_rules(moves.ties, made),
                *map(ExpectMissing, patterns(self.assignments.uninitialised, self.target.all_keys)),
            )
        )


def patterns(keys: Iterable[str], universe: Collection[str]) -> list[KeyPattern]:
    """Write keys as few patterns that match no other of ``universe``: modules as ``blocks.{0..3}.*``."""
    names = set(keys)
    if len(names) > 1 and names.issuperset(universe):
        return [KeyPattern.parse("*")]
    found = cover(keys, universe)
    whole = fold(pattern[:-2] for pattern in found if pattern not in names)
    single = fold(pattern for pattern in found if pattern in names)
    return [KeyPattern.parse(f"{pattern}.*") for pattern in whole] + single
