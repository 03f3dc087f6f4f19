"""Checkpoint compatibility and audit for PyTorch. Names are resolved on first use; nothing heavy is imported."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .audit import diff
    from .checking import check
    from .conversion import Conversion, convert
    from .errors import CkptauditError, FormatError, ModelError, UsageError
    from .formats import Checkpoint, open_checkpoint
    from .frozen import compare_frozen
    from .keys import KeyPattern
    from .loading.atomic import load
    from .loading.result import LoadError, LoadResult
    from .manifest import Manifest, TensorSpec
    from .mapping.mapping import KeyMapping
    from .policy import CheckReport, Report
    from .scanning import ScanReport, scan
    from .training.audit import FreezeAudit, audit_training
    from .training.freezing import freeze
    from .training.groups import param_groups
    from .training.lint import lint_training

__version__ = "0.1.0"

_HOMES = {
    "CheckReport": "policy",
    "Checkpoint": "formats",
    "CkptauditError": "errors",
    "Conversion": "conversion",
    "FormatError": "errors",
    "FreezeAudit": "training.audit",
    "KeyMapping": "mapping.mapping",
    "KeyPattern": "keys",
    "LoadError": "loading.result",
    "LoadResult": "loading.result",
    "Manifest": "manifest",
    "ModelError": "errors",
    "Report": "policy",
    "ScanReport": "scanning",
    "TensorSpec": "manifest",
    "UsageError": "errors",
    "audit_training": "training.audit",
    "check": "checking",
    "compare_frozen": "frozen",
    "convert": "conversion",
    "diff": "audit",
    "freeze": "training.freezing",
    "lint_training": "training.lint",
    "load": "loading.atomic",
    "open_checkpoint": "formats",
    "param_groups": "training.groups",
    "scan": "scanning",
}

__all__ = [
    "CheckReport",
    "Checkpoint",
    "CkptauditError",
    "Conversion",
    "FormatError",
    "FreezeAudit",
    "KeyMapping",
    "KeyPattern",
    "LoadError",
    "LoadResult",
    "Manifest",
    "ModelError",
    "Report",
    "ScanReport",
    "TensorSpec",
    "UsageError",
    "audit_training",
    "check",
    "compare_frozen",
    "convert",
    "diff",
    "freeze",
    "lint_training",
    "load",
    "open_checkpoint",
    "param_groups",
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
