"""The operations of a step, each timed on its own on this machine: what a step is predicted from."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from ...benchmark.plan import PHASES, Cost
from ...records import replace
from .devices import synchronizer
from .pretend import pretend, pretending
from .step import InputSpec, TrainStep, default_step
from .trace import Operation, TensorShape, trace

_PASSES = 5  # over all operations; the first sets kernels up, and does not count
_LONG = 0.1  # seconds: an operation of that length is timed twice
_CACHE = 64 << 20  # bytes that are read to drive everything else out of the processor's caches
_COLD = 256 << 10  # arguments of more bytes than this come from memory in the later phases


class OperationTimer:
    """Times operations with arguments made for it, each kind once a pass, and adds what lies between them.

    Passes over all of them are to timed operations what rounds are to steps: a slow moment of the machine falls on one
    time of many kinds and not on every time of one, and medians drop it. And as in a step, other operations come in
    between and have used the memory.

    Arguments are uniform in [0.5, 1.5), as square roots of negative numbers are slow. On a CPU, the arguments of the
    forward pass are in the cache, as what was just written is; those of the later phases, which were saved a long time
    before, are not.
    """

    def __init__(self, device: torch.device, now: Callable[[], float] = time.perf_counter) -> None:
        self._device, self._now = device, now
        self._synchronize = synchronizer(device)
        self._times: dict[str, list[float]] = {}
        self._cache = torch.ones(_CACHE // 8, dtype=torch.int64) if device.type == "cpu" else None
        self.failed: set[str] = set()
        self._between = self._time_between()

    def measure(self, operations: Iterable[Operation], progress: Callable[[int, int, str], None] | None = None) -> None:
        """Time every kind of operation that has not been timed yet, in passes over all of them."""
        kinds = {one.signature: one for one in operations if one.signature not in self._times}
        self._times |= {signature: [] for signature in kinds}
        for number in range(_PASSES):
            if progress is not None:
                progress(number, _PASSES, "timing operations")
            for signature, operation in list(kinds.items()):
                times = self._times[signature]
                if len(times) >= 2 and sum(times) > _LONG:
                    continue
                took = self._time(operation)
                if took is None:
                    del kinds[signature]
                elif number:
                    times.append(took)

    def priced(self, cost: Cost, operations: Iterable[Operation]) -> Cost:
        """Return the cost with its seconds by phase, of operations that have been measured."""
        seconds = dict.fromkeys(PHASES, 0.0)
        for operation in operations:
            seconds[operation.phase] += self.seconds(operation) + self._between
        return replace(cost, seconds=seconds)

    def seconds(self, operation: Operation) -> float:
        """Return the seconds of one operation that has been measured: the median of its times."""
        return median(self._times[operation.signature] or [0.0])

    def _time(self, operation: Operation) -> float | None:
        """Return the seconds of one call, or None where it needs particular values and so has no time of its own."""
        try:
            args, kwargs = tree_map(self._made, operation.arguments)
            size = sum(leaf.nbytes for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor))
            with torch.no_grad():
                return self._once(
                    lambda: operation.func(*args, **kwargs), operation.phase != PHASES[0] and size > _COLD
                )
        except Exception:
            self.failed.add(str(operation.func))
            return None

    def _once(self, call: Callable[[], Any], cold: bool) -> float:
        if cold and self._cache is not None:
            self._cache.sum()
        repeats = 1 if self._device.type == "cpu" else 10  # an accelerator is not waited for between operations
        self._synchronize()
        start = self._now()
        for _ in range(repeats):
            call()
        self._synchronize()
        return (self._now() - start) / repeats

    def _made(self, value: Any) -> Any:
        if not isinstance(value, TensorShape):
            return value
        span = value.offset + sum((n - 1) * s for n, s in zip(value.shape, value.stride, strict=True)) + 1
        count = span if all(value.shape) else 0
        blank = torch.zeros(count, dtype=value.dtype, device=self._device)
        if value.dtype.is_floating_point:
            blank.uniform_(0.5, 1.5)
        return blank.as_strided(value.shape, value.stride, value.offset)

    def _time_between(self) -> float:
        """Return the seconds that lie between two operations: Python, the dispatcher, autograd.

        They are what a step of a tiny model takes beyond its operations, which are alike in kind.
        """
        with pretending():
            _, operations = _traced_tiny(self._device)
        self.measure(operations)
        apart = sum(self.seconds(operation) for operation in operations)
        with torch.device(self._device):
            step = _tiny_step(_tiny())
        step.run()
        together = median(self._once(step.run, cold=False) for _ in range(3 * _PASSES))
        return max(0.0, together - apart) / len(operations)


def _tiny() -> nn.Module:
    return nn.Sequential(*[part for _ in range(8) for part in (nn.Linear(8, 8), nn.LayerNorm(8), nn.ReLU())])


def _tiny_step(model: nn.Module) -> TrainStep:
    return default_step([InputSpec((8, 8))])(model, [{"params": list(model.parameters())}])


def _traced_tiny(device: torch.device) -> tuple[Cost, list[Operation]]:
    model = pretend(_tiny(), device)
    with torch.device(device):
        step = _tiny_step(model)
    return trace(model, step)
