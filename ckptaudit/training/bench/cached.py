"""Features computed once: the head trained on what the frozen part makes of a fixed batch."""

from __future__ import annotations

from collections.abc import Callable
from itertools import takewhile
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_map

from ...errors import UsageError


def cache_features(model: nn.Module, frozen: frozenset[str], run: Callable[[], object]) -> None:
    """Run once, keep what the trainable module gets, and have ``model`` from then on run that module alone.

    Raises UsageError where no single module holds all that trains, or the model's output is not that module's: then
    there is no place at which features could be kept.
    """
    name, head = _head(model, frozen)
    seen: list[tuple[tuple[Any, ...], dict[str, Any], Any]] = []
    whole: list[Any] = []
    handles = [
        head.register_forward_hook(
            lambda _, args, kwargs, output: seen.append((args, kwargs, output)), with_kwargs=True
        ),
        model.register_forward_hook(lambda _, __, output: whole.append(output)),
    ]
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    if len(seen) != 1 or whole[-1] is not seen[0][2]:
        raise UsageError("cached features", f"the output of {name} is not that of the model, or it runs more than once")
    args, kwargs = tree_map(_detached, seen[0][:2])
    model.forward = lambda *_, **__: head(*args, **kwargs)


def _detached(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, Tensor) else value


def _head(model: nn.Module, frozen: frozenset[str]) -> tuple[str, nn.Module]:
    """Return the smallest module that holds every parameter that trains."""
    trained = [name for name, _ in model.named_parameters() if name not in frozen]
    prefixes = [name.split(".")[:-1] for name in trained]
    path = list(takewhile(lambda parts: len(set(parts)) == 1, zip(*prefixes, strict=False)))
    if not path:
        raise UsageError("cached features", "what trains is in no module of its own, so nothing can be kept before it")
    name = ".".join(parts[0] for parts in path)
    head = model.get_submodule(name)
    if any(f"{name}.{inner}" in frozen for inner, _ in head.named_parameters()):
        raise UsageError("cached features", f"{name} holds frozen parameters among those that train")
    return name, head
