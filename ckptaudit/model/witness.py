"""What stands for a model in a comparison: its manifest, a few facts, and torch's own word on a load."""

from __future__ import annotations

from typing import Any, Protocol

from ..manifest import Manifest
from ..outcome import LoadOutcome
from ..records import dataclass


@dataclass(frozen=True)
class ModelFacts:
    """Where a model came from, for people.

    ``name`` is its spec with the choice made (``model.py:Net``) or the name of its class. ``file`` and
    ``line`` (1 is the first) say where that is defined, as far as known. ``device`` is where it was built
    (``meta`` or ``cpu``), or that of a live model's tensors. ``note`` says why it was not built on meta.
    """

    name: str
    file: str | None = None
    line: int | None = None
    device: str = "meta"
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form: the fields by name."""
        names = ("name", "file", "line", "device", "note")
        return {name: getattr(self, name) for name in names}


class LoadWitness(Protocol):
    """A model that can be asked. Reading ``manifest`` or ``facts`` may wait, and may raise CkptauditError."""

    @property
    def manifest(self) -> Manifest:
        """The description of the model's state dict."""

    @property
    def facts(self) -> ModelFacts:
        """Where the model came from."""

    def try_load(self, checkpoint: Manifest) -> LoadOutcome | str:
        """Return what torch says to loading such a state dict, or why torch cannot say without the values."""

    def close(self) -> None:
        """Release what the witness holds; it cannot be asked afterwards. May be called twice."""
