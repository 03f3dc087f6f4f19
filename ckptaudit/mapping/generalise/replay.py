"""What a mapping really does, told in the words of assignments."""

from __future__ import annotations

from ...manifest import Manifest, TensorSpec
from ..assignment import Assignments
from ..effect import Recipe
from ..mapping import KeyMapping
from ..ops import Op
from ..ops.chain import Chain, read_steps
from ..ops.joins import Split
from ..ops.layout import Copy
from ..ops.values import Part, Slice

Said = tuple[tuple[str, ...], tuple[Op, ...]]


def differences(mapping: KeyMapping, assignments: Assignments, source: Manifest, target: Manifest) -> list[str]:
    """Return the keys of the model that the mapping gives something else than is assigned: none if it is right."""
    mapped = mapping.apply(source)
    if mapped.collisions or mapped.unused:
        return [key for key, _ in mapped.collisions] or ["*"]
    said: dict[str, Said] = {}
    for each in assignments.assigned:
        said[each.target] = each.sources, _plain(read_steps(each.op), [source[key] for key in each.sources])
    done: dict[str, Said] = {name: ((key,), ()) for name, key in mapped.origin.items() if name in target}
    for name, recipe in mapped.recipes.items():
        if name in target:
            specs = [source[key] for key in recipe.sources]
            done[name] = recipe.sources, _plain(_steps(recipe), specs)
    return [name for name in {**said, **done} if said.get(name) != done.get(name)]


def _steps(recipe: Recipe) -> tuple[Op, ...]:
    """Return the steps to one output of an operation."""
    op = recipe.op
    steps = list(op.ops) if isinstance(op, Chain) else [] if isinstance(op, Copy) else [op]
    at = next((number for number, step in enumerate(steps) if isinstance(step, Split)), None)
    if at is not None:
        cut = steps[at]
        assert isinstance(cut, Split)
        start = sum(cut.sizes[: recipe.output])
        whole = Part(cut.dim, recipe.output, cut.parts)
        steps[at] = Slice(cut.dim, start, start + cut.sizes[recipe.output]) if cut.sizes else whole
    return tuple(steps)


def _plain(steps: tuple[Op, ...], specs: list[TensorSpec]) -> tuple[Op, ...]:
    """Write the parts of a tensor as slices, so that equal ones compare equal."""
    plain: list[Op] = []
    for step in steps:
        plain.append(step.cut(specs[0].shape) if isinstance(step, Part) else step)
        specs = list(step.shapes(specs)) if step.joins else [step.shapes((spec,))[0] for spec in specs]
    return tuple(plain)
