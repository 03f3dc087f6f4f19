"""The stages of a model, from the input on: what can be frozen one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from torch import nn

from ...records import dataclass

# A part with more than this share of the parameters is looked into: "encoder" says nothing, "layer4" does.
_MOST = 0.8
_FEW = 3  # stages: with fewer, sequences fall into their parts
_NORM = ("BatchNorm", "LayerNorm", "GroupNorm", "InstanceNorm", "RMSNorm")


@dataclass(frozen=True)
class Stage:
    """Modules, and parameters of no smaller module, that are frozen together, by name."""

    label: str
    modules: tuple[str, ...]
    parameters: tuple[str, ...]


def stages_of(model: nn.Module, run: Callable[[], object]) -> list[Stage]:
    """Return the stages in the order in which ``run`` calls them; what is never called comes in order of definition.

    A stage is a child of the model, or of a child that holds more than four fifths of the parameters; where that makes
    fewer than three, sequences fall into their parts. Norms join the
    stage before them; parameters that lie beside the stages join the first. What has no parameters is no stage.
    """
    units = [name for name in _units(model, "") if _size(model.get_submodule(name))]
    if len(units) < _FEW:
        units = [part for name in units for part in _opened(model, name)]
    order = _call_order(model, units, run)
    units.sort(key=lambda name: order.get(name, len(order)))
    groups: list[list[str]] = []
    for name in units:
        if groups and _is_norm(model.get_submodule(name)):
            groups[-1].append(name)
        else:
            groups.append([name])
    below = {f"{unit}." for unit in units}
    loose = [n for n, _ in model.named_parameters() if not any(n.startswith(prefix) for prefix in below)]
    return [
        Stage(_label(group), tuple(group), (*(loose if index == 0 else ()), *_names(model, group)))
        for index, group in enumerate(groups)
    ]


def _units(module: nn.Module, prefix: str) -> Iterator[str]:
    """Yield the names of the children that are stages, looking into those that hold nearly everything."""
    total = _size(module)
    for name, child in module.named_children():
        path = f"{prefix}{name}"
        whole = _size(child) > _MOST * total or (not prefix.count(".") and isinstance(child, nn.ModuleList))
        if whole and any(_size(part) for part in child.children()) and not _is_leaf(child):
            yield from _units(child, f"{path}.")
        else:
            yield path


def _opened(model: nn.Module, name: str) -> list[str]:
    """Return the parts of a sequence, or the module itself where it is none."""
    module = model.get_submodule(name)
    parts = [f"{name}.{part}" for part, child in module.named_children() if _size(child)]
    return parts if len(parts) > 1 and isinstance(module, nn.Sequential) else [name]


def _is_leaf(module: nn.Module) -> bool:
    """Tell a module whose parts are one computation: attention, an LSTM."""
    return type(module).__module__.startswith("torch.nn.modules.") and not isinstance(
        module, (nn.Sequential, nn.ModuleList, nn.ModuleDict, nn.TransformerEncoder, nn.TransformerDecoder)
    )


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _call_order(model: nn.Module, units: list[str], run: Callable[[], object]) -> dict[str, int]:
    order: dict[str, int] = {}

    def note(name: str) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            order.setdefault(name, len(order))

        return hook

    handles = [model.get_submodule(name).register_forward_pre_hook(note(name)) for name in units]
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    return order


def _is_norm(module: nn.Module) -> bool:
    return any(word in type(module).__name__ for word in _NORM)


def _names(model: nn.Module, units: list[str]) -> tuple[str, ...]:
    return tuple(f"{unit}.{name}" for unit in units for name, _ in model.get_submodule(unit).named_parameters())


def _label(group: list[str]) -> str:
    return group[0] if len(group) == 1 else f"{group[0]}, {', '.join(group[1:])}"
