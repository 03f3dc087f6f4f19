"""Modules that write their own tensors, hide them, or cannot train as they are."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import islice
from typing import Any

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ...rules import Contract, Finding
from ...rules import training_modules as rules
from ..causes import is_observer
from ..names import NamedTensor
from .findings import Row, finding
from .setup import Setup

_RANGES = ("min_val", "max_val", "min_vals", "max_vals", "histogram", "scale", "zero_point")
_LOOK = 1000  # entries of a list or dict that are looked at


def check_embeddings(setup: Setup) -> Iterator[Finding]:
    """Find frozen embeddings that renormalise their rows."""
    rows = [
        (named.name, f"max_norm={named.module.max_norm:.3g}", f"{type(named.module).__name__} writes it in place")
        for named in setup.still
        if isinstance(named.module, (nn.Embedding, nn.EmbeddingBag)) and named.module.max_norm is not None
    ]
    yield from [finding(setup, rules.FROZEN_EMBEDDING_RENORMALISED, rows, explains=False)] if rows else []


def check_observers(setup: Setup) -> Iterator[Finding]:
    """Find frozen ranges of observers that go on observing."""
    rows: list[Row] = []
    for name in setup.frozen:
        named = setup.tensors[name]
        if named.kind == "buffer" and named.attribute in _RANGES and is_observer(named) and _observes(named):
            rows.append((name, type(named.module).__name__, "each forward pass updates it"))
    if rows:
        yield finding(setup, rules.FROZEN_OBSERVER, rows)


def _observes(named: NamedTensor) -> bool:
    """Tell whether an observer is on; a fake quantizer has a switch, and one without observer has ranges for good."""
    if named.attribute in ("scale", "zero_point") and "observer_enabled" not in named.module._buffers:
        return False
    switches = [one._buffers.get("observer_enabled") for one in named.modules]
    return all(bool(switch.any()) for switch in switches if switch is not None)


def check_attributes(setup: Setup) -> Iterator[Finding]:
    """Find plain tensors in the frozen part, lists of layers, and reentrant checkpoints: what attributes tell."""
    lists: list[Row] = []
    reentrant: list[nn.Module] = []
    for own in setup.own:
        if type(own.value) is partial:
            if own.value.keywords.get("use_reentrant") is True:
                reentrant.append(own.module)
        elif type(own.value) is not bool and (layers := _layers(setup, own.value)):
            where = f"{own.path}.{own.name}" if own.path else own.name
            of = f"a {type(own.value).__name__} of {type(layers[0]).__name__}"
            lists.append((where, of, "the model does not have them"))
    if lists:
        yield finding(setup, rules.UNREGISTERED, lists, case="modules", explains=False)
    yield from _plain(setup)
    yield from _reentrant(setup, reentrant)


def _layers(setup: Setup, value: Any) -> list[nn.Module]:
    """Return modules of a collection that have parameters which the model does not have."""
    entries = islice(value.values() if isinstance(value, dict) else value, _LOOK)
    found = [entry for entry in entries if isinstance(entry, nn.Module)]
    return [one for one in found if any(id(parameter) not in setup.names for parameter in one.parameters())]


def _plain(setup: Setup) -> Iterator[Finding]:
    rows: list[Row] = []
    for name in setup.frozen:
        named = setup.tensors[name]
        if named.kind == "attribute" and not _is_computed(named):
            rows.append((name, f"an attribute of {type(named.module).__name__}", "nothing holds it"))
    if rows:
        yield finding(setup, rules.UNREGISTERED, rows, explains=False)


def _is_computed(named: NamedTensor) -> bool:
    """Tell whether a hook computes the tensor anew in each forward pass (weight_norm, spectral_norm, pruning)."""
    hooks = named.module._forward_pre_hooks.values()
    return any(named.attribute in (getattr(h, "name", None), getattr(h, "_tensor_name", None)) for h in hooks)


def _reentrant(setup: Setup, modules: list[nn.Module]) -> Iterator[Finding]:
    """Look at what is trainable behind a reentrant checkpoint, where nothing before it is."""
    if not modules or hasattr(setup.model, "_require_grads_hook"):  # of transformers: inputs are made to need gradients
        return
    trains = [n for n in setup.tensors.values() if n.kind == "parameter" and n.tensor.requires_grad]
    inside = {id(module) for module in modules}
    rows: list[Row] = []
    for named in trains:
        wrapped = [module for module in named.modules if id(module) in inside]
        if not wrapped or (rows and rows[0][1] != type(wrapped[0]).__name__):
            break
        rows.append((named.name, type(wrapped[0]).__name__, "no tensor before it trains"))
    if rows:
        yield finding(setup, rules.REENTRANT_CHECKPOINT, rows, explains=False)


def check_values(setup: Setup) -> Iterator[Finding]:
    """Find parameters without values yet, and those that were made under inference_mode."""
    lazy: list[Row] = []
    inference: list[Row] = []
    for named in (*setup.still, *setup.moving):
        tensor: Tensor = named.tensor
        if is_lazy(tensor):
            lazy.append((named.name, type(named.module).__name__, "it has no shape and no values"))
        elif tensor.is_inference():
            inference.append((named.name, "inference_mode", "autograd does not take it"))
    if lazy:
        yield finding(setup, rules.NOT_INITIALISED, lazy, explains=False)
    if inference:
        trains = any(row[0] in setup.trainable for row in inference)
        breaks = Contract.exact if trains else None
        yield finding(setup, rules.INFERENCE_TENSORS, inference, breaks=breaks, explains=False)
