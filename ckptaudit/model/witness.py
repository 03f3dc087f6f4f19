"""What stands for a model in a comparison: its manifest, a few facts, and torch's own word on a load."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from ..manifest import Manifest
from ..outcome import LoadOutcome
from ..place import Place
from ..records import dataclass

if TYPE_CHECKING:
    from ..formats import Limits


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


@dataclass(frozen=True)
class RealLoad:
    """What ``load_state_dict`` did with a real state dict, on real instances of the model.

    ``outcome`` holds torch's lists and messages under ``strict=False``; its ``loaded`` counts the tensors that were
    written to and that the state dict names, ``at_most`` those that a load hook may have filled in too.
    ``raised`` is what ended that load other than torch's own messages, ``strict_raised`` what ended the one under
    ``strict=True`` ("" where it returned). ``altered`` are the keys that were loaded and do not hold the state
    dict's value bit for bit after the cast, ``touched`` those that were not and do not hold their initial one.
    """

    outcome: LoadOutcome
    at_most: int
    raised: str = ""
    strict_raised: str = ""
    altered: tuple[str, ...] = ()
    touched: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form; ``from_json`` is its inverse."""
        data: dict[str, Any] = {name: getattr(self, name) for name in ("at_most", "raised", "strict_raised")}
        return {"outcome": self.outcome.to_json(), **data, "altered": list(self.altered), "touched": list(self.touched)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> RealLoad:
        """Rebuild a load from ``to_json``'s result."""
        keys = {name: tuple(data[name]) for name in ("altered", "touched")}
        return cls(**{**data, **keys, "outcome": LoadOutcome.from_json(data["outcome"])})


@dataclass(frozen=True)
class Testimony:
    """Real loads of one checkpoint: as it is, and with the mapping where there is one.

    ``reader`` read the file (``torch.load``, ``safetensors``, ``ckptaudit`` where torch has no safe way to), ``note``
    says why it was not torch's. ``misread`` are the keys whose tensors that reader sees otherwise than ours.
    """

    reader: str
    loads: tuple[RealLoad, ...]
    note: str = ""
    misread: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form; ``from_json`` is its inverse."""
        loads = [load.to_json() for load in self.loads]
        return {"reader": self.reader, "loads": loads, "note": self.note, "misread": list(self.misread)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Testimony:
        """Rebuild a testimony from ``to_json``'s result."""
        loads = tuple(map(RealLoad.from_json, data["loads"]))
        return cls(data["reader"], loads, data["note"], tuple(data["misread"]))


Lines = Sequence[str]


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

    def really_load(self, given: Any, limits: Limits, mappings: Sequence[Lines]) -> Testimony | str:
        """Return what real loads do, or why there can be none: see ``real_load.really_load``.

        ``given`` is the path of a checkpoint, or a state dict in memory.
        """

    def places(self, keys: Sequence[str]) -> dict[str, Place]:
        """Return the lines of the user's own code that define these keys, as far as known."""

    def close(self) -> None:
        """Release what the witness holds; it cannot be asked afterwards. May be called twice."""
