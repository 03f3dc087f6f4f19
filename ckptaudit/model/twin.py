"""A twin of a model without values: same modules, hooks and ties, every tensor on the meta device."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable
from types import CellType, FunctionType
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import UninitializedParameter, is_lazy
from torch.overrides import TorchFunctionMode

from ..dtypes import DTYPES
from ..errors import first_line
from ..manifest import TensorSpec
from .describe import named_tensors

_Memo = dict[int, Any]
_QUANTIZED = {name for name, dtype in DTYPES.items() if dtype.kind == "quantized"}


class UndecidedError(Exception):
    """Why a load cannot be tried without the values; the text is one clause for people."""


def twin_of(module: nn.Module) -> nn.Module:
    """Return a deep copy of ``module`` with every parameter and buffer on the meta device.

    Classes, ties, ``requires_grad`` and load hooks are kept; no value is copied, ``module`` is not touched.
    Attributes that cannot be copied (locks, open files) are shared. Raises UndecidedError for a module that
    cannot be copied, or copies itself with its values.
    """
    memo = _memo_of(module)
    name = type(module).__name__
    with _WithoutValues():
        try:
            twin = copy.deepcopy(module, memo)
        except Exception:
            memo = _memo_of(module)
            _share_what_cannot_be_copied(module, memo)
            try:
                twin = copy.deepcopy(module, memo)
            except Exception as error:
                raise UndecidedError(f"{name} cannot be copied: {first_line(error)}") from error
    if twin is module or not all(tensor.is_meta for _, tensor, _, _ in named_tensors(twin)):
        raise UndecidedError(f"{name} copies itself in its own way, so no load can be tried on a copy")
    _rebind_load_hooks(twin, memo)
    return twin


def meta_tensor(spec: TensorSpec) -> torch.Tensor:
    """Return a tensor of this shape, stride, dtype and layout that holds no values. Raises UndecidedError."""
    dtype = getattr(torch, spec.dtype, None)
    if not isinstance(dtype, torch.dtype):
        raise UndecidedError(f"this torch has no tensors of the dtype {spec.dtype}")
    if spec.layout == "uninitialized":
        lazy: Any = UninitializedParameter
        return lazy(requires_grad=bool(spec.requires_grad), device="meta", dtype=dtype)
    if spec.layout == "sparse_coo":
        return torch.sparse_coo_tensor(size=spec.shape, dtype=dtype, device="meta")
    if spec.layout != "strided":
        return torch.empty(spec.shape, dtype=dtype, layout=getattr(torch, spec.layout), device="meta")
    if spec.stride is None or spec.dtype in _QUANTIZED:
        return torch.empty(spec.shape, dtype=dtype, device="meta")
    return torch.empty_strided(spec.shape, spec.stride, dtype=dtype, device="meta")


class _WithoutValues(TorchFunctionMode):  # type: ignore[misc]
    """While active, tensors that the memo does not know (plain attributes) are copied without values."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func in (torch.Tensor.__deepcopy__, torch.Tensor.clone):
            return _counterpart(args[0])
        return func(*args, **(kwargs or {}))


def _counterpart(tensor: torch.Tensor) -> torch.Tensor:
    """Return the like of ``tensor`` on the meta device: its class, its attributes, its ``requires_grad``."""
    kind = type(tensor)
    if is_lazy(tensor):
        blank = kind(requires_grad=tensor.requires_grad, device="meta", dtype=tensor.data.dtype)
    else:
        # Subclasses that carry inner tensors cannot be made from one meta tensor; their base class can.
        if kind.__torch_dispatch__ is not torch.Tensor.__torch_dispatch__:
            kind = nn.Parameter if isinstance(tensor, nn.Parameter) else torch.Tensor
        blank = torch.Tensor._make_subclass(kind, _empty_like(tensor), tensor.requires_grad)
    blank.__dict__.update(tensor.__dict__)
    return blank


def _empty_like(tensor: torch.Tensor) -> torch.Tensor:
    if tensor.layout is torch.strided and not tensor.is_quantized:
        return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")
    layout = str(tensor.layout).removeprefix("torch.")
    return meta_tensor(TensorSpec(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."), layout=layout))


def _memo_of(module: nn.Module) -> _Memo:
    """Return the memo that makes ``copy.deepcopy`` take meta tensors for the module's own, ties included."""
    memo: _Memo = {}
    for _, tensor, _, _ in named_tensors(module):
        if id(tensor) not in memo:
            memo[id(tensor)] = _counterpart(tensor)
    for owner in module.modules():
        for name, hooks in vars(owner).items():
            if name.endswith("_hooks") and name not in _LOAD_HOOKS and isinstance(hooks, OrderedDict):
                memo[id(hooks)] = OrderedDict()  # forward and backward hooks have no part in a load
    return memo


_LOAD_HOOKS = ("_load_state_dict_pre_hooks", "_load_state_dict_post_hooks")


def _share_what_cannot_be_copied(module: nn.Module, memo: _Memo) -> None:
    """Add to ``memo`` the attributes that refuse to be copied, innermost modules first, as themselves."""
    own = vars(nn.Module()).keys()
    for owner in reversed(list(module.modules())):
        for name, value in vars(owner).items():
            if name in own:
                continue
            try:
                copy.deepcopy(value, dict(memo))
            except Exception:
                memo[id(value)] = value


def _rebind_load_hooks(twin: nn.Module, memo: _Memo) -> None:
    """Make hooks that are closures over the model's parts see the twin's: functions are not deep-copied."""
    for owner in twin.modules():
        for hook in owner._load_state_dict_pre_hooks.values():
            if hasattr(hook, "hook"):  # torch wraps pre-hooks
                hook.hook = _rebound(hook.hook, memo)
        for name, hook in list(owner._load_state_dict_post_hooks.items()):
            owner._load_state_dict_post_hooks[name] = _rebound(hook, memo)


def _rebound(hook: Any, memo: _Memo) -> Any:
    if not isinstance(hook, FunctionType) or not hook.__closure__:
        return hook
    cells = tuple(_rebound_cell(cell, memo) for cell in hook.__closure__)
    rebound = FunctionType(hook.__code__, hook.__globals__, hook.__name__, hook.__defaults__, cells)
    rebound.__kwdefaults__ = hook.__kwdefaults__
    return rebound


def _rebound_cell(cell: CellType, memo: _Memo) -> CellType:
    try:
        content = cell.cell_contents
    except ValueError:  # a variable that was never assigned
        return cell
    return CellType(memo[id(content)]) if id(content) in memo else cell
