"""The mapping that a comparison proposes: a simple cause where one explains all, else what inference is sure of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Literal

from ..manifest import Manifest
from .assignment import CONFIDENT, Assignment
from .causes import MIN_VALUES, Cause, Proposal, fitting, propose
from .keyrules import Tie
from .mapping import KeyMapping
from .rules import Drop, Rename, Rule

_PARAMETRIZED = ("weight_g", "weight_v", "weight_orig", "weight_u")


def propose_best(checkpoint: Manifest, model: Manifest) -> Proposal | None:
    """Return what explains missing and unexpected keys, and tensors laid out otherwise, or None.

    Inference is asked only where the simple causes leave some of these, and heard only where it is sure of all that it
    says, keeps what fits already, and brings more tensors to their places than the simple causes.
    """
    simple = propose(checkpoint, model)
    rules = simple.mapping.rules if simple else ()
    known = fitting(KeyMapping(rules), checkpoint, model) or {}
    if len(known) == len(model.tensors):
        return simple
    if _all_used(KeyMapping(rules), checkpoint, model) and not laid_out_otherwise(checkpoint, model):
        return simple
    inferred = _inferred(checkpoint, model)
    if inferred is None:
        return simple
    before, after = fitting(KeyMapping(), checkpoint, model), fitting(inferred.mapping, checkpoint, model)
    better = before is not None and after is not None and before.items() <= after.items() and len(after) > len(known)
    return inferred if better else simple


def laid_out_otherwise(checkpoint: Manifest, model: Manifest) -> bool:
    """Tell whether some tensor has its name on both sides, as many values, enough to tell, and another shape."""
    both = ((spec, model[key]) for key, spec in checkpoint.tensors.items() if key in model.tensors)
    return any(saved.numel == wanted.numel >= MIN_VALUES and saved.shape != wanted.shape for saved, wanted in both)


def _all_used(mapping: KeyMapping, checkpoint: Manifest, model: Manifest) -> bool:
    return all(key in model for key in mapping.apply(checkpoint).manifest.tensors)


def _inferred(checkpoint: Manifest, model: Manifest) -> Proposal | None:
    """Return all that is inferred, where it is sure throughout, without a word on what goes nowhere."""
    from .account import account
    from .generalise import generalise
    from .inference import infer

    found = infer(checkpoint, model)
    if not found.assigned or any(one.confidence < CONFIDENT for one in found.assigned):
        return None
    if _has_another_cause(found.assigned, checkpoint, model):
        return None
    mapping = generalise(found, checkpoint, model)
    told = [rule for rule in mapping.rules if rule.phase != "model"]
    silent = KeyMapping(tuple(rule for rule in told if not isinstance(rule, Drop)))
    if silent.apply(checkpoint).collisions:
        silent = KeyMapping(tuple(told))
    parts = account(silent, checkpoint).made
    causes = (
        _cause(rule, [one for one in found.assigned if number in parts.get(one.target, ())])
        for number, rule in enumerate(silent.rules)
    )
    return Proposal(silent, tuple(causes), inferred=True)


def _has_another_cause(assigned: Iterable[Assignment], checkpoint: Manifest, model: Manifest) -> bool:
    """Tell whether some pair is more likely to be something else than a new name, which other rules are about.

    That is another parametrization; a tensor too small to be known by its shape; a buffer that the model no longer
    saves; or a tensor that would go from a module to another though both sides have both.
    """
    assigned = tuple(assigned)
    if any(one.op != "copy" and model[one.target].numel < MIN_VALUES for one in assigned):
        return True
    moved = [one for one in assigned if one.sources != (one.target,)]
    sizes: Counter[str] = Counter()
    for one in moved:
        sizes[_module(one.target)] += model[one.target].numel
    both = {_module(key) for key in checkpoint.tensors if key in model and checkpoint[key].shape == model[key].shape}
    for one in moved:
        source, target = one.sources[0], one.target
        if source in model.non_persistent:
            return True
        if _leaf(source) != _leaf(target):
            if _is_parametrized(source) or _is_parametrized(target) or sizes[_module(target)] < MIN_VALUES:
                return True
        elif _module(source) != _module(target) and {_module(source), _module(target)} <= both:
            return True
    return False


def _module(key: str) -> str:
    return key.rpartition(".")[0]


def _leaf(key: str) -> str:
    return key.rpartition(".")[2]


def _is_parametrized(key: str) -> bool:
    return _leaf(key) in _PARAMETRIZED or ".parametrizations." in f".{key}"


def _cause(rule: Rule, assigned: Iterable[Assignment]) -> Cause:
    assigned = tuple(assigned)
    pairs = tuple((source, one.target) for one in assigned for source in one.sources)
    kind: Literal["rename", "operation"] = "rename" if isinstance(rule, Rename) else "operation"
    return Cause(kind, rule, ((*_sides(rule), len(assigned)),), pairs)


def _sides(rule: Rule) -> tuple[str, str]:
    """Return what a rule says of the two sides, for people."""
    if isinstance(rule, Rename):
        return rule.source, rule.target
    if isinstance(rule, Tie):
        return rule.source, rule.alias
    before, _, after = str(rule).partition(" -> ")
    return before, after
