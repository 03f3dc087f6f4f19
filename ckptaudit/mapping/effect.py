"""What the rules after those over keys make of a manifest: operations on tensors, then casts, then ties."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..errors import UsageError
from ..manifest import TensorSpec
from ..records import dataclass, field, replace
from .keyrules import Tie
from .ops import Cast, Op
from .rules import Rule
from .tensors import Step, TensorRule


@dataclass(frozen=True)
class Recipe:
    """How one tensor comes about: the ``output``-th result of ``op`` on the checkpoint's ``sources``, then a cast."""

    op: Op
    sources: tuple[str, ...]
    output: int = 0
    cast: Cast | None = None


@dataclass
class Effect:
    """The tensors as they come about, each with its sources in the checkpoint.

    ``landed`` lists for each name what lands on it; one entry is as it should be.
    """

    tensors: dict[str, TensorSpec] = field(default_factory=dict)
    origin: dict[str, str] = field(default_factory=dict)
    recipes: dict[str, Recipe] = field(default_factory=dict)
    landed: dict[str, list[tuple[str, ...]]] = field(default_factory=dict)
    ties: list[tuple[str, str]] = field(default_factory=list)
    used: set[int] = field(default_factory=set)

    def land(self, name: str, spec: TensorSpec, made: str | Recipe) -> None:
        """Put a tensor under a name; the first one stays."""
        sources = (made,) if isinstance(made, str) else made.sources
        self.landed.setdefault(name, []).append(sources)
        if len(self.landed[name]) > 1:
            return
        self.tensors[name] = spec
        if isinstance(made, str):
            self.origin[name] = made
        else:
            self.recipes[name] = made

    @property
    def collisions(self) -> dict[str, tuple[str, ...]]:
        """The names on which several things land, with all their sources."""
        return {name: sum(ways, ()) for name, ways in self.landed.items() if len(ways) > 1}


Numbered = Sequence[tuple[int, Rule]]


def act(
    rules: Numbered, tensors: Mapping[str, TensorSpec], entries: Mapping[str, str], sources: Mapping[str, list[str]]
) -> Effect:
    """Apply numbered rules to tensors under their new names; ``sources`` are the names in the checkpoint.

    ``entries`` are the other things in it, which no operation takes, by their new names.

    Raises UsageError where an operation does not fit, or a tensor meets a second one.
    """
    effect = Effect()
    steps = plan([(n, rule) for n, rule in rules if rule.phase == "tensors"], tensors, effect.used)
    done: set[int] = set()
    for name, spec in tensors.items():
        if name not in steps:
            for key in sources[name]:
                effect.land(name, spec, key)
        for step in steps.get(name, ()):
            if id(step) not in done:
                done.add(id(step))
                _make(step, sources, effect)
    _cast([(n, rule) for n, rule in rules if rule.phase == "cast"], effect)
    _tie([(n, rule) for n, rule in rules if rule.phase == "tie"], effect)
    for name, key in entries.items():
        effect.landed.setdefault(name, []).append((key,))
        if name not in effect.tensors:
            effect.origin[name] = key
    return effect


def _make(step: Step, sources: Mapping[str, list[str]], effect: Effect) -> None:
    keys = tuple(sources[source][0] for source in step.sources)
    for output, (target, result) in enumerate(zip(step.targets, step.op.shapes(step.specs), strict=True)):
        effect.land(target, result, Recipe(step.op, keys, output))


def plan(rules: Numbered, tensors: Mapping[str, TensorSpec], used: set[int]) -> dict[str, list[Step]]:
    """Return for each tensor the steps that take it: one, or several that each give their results new names."""
    steps: dict[str, list[Step]] = {}
    for number, rule in rules:
        assert isinstance(rule, TensorRule)
        for step in list(rule.steps(tensors, steps)):
            used.add(number)
            for name in dict.fromkeys(step.sources):
                steps.setdefault(name, []).append(step)
    return steps


def _cast(rules: Numbered, effect: Effect) -> None:
    by: dict[str, Rule] = {}
    for number, rule in rules:
        assert isinstance(rule, TensorRule)
        assert isinstance(rule.op, Cast)
        for name in rule.among(effect.tensors):
            spec = effect.tensors[name]
            if not rule.op.takes(spec) or rule.when not in (None, spec.shape):
                continue
            if name in by:
                raise UsageError(str(rule), f"also casts {name}, which {str(by[name])!r} casts", "cast it once")
            by[name] = rule
            effect.used.add(number)
            if spec.dtype != rule.op.dtype:
                _cast_one(effect, name, rule.op)


def _cast_one(effect: Effect, name: str, cast: Cast) -> None:
    (effect.tensors[name],) = cast.shapes((effect.tensors[name],))
    if name in effect.recipes:
        effect.recipes[name] = replace(effect.recipes[name], cast=cast)
    else:
        effect.recipes[name] = Recipe(cast, (effect.origin.pop(name),))


def _tie(rules: Numbered, effect: Effect) -> None:
    for number, rule in rules:
        assert isinstance(rule, Tie)
        for name in list(effect.tensors):
            alias = rule.alias_of(name)
            if alias is None:
                continue
            effect.used.add(number)
            if effect.tensors[name].storage is None:  # what is made anew has no storage of the file
                effect.tensors[name] = replace(effect.tensors[name], storage=f"tied: {name}")
            effect.land(alias, effect.tensors[name], effect.recipes.get(name) or effect.origin[name])
            effect.ties.append((alias, name))
