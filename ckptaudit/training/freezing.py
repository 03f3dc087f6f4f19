"""Freezing a part of a model as it is meant: flags, running statistics, and the mode after ``model.train()``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..errors import UsageError
from .names import NamedTensor, named_tensors
from .select import Patterns, Selection, select

if TYPE_CHECKING:
    from torch import nn


class _StaysInEval:
    """Takes the place of a module's ``train``: remembers the mode that is asked for, and keeps to eval mode.

    It lies in the module's ``__dict__``, so that copies and pickles of the module have one of their own.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.asked = module.training

    def __call__(self, mode: bool = True) -> nn.Module:
        self.asked = mode
        self.module.training = False
        for child in self.module.children():
            child.train(mode)
        return self.module


class Frozen:
    """A part of a model that is frozen, until ``thaw()`` or the end of the ``with`` block.

    ``parameters`` and ``buffers`` are the canonical names that were selected.
    """

    def __init__(self, tensors: Mapping[str, NamedTensor], selection: Selection) -> None:
        chosen = {name: tensors[name] for name in selection}
        self.parameters = tuple(name for name, named in chosen.items() if named.kind == "parameter")
        self.buffers = tuple(name for name, named in chosen.items() if named.kind == "buffer")
        self._flags = [(chosen[name].tensor, chosen[name].tensor.requires_grad) for name in self.parameters]
        self._held = [module for module in _modules_to_hold(tensors, selection) if "train" not in vars(module)]
        for parameter, _ in self._flags:
            parameter.requires_grad = False
            parameter.grad = None  # an optimizer that still has it would apply it once more
        for module in self._held:
            module.train = _StaysInEval(module)
            module.training = False

    def thaw(self) -> None:
        """Give flags back as they were, and modules the mode that was asked for last. A second call does nothing."""
        for parameter, flag in self._flags:
            parameter.requires_grad = flag
        for module in self._held:
            held = vars(module).pop("train", None)
            if isinstance(held, _StaysInEval):
                module.training = held.asked
        self._flags, self._held = [], []

    def __enter__(self) -> Frozen:
        return self

    def __exit__(self, *exception: object) -> None:
        self.thaw()


def freeze(model: nn.Module, patterns: Patterns) -> Frozen:
    """Freeze the tensors that ``patterns`` select; ``thaw()`` of what is returned undoes it.

    Parameters lose ``requires_grad`` and their gradients. A module all of whose tensors are selected goes into eval
    mode and stays there through ``model.train()``, with all below it: running statistics hold and dropout is off. So
    does a norm whose running statistics alone are selected. An optimizer may be made before or after, from all
    parameters or from the rest: torch's optimizers pass over what has no gradient (LBFGS with a history does not).

    Buffers that a module changes in eval mode too (observers of quantization, ``torch.ao.quantization``) still move.
    Raises UsageError for a pattern that matches nothing, for rows (a flag is of the whole tensor), and for a tied
    tensor that is selected under one of its names only.
    """
    tensors = named_tensors(model)
    selection = select(tensors, patterns, role="patterns")
    _check_whole(tensors, selection)
    return Frozen(tensors, selection)


def _check_whole(tensors: Mapping[str, NamedTensor], selection: Selection) -> None:
    selected = {id(tensors[name].tensor): name for name in selection}
    for name, named in tensors.items():
        if selection.tensors.get(name) is not None:
            raise UsageError(name, "is selected in part, and requires_grad is of whole tensors", "select all its rows")
        if id(named.tensor) in selected and name not in selection:
            reason = f"is the same tensor as {selected[id(named.tensor)]} (tied weights): freezing one freezes both"
            raise UsageError(name, reason, "select both names, or untie the weights")


def _modules_to_hold(tensors: Mapping[str, NamedTensor], selection: Selection) -> list[nn.Module]:
    """Return the modules that eval mode is meant for: those wholly selected with all below, and held statistics."""
    held = wholly_frozen(tensors, selection)
    chosen = [tensors[name] for name in selection]
    held |= {id(named.module): named.module for named in chosen if _is_running_statistic(named)}
    return list(held.values())


def wholly_frozen(tensors: Mapping[str, NamedTensor], selection: Selection) -> dict[int, nn.Module]:
    """Return the modules all of whose tensors are selected, and all modules below them, by ``id``."""
    left = [named for name, named in tensors.items() if name not in selection and named.kind != "attribute"]
    loose = {id(module) for named in left for module in named.modules}
    whole = {id(one): one for name in selection for one in tensors[name].modules if id(one) not in loose}
    return {id(below): below for module in whole.values() for below in module.modules()}


def _is_running_statistic(named: NamedTensor) -> bool:
    return named.kind == "buffer" and named.attribute in ("running_mean", "running_var")
