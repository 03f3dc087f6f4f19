"""The tensors of a safetensors file in the light of what ``ckptaudit convert`` noted there, if it did."""

from __future__ import annotations

from collections.abc import Mapping

from ..manifest import Manifest, TensorSpec
from ..records import dataclass, field
from .base import Limits, Payload, RawTensor

NAME = "ckptaudit"  # of the notes, in the metadata
METADATA = "metadata."  # begins the names of a file's metadata among its details


@dataclass(frozen=True)
class Noted:
    """Tensors, with aliases restored, and the types of the ``entries`` that are noted. ``said`` counts both."""

    raw: Mapping[str, RawTensor]
    payload: Payload
    entries: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, int | None] | None = None
    said: str | None = None

    def manifest(self, tensors: Mapping[str, TensorSpec], entries: Mapping[str, str], source: str) -> Manifest:
        """Describe the state dict; ``tensors`` and ``entries`` are those that are in the file itself."""
        if self.said is not None:
            tensors = {key: tensor.spec for key, tensor in self.raw.items()}
        return Manifest(tensors, {**entries, **self.entries}, self.versions, source=source)

    def details(self, given: Mapping[str, str]) -> dict[str, str]:
        """Return facts about the file, with a word on its notes in place of their text."""
        facts = {name: text for name, text in given.items() if name != f"{METADATA}{NAME}"}
        return facts if self.said is None else {**facts, "notes of ckptaudit convert": self.said or "none on tensors"}


def noted_in(subject: str, details: Mapping[str, str], raw: Mapping[str, RawTensor], limits: Limits) -> Noted:
    """Read the notes among the metadata of a file or of an index. Raises FormatError CKPT003, CKPT703, CKPT002."""
    texts = {name.removeprefix(METADATA): text for name, text in details.items() if name.startswith(METADATA)}
    text = texts.pop(NAME, None)
    if text is None:
        return Noted(raw, Payload(metadata=texts))
    from .notes import read_notes

    return read_notes(subject, text, raw, texts, limits)
