"""Gradients and optimizer state of what is frozen: left from before, and applied or counted again."""

from __future__ import annotations

from collections.abc import Iterator

from torch.optim import LBFGS, Optimizer

from ...rules import Contract, Finding
from ...rules.training_flags import FROZEN_HAS_GRADIENT, FROZEN_IN_OPTIMIZER
from ...rules.training_optimizers import GRADIENT_OUTSIDE_OPTIMIZERS, STALE_GRADIENT_IN_NORM
from .findings import Row, finding
from .setup import Place, Setup


def check_frozen_gradients(setup: Setup) -> Iterator[Finding]:
    """Find gradients of frozen parameters that the next step applies."""
    rows: list[Row] = []
    for named in setup.still:
        tensor, place = named.tensor, setup.place(named)
        if place is not None and not tensor.requires_grad and tensor.grad is not None:
            beside = inertia(place)
            rows.append((named.name, "a gradient", f"{place.who} applies it{f', with {beside}' if beside else ''}"))
    if rows:
        yield finding(setup, FROZEN_HAS_GRADIENT, rows)


def inertia(place: Place) -> str:
    """Name what moves a tensor of a group even where its gradient is zeros."""
    parts = [word for word in ("weight decay", "momentum") if place.group.get(word.replace(" ", "_"))]
    if "betas" in place.group:
        parts.append("moments")
    return " and ".join(parts)


def check_frozen_state(setup: Setup) -> Iterator[Finding]:
    """Find frozen parameters in the history of LBFGS, or with state left in another optimizer, and decaying rows."""
    past: list[Row] = []
    state: list[Row] = []
    begun = any(optimizer.state for optimizer in setup.optimizers)
    for named in setup.left(setup.still) if begun else ():
        place = setup.place(named)
        if place is None or named.tensor.requires_grad:
            continue
        if isinstance(place.optimizer, LBFGS):
            if _has_history(place.optimizer):
                past.append((named.name, "a history", f"{place.who} steps along it"))
        elif named.tensor in place.optimizer.state:
            state.append((named.name, ", ".join(sorted(place.optimizer.state[named.tensor])), f"{place.who} keeps it"))
    if past:
        yield finding(setup, FROZEN_IN_OPTIMIZER, past, case="history", breaks=Contract.exact)
    if state:
        yield finding(setup, FROZEN_IN_OPTIMIZER, state)
    yield from _decaying_rows(setup)


def _has_history(optimizer: Optimizer) -> bool:
    return any(state.get("d") is not None for state in optimizer.state.values())


def _decaying_rows(setup: Setup) -> Iterator[Finding]:
    rows: list[Row] = []
    for name, ranges in setup.frozen.tensors.items():
        place = setup.place(setup.tensors[name]) if ranges is not None else None
        if place is not None and place.group.get("weight_decay"):
            decay = f"weight decay {place.group['weight_decay']:.3g}"
            rows.append((name, decay, f"{place.who} decays all its rows"))
    if rows:
        yield finding(setup, FROZEN_IN_OPTIMIZER, rows, case="rows", breaks=Contract.exact)


def check_loose_gradients(setup: Setup) -> Iterator[Finding]:
    """Find gradients of parameters that no optimizer has; without an optimizer there is nothing to tell."""
    if not setup.optimizers:
        return
    growing: list[Row] = []
    stale: list[Row] = []
    for named in setup.tensors.values():
        if named.kind != "parameter" or id(named.tensor) in setup.places or named.tensor.grad is None:
            continue
        if named.name in setup.explained:
            continue
        if named.tensor.requires_grad:
            growing.append((named.name, "requires_grad=True", "no optimizer has it"))
        else:
            stale.append((named.name, "requires_grad=False", "no optimizer has it"))
    if growing:
        yield finding(setup, GRADIENT_OUTSIDE_OPTIMIZERS, growing)
    if stale:
        yield finding(setup, STALE_GRADIENT_IN_NORM, stale)
