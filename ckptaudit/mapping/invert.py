"""The way back: a mapping that takes what another one makes of a manifest to that manifest, bit for bit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from ..errors import UsageError
from ..keys import KeyPattern
from ..manifest import Manifest, TensorSpec
from ..records import dataclass
from .effect import plan
from .mapping import KeyMapping, Mapped
from .ops import Cast
from .ops.layout import Reshape
from .pattern import escape_name
from .rules import Drop, Rule
from .tensors import Step, TensorRule


def invert(mapping: KeyMapping, manifest: Manifest) -> KeyMapping:
    """Return the inverse of a mapping on a manifest. Raises UsageError naming the rule that has none.

    Second names are dropped, names go back rule by rule, then tensors are taken apart or put together again.
    """
    mapped = mapping.apply(manifest)
    mapped.check()
    names, back = _invert_keys(mapping.rules, manifest)
    aliases = tuple(Drop(KeyPattern((alias,))) for alias, _ in mapped.ties)
    keys = KeyMapping((*aliases, *back))
    made = keys.apply(mapped.manifest).manifest.tensors
    undone = _invert_tensors(
        mapping, {names[key]: spec for key, spec in manifest.tensors.items()}, _Old(names, keys, made)
    )
    whole = KeyMapping((*keys.rules, *undone, *_invert_casts(mapping, mapped, manifest)))
    _verify(whole, mapped, manifest)
    return whole


def _invert_keys(rules: Iterable[Rule], manifest: Manifest) -> tuple[dict[str, str], list[Rule]]:
    """Return the new name of each key, and the rules that take them back, each held against every key."""
    names = {key: key for key in manifest.all_keys}
    back: list[Rule] = []
    for rule in rules:
        if rule.phase != "keys":
            continue
        after: dict[str, str] = {}
        for key, name in names.items():
            renamed = rule.apply(name)
            if renamed is None:
                raise UsageError(str(rule), f"cannot be inverted: it drops {name}")
            after[key] = renamed
        if after != names:
            back.insert(0, _undo_rename(rule, names, after))
        names = after
    return names, back


def _undo_rename(rule: Rule, before: Mapping[str, str], after: Mapping[str, str]) -> Rule:
    back = rule.inverse()
    if back is None:
        raise UsageError(str(rule), "cannot be inverted: the new keys do not tell the old ones")
    for key, name in after.items():
        if (got := back.apply(name)) != before[key]:
            reason = f"cannot be inverted: {str(back)!r} would make {got} of {name}, which was {before[key]}"
            raise UsageError(str(rule), reason, "write a rule for each kind of key that it matches")
    return back


@dataclass(frozen=True)
class _Old:
    """The names on the way back: ``keys`` are the rules that take names back, ``made`` the tensors under them."""

    names: Mapping[str, str]
    keys: KeyMapping
    made: Mapping[str, TensorSpec]


def _invert_tensors(mapping: KeyMapping, tensors: Mapping[str, TensorSpec], old: _Old) -> Iterator[TensorRule]:
    """Yield rules that undo the operations; they see the names that the rules over keys take back."""
    rules = [(number, rule) for number, rule in enumerate(mapping.rules) if rule.phase == "tensors"]
    plans = plan(rules, tensors, set())
    for name, ways in plans.items():
        if len(ways) > 1:
            raise UsageError(str(ways[1].rule), f"cannot be inverted: {str(ways[0].rule)!r} takes {name} too")
    steps = list({id(step): step for (step,) in plans.values()}.values())
    before = {name: key for key, name in old.names.items()}
    for _, rule in rules:
        assert isinstance(rule, TensorRule)
        undone = [_undo_step(step, old.keys, before) for step in steps if step.rule is rule]
        one = _as_one(rule, undone, old.made)
        yield from [one] if one else undone


def _undo_step(step: Step, keys: KeyMapping, before: Mapping[str, str]) -> TensorRule:
    """Return the step back, as a rule over these very names."""
    op = step.op.undo(step.specs)
    if op is None:
        raise UsageError(str(step.rule), f"cannot be inverted: the values of {step.sources[0]} do not come back")
    if len(step.sources) == len(step.targets) == 1 and (op.joins or op.splits):
        op = Reshape(step.specs[0].shape)
    sources = tuple(escape_name(keys.key(name) or name) for name in step.targets)
    targets = tuple(escape_name(before[name]) for name in step.sources)
    return TensorRule(op, sources, () if sources == targets else targets)


def _as_one(rule: TensorRule, undone: list[TensorRule], made: Mapping[str, TensorSpec]) -> TensorRule | None:
    """Return the rule with its sides swapped, if that says the same as all the steps back."""
    ops = {step.op for step in undone}
    if len(ops) != 1:
        return None
    try:
        swapped = TensorRule(ops.pop(), rule.targets or rule.sources, rule.sources if rule.targets else ())
        taken = {(step.op, step.sources, step.targets) for step in swapped.steps(made)}
        wanted = {(step.op, step.sources, step.targets) for each in undone for step in each.steps(made)}
    except UsageError:
        return None
    return swapped if taken == wanted else None


def _invert_casts(mapping: KeyMapping, mapped: Mapped, manifest: Manifest) -> list[TensorRule]:
    """Return a cast for each tensor whose dtype was changed, under its old name."""
    casts: dict[TensorRule, None] = {}
    for name, recipe in mapped.recipes.items():
        cast = recipe.op if isinstance(recipe.op, Cast) else recipe.cast
        if cast is None:
            continue
        spec = manifest[recipe.sources[0]]
        back = cast.undo((spec,))
        if back is None:
            rule = next(r for r in mapping.rules if isinstance(r, TensorRule) and r.op == cast and r.matches(name))
            raise UsageError(str(rule), f"cannot be inverted: {name} was {spec.dtype}, and its bits do not come back")
        casts |= {TensorRule(back, (escape_name(key),)): None for key in recipe.sources}
    return list(casts)


def _verify(inverse: KeyMapping, mapped: Mapped, manifest: Manifest) -> None:
    """Raise UsageError unless the manifest comes back, every renamed tensor from where it went."""
    back = inverse.apply(mapped.manifest)
    same = {key: (spec.shape, spec.dtype) for key, spec in back.manifest.tensors.items()} == {
        key: (spec.shape, spec.dtype) for key, spec in manifest.tensors.items()
    }
    astray = next((key for key, name in back.origin.items() if mapped.origin.get(name, key) != key), None)
    if not same or astray or back.collisions or set(back.manifest.entries) != set(manifest.entries):
        lost = astray or next(iter(key for key in manifest if key not in back.manifest), next(iter(manifest), ""))
        raise UsageError("the mapping", f"cannot be inverted: {lost} does not come back")
