"""What a load did, or why it did nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import CkptauditError
from ..records import dataclass, field


@dataclass(frozen=True)
class LoadResult:
    """The account of a load, in torch's words. All keys are those of the model, but ``unexpected_keys``.

    ``loaded_keys`` received a value of the checkpoint; ``missing_keys`` kept theirs, and so did ``mismatched_keys``,
    whose shapes differ (``{key: (shape in the checkpoint, shape in the model)}``). ``unexpected_keys`` have no place in
    the model and are named as the mapping, if any, left them. ``expected_keys`` are those missing that a rule
    ``expect_missing`` names. ``casts`` are the loaded keys whose dtype changed, with both dtypes.
    ``loaded_elements`` of ``elements`` in the model's state dict came from the checkpoint, a tied tensor counted once.
    ``on_meta`` are tensors that are left without values on the meta device, which no state dict holds.
    """

    loaded_keys: tuple[str, ...] = ()
    missing_keys: tuple[str, ...] = ()
    unexpected_keys: tuple[str, ...] = ()
    mismatched_keys: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]] = field(default_factory=dict)
    expected_keys: tuple[str, ...] = ()
    casts: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    loaded_elements: int = 0
    elements: int = 0
    on_meta: tuple[str, ...] = ()

    @property
    def share(self) -> float:
        """The part of the model's elements that was loaded, from 0 to 1; 1 where the model has none."""
        return self.loaded_elements / self.elements if self.elements else 1.0

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "loaded_keys": list(self.loaded_keys),
            "missing_keys": list(self.missing_keys),
            "unexpected_keys": list(self.unexpected_keys),
            "mismatched_keys": [
                {"key": key, "checkpoint": list(saved), "model": list(wanted)}
                for key, (saved, wanted) in self.mismatched_keys.items()
            ],
            "expected_keys": list(self.expected_keys),
            "casts": [
                {"key": key, "checkpoint": saved, "model": wanted} for key, (saved, wanted) in self.casts.items()
            ],
            "loaded_elements": self.loaded_elements,
            "elements": self.elements,
            "share": self.share,
            "on_meta": list(self.on_meta),
        }


class LoadError(CkptauditError):
    """A checkpoint was not loaded, and the model is as it was; ``result`` is what a load would have come to."""

    def __init__(self, subject: str, reason: str, hint: str | None = None, *, result: LoadResult | None = None) -> None:
        super().__init__(subject, reason, hint)
        self.result = result
