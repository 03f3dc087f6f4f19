"""Copies of a model to load into: same modules, hooks and ties; without values on the meta device, or with them."""

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
from .describe import named_tensors, storage_of

_Memo = dict[int, Any]
_Counterpart = Callable[[torch.Tensor], torch.Tensor]
_QUANTIZED = {name for name, dtype in DTYPES.items() if dtype.kind == "quantized"}


class UndecidedError(Exception):
    """Why a load cannot be tried without the values; the text is one clause for people."""


def twin_of(module: nn.Module) -> nn.Module:
    """Return a deep copy of ``module`` with every parameter and buffer on the meta device.

    Classes, ties, ``requires_grad`` and load hooks are kept; no value is copied, ``module`` is not touched.
    Attributes that cannot be copied (locks, open files) are shared. Raises UndecidedError for a module that
    cannot be copied, or copies itself with its values.
    """
    return _copy(module, _without_values, lambda tensor: tensor.is_meta)


def real_copy(module: nn.Module) -> nn.Module:
    """Return a deep copy of ``module`` on the CPU with its values, zeros where it is on the meta device.

    What shares memory in the module shares it in the copy. Raises UndecidedError as ``twin_of`` does.
    """
    own = {id(tensor) for _, tensor, _, _ in named_tensors(module)}
    return _copy(module, _WithValues(), lambda tensor: tensor.device.type == "cpu" and id(tensor) not in own)


def _copy(module: nn.Module, counterpart: _Counterpart, arrived: Callable[[torch.Tensor], bool]) -> nn.Module:
    """Copy a module with the counterparts of its tensors; ``arrived`` tells what a tensor of the copy has to be."""
    memo = _memo_of(module, counterpart)
    name = type(module).__name__
    with _Copying(counterpart):
        try:
            twin = copy.deepcopy(module, memo)
        except Exception:
            memo = _memo_of(module, counterpart)
            _share_what_cannot_be_copied(module, memo)
            try:
                twin = copy.deepcopy(module, memo)
            except Exception as error:
                raise UndecidedError(f"{name} cannot be copied: {first_line(error)}") from error
    if twin is module or not all(arrived(tensor) for _, tensor, _, _ in named_tensors(twin)):
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


class _Copying(TorchFunctionMode):  # type: ignore[misc]
    """While active, tensors that the memo does not know (plain attributes) are copied as their counterparts."""

    def __init__(self, counterpart: _Counterpart) -> None:
        super().__init__()
        self._counterpart = counterpart

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func in (torch.Tensor.__deepcopy__, torch.Tensor.clone):
            return self._counterpart(args[0])
        return func(*args, **(kwargs or {}))


def _without_values(tensor: torch.Tensor) -> torch.Tensor:
    """Return the like of ``tensor`` on the meta device: its class, its attributes, its ``requires_grad``."""
    return _like(tensor, _empty_like, "meta")


class _WithValues:
    """Makes the likes of tensors on the CPU, with their values, over one copy of each storage."""

    def __init__(self) -> None:
        self._storages: dict[int, torch.UntypedStorage] = {}

    def __call__(self, tensor: torch.Tensor) -> torch.Tensor:
        return _like(tensor, self._values, "cpu")

    def _values(self, tensor: torch.Tensor) -> torch.Tensor:
        tensor = tensor.detach()
        storage = None if tensor.is_quantized or tensor.is_conj() or tensor.is_neg() else storage_of(tensor)
        if storage is None:
            return tensor.cpu().clone()
        if storage._cdata not in self._storages:
            copied = torch.UntypedStorage(storage.nbytes())
            self._storages[storage._cdata] = copied.fill_(0) if tensor.is_meta else copied.copy_(storage)
        blank = torch.empty(0, dtype=tensor.dtype)
        return blank.set_(self._storages[storage._cdata], tensor.storage_offset(), tensor.shape, tensor.stride())


def _like(tensor: torch.Tensor, data: _Counterpart, device: str) -> torch.Tensor:
    """Return a tensor over other data of the same class, with the same attributes and ``requires_grad``."""
    kind = type(tensor)
    if is_lazy(tensor):
        blank = kind(requires_grad=tensor.requires_grad, device=device, dtype=tensor.data.dtype)
    else:
        # Subclasses that carry inner tensors cannot be made from one plain tensor; their base class can.
        if kind.__torch_dispatch__ is not torch.Tensor.__torch_dispatch__:
            kind = nn.Parameter if isinstance(tensor, nn.Parameter) else torch.Tensor
        blank = torch.Tensor._make_subclass(kind, data(tensor), tensor.requires_grad)
    blank.__dict__.update(tensor.__dict__)
    return blank


def _empty_like(tensor: torch.Tensor) -> torch.Tensor:
    if tensor.layout is torch.strided and not tensor.is_quantized:
        return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")
    layout = str(tensor.layout).removeprefix("torch.")
    return meta_tensor(TensorSpec(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."), layout=layout))


def _memo_of(module: nn.Module, counterpart: _Counterpart) -> _Memo:
    """Return the memo that makes ``copy.deepcopy`` take counterparts for the module's own tensors, ties included."""
    memo: _Memo = {}
    for _, tensor, _, _ in named_tensors(module):
        if id(tensor) not in memo:
            memo[id(tensor)] = counterpart(tensor)
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
