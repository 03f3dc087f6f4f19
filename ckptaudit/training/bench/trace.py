"""One training step, looked at operation by operation, on fake tensors or real ones: what it computes and keeps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import unset_fake_temporarily
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from ...benchmark.plan import PHASES, Cost
from ...records import dataclass
from .flops import counter, is_uncounted
from .step import TrainStep

_NO_WORK = ("profiler", "prim")
# What an optimizer does in its first step alone.
_FIRST_STEP = ("aten::zeros_like", "aten::lift_fresh", "aten::zeros", "aten::empty_like")
# Outputs, by place, whose size the kernels without memory do not know.
_WORKSPACES = {"aten::mkldnn_rnn_layer": 3}


@dataclass(frozen=True)
class TensorShape:
    """A tensor argument of an operation, without its values; ``offset`` counts elements of the storage."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype
    offset: int = 0


@dataclass(frozen=True, eq=False)
class Operation:
    """An operation as it was called: ``arguments`` are (args, kwargs) with shapes in the place of tensors."""

    func: Any
    arguments: tuple[tuple[Any, ...], dict[str, Any]]
    phase: str

    @property
    def signature(self) -> str:
        """What tells operations apart that do different work."""
        return f"{self.phase} {self.func} {self.arguments!r}"


class _Recorder(TorchDispatchMode):  # type: ignore[misc]
    """Notes every operation, and which storages the forward pass makes."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[Operation] = []
        self.uncounted: Counter[str] = Counter()
        self.phase = PHASES[0]
        self.made: dict[int, Any] = {}
        self.hidden: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.namespace in _NO_WORK or (self.phase == PHASES[2] and func._schema.name in _FIRST_STEP):
            return func(*args, **kwargs)
        shapes = tree_map(_shape_of, (args, kwargs))
        output = func(*args, **kwargs)
        self.operations.append(Operation(func, shapes, self.phase))
        if is_uncounted(func):
            self.uncounted[func._schema.name] += 1
        if self.phase == PHASES[0]:
            given = {_storage(leaf)._cdata for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
            for leaf in tree_leaves(output):
                if isinstance(leaf, Tensor) and (storage := _storage(leaf))._cdata not in given:
                    self.made[storage._cdata] = storage
            if (place := _WORKSPACES.get(func._schema.name)) is not None and not output[place].numel():
                self.hidden[_storage(output[place])._cdata] = _workspace(func, shapes, place)
        return output


def _shape_of(value: Any) -> Any:
    if isinstance(value, Tensor):
        return TensorShape(tuple(value.shape), value.stride(), value.dtype, int(value.storage_offset()))
    return value


def _storage(tensor: Tensor) -> Any:
    return tensor.untyped_storage()


def _workspace(func: Any, shapes: Any, place: int) -> int:
    """Return the bytes of a workspace that a fake kernel says is empty: its library alone knows, so it runs once."""
    with unset_fake_temporarily():
        args, kwargs = tree_map(
            lambda v: torch.zeros(v.shape, dtype=v.dtype) if isinstance(v, TensorShape) else v, shapes
        )
        workspace: Tensor = func(*args, **kwargs)[place]
        nbytes: int = _storage(workspace).nbytes()
        return nbytes


class _Saved:
    """The storages that autograd keeps between the passes, of those that the forward pass made."""

    def __init__(self) -> None:
        self.tensors: list[Tensor] = []

    def keep(self, tensor: Tensor) -> Tensor:
        self.tensors.append(tensor)
        return tensor

    def nbytes(self, made: dict[int, Any], hidden: dict[int, int]) -> int:
        """Return the bytes of what is kept of the storages ``made``, with those ``hidden`` in some of them."""
        storages = {_storage(t)._cdata: _storage(t).nbytes() for t in self.tensors}
        storages = {key: size + hidden.get(key, 0) for key, size in storages.items()}
        return sum(size for key, size in storages.items() if key in made)


def trace(model: nn.Module, step: TrainStep) -> tuple[Cost, list[Operation]]:
    """Run one step; return what it costs, and its operations in order.

    Saved activations are what autograd's hooks for saved tensors see: each storage once, and only what the forward pass
    made itself, so neither parameters and buffers nor the batch. Real tensors are changed by the step.
    """
    recorder, saved, flops = _Recorder(), _Saved(), counter()
    with recorder, flops:
        with saved_tensors_hooks(saved.keep, lambda tensor: tensor):
            loss = step.forward()
        counted = [flops.get_total_flops()]
        activations = saved.nbytes(recorder.made, recorder.hidden)
        saved.tensors.clear()
        recorder.made.clear()
        with _phase(recorder, PHASES[1]):
            step.backward(loss)
        counted.append(flops.get_total_flops())
        gradients = _nbytes(p.grad for p in model.parameters() if p.grad is not None)
        del loss
        with _phase(recorder, PHASES[2]):
            step.update()
        counted.append(flops.get_total_flops())
    cost = Cost(
        flops={phase: now - before for phase, now, before in zip(PHASES, counted, [0, *counted], strict=False)},
        parameters=_nbytes(model.parameters()),
        trainable=_nbytes(p for p in model.parameters() if p.requires_grad),
        buffers=_nbytes(model.buffers()),
        activations=activations,
        gradients=gradients,
        optimizer_state=_nbytes(tree_leaves(list(step.optimizer.state.values()))),
        operations=len(recorder.operations),
        uncounted=dict(recorder.uncounted),
    )
    return cost, recorder.operations


@contextmanager
def _phase(recorder: _Recorder, phase: str) -> Iterator[None]:
    recorder.phase = phase
    yield


def _nbytes(values: Any) -> int:
    """Return the bytes of the storages of tensors, each once."""
    storages = {_storage(t)._cdata: _storage(t).nbytes() for t in values if isinstance(t, Tensor)}
    return sum(storages.values())
