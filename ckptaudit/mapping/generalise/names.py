"""Rules over keys for given pairs of names, as few and as general as explain all of them.

Each rule is one that leaves less to be said: what is left is measured by the distinct differences between the names
so far and the wanted ones, each as long as it takes to write it down (a minimum description length). No rule may move
a name that is where it belongs, or bring two keys together.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from ...records import dataclass, replace
from ..rules import Rename, Rule, escape
from .changes import MARK, Change, Numbers, bare, changes, numbers, sides, smallest

if TYPE_CHECKING:
    Rows = list[tuple[Numbers, Numbers]]

RULE_COST = 4.0  # what a rule costs beyond its segments
VAGUE_COST = 3.0  # and one that begins with any text and a number
ASTRAY_COST = 1.5  # for every form of a name that is moved and brought no nearer
TRIED = 24  # candidates that are held against all names, in each round
MAX_VALUES = 16  # of an integer that are written out
ROUNDS = 4  # searches, each with more keys in view
SAMPLE = 12  # keys of one form that are looked at


@dataclass
class Wishes:
    """What becomes of the keys of a checkpoint: the wanted name of each, or None where any will do.

    ``barred`` are names that a key without a wanted name must not get.
    """

    wanted: dict[str, str | None]
    barred: frozenset[str]


@dataclass
class _State:
    """The names so far, in the order of the wishes."""

    names: list[str]
    wanted: list[str | None]
    left: Counter[Change]  # the differences that are left, with how many keys have them
    astray: float = 0.0  # what it costs that the last rule moved some names and brought them no nearer


def rename(wishes: Wishes) -> list[Rule]:
    """Return rules that give every key its wanted name; a ring of names goes through others in between.

    Close to linear in the number of keys: the search sees some of every form, and those that its rules get wrong.
    """
    sample = _sample(wishes.wanted)
    rules: list[Rule] = []
    for _ in range(ROUNDS):
        rules = _search(sample, wishes)
        wrong = _wrong(rules, wishes)
        more = [key for key in _sample({key: wishes.wanted[key] for key in wrong}) if key not in set(sample)]
        if not more:
            break
        sample += more
    if wrong:
        rules = _first(rules, wrong, wishes)
        if wrong := _wrong(rules, wishes):
            rules = _aside(rules, wrong, wishes)
    return _needed(rules, wishes)


def _run(rules: Sequence[Rule], name: str) -> str:
    for rule in rules:
        name = rule.apply(name) or name
    return name


def _wrong(rules: Sequence[Rule], wishes: Wishes) -> list[str]:
    """Return the keys that do not get their wanted name, and those without one that get the name of another."""
    names = {key: _run(rules, key) for key in wishes.wanted}
    times = Counter(names.values())
    return [
        key
        for key, goal in wishes.wanted.items()
        if names[key] != goal and (goal is not None or times[names[key]] > 1 or _is_barred(key, names[key], wishes))
    ]


def _is_barred(key: str, name: str, wishes: Wishes) -> bool:
    return name != key and name in wishes.barred


def _first(rules: list[Rule], wrong: list[str], wishes: Wishes) -> list[Rule]:
    """Put rules for the wrong keys before the others, where these leave the wanted names alone."""
    free = {key for key in wrong if _run(rules, wishes.wanted[key] or key) == wishes.wanted[key]}
    stay = {key: wishes.wanted[key] if key in free else key for key in wishes.wanted}
    before = _search(_sample(stay), replace(wishes, wanted=stay))
    both = [*before, *rules]
    names = [_run(both, key) for key in wishes.wanted]
    return both if len(set(names)) == len(names) and len(_wrong(both, wishes)) < len(wrong) else rules


def _aside(rules: list[Rule], wrong: list[str], wishes: Wishes) -> list[Rule]:
    """Bring names that block each other out of the way, and then all of them to where they belong."""
    prefix = "moved."
    while any(name.startswith(prefix) for name in (*wishes.wanted, *filter(None, wishes.wanted.values()))):
        prefix = f"_{prefix}"
    set_aside = set(wrong)
    wanted: dict[str, str | None] = {
        _run(rules, key): f"{prefix}{goal}" if key in set_aside else _run(rules, key)
        for key, goal in wishes.wanted.items()
    }
    return [*rules, *_search(list(wanted), Wishes(wanted, frozenset())), Rename(f"{prefix}*", "*")]


def _needed(rules: list[Rule], wishes: Wishes) -> list[Rule]:
    """Leave out the rules without which all comes out the same."""
    goals = {key: _run(rules, key) for key in wishes.wanted}
    touched: defaultdict[int, set[str]] = defaultdict(set)
    for key in goals:
        name = key
        for number, rule in enumerate(rules):
            new = rule.apply(name) or name
            if new != name:
                touched[number].add(key)
            name = new
    kept = list(rules)
    for number, rule in enumerate(rules):
        rest = [other for other in kept if other is not rule]
        if all(_run(rest, key) == goals[key] for key in touched[number]):
            kept = rest
            for later in range(number + 1, len(rules)):
                touched[later] |= touched[number]
    return kept


def _search(keys: list[str], wishes: Wishes) -> list[Rule]:
    """Add the best rule until nothing is left, or no rule goes further."""
    wanted = [wishes.wanted[key] for key in keys]
    state = _State(keys, wanted, Counter(_left(keys, wanted)))
    goals = frozenset(name for name in wanted if name is not None)
    rules: list[Rule] = []
    while state.left and (step := _best(state, goals, wishes.barred)):
        rules.append(step[0])
        state = step[1]
    return rules


def _sample(wanted: Mapping[str, str | None]) -> list[str]:
    """Return some keys of every form: all that differ in more than integers, and both ends of a long row."""
    forms: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for key, goal in wanted.items():
        forms[bare(key), "" if goal is None else bare(goal)].append(key)
    chosen: list[str] = []
    for members in forms.values():
        if len(members) > SAMPLE:
            row = sorted(members, key=numbers)
            step = (len(row) - 1) / (SAMPLE - 1)
            chosen += [row[round(step * index)] for index in range(SAMPLE)]
        else:
            chosen += members
    return chosen


def _left(names: Sequence[str], wanted: Sequence[str | None]) -> Iterator[Change]:
    for name, goal in zip(names, wanted, strict=True):
        if goal is not None and name != goal:
            yield smallest(name, goal)


def _cost(change: Change) -> float:
    return RULE_COST + change.length


def _best(state: _State, goals: frozenset[str], barred: frozenset[str]) -> tuple[Rule, _State] | None:
    """Return the rule that saves most, and the names after it; None where no rule goes further.

    Narrower rules are only tried where no wider one will do.
    """
    best: tuple[float, Rule, _State] | None = None
    places = _places(state)
    for candidates in (_wide(places), _narrow(places), _single(state)):
        tried = 0
        for promise, rule, cost in candidates:
            if best is not None and (tried >= TRIED or promise <= best[0]):
                break
            tried += 1
            after = _after(rule, state, goals, barred)
            if after is None:
                continue
            saved = sum(_cost(change) for change in state.left.keys() - after.left.keys())
            saved -= sum(_cost(change) for change in after.left.keys() - state.left.keys()) + cost + after.astray
            further = saved > 0 or sum(after.left.values()) < sum(state.left.values())
            if further and (best is None or saved > best[0]):
                best = saved, rule, after
        if best is not None:
            return best[1:]
    return None


_Candidate = tuple[float, Rule, float]  # a rule with the most that it may save, and what it costs


def _places(state: _State) -> list[tuple[float, Change, Rows]]:
    """Return the changes that are left, whole and in part, with the integers of their places; the best first."""
    places: defaultdict[Change, tuple[set[Change], Rows]] = defaultdict(lambda: (set(), []))
    for name, goal in zip(state.names, state.wanted, strict=True):
        if goal is None or name == goal or MARK in name or MARK in goal:
            continue
        whole = smallest(name, goal)
        for change, before, after in changes(name, goal):
            wholes, rows = places[change]
            wholes.add(whole)
            rows.append((before, after))
    ranked = [(_promise(change, wholes), change, rows) for change, (wholes, rows) in places.items()]
    return sorted(ranked, key=_rank)


def _wide(places: list[tuple[float, Change, Rows]]) -> Iterator[_Candidate]:
    for promise, change, rows in places:
        for before, after in sides(change, rows):
            yield promise, Rename(before or "*", after or "*"), _price(change, before, after)


def _narrow(places: list[tuple[float, Change, Rows]]) -> Iterator[_Candidate]:
    """Yield rules in which one integer more is written out."""
    for promise, change, rows in places:
        for column in range(len(rows[0][0])):
            values = sorted({before[column] for before, _ in rows})
            for value in values[:MAX_VALUES] if len(values) > 1 else ():
                few = [row for row in rows if row[0][column] == value]
                for before, after in sides(change, few):
                    yield promise, Rename(before or "*", after or "*"), _price(change, before, after)


def _single(state: _State) -> Iterator[_Candidate]:
    for name, goal in zip(state.names, state.wanted, strict=True):
        if goal is not None and name != goal:
            yield 0.0, Rename(escape(name), escape(goal)), RULE_COST


def _price(change: Change, before: str, after: str) -> float:
    """Return what a rule costs: a little for its width, and more where it begins with a number, which says little."""
    vague = VAGUE_COST if change.head and (change.before or change.after)[0] == MARK else 0.0
    return RULE_COST + change.length + vague + (len(before) + len(after)) / 200


def _rank(item: tuple[float, Change, Rows]) -> tuple[float, int]:
    return -item[0], item[1].length


def _promise(change: Change, wholes: set[Change]) -> float:
    """Return what is saved where all goes well: whole differences, or the part of them that the change takes away."""
    saved = 0.0
    for whole in wholes:
        inside = min(change.length, whole.length)
        saved += _cost(whole) if inside >= whole.length else inside
    return saved - RULE_COST - change.length


def _after(rule: Rule, state: _State, goals: frozenset[str], barred: frozenset[str]) -> _State | None:
    """Return the names after a rule, or None where it does harm."""
    names = list(state.names)
    moved: list[int] = []
    for index, name in enumerate(names):
        new = rule.apply(name)
        if new is None or new == name:
            continue
        goal = state.wanted[index]
        if goal == name or (new in goals and new != goal) or (goal is None and new in barred):
            return None
        names[index] = new
        moved.append(index)
    if not moved or len(set(names)) != len(names):
        return None
    wanted = [state.wanted[index] for index in moved]
    left = state.left.copy()
    left.subtract(_left([state.names[index] for index in moved], wanted))
    astray = set()
    for index, goal in zip(moved, wanted, strict=True):
        if goal is not None and names[index] != goal:
            change = smallest(names[index], goal)
            left[change] += 1
            if change.length >= smallest(state.names[index], goal).length:
                astray.add(change)
    return _State(names, state.wanted, +left, ASTRAY_COST * len(astray))
