"""What ``load_state_dict`` says, predicted or performed: torch's own words as one value."""

from __future__ import annotations

from typing import Any, Literal

from .records import dataclass


@dataclass(frozen=True)
class LoadOutcome:
    """The result of loading a checkpoint's state dict into a model.

    ``missing_keys`` and ``unexpected_keys`` are what ``load_state_dict(strict=False)`` returns; ``errors``
    are the messages it raises with whatever ``strict`` is (size mismatches, values that are no tensors).
    ``loaded`` counts the entries of the model's state dict that receive a value from the checkpoint under their own
    name (a missing name that is tied to a loaded one is not counted): where the load raises, torch has already
    copied these, for it is not atomic. ``judge`` says who decided: ``torch``
    by a real load on the meta device, or ``prediction`` from the two manifests alone.
    """

    missing_keys: tuple[str, ...]
    unexpected_keys: tuple[str, ...]
    errors: tuple[str, ...]
    loaded: int
    judge: Literal["torch", "prediction"]

    @property
    def strict(self) -> bool:
        """True when ``load_state_dict(strict=True)`` returns."""
        return not (self.missing_keys or self.unexpected_keys or self.errors)

    @property
    def non_strict(self) -> bool:
        """True when ``load_state_dict(strict=False)`` returns."""
        return not self.errors

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form; ``from_json`` is its inverse."""
        return {
            "missing_keys": list(self.missing_keys),
            "unexpected_keys": list(self.unexpected_keys),
            "errors": list(self.errors),
            "loaded": self.loaded,
            "judge": self.judge,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> LoadOutcome:
        """Rebuild an outcome from ``to_json``'s result."""
        return cls(
            tuple(data["missing_keys"]),
            tuple(data["unexpected_keys"]),
            tuple(data["errors"]),
            data["loaded"],
            data["judge"],
        )


def key_of_error(message: str) -> str | None:
    """Return the key that one of ``load_state_dict``'s error messages is about, or None.

    The two wordings are those of torch/nn/modules/module.py, ``_load_from_state_dict``.
    """
    if message.startswith("size mismatch for "):
        return message[len("size mismatch for ") :].split(": ", 1)[0]
    if message.startswith('While copying the parameter named "'):
        return message.split('"', 2)[1]
    return None
