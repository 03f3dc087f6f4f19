"""The head of a report about training: the model, and the optimizers, as its two sides."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from torch import Tensor
from torch.nn.parameter import is_lazy

from ..policy import Side
from ..words import plural
from .names import NamedTensor
from .select import Selection

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer


def selected(frozen: Selection, trainable: Selection) -> str:
    """Say how many tensors were selected as what."""
    return f"{len(frozen):,} frozen, {len(trainable):,} trainable"


def side_of(role: str, model: nn.Module, tensors: dict[str, NamedTensor], *facts: str) -> Side:
    """Describe a model by its tensors; lazy ones have no size yet."""
    own = {id(named.tensor): named.tensor for named in tensors.values() if named.kind != "attribute"}
    return Side(role, "model", type(model).__name__, len(own), *_sizes(own.values()), facts)


def optimizers_side(optimizers: Iterable[Optimizer]) -> Side:
    """Describe optimizers by the tensors in their groups."""
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    held = {id(tensor): tensor for group in groups for tensor in group["params"]}
    names = ", ".join(dict.fromkeys(type(optimizer).__name__ for optimizer in optimizers)) or "none"
    return Side("optimizer", "optimizer", names, len(held), *_sizes(held.values()), (plural(len(groups), "group"),))


def _sizes(tensors: Iterable[Tensor]) -> tuple[int, int]:
    """Return how many values there are, and how many bytes they take."""
    listed = list(tensors)
    if any(map(is_lazy, {type(tensor): tensor for tensor in listed}.values())):  # which its type says
        listed = [tensor for tensor in listed if not is_lazy(tensor)]
    return sum(map(Tensor.numel, listed)), sum(tensor.nbytes for tensor in listed)
