"""Why keys are missing and unexpected at once: a lost prefix, a wrapper, a renamed module; or no answer.

A wrong mapping loads silently and leaves a broken model, so every proposal has to explain itself: it pairs tensors by
name and shape, takes nothing that already fits, and where two readings are about equally good there is none.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Literal

from ..keys import fold
from ..manifest import Manifest
from ..records import dataclass
from .mapping import KeyMapping
from .rules import WRAPPERS, Rename, Rule, StripWrappers, escape

MAX_PREFIX_DEPTH = 6
PREFIX_SHARE = 0.5  # a prefix is the cause only when it explains this share of the smaller side's leftovers
RIVAL_SHARE = 0.8  # a contradicting reading this good makes the best one ambiguous
LEADING_SHARE = 0.25  # leading parts that fewer keys share are no prefix of the file
SAMPLE = 5  # keys tried per leading part
MIN_BLOCK = 4  # tensors of a block whose index may decide
MAX_OPTIONS = 6  # rules that are typed
MIN_VALUES = 16  # a lone tensor smaller than this has its shape by chance
SYNONYMS = (("gamma", "weight"), ("beta", "bias"), ("weight", "gamma"), ("bias", "beta"))

_INTEGERS = re.compile(r"\d+")
Shape = tuple[int, ...]
Pairs = dict[str, str]  # checkpoint key -> model key
Row = tuple[str, str, int]


@dataclass(frozen=True)
class Cause:
    """One reason, as a rule, with what it explains.

    ``rows`` are for people: keys of the checkpoint, where they go, how many tensors. ``explained`` pairs the
    checkpoint's keys with the model's, those whose shapes still differ included.
    """

    kind: Literal["wrapper", "prefix", "rename", "operation"]
    rule: Rule
    rows: tuple[Row, ...]
    explained: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Proposal:
    """A mapping that makes more of the checkpoint fit, and its causes in the order of the rules.

    ``inferred`` ones come from ``ckptaudit map``, which writes the same rules to a file.
    """

    mapping: KeyMapping
    causes: tuple[Cause, ...]
    inferred: bool = False

    @property
    def as_file(self) -> bool:
        """True where the rules are too many to be typed, and there is a command that writes them."""
        return self.inferred and len(self.causes) > MAX_OPTIONS

    @property
    def keeps_names(self) -> bool:
        """True where every tensor has its name, and only the way in which it is laid out changes."""
        return all(source == target for cause in self.causes for source, target in cause.explained)


@dataclass
class _Leftovers:
    """What does not fit yet: keys whose namesake on the other side is absent or has another shape."""

    saved: dict[str, Shape]
    wanted: dict[str, Shape]
    origin: dict[str, str]


def propose(checkpoint: Manifest, model: Manifest) -> Proposal | None:
    """Return a mapping that explains missing and unexpected keys together, or None.

    Every rule makes at least one more tensor fit by name and shape, collides with nothing, and keeps every
    tensor that fits already. Close to linear in the number of keys.
    """
    causes: list[Cause] = []
    for step in (_prefix_cause, _prefix_cause, _prefix_cause, _synonym_causes, _rename_causes):
        leftovers = _leftovers(checkpoint, model, [cause.rule for cause in causes])
        if not leftovers.saved or not leftovers.wanted:
            break
        for cause in step(leftovers):
            if _improves(checkpoint, model, causes, cause):
                causes.append(cause)
    if not causes:
        return None
    return Proposal(KeyMapping(tuple(cause.rule for cause in causes)), tuple(causes))


def _leftovers(checkpoint: Manifest, model: Manifest, rules: Iterable[Rule]) -> _Leftovers:
    mapped = KeyMapping(tuple(rules)).apply(checkpoint)
    tensors = mapped.manifest.tensors
    settled = {key for key, spec in tensors.items() if key in model and model[key].shape == spec.shape}
    return _Leftovers(
        saved={key: spec.shape for key, spec in tensors.items() if key not in settled},
        wanted={key: spec.shape for key, spec in model.tensors.items() if key not in settled},
        origin=dict(mapped.origin),
    )


def _improves(checkpoint: Manifest, model: Manifest, causes: list[Cause], cause: Cause) -> bool:
    """Hold a candidate against the whole: no collision, nothing that fitted is lost, something is won."""
    rules = [known.rule for known in causes]
    before = fitting(KeyMapping(tuple(rules)), checkpoint, model)
    after = fitting(KeyMapping((*rules, cause.rule)), checkpoint, model)
    return before is not None and after is not None and before.items() < after.items()


def fitting(mapping: KeyMapping, checkpoint: Manifest, model: Manifest) -> dict[str, str] | None:
    """Return the model's keys that receive a tensor of their shape, with its first source; None on a collision."""
    mapped = mapping.apply(checkpoint)
    if mapped.collisions:
        return None
    made = {key: recipe.sources[0] for key, recipe in mapped.recipes.items()}
    return {
        key: mapped.origin.get(key) or made[key]
        for key, spec in mapped.manifest.tensors.items()
        if key in model and model[key].shape == spec.shape
    }


# Prefixes and wrappers -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Reading:
    """One way to read all leftovers: a rule, the pairs it makes by name, and those that agree in shape.

    ``before`` and ``after`` are the prefixes of the two sides; wrappers inside of keys have none.
    """

    rule: Rule
    named: Pairs
    fitting: Pairs
    before: str = ""
    after: str = ""

    @property
    def kind(self) -> Literal["wrapper", "prefix"]:
        """A wrapper's segments carry no meaning of their own."""
        strips = not self.after and all(segment in WRAPPERS for segment in self.before.split(".")[:-1])
        return "wrapper" if strips else "prefix"

    def contradicts(self, other: _Reading) -> bool:
        """Tell whether both send some key, or take some target, in different ways."""
        reverse = {target: source for source, target in other.fitting.items()}
        return any(
            other.fitting.get(source, target) != target or reverse.get(target, source) != source
            for source, target in self.fitting.items()
        )


def _prefix_cause(left: _Leftovers) -> Iterator[Cause]:
    readings = sorted(_readings(left), key=lambda r: (-len(r.fitting), len(str(r.rule))))
    if not readings:
        return
    best = readings[0]
    enough = PREFIX_SHARE * min(len(left.saved), len(left.wanted))
    rivals = [r for r in readings[1:] if len(r.fitting) >= RIVAL_SHARE * len(best.fitting) and r.contradicts(best)]
    whole = best.kind == "wrapper" and len(best.named) == len(left.saved)  # its name alone is evidence
    if (whole or len(best.fitting) >= enough) and not rivals:
        explained = tuple((left.origin[source], target) for source, target in best.named.items())
        yield Cause(best.kind, best.rule, _prefix_rows(best), explained)


def _readings(left: _Leftovers) -> Iterator[_Reading]:
    for before, after in _candidate_prefixes(left):
        named = {
            key: after + key[len(before) :]
            for key in left.saved
            if key.startswith(before) and after + key[len(before) :] in left.wanted
        }
        fitting = _fitting_pairs(left, named)
        if fitting:
            yield _Reading(Rename(f"{escape(before)}*", f"{escape(after)}*"), named, fitting, before, after)
    present = tuple(name for name in WRAPPERS if any(f".{name}." in f".{key}" for key in left.saved))
    inner = StripWrappers(present)
    stripped = {key: inner.strip(key) for key in left.saved if inner.matches(key)}
    named = {key: target for key, target in stripped.items() if target in left.wanted}
    if fitting := _fitting_pairs(left, named):
        yield _Reading(inner, named, fitting)


def _fitting_pairs(left: _Leftovers, named: Pairs) -> Pairs:
    return {source: target for source, target in named.items() if left.saved[source] == left.wanted[target]}


def _candidate_prefixes(left: _Leftovers) -> Iterator[tuple[str, str]]:
    """Yield pairs of leading parts that turn some leftover checkpoint key into a leftover model key.

    For each leading part of the checkpoint's keys a few long remainders are looked up at the ends of the model's.
    """
    tails: defaultdict[str, list[str]] = defaultdict(list)
    for key in left.wanted:
        tails[_tail(key)].append(key)
    seen = set()
    for before, keys in _by_prefix(left.saved).items():
        for key in sorted(keys, key=lambda k: (-k.count("."), k))[:SAMPLE]:
            rest = key[len(before) :]
            for other in tails[_tail(rest)]:
                after = other[: len(other) - len(rest)]
                if (other == rest or other.endswith("." + rest)) and (before, after) not in seen:
                    seen.add((before, after))
                    yield before, after


def _tail(key: str) -> str:
    return key.rpartition(".")[2]


def _by_prefix(keys: Iterable[str]) -> dict[str, list[str]]:
    """Group keys by each of their leading parts that enough of them share; the empty part has all."""
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for key in keys:
        groups[""].append(key)
        for prefix in _prefixes(key)[:MAX_PREFIX_DEPTH]:
            groups[f"{prefix}."].append(key)
    enough = LEADING_SHARE * len(groups[""])
    return {prefix: members for prefix, members in groups.items() if len(members) >= enough}


def _prefixes(key: str) -> list[str]:
    """Return the paths of the modules around a key, the outermost first."""
    segments = key.split(".")[:-1]
    return [".".join(segments[: depth + 1]) for depth in range(len(segments))]


def _prefix_rows(reading: _Reading) -> tuple[Row, ...]:
    """Fold the pairs by the first name after the prefix: ``module.layer{1..4}.*`` to ``layer{1..4}.*``."""
    if not isinstance(reading.rule, Rename):
        return _folded_rows(reading.named.items())
    children: defaultdict[str, list[str]] = defaultdict(list)
    for source in reading.named:
        rest = source[len(reading.before) :]
        children[rest.partition(".")[0]].append(rest)
    whole = {name: len(keys) for name, keys in children.items() if len(keys) > 1}
    single = [keys[0] for keys in children.values() if len(keys) == 1]
    rows = [(f"{pattern}.*", sum(whole[name] for name in pattern.expand())) for pattern in fold(whole)]
    rows += [(str(pattern), pattern.count) for pattern in fold(single)]
    return tuple((reading.before + text, reading.after + text, count) for text, count in rows)


def _folded_rows(pairs: Iterable[tuple[str, str]]) -> tuple[Row, ...]:
    """One row per folded pattern of the sources; the targets of its keys folded beside it."""
    targets = dict(pairs)
    rows = []
    for pattern in fold(targets):
        keys = list(pattern.expand())
        rows.append((str(pattern), ", ".join(map(str, fold(targets[key] for key in keys))), len(keys)))
    return tuple(rows)


# Renamed modules and leaves --------------------------------------------------------------------------------

# A subtree is named by the path of its module; a single tensor by its key. Its signature is the set of names below
# it with their shapes, so that two subtrees of one signature could stand for each other.
Signature = tuple[tuple[str, Shape], ...]


def _synonym_causes(left: _Leftovers) -> Iterator[Cause]:
    """Rename leaves whose names are known to mean the same, where the shapes agree."""
    for old, new in SYNONYMS:
        ends = [key for key in left.saved if key.endswith(f".{old}")]
        named = {key: key.removesuffix(old) + new for key in ends if key.removesuffix(old) + new in left.wanted}
        if fitting := _fitting_pairs(left, named):
            yield _rename_cause(left, Rename(f"*.{old}", f"*.{new}"), fitting.items())


def _rename_causes(left: _Leftovers) -> Iterator[Cause]:
    """Pair subtrees that agree in names and shapes and are alone in it on both sides, the largest first."""
    pairs: Pairs = {}
    _pair_subtrees(left, pairs, _anywhere)
    _pair_subtrees(left, pairs, _same_index, least=MIN_BLOCK)
    _pair_subtrees(left, pairs, _same_parent)
    for rule, members in _general_rules({source: pairs[source] for source in left.saved if source in pairs}):
        yield _rename_cause(left, rule, members)


def _rename_cause(left: _Leftovers, rule: Rename, members: Iterable[tuple[str, str]]) -> Cause:
    explained = tuple((left.origin[source], target) for source, target in members)
    return Cause("rename", rule, ((rule.source, rule.target, len(explained)),), explained)


def _anywhere(_path: str) -> str:
    """Compare a subtree with all others."""
    return ""


def _same_index(path: str) -> str:
    """Compare a subtree with those whose path has the same integers: repeated blocks under another name."""
    return ".".join(_INTEGERS.findall(path))


def _same_parent(path: str) -> str:
    """Compare a subtree with those in the same module."""
    return path.rpartition(".")[0]


def _pair_subtrees(left: _Leftovers, pairs: Pairs, place: Callable[[str], str], least: int = 1) -> None:
    """Add pairs of subtrees of ``least`` tensors or more that are alone with their signature at their place."""
    saved, wanted = _subtrees(left.saved), _subtrees(left.wanted)
    taken = set(pairs.values())
    sizes = sorted({len(signature) for signature in saved.values() if len(signature) >= least}, reverse=True)
    by_size: dict[int, tuple[list[str], list[str]]] = {size: ([], []) for size in sizes}
    for side, subtrees in enumerate((saved, wanted)):
        for path, signature in subtrees.items():
            if len(signature) in by_size:
                by_size[len(signature)][side].append(path)
    for size in sizes:
        mine, theirs = by_size[size]
        free = [path for path in mine if _keys_below(path, saved[path]).isdisjoint(pairs)]
        open_ = [path for path in theirs if _keys_below(path, wanted[path]).isdisjoint(taken)]
        for source, target in _unique_pairs(free, open_, saved, wanted, place):
            for name, _ in saved[source]:
                pairs[source + name] = target + name
                taken.add(target + name)


def _unique_pairs(
    mine: list[str],
    theirs: list[str],
    saved: Mapping[str, Signature],
    wanted: Mapping[str, Signature],
    place: Callable[[str], str],
) -> list[tuple[str, str]]:
    """Return the paths whose place and signature nobody else shares on either side, chains of one child once."""
    groups: defaultdict[tuple[str, Signature], tuple[list[str], list[str]]] = defaultdict(lambda: ([], []))
    for side, (paths, subtrees) in enumerate(((mine, saved), (theirs, wanted))):
        for path in paths:
            groups[place(path), subtrees[path]][side].append(path)
    return [(a[0], b[0]) for (_, signature), (a, b) in groups.items() if len(a) == len(b) == 1 and _telling(signature)]


def _telling(signature: Signature) -> bool:
    """Tell whether a signature is evidence at all: two tensors, or one with more than a handful of values."""
    size = 1
    for length in signature[0][1]:
        size *= length
    return len(signature) > 1 or size >= MIN_VALUES


def _subtrees(keys: Mapping[str, Shape]) -> dict[str, Signature]:
    below: defaultdict[str, list[tuple[str, Shape]]] = defaultdict(list)
    for key, shape in keys.items():
        below[key].append(("", shape))
        for prefix in _prefixes(key):
            below[prefix].append((key[len(prefix) :], shape))
    return {path: tuple(sorted(names)) for path, names in below.items()}


def _keys_below(path: str, signature: Signature) -> set[str]:
    return {path + name for name, _ in signature}


def _general_rules(pairs: Pairs) -> list[tuple[Rename, list[tuple[str, str]]]]:
    """Write pairs as few rules: whole modules as ``a.* -> b.*``, repeated ones with ``{i}``; safe to run in order."""
    changes: defaultdict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)
    for source, target in pairs.items():
        changes[_change(source, target)].append((source, target))
    templates: defaultdict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)
    for change in changes:
        templates[_template(*change)].append(change)
    rules: list[tuple[Rename, list[tuple[str, str]]]] = []
    for template, members in templates.items():
        sides = template if len(members) > 1 else members[0]
        rules.append((Rename(*sides), [pair for change in members for pair in changes[change]]))
    return _ordered(rules)


def _change(source: str, target: str) -> tuple[str, str]:
    """Return the shortest pair of paths that turns one key into the other, with ``.*`` for an equal remainder."""
    a, b = source.split("."), target.split(".")
    equal = 0
    while equal < min(len(a), len(b)) - 1 and a[-1 - equal] == b[-1 - equal]:
        equal += 1
    tail = ".*" if equal else ""
    return escape(".".join(a[: len(a) - equal])) + tail, escape(".".join(b[: len(b) - equal])) + tail


def _template(before: str, after: str) -> tuple[str, str]:
    """Replace the integers with which both sides begin alike by ``{i}``, ``{j}``..."""
    shared = [a for a, b in zip(_INTEGERS.findall(before), _INTEGERS.findall(after), strict=False) if a == b]
    for letter, number in zip("ijklmn", shared, strict=False):
        before, after = (re.sub(rf"(?<!\d){number}(?!\d)", f"{{{letter}}}", side, count=1) for side in (before, after))
    return before, after


def _ordered(rules: list[tuple[Rename, list[tuple[str, str]]]]) -> list[tuple[Rename, list[tuple[str, str]]]]:
    """Put a rule before those whose keys it would take once they are made; leave out rings of such rules."""
    remaining, ordered = list(rules), []
    while remaining:
        ready = [
            item
            for item in remaining
            if not any(other[0].matches(item[1][0][1]) for other in remaining if other is not item)
        ]
        if not ready:
            break
        ordered += ready
        remaining = [item for item in remaining if item not in ready]
    return ordered
