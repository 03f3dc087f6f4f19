"""A trial load: torch's own ``load_state_dict``, run where there are no values to lose."""

from __future__ import annotations

import warnings
from collections import Counter, OrderedDict
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy
from torch.overrides import TorchFunctionMode

from ..errors import first_line
from ..manifest import Manifest, TensorSpec
from ..outcome import LoadOutcome
from .describe import named_tensors
from .twin import UndecidedError, meta_tensor, twin_of

_TORCH_RAISED = "Error(s) in loading state_dict for "


def try_load(module: nn.Module, checkpoint: Manifest) -> LoadOutcome | str:
    """Return what ``module.load_state_dict`` says to a state dict of this description.

    The load runs on a twin on the meta device, with the checkpoint's shapes, strides, dtypes and
    ``_metadata`` and without any values; the module, its hooks and the random number generator are left as
    they are. Messages and lists are torch's own. Where torch cannot say without the values (a load hook
    computes with them, the module cannot be copied) the answer is a clause that says why.
    """
    # torch warns of copies that do nothing on meta, and of sparse tensors whose values it did not check.
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")
        try:
            return _load(twin_of(module), _state_of(checkpoint))
        except UndecidedError as reason:
            return str(reason)


def _load(twin: nn.Module, state: dict[str, Any]) -> LoadOutcome:
    heard: list[tuple[list[str], list[str], list[str]]] = []

    def listen(_module: Any, _state: Any, _prefix: Any, _metadata: Any, _strict: Any, *lists: list[str]) -> None:
        heard.append((lists[0], lists[1], lists[2]))

    twin.register_load_state_dict_pre_hook(listen)
    receipts = _Receipts(twin)
    with receipts:
        try:
            returned = twin.load_state_dict(state, strict=False)
        except Exception as error:
            if not heard or not str(error).startswith(_TORCH_RAISED):
                reason = f"load_state_dict cannot be tried without the values: {first_line(error)}"
                raise UndecidedError(reason) from error
            returned = None
    # torch hands one set of lists to every hook of a load and returns, or raises with, the same.
    missing, unexpected, errors = heard[-1] if heard else _returned_lists(returned, twin)
    return LoadOutcome(tuple(missing), tuple(unexpected), tuple(errors), receipts.loaded, "torch")


def _returned_lists(returned: object, twin: nn.Module) -> tuple[list[str], list[str], list[str]]:
    """Return the lists of a ``load_state_dict`` that is the module's own and told torch's nothing."""
    try:
        return returned.missing_keys, returned.unexpected_keys, []  # type: ignore[attr-defined]
    except AttributeError:
        name = type(twin).__name__
        raise UndecidedError(f"load_state_dict of {name} does not say which keys are missing") from None


def _state_of(checkpoint: Manifest) -> dict[str, Any]:
    """Return a state dict of this description: meta tensors, and placeholders for what is no tensor."""
    state: dict[str, Any] = {key: _blank(key, spec) for key, spec in checkpoint.tensors.items()}
    state |= {key: placeholder(kind) for key, kind in checkpoint.entries.items()}
    return with_versions(state, checkpoint)


def with_versions(state: dict[str, Any], checkpoint: Manifest) -> dict[str, Any]:
    """Return a state dict with the ``_metadata`` of a description, where it has any."""
    if checkpoint.versions is None:
        return state
    result: Any = OrderedDict(state)
    result._metadata = OrderedDict(
        (path, {} if version is None else {"version": version}) for path, version in checkpoint.versions.items()
    )
    return result  # type: ignore[no-any-return]


def _blank(key: str, spec: TensorSpec) -> torch.Tensor:
    try:
        return meta_tensor(spec)
    except (RuntimeError, TypeError, ValueError, OverflowError, AttributeError) as error:
        if spec.layout != "strided":
            what = f"{key} has the layout {spec.layout}, of which there are no tensors without values"
        else:
            what = f"{key} has the shape {spec.shape}: {first_line(error)}"
        raise UndecidedError(what) from error


def placeholder(kind: str) -> object:
    """Return an object whose type reads like ``kind`` in torch's messages and behaves like nothing."""
    module, _, name = kind.rpartition(".")
    try:
        return type(name, (), {"__module__": module or "builtins"})()
    except ValueError:  # files may name types that Python cannot
        return object()


class _Receipts(TorchFunctionMode):  # type: ignore[misc]
    """While active, counts what the tensors of the twin receive; raises where the CPU could not copy."""

    def __init__(self, twin: nn.Module) -> None:
        super().__init__()
        self._tensors = [tensor for _, tensor, _, persistent in named_tensors(twin) if persistent]
        self._names = Counter(map(id, self._tensors))
        self._received: Counter[int] = Counter()
        self._extra_states = 0
        for owner in twin.modules():
            if type(owner).set_extra_state is not nn.Module.set_extra_state:
                owner.set_extra_state = self._note_extra_state

    @property
    def loaded(self) -> int:
        """Entries of the state dict that received something, each name of a tied tensor on its own."""
        tensors = sum(min(times, self._names[tensor]) for tensor, times in self._received.items())
        return tensors + self._extra_states

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func not in (torch.Tensor.copy_, torch.Tensor.module_load) or id(args[0]) not in self._names:
            return func(*args, **kwargs)
        target, source = (*args, *kwargs.values())[:2]
        if isinstance(source, torch.Tensor) and not (is_lazy(target) or is_lazy(source)):
            _check_copy(target, source)
        result = func(*args, **kwargs)
        # What a module fills in by itself is real, or its own: only the checkpoint's tensors are on meta.
        if isinstance(source, torch.Tensor) and source.is_meta and id(source) not in self._names:
            self._received[id(target)] += 1
        return result

    def _note_extra_state(self, _state: object) -> None:
        self._extra_states += 1


def _check_copy(target: torch.Tensor, source: torch.Tensor) -> None:
    """Raise what the CPU raises for such a copy: on meta every copy between equal shapes succeeds."""
    overlapping = target.layout is torch.strided and any(
        step == 0 and size > 1 for size, step in zip(target.shape, target.stride(), strict=True)
    )
    if target.numel():
        _copy_one(target.dtype, target.layout, overlapping, source.dtype, source.layout)


@cache
def _copy_one(
    dtype: torch.dtype,
    layout: torch.layout,
    overlapping: bool,
    source_dtype: torch.dtype,
    source_layout: torch.layout,
) -> None:
    target = _one(dtype, layout)
    (target.expand(2, 1) if overlapping else target).copy_(_one(source_dtype, source_layout))


def _one(dtype: torch.dtype, layout: torch.layout) -> torch.Tensor:
    if layout is torch.sparse_coo:
        return torch.sparse_coo_tensor(size=(1, 1), dtype=dtype)
    return torch.empty((1, 1), dtype=dtype, layout=layout)
