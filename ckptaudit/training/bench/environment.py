"""What a measurement was made on, and in which state."""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from typing import Any

import torch


def describe(device: torch.device, dtype: str) -> dict[str, Any]:
    """Return the environment that a figure is not to be read without: versions, device, threads, switches, load."""
    backends = torch.backends
    return {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "device": device.type,
        "device_name": _name(device),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "dtype": dtype,
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "cudnn_benchmark": backends.cudnn.benchmark,
        "cudnn_tf32": backends.cudnn.allow_tf32,
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "load_average": _load(),
    }


def _name(device: torch.device) -> str:
    if device.type == "cpu":
        return _cpu_name() or platform.processor() or platform.machine()
    module: Any = getattr(torch, device.type)
    return str(module.get_device_name()) if hasattr(module, "get_device_name") else device.type


def _cpu_name() -> str:
    with suppress(Exception):  # private to torch, and not in every build
        name = torch.cpu.get_capabilities().get("architecture", "")
        text = torch.backends.cpu.get_cpu_capability()
        return " ".join(filter(None, (platform.processor() or name, text)))
    return ""


def _load() -> float | None:
    with suppress(OSError, AttributeError):
        return round(os.getloadavg()[0], 2)
    return None
