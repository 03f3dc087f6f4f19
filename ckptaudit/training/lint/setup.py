"""What the checks look at: a model, its optimizers and schedulers, and what is declared about its tensors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ...records import dataclass
from ...rules import Contract
from ..names import NamedTensor, Walk
from ..select import Patterns, Selection, rest, select_leniently

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer

    from ...errors import UsageError

_NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, eq=False)
class Place:
    """A parameter group of an optimizer."""

    optimizer: Optimizer
    index: int
    group: dict[str, Any]

    @property
    def lr(self) -> float:
        """The learning rate, 0 where the group has none."""
        return float(self.group.get("lr", 0.0))

    @property
    def who(self) -> str:
        """The type of the optimizer."""
        return type(self.optimizer).__name__

    @property
    def text(self) -> str:
        """The group as one writes it in Python, the optimizer by its type."""
        return f"{self.who}.param_groups[{self.index}]"


class Setup:
    """A training setup as it is found; nothing of it is changed.

    ``modules`` are all modules by path, ``own`` what they have of their own. ``still`` are the parameters that are
    frozen as a whole, ``moving`` those that are to train; ``declared`` says that the user named the latter. ``shared``
    has the names of tensors with several. ``explained`` collects the names that a finding accounts for: checks run in
    order of causes, and pass over them.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizers: Iterable[Optimizer],
        schedulers: Iterable[Any],
        averaged: Iterable[nn.Module],
    ) -> None:
        self.model, self.optimizers, self.schedulers = model, list(optimizers), list(schedulers)
        self.averaged = list(averaged)
        walk = Walk(model)
        self.tensors, self.modules, self.own = walk.tensors, walk.modules, walk.own
        self.explained: set[str] = set()
        self.unmatched: list[tuple[str, UsageError]] = []
        self.places = self._held()
        self.names: dict[int, list[str]] = {}
        for name, named in self.tensors.items():
            self.names.setdefault(id(named.tensor), []).append(name)
        self.shared = [several for several in self.names.values() if len(several) > 1]

    def declare(self, frozen: Patterns, trainable: Patterns | None) -> None:
        """Take what the user says of the tensors; patterns that match nothing are kept for a finding."""
        self.declared = trainable is not None
        self.frozen = self._select(frozen, "frozen")
        self.trainable = rest(self.tensors, self.frozen) if trainable is None else self._select(trainable, "trainable")
        self.still = self._parameters(self.frozen)
        self.moving = self._parameters(self.trainable)

    def _select(self, patterns: Patterns, role: str) -> Selection:
        selection, unmatched = select_leniently(self.tensors, patterns, role=role)
        self.unmatched += [(role, error) for error in unmatched]
        return selection

    def _parameters(self, selection: Selection) -> list[NamedTensor]:
        tensors = self.tensors
        return [
            tensors[name]
            for name, rows in selection.tensors.items()
            if rows is None and tensors[name].kind == "parameter"
        ]

    def _held(self) -> dict[int, list[Place]]:
        held: dict[int, list[Place]] = {}
        for place in self.groups():
            for tensor in place.group["params"]:
                held.setdefault(id(tensor), []).append(place)
        return held

    def groups(self) -> Iterator[Place]:
        """Yield every parameter group."""
        for optimizer in self.optimizers:
            for index, group in enumerate(optimizer.param_groups):
                yield Place(optimizer, index, group)

    def place(self, named: NamedTensor) -> Place | None:
        """Return the first group that has a tensor."""
        places = self.places.get(id(named.tensor))
        return places[0] if places else None

    def left(self, found: Iterable[NamedTensor]) -> list[NamedTensor]:
        """Return those that no finding accounts for yet."""
        return [named for named in found if named.name not in self.explained]

    def stale(self) -> list[Tensor]:
        """Return the tensors that the optimizers hold and the model does not have."""
        held = {id(tensor): tensor for place in self.groups() for tensor in place.group["params"]}
        return [tensor for key, tensor in held.items() if key not in self.names]

    @property
    def if_declared(self) -> Contract | None:
        """What a trainable tensor that will not train breaks: a contract where the user named it."""
        return Contract.exact if self.declared else None


def own_of(tensor: Tensor) -> Mapping[str, Any]:
    """Return the attributes that somebody gave to a tensor."""
    return getattr(tensor, "__dict__", _NOTHING)
