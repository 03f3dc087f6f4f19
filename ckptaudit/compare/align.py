"""Alignment: which keys of a checkpoint meet which keys of a model, in torch's own words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..manifest import Manifest, TensorSpec
from ..records import dataclass


@dataclass(frozen=True)
class Alignment:
    """Two manifests, key by key.

    Every key of the model is in exactly one of ``matched_keys``, ``missing_keys``, ``mismatched_keys`` and
    ``non_tensor_keys``; every key of the checkpoint in exactly one of ``matched_keys``, ``unexpected_keys``,
    ``mismatched_keys`` and ``non_tensor_keys``. Lists are in model order, ``unexpected_keys`` in checkpoint order.

    ``mismatched_keys`` have shapes that torch refuses; ``non_tensor_keys`` hold something in the checkpoint
    that is no tensor where the model has one.
    """

    checkpoint: Manifest
    model: Manifest
    matched_keys: tuple[str, ...]
    missing_keys: tuple[str, ...]
    unexpected_keys: tuple[str, ...]
    mismatched_keys: tuple[str, ...]
    non_tensor_keys: tuple[str, ...]

    def pairs(self, keys: tuple[str, ...]) -> Iterator[tuple[str, TensorSpec, TensorSpec]]:
        """Yield key, checkpoint tensor and model tensor for those of ``keys`` that are tensors on both sides."""
        for key in keys:
            if key in self.checkpoint.tensors and key in self.model.tensors:
                yield key, self.checkpoint.tensors[key], self.model.tensors[key]

    @property
    def dtype_mismatches(self) -> tuple[str, ...]:
        """The matched keys whose dtype differs: torch casts these without a word."""
        return tuple(key for key, saved, wanted in self.pairs(self.matched_keys) if saved.dtype != wanted.dtype)

    def to_json(self) -> dict[str, Any]:
        """Return the ``alignment`` section of a report."""
        return {
            "matched_keys": list(self.matched_keys),
            "missing_keys": list(self.missing_keys),
            "unexpected_keys": list(self.unexpected_keys),
            "mismatched_keys": [
                {"key": key, "checkpoint": list(saved.shape), "model": list(wanted.shape)}
                for key, saved, wanted in self.pairs(self.mismatched_keys)
            ],
            "non_tensor_keys": list(self.non_tensor_keys),
            "dtype_mismatches": [
                {"key": key, "checkpoint": saved.dtype, "model": wanted.dtype}
                for key, saved, wanted in self.pairs(self.dtype_mismatches)
            ],
        }


def align(checkpoint: Manifest, model: Manifest) -> Alignment:
    """Compare two manifests by name and shape."""
    groups: dict[str, list[str]] = {"matched": [], "missing": [], "mismatched": [], "non_tensor": []}
    for key in model.all_keys:
        groups[_relation(key, checkpoint, model)].append(key)
    present = set(model.all_keys)
    unexpected = tuple(key for key in checkpoint.all_keys if key not in present)
    return Alignment(
        checkpoint=checkpoint,
        model=model,
        matched_keys=tuple(groups["matched"]),
        missing_keys=tuple(groups["missing"]),
        unexpected_keys=unexpected,
        mismatched_keys=tuple(groups["mismatched"]),
        non_tensor_keys=tuple(groups["non_tensor"]),
    )


def _relation(key: str, checkpoint: Manifest, model: Manifest) -> str:
    saved = checkpoint.tensors.get(key)
    if saved is None and key not in checkpoint.entries:
        return "missing"
    wanted = model.tensors.get(key)
    if is_extra_state(key) or wanted is None:
        return "matched"
    if saved is None:
        return "non_tensor"
    return "matched" if loadable(saved, wanted) else "mismatched"


def is_extra_state(key: str) -> bool:
    """Tell whether the key is a module's extra state, which may hold anything."""
    return key.rpartition(".")[2] == "_extra_state"


def loadable(saved: TensorSpec, wanted: TensorSpec) -> bool:
    """Tell whether torch copies one tensor into the other as far as the shapes decide.

    Besides equal shapes torch accepts a checkpoint's (1,) for a model's () (files of torch 0.3), and any
    shape for a lazy parameter.
    """
    if wanted.layout == "uninitialized":
        return True
    if saved.layout == "uninitialized":
        return False
    return saved.shape == wanted.shape or (saved.shape == (1,) and wanted.shape == ())
