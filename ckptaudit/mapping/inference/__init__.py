"""Two manifests in, a proposal out: which tensors of a checkpoint become which tensor of a model, and how sure that is."""

from __future__ import annotations

from ...manifest import Manifest
from ..assignment import Assignment, Assignments
from .matching import match


def infer(source: Manifest, target: Manifest) -> Assignments:
    """Return what is to be said of every key of ``target``, a model, given ``source``, a checkpoint."""
    return match(source, target)
