"""Checkpoint compatibility and audit for PyTorch. Names are resolved on first use; nothing heavy is imported."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .audit import diff
    from .benchmark.plan import FreezePlan
    from .benchmark.results import StepBenchmark
    from .checking import check
    from .conversion import Conversion, convert
    from .errors import CkptauditError, FormatError, ModelError, UsageError
    from .formats import Checkpoint, open_checkpoint
    from .frozen import compare_frozen
    from .inferring import InferredMapping, infer_mapping
    from .keys import KeyPattern
    from .loading.atomic import load
    from .loading.result import LoadError, LoadResult
    from .manifest import Manifest, TensorSpec
    from .mapping.mapping import KeyMapping
    from .policy import CheckReport, Report
    from .scanning import ScanReport, scan
    from .training.audit import FreezeAudit, audit_training
    from .training.bench import bench_train_step, freeze_variants
    from .training.bench.step import TrainStep
    from .training.freezing import freeze
    from .training.groups import param_groups
    from .training.lint import lint_training
    from .training.plan import plan_freeze

__version__ = "0.1.0"

_HOMES = {
    "CheckReport": "policy",
    "Checkpoint": "formats",
    "CkptauditError": "errors",
    "Conversion": "conversion",
    "FormatError": "errors",
    "FreezeAudit": "training.audit",
    "FreezePlan": "benchmark.plan",
    "InferredMapping": "inferring",
    "KeyMapping": "mapping.mapping",
    "KeyPattern": "keys",
    "LoadError": "loading.result",
    "LoadResult": "loading.result",
    "Manifest": "manifest",
    "ModelError": "errors",
    "Report": "policy",
    "ScanReport": "scanning",
    "StepBenchmark": "benchmark.results",
    "TensorSpec": "manifest",
    "TrainStep": "training.bench.step",
    "UsageError": "errors",
    "audit_training": "training.audit",
    "bench_train_step": "training.bench",
    "check": "checking",
    "compare_frozen": "frozen",
    "convert": "conversion",
    "diff": "audit",
    "freeze": "training.freezing",
    "freeze_variants": "training.bench",
    "infer_mapping": "inferring",
    "lint_training": "training.lint",
    "load": "loading.atomic",
    "open_checkpoint": "formats",
    "param_groups": "training.groups",
    "plan_freeze": "training.plan",
    "scan": "scanning",
}

__all__ = [
    "CheckReport",
    "Checkpoint",
    "CkptauditError",
    "Conversion",
    "FormatError",
    "FreezeAudit",
    "FreezePlan",
    "InferredMapping",
    "KeyMapping",
    "KeyPattern",
    "LoadError",
    "LoadResult",
    "Manifest",
    "ModelError",
    "Report",
    "ScanReport",
    "StepBenchmark",
    "TensorSpec",
    "TrainStep",
    "UsageError",
    "audit_training",
    "bench_train_step",
    "check",
    "compare_frozen",
    "convert",
    "diff",
    "freeze",
    "freeze_variants",
    "infer_mapping",
    "lint_training",
    "load",
    "open_checkpoint",
    "param_groups",
    "plan_freeze",
    "scan",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
