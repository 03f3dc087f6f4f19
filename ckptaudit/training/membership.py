"""Which optimizer has which parameter, and what does not add up about it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ..errors import UsageError
from ..records import dataclass
from .names import named_tensors
from .select import select

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer


def optimizers_of(given: Optimizer | Iterable[Optimizer]) -> list[Optimizer]:
    """Return optimizers as a list, whether one is given or several. Raises UsageError for what has no groups."""
    listed = list(given) if isinstance(given, Iterable) else [given]
    for one in listed:
        if not isinstance(getattr(one, "param_groups", None), list):
            reason = f"are given as a {type(one).__name__}, which has no param_groups"
            raise UsageError("the optimizers", reason, "give an optimizer of torch, or a list of them")
    return listed


@dataclass(frozen=True)
class Misfit:
    """One thing that does not add up: the canonical name of a parameter, what was expected, and what is."""

    name: str
    expected: str
    found: str


@dataclass(frozen=True)
class Membership:
    """The groups that hold each parameter: ``places`` by canonical name, as ``(optimizer, group)``, and ``stale``.

    ``stale`` are shapes of the tensors that the optimizers hold and the model does not have.
    """

    places: Mapping[str, tuple[tuple[Optimizer, dict[str, Any]], ...]]
    stale: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, model: nn.Module, optimizers: Iterable[Optimizer]) -> Membership:
        """Look every parameter of the model up in the groups of the optimizers."""
        parameters = {name: one.tensor for name, one in named_tensors(model).items() if one.kind == "parameter"}
        held: dict[int, list[tuple[Optimizer, dict[str, Any]]]] = {}
        shapes: dict[int, tuple[int, ...]] = {}
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                for tensor in group["params"]:
                    held.setdefault(id(tensor), []).append((optimizer, group))
                    shapes[id(tensor)] = tuple(tensor.shape)
        own = {id(tensor) for tensor in parameters.values()}
        places = {name: tuple(held.get(id(tensor), ())) for name, tensor in parameters.items()}
        return cls(places, tuple(shape for key, shape in shapes.items() if key not in own))


def uncovered(model: nn.Module, optimizers: Iterable[Optimizer]) -> Iterator[Misfit]:
    """Yield trainable parameters that are not in exactly one group, and what optimizers hold beside the model's."""
    found = Membership.of(model, optimizers)
    for name, one in named_tensors(model).items():
        places = found.places.get(name, ())
        if one.kind == "parameter" and one.tensor.requires_grad and len(places) != 1:
            yield Misfit(name, "in one group", f"in {len(places)} groups" if places else "in no group")
    for shape in found.stale:
        yield Misfit(f"a tensor of shape {shape}", "in no group", "the model has it no longer")


def misgrouped(model: nn.Module, optimizer: Optimizer, groups: Mapping[Any, Any]) -> Iterator[Misfit]:
    """Yield the parameters that are not where ``groups`` says: patterns to options, or to ``"freeze"``.

    Raises UsageError for a pattern that matches nothing.
    """
    tensors = named_tensors(model)
    found = Membership.of(model, [optimizer])
    for patterns, options in groups.items():
        for name in select(tensors, patterns):
            if name in found.places:
                flag = tensors[name].tensor.requires_grad
                yield from _misfits(name, [group for _, group in found.places[name]], options, flag=flag)


def _misfits(name: str, groups: list[dict[str, Any]], options: Any, *, flag: bool) -> Iterator[Misfit]:
    if options == "freeze":
        if flag:
            yield Misfit(name, "frozen", "requires_grad=True")
        if groups:
            yield Misfit(name, "in no group", f"in a group with lr={groups[0].get('lr')}")
        return
    if not flag:
        yield Misfit(name, "trainable", "requires_grad=False")
    if len(groups) != 1:
        yield Misfit(name, "in one group", f"in {len(groups)} groups" if groups else "in no group")
        return
    for option, value in options.items():
        if option not in groups[0] or groups[0][option] != value:
            yield Misfit(name, f"{option}={value}", f"{option}={groups[0].get(option, 'not given')}")
