"""What an inference says: which tensors of a checkpoint become which tensor of a model, and how sure it is."""

from __future__ import annotations

from ..records import dataclass

CONFIDENT = 0.9  # from here on an assignment may be proposed without a question


@dataclass(frozen=True)
class Assignment:
    """One tensor of the model and where it comes from.

    ``op`` is ``copy``, or steps joined by ``|`` in order of application: ``transpose``, ``transpose(a,b)``,
    ``permute(i,...)``, ``reshape(i,...)``, ``chunk(dim,i,n)``, ``slice(dim,start,stop)``, ``concat(dim)``,
    ``stack(dim)``. ``confidence`` is the probability of being right, 0 to 1. ``reason`` is one clause for people.
    ``rivals`` are other sources that were nearly as good.
    """

    target: str
    sources: tuple[str, ...]
    op: str = "copy"
    confidence: float = 1.0
    reason: str = ""
    rivals: tuple[str, ...] = ()


@dataclass(frozen=True)
class Assignments:
    """All that an inference says of two manifests; keys of the model in its order, keys of the checkpoint in its.

    A key of the model is in ``assigned`` (as a target), in ``uninitialised`` (no tensor of the checkpoint is meant for
    it), or in ``ambiguous`` (nothing is said). ``dropped`` are the checkpoint's keys that nothing uses.
    """

    assigned: tuple[Assignment, ...]
    uninitialised: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    ambiguous: tuple[str, ...] = ()
