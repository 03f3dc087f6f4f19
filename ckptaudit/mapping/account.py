"""Which rules of a mapping have a part in which tensor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..manifest import Manifest
from ..records import dataclass
from .keyrules import Tie
from .mapping import KeyMapping
from .rules import Rule
from .tensors import TensorRule

Parts = tuple[int, ...]  # numbers of rules, in their order


@dataclass(frozen=True)
class Account:
    """What each rule did, by its number.

    ``made`` has every name that the mapping makes, with the rules that had a part in it; none for a tensor that kept
    its name. ``dropped`` has the keys that were left out, each with the rule that did it.
    """

    made: Mapping[str, Parts]
    dropped: Mapping[str, int]


def account(mapping: KeyMapping, manifest: Manifest) -> Account:
    """Follow every tensor of ``manifest`` through the rules.

    Raises UsageError where an operation does not fit, as ``KeyMapping.apply`` does.
    """
    numbered = list(enumerate(mapping.rules))
    names, dropped = _renamed([(n, rule) for n, rule in numbered if rule.phase == "keys"], manifest)
    specs = {new: manifest.tensors[key] for key, (new, _) in names.items()}
    parts = dict(names.values())
    made: dict[str, Parts] = {}
    taken: set[str] = set()
    for number, rule in numbered:
        if rule.phase == "tensors":
            assert isinstance(rule, TensorRule)
            for step in rule.steps(specs):
                taken.update(step.sources)
                before = sorted({n for source in step.sources for n in parts[source]})
                made |= dict.fromkeys(step.targets, (*before, number))
    made |= {name: rules for name, rules in parts.items() if name not in taken}
    for number, rule in numbered:
        if rule.phase == "tie":
            assert isinstance(rule, Tie)
            for name, rules in list(made.items()):
                if (alias := rule.alias_of(name)) is not None:
                    made[alias] = (*rules, number)
    return Account(made, dropped)


def _renamed(
    rules: Sequence[tuple[int, Rule]], manifest: Manifest
) -> tuple[dict[str, tuple[str, Parts]], dict[str, int]]:
    """Return the new name of every key with the rules that changed it, and the keys that a rule left out."""
    names: dict[str, tuple[str, Parts]] = {}
    dropped: dict[str, int] = {}
    for key in manifest.tensors:
        name, parts = key, []
        for number, rule in rules:
            new = rule.apply(name)
            if new is None:
                dropped[key] = number
                break
            if new != name:
                parts.append(number)
            name = new
        else:
            names[key] = name, tuple(parts)
    return names, dropped
