"""Models as Manifests: named by a spec and built in a child process, or live. Importing it needs no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .describe import manifest_of
    from .live import LiveModel
    from .process import ModelProcess, open_model
    from .spec import ModelSpec, looks_like_model_spec, parse_model_spec
    from .trial import try_load
    from .witness import LoadWitness, ModelFacts

_HOMES = {
    "LiveModel": "live",
    "LoadWitness": "witness",
    "ModelFacts": "witness",
    "ModelProcess": "process",
    "ModelSpec": "spec",
    "looks_like_model_spec": "spec",
    "manifest_of": "describe",
    "open_model": "process",
    "parse_model_spec": "spec",
    "try_load": "trial",
}

__all__ = [
    "LiveModel",
    "LoadWitness",
    "ModelFacts",
    "ModelProcess",
    "ModelSpec",
    "looks_like_model_spec",
    "manifest_of",
    "open_model",
    "parse_model_spec",
    "try_load",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
