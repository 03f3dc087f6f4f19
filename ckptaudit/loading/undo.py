"""A model as it is before a load, so that it can be made so again: every value, object and attribute of it."""

from __future__ import annotations

import copy
import os
import signal
import tempfile
import threading
from collections import OrderedDict, deque
from collections.abc import Container, Iterator
from types import FunctionType
from typing import Any, NamedTuple

import torch
from torch import nn

from ..formats.base import MIB
from ..model.describe import named_tensors

IN_MEMORY = 96 * MIB  # of old values; what is beyond goes to a temporary file
_PIECE = 16 * MIB
_CONTAINERS = (dict, list, set, deque)


class _Old(NamedTuple):
    """One tensor object: a second view of the memory that it had, its class, flag and attributes."""

    tensor: torch.Tensor
    view: torch.Tensor
    kind: type
    requires_grad: bool
    attributes: dict[str, Any]


class Undo:
    """Everything that a load may change: ``restore`` makes it as it was.

    The values of parameters and buffers are kept in memory up to ``in_memory`` bytes, and beyond in a temporary file
    without a name (in the folder that ``TMPDIR`` names), so that no second copy of a large model is in memory.
    ``without`` are the ids of tensors whose values need not be kept, as nothing is written to them before all is sure.
    Raises OSError where there is no room; nothing has changed then.
    """

    def __init__(self, model: nn.Module, in_memory: int = IN_MEMORY, without: Container[int] = ()) -> None:
        self._file: Any = None
        self._left = in_memory
        self._modules = list(model.modules())
        self._tensors = [_old(tensor) for tensor in _all_tensors(model)]
        self._attributes = [(vars(module), dict(vars(module))) for module in self._modules]
        self._containers = list(_containers(self._modules, {id(old.tensor): old.tensor for old in self._tensors}))
        self._random = torch.get_rng_state()
        self._with_grad = torch.is_grad_enabled()
        self._saved: list[tuple[torch.Tensor, torch.Tensor | int]] = []
        seen: set[int] = set()
        for old in self._tensors:
            for piece in _memory(old.view, seen) if id(old.tensor) not in without else ():
                self._saved.append((piece, self._keep(piece)))

    def _keep(self, memory: torch.Tensor) -> torch.Tensor | int:
        """Return a copy of some bytes, or where in the file they are."""
        size = memory.numel()
        if size <= self._left or memory.dtype != torch.uint8:
            self._left -= size
            return memory.clone()
        if self._file is None:
            self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115  (open until the load is done)
        start = self._file.tell()
        for at in range(0, size, _PIECE):
            view = memoryview(memory[at : at + _PIECE].cpu().numpy())
            while view:
                view = view[self._file.write(view) :]
        return int(start)

    def restore(self) -> None:
        """Make the model as it was."""
        for attributes, held in self._attributes:
            attributes.clear()
            attributes.update(held)
        for container, content in self._containers:
            _refill(container, content)
        with torch.no_grad():
            for memory, kept in self._saved:
                if isinstance(kept, torch.Tensor):
                    memory.copy_(kept)
                else:
                    self._read_back(memory, kept)
            for old in self._tensors:
                _put_back(old)
        torch.set_rng_state(self._random)
        torch.set_grad_enabled(self._with_grad)  # an interruption may miss the end of torch's own no_grad

    def _read_back(self, memory: torch.Tensor, start: int) -> None:
        for at in range(0, memory.numel(), _PIECE):
            piece = memory[at : at + _PIECE]
            buffer = piece if piece.device.type == "cpu" else torch.empty_like(piece, device="cpu")
            view = memoryview(buffer.numpy())
            done = 0
            while done < len(view):
                done += os.preadv(self._file.fileno(), [view[done:]], start + at + done)
            if buffer is not piece:
                piece.copy_(buffer)

    def close(self) -> None:
        """Give the room for the old values back."""
        self._saved.clear()
        if self._file is not None:
            self._file.close()


class Shield:
    """Makes Ctrl-C wait from ``raise_``, or the begin of a ``with`` block, to the end of the block."""

    def __init__(self) -> None:
        self._heard: list[Any] = []
        self._handler: Any = None

    def raise_(self) -> None:
        """Hold interruptions back from now on; those of the main thread, which alone gets them."""
        if self._handler is None and threading.current_thread() is threading.main_thread():
            self._handler = signal.signal(signal.SIGINT, lambda *caught: self._heard.append(caught))

    def __enter__(self) -> None:
        self.raise_()

    def __exit__(self, *_: object) -> None:
        handler, self._handler = self._handler, None
        if handler is not None:
            signal.signal(signal.SIGINT, handler)
            if self._heard and callable(handler):
                handler(*self._heard[0])


def _all_tensors(model: nn.Module) -> Iterator[torch.Tensor]:
    """Yield every parameter and buffer once, and the tensors that are plain attributes of modules."""
    seen: set[int] = set()
    registered = [tensor for _, tensor, _, _ in named_tensors(model)]
    plain = [v for module in model.modules() for v in vars(module).values() if isinstance(v, torch.Tensor)]
    for tensor in registered + plain:
        if id(tensor) not in seen:
            seen.add(id(tensor))
            yield tensor


def _old(tensor: torch.Tensor) -> _Old:
    view = tensor.data if nn.parameter.is_lazy(tensor) else tensor.detach()
    return _Old(tensor, view, type(tensor), tensor.requires_grad, dict(tensor.__dict__))


def _put_back(old: _Old) -> None:
    """Give a tensor object its memory back, if it was given another one, and its class and flag."""
    tensor = old.tensor
    if type(tensor) is not old.kind:
        tensor.__class__ = old.kind
    if not _same_place(tensor.data if nn.parameter.is_lazy(tensor) else tensor, old.view):
        tensor.data = old.view
    if tensor.requires_grad != old.requires_grad:
        tensor.requires_grad_(old.requires_grad)
    tensor.__dict__.clear()
    tensor.__dict__.update(old.attributes)


def _same_place(one: torch.Tensor, other: torch.Tensor) -> bool:
    def place(tensor: torch.Tensor) -> Any:
        if tensor.layout is not torch.strided:
            return id(tensor)
        storage = tensor.untyped_storage()._cdata if not tensor.is_meta else tensor.device
        return storage, tensor.storage_offset(), tensor.shape, tensor.stride(), tensor.dtype

    return bool(place(one) == place(other))


def _memory(view: torch.Tensor, seen: set[int]) -> Iterator[torch.Tensor]:
    """Yield the memory behind a tensor as bytes, once; where it has none of its own, the tensor itself."""
    if view.is_meta or nn.parameter.is_lazy(view):
        return
    if view.layout is not torch.strided or type(view).__torch_dispatch__ is not torch.Tensor.__torch_dispatch__:
        yield view
        return
    storage = view.untyped_storage()
    if storage._cdata in seen or not storage.nbytes():
        return
    seen.add(storage._cdata)
    yield torch.empty(0, dtype=torch.uint8, device=view.device).set_(storage)


def _containers(modules: list[nn.Module], own: dict[int, Any]) -> Iterator[tuple[Any, Any]]:
    """Yield every container that a module or a load hook of it holds, with a copy of what is in it."""
    memo = {**own, **{id(module): module for module in modules}}
    registries = vars(nn.Module()).keys()
    for module in modules:
        for name, value in vars(module).items():
            if isinstance(value, _CONTAINERS):
                yield value, copy.copy(value) if name in registries else _copied(value, memo)
        for hooks in (module._load_state_dict_pre_hooks, module._load_state_dict_post_hooks):
            for hook in hooks.values():
                yield from _state_of(getattr(hook, "hook", hook), memo)


def _state_of(hook: Any, memo: dict[int, Any]) -> Iterator[tuple[Any, Any]]:
    """Yield what a hook remembers: the attributes of its object, the containers that its function closes over."""
    owner = getattr(hook, "__self__", hook)
    if not isinstance(owner, (nn.Module, FunctionType)) and hasattr(owner, "__dict__"):
        yield vars(owner), _copied(vars(owner), memo)
        yield from ((value, _copied(value, memo)) for value in vars(owner).values() if isinstance(value, _CONTAINERS))
    for cell in getattr(hook, "__closure__", None) or ():
        try:
            value = cell.cell_contents
        except ValueError:  # a variable that was never assigned
            continue
        if isinstance(value, _CONTAINERS):
            yield value, _copied(value, memo)


def _copied(container: Any, memo: dict[int, Any]) -> Any:
    try:
        return copy.deepcopy(container, dict(memo))
    except Exception:
        return copy.copy(container)


def _refill(container: Any, content: Any) -> None:
    """Make a container hold what it held, and be the object that it was."""
    if isinstance(container, list):
        container[:] = content
        return
    container.clear()
    if isinstance(container, deque):
        container.extend(content)
    else:
        container.update(content)
        if isinstance(container, OrderedDict):  # an attribute of its own, as torch's _metadata is
            vars(container).update(vars(content))
