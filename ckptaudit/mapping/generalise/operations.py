"""Tensor rules for given moves, as few and as general as do exactly these."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence

from ...errors import UsageError
from ...manifest import TensorSpec
from ...records import dataclass
from ..ops import Op
from ..ops.joins import Split
from ..pattern import escape_name
from ..tensors import TensorRule
from .changes import Change, Numbers, bare, common, numbers, path_of, sides
from .moves import Move, Names

BETWEEN = "\1"  # stands between the names of a move where they are written as one path
EACH = "\2"  # stands for the integer that counts the tensors of a row
FEW = 4  # tensors of a row that are listed one by one, at most
_SPECIAL = ("\0", BETWEEN, EACH, ",", "=")
Rows = list[tuple[Numbers, Numbers]]


@dataclass(frozen=True)
class _Form:
    """How a rule would be written: the operation, all names as one change, and how many of them are sources."""

    op: Op
    change: Change
    sources: int
    head: bool
    tail: bool

    def rule(self, first: str, others: str) -> TensorRule:
        """Write it with the integers filled in."""
        texts = [first, *(others.split(f".{BETWEEN}.") if others else ())]
        names = tuple(f"{'*.' * self.head}{text.replace(EACH, '{e}')}{'.*' * self.tail}" for text in texts)
        return TensorRule(self.op, names[: self.sources], names[self.sources :])


def tensor_rules(moves: Sequence[Move], tensors: Mapping[str, TensorSpec]) -> list[TensorRule]:
    """Return rules that make these moves, and no other, of tensors under the names that rules over keys gave them."""
    times = Counter(name for move in moves for name in set(move.sources))
    left = {_key(move.op, move.sources, move.targets, tensors): move for move in moves}
    rules: list[TensorRule] = []
    for rule in _candidates(moves, times):
        made = _made(rule, tensors, times)
        if made and all(each in left for each in made):
            rules.append(rule)
            for each in made:
                del left[each]
    return rules + [_literal(move, times) for move in left.values()]


_Key = tuple[Op, Names, Names]


def _key(op: Op, sources: Names, targets: Names, tensors: Mapping[str, TensorSpec]) -> _Key:
    return op.bound([tensors[name] for name in sources], len(targets)), sources, targets


def _made(rule: TensorRule, tensors: Mapping[str, TensorSpec], times: Mapping[str, int]) -> list[_Key]:
    """Return what a rule would do, or nothing where it could not."""
    try:
        steps = list(rule.steps(tensors))
    except UsageError:
        return []
    if not rule.targets and any(times[name] > 1 for step in steps for name in step.sources):
        return []
    return [(step.op, step.sources, step.targets) for step in steps]


def _literal(move: Move, times: Mapping[str, int]) -> TensorRule:
    in_place = move.sources == move.targets and times[move.sources[0]] == 1
    targets = () if in_place else tuple(map(escape_name, move.targets))
    return TensorRule(_listed(move.op), tuple(map(escape_name, move.sources)), targets)


def _listed(op: Op) -> Op:
    """Return a cut into equal parts as one into as many parts as there are names."""
    return Split(op.dim) if isinstance(op, Split) and not op.sizes else op


def _candidates(moves: Sequence[Move], times: Mapping[str, int]) -> Iterator[TensorRule]:
    """Yield rules for moves of one form, those of the most moves first."""
    places: defaultdict[_Form, Rows] = defaultdict(list)
    for move in moves:
        names = (*move.sources, *move.targets)
        if any(mark in name for mark in _SPECIAL for name in names):
            continue
        in_place = move.sources == move.targets and times[move.sources[0]] == 1
        for sources, targets, op in _rows(move):
            for form, before, after in _forms(op, sources, () if in_place else targets):
                places[form].append((before, after))
    for form, rows in sorted(places.items(), key=lambda item: (-len(item[1]), -item[0].head - item[0].tail)):
        for left, right in sides(form.change, rows):
            yield form.rule(left, right)


def _rows(move: Move) -> Iterator[tuple[Names, Names, Op]]:
    """Yield the names of a move: a row of tensors as one name, where it is one; and as they are."""
    sources = _row(move.sources) if move.op.joins else None
    targets = _row(move.targets) if move.op.splits else None
    if sources or targets:
        yield sources or move.sources, targets or move.targets, move.op if targets else _listed(move.op)
    yield move.sources, move.targets, _listed(move.op)


def _row(names: Names) -> Names | None:
    """Return one name for all, in which EACH counts them from 0."""
    if len(names) <= FEW or len(set(map(bare, names))) > 1:
        return None
    columns = list(zip(*map(numbers, names), strict=True))
    counting = [at for at, column in enumerate(columns) if column == tuple(range(len(names)))]
    if len(counting) != 1 or any(len(set(column)) > 1 for at, column in enumerate(columns) if at not in counting):
        return None
    pieces = bare(names[0]).split("\0")
    values = [EACH if at in counting else str(column[0]) for at, column in enumerate(columns)]
    return ("".join(piece + value for piece, value in zip(pieces, [*values, ""], strict=True)),)


def _forms(op: Op, sources: Names, targets: Names) -> Iterator[tuple[_Form, Numbers, Numbers]]:
    """Yield ways to write the names, with stars for what all begin and end with."""
    paths = [path_of(name) for name in (*sources, *targets)]
    shortest = min(map(len, paths))
    if len(paths) > 1:
        tail = min(shortest - 1, *(common(paths[0][::-1], path[::-1]) for path in paths[1:]))
        head = min(shortest - tail - 1, *(common(paths[0], path) for path in paths[1:]))
    else:
        head, tail = max(shortest - 2, 0), 0
    for start in dict.fromkeys((head, max(head - 1, 0), 0)):
        for end in dict.fromkeys((tail, max(tail - 1, 0), 0)):
            inner = [path[start : len(path) - end] for path in paths]
            before, after = ".".join(inner[0]), f".{BETWEEN}.".join(map(".".join, inner[1:]))
            change = Change(path_of(bare(before)), path_of(bare(after)), head=False, tail=False)
            yield _Form(op, change, len(sources), start > 0, end > 0), numbers(before), numbers(after)
