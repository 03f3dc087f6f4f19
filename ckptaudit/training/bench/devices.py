"""What differs between devices: waiting for them, and asking for their memory."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import torch


def default_device() -> torch.device:
    """Return the accelerator where there is one, else the CPU."""
    for name in ("cuda", "xpu", "mps"):
        module: Any = getattr(torch, name, None)
        if module is not None and module.is_available():
            return torch.device(name)
    return torch.device("cpu")


def synchronizer(device: torch.device) -> Callable[[], None]:
    """Return what waits until a device has done all that it was given; on a CPU there is nothing to wait for."""
    if device.type == "cpu":
        return lambda: None
    module: Any = getattr(torch, device.type)
    wait: Callable[[], None] = module.synchronize
    return wait


def event_on(device: torch.device) -> Any:
    """Return an event that the device records when it gets there."""
    module: Any = getattr(torch, device.type)
    event = module.Event(enable_timing=True)
    event.record()
    return event


def seconds_between(first: Any, second: Any) -> float:
    """Return the seconds between two recorded events."""
    return float(first.elapsed_time(second)) / 1000


def peak_bytes(step: Callable[[], object], device: torch.device) -> int | None:
    """Run a step; return the most bytes that were allocated during it beyond those before, or None if nobody knows.

    An accelerator's allocator keeps that figure. On the CPU the profiler is told of every allocation of torch's own
    allocator; what libraries take from the system past it is not in it.
    """
    gc.collect()
    if device.type == "cpu":
        return _peak_on_cpu(step)
    module: Any = getattr(torch, device.type)
    if not hasattr(module, "reset_peak_memory_stats"):
        return None
    module.synchronize()
    module.reset_peak_memory_stats()
    before = module.memory_allocated()
    step()
    module.synchronize()
    return int(module.max_memory_allocated() - before)


def _peak_on_cpu(step: Callable[[], object]) -> int:
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    events.sort(key=lambda event: event.start_ns())
    now = most = 0
    for event in events:
        now += event.nbytes()
        most = max(most, now)
    return most
