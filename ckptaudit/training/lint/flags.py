"""Flags: what is declared frozen and requires gradients, and why it does; what is declared trainable and does not."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import SequenceMatcher
from typing import Any

from torch import nn

from ...rules import Contract, Finding
from ...rules import training_flags as rules
from ...rules.freezing import FREEZE_PATTERN_UNMATCHED
from ...rules.training_modules import FROZEN_REPARAMETRIZED
from ...rules.training_optimizers import TRAINABLE_WITHOUT_GRADIENT
from ..names import NamedTensor
from .findings import Row, finding
from .setup import Place, Setup, own_of

_FLAG = "requires_grad"
_SIMILAR = 0.8  # of difflib: require_grad has 0.96, grad_added_to_main_grad of Megatron 0.44


def check_patterns(setup: Setup) -> Iterator[Finding]:
    """Find patterns that match nothing."""
    if setup.unmatched:
        keys = tuple(error.subject for _, error in setup.unmatched)
        rows = tuple((error.subject, role, error.hint or "", "1") for role, error in setup.unmatched)
        yield Finding(FREEZE_PATTERN_UNMATCHED, keys, rows=rows)


def check_effectless(setup: Setup) -> Iterator[Finding]:
    """Find ``module.requires_grad = False`` and misspelt flags, where the parameters' own flags say otherwise."""
    idle = {id(own.module): own for own in setup.own if type(own.value) is bool and _means_flag(own.name)}
    rows: list[Row] = []
    for named in setup.tensors.values():
        if named.kind != "parameter":
            continue
        for name, value in own_of(named.tensor).items():
            if type(value) is bool and name != _FLAG and _means_flag(name):
                rows += _contradicted(setup, named, value, f"{name} = {value}")
        for own in [idle[id(module)] for module in named.modules if id(module) in idle] if idle else ():
            where = f"{type(own.module).__name__}.{own.name} = {own.value}"
            rows += _contradicted(setup, named, own.value, where)
    first = {row[0]: row for row in reversed(rows)}  # a tensor below two such modules has one row
    if first:
        meant = first.keys() & {*setup.frozen, *(setup.trainable if setup.declared else ())}
        found = reversed(first.values())
        yield finding(setup, rules.FLAG_WITHOUT_EFFECT, found, breaks=None if meant else Contract.resume)


def _means_flag(name: str) -> bool:
    if "grad" not in name or name.startswith("_"):
        return False
    return name == _FLAG or SequenceMatcher(None, name, _FLAG).ratio() >= _SIMILAR


def _contradicted(setup: Setup, named: NamedTensor, value: bool, where: str) -> Iterator[Row]:
    if named.name not in setup.explained and named.tensor.requires_grad != value:
        yield named.name, f"{_FLAG}={named.tensor.requires_grad}", f"{where} changes nothing"


def _trained(setup: Setup) -> list[tuple[NamedTensor, Place]]:
    """Return frozen parameters that an optimizer will train, and no finding accounts for."""
    found = [(named, setup.place(named)) for named in setup.left(setup.still) if named.tensor.requires_grad]
    return [(named, place) for named, place in found if place is not None]


def check_computed(setup: Setup) -> Iterator[Finding]:
    """Find frozen parameters from which a weight is computed, and that are not frozen."""
    rows = [
        (named.name, f"{_FLAG}=True", f"{place.who} trains it; {how}")
        for named, place in _trained(setup)
        if (how := _computes(named))
    ]
    yield from [finding(setup, FROZEN_REPARAMETRIZED, rows)] if rows else []


def _computes(named: NamedTensor) -> str:
    if isinstance(named.module, nn.utils.parametrize.ParametrizationList):
        return f"{named.modules[-3].__class__.__name__}.{named.path.split('.')[-2]} is computed from it"
    for hook in named.module._forward_pre_hooks.values():
        tensor: Any = getattr(hook, "name", getattr(hook, "_tensor_name", None))
        if isinstance(tensor, str) and named.attribute.startswith(f"{tensor}_"):
            return f"{type(hook).__name__} made it anew, and {tensor} is computed from it"
    return ""


def check_wrapper(setup: Setup) -> Iterator[Finding]:
    """Find a model none of whose frozen parameters is frozen, while a wrapper has changed their names."""
    if any(not named.tensor.requires_grad for named in setup.still):
        return
    rows = [(n.name, f"{_FLAG}=True", _wrapped(n)) for n, _ in _trained(setup) if n.name != n.path]
    yield from [finding(setup, rules.WRAPPER_PREFIX, rows)] if rows else []


def _wrapped(named: NamedTensor) -> str:
    prefix = named.path.removesuffix(named.name)
    return f"torch's name for it begins with {prefix}" if prefix != named.path else f"torch calls it {named.path}"


def check_frozen_flags(setup: Setup) -> Iterator[Finding]:
    """Find the rest of frozen parameters that require gradients, in an optimizer or not."""
    rows = [(named.name, f"{_FLAG}=True", f"{place.who} trains it") for named, place in _trained(setup)]
    if rows:
        yield finding(setup, rules.FROZEN_REQUIRES_GRAD, rows)
    if setup.optimizers:
        left = [named for named in setup.left(setup.still) if named.tensor.requires_grad]
        rows = [(named.name, f"{_FLAG}=True", "no optimizer has it") for named in left]
        if rows:
            yield finding(setup, rules.FROZEN_REQUIRES_GRAD, rows, case="omitted", breaks=Contract.resume)


def check_trainable_flags(setup: Setup) -> Iterator[Finding]:
    """Find trainable parameters that require no gradients; without an optimizer nothing is said to train."""
    if not setup.optimizers:
        return
    left = [named for named in setup.left(setup.moving) if not named.tensor.requires_grad]
    rows = [(named.name, f"{_FLAG}=False", "no gradient is computed for it") for named in left]
    if rows:
        yield finding(setup, TRAINABLE_WITHOUT_GRADIENT, rows, breaks=setup.if_declared)
