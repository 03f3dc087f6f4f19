"""Parameter groups for an optimizer from patterns: each trainable parameter in exactly one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from ..errors import UsageError
from ..words import plural
from .freezing import freeze
from .names import NamedTensor, named_tensors
from .select import Selection, claims, select

if TYPE_CHECKING:
    from torch import nn

Options = Mapping[str, Any] | Literal["freeze"]


def param_groups(model: nn.Module, groups: Mapping[str | tuple[str, ...], Options]) -> list[dict[str, Any]]:
    """Return the ``params`` argument of any torch optimizer: one group per pattern, in the order of ``groups``.

    ``groups`` maps a pattern, or a tuple of them, to the options of its group (``{"lr": 1e-4}``) or to ``"freeze"``,
    which freezes as ``freeze`` does and keeps the tensors out. Each group has its pattern as ``name``. Options
    that a group does not give are the optimizer's own. A tied parameter is there once.

    Raises UsageError, and changes nothing, for a pattern that matches no parameter, a parameter selected twice or
    not at all, rows, and a parameter with ``requires_grad=False`` in a group that is to train.
    """
    tensors = named_tensors(model)
    selections = {_text(patterns): select(tensors, patterns, role=_text(patterns)) for patterns in groups}
    claims(tensors, selections)
    _check_all_claimed(tensors, selections)
    frozen: set[str] = set()
    made: list[dict[str, Any]] = []
    for text, options in zip(selections, groups.values(), strict=True):
        if options == "freeze":
            frozen |= set(selections[text])
        else:
            made.append(_group(text, options, _parameters(tensors, selections[text])))
    if frozen:
        freeze(model, lambda name, *_: name in frozen)
    return made


def _text(patterns: str | tuple[str, ...]) -> str:
    return patterns if isinstance(patterns, str) else ", ".join(patterns)


def _parameters(tensors: Mapping[str, NamedTensor], selection: Selection) -> list[NamedTensor]:
    """Return the selected parameters, each tensor once, by its first name."""
    for name, rows in selection.tensors.items():
        if rows is not None:
            raise UsageError(name, "is selected in part, and an optimizer takes whole tensors", "select all its rows")
    named = [tensors[name] for name in selection if tensors[name].kind == "parameter"]
    return list({id(one.tensor): one for one in reversed(named)}.values())[::-1]


def _group(text: str, options: Any, parameters: list[NamedTensor]) -> dict[str, Any]:
    if not isinstance(options, Mapping) or "params" in options:
        raise UsageError(text, f"has no options of a group: {options!r}", 'write "freeze" or {"lr": 1e-3}')
    if not parameters:
        raise UsageError(text, "matches buffers only; an optimizer trains parameters")
    for named in parameters:
        if not named.tensor.requires_grad:
            raise UsageError(named.name, "has requires_grad=False, and its group is to train", "thaw it first")
    return {"params": [named.tensor for named in parameters], "name": text, **options}


def _check_all_claimed(tensors: Mapping[str, NamedTensor], selections: Mapping[str, Selection]) -> None:
    """Raise UsageError for trainable parameters in no group; a tied one is in it under either name."""
    claimed = {id(tensors[name].tensor) for selection in selections.values() for name in selection}
    left = [
        name
        for name, named in tensors.items()
        if named.kind == "parameter" and named.tensor.requires_grad and id(named.tensor) not in claimed
    ]
    if left:
        reason = f"is trainable and in no group, with {plural(len(left) - 1, 'more parameter')}"
        reason = reason if len(left) > 1 else "is trainable and in no group"
        raise UsageError(left[0], reason, f'add "{left[0].partition(".")[0]}.*": {{"lr": ...}} or "freeze"')
