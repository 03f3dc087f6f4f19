"""What a mapping does to a model that really runs: what was loaded, and whether the outputs are those of the source."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any, Literal

from .records import dataclass

Verdict = Literal["equal", "differs", "unclear", "loaded", "not loaded"]


@dataclass(frozen=True)
class OutputDifference:
    """One tensor that both models put out: their greatest absolute difference, and the cosine between them.

    ``scale`` is the greatest absolute value of the reference's. Where the shapes differ there are no figures, and where
    a value is not finite none of what would not be.
    """

    shape: tuple[int, ...]
    reference_shape: tuple[int, ...]
    difference: float | None = None
    scale: float | None = None
    cosine: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {name: _plain(getattr(self, name)) for name in type(self).__match_args__}


@dataclass(frozen=True)
class Verification:
    """A load under a mapping, and the outputs of the model beside those of a reference, if there was one.

    ``loaded`` of ``tensors`` have values of the checkpoint, ``share`` of the model's elements. ``reason`` says why the
    verdict is not a good one. Two outputs are equal where the difference is at most ``atol + rtol * scale``.
    """

    verdict: Verdict
    loaded: int = 0
    tensors: int = 0
    share: float = 0.0
    outputs: tuple[OutputDifference, ...] = ()
    reason: str = ""
    rtol: float = 0.0
    atol: float = 0.0

    @property
    def exit_status(self) -> int:
        """0 loaded, or equal; 1 not; 2 where the outputs tell nothing."""
        return {"equal": 0, "loaded": 0, "unclear": 2}.get(self.verdict, 1)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form, the ``verification`` of a mapping."""
        data = {name: getattr(self, name) for name in ("verdict", "reason", "loaded", "tensors", "share")}
        outputs = [one.to_json() for one in self.outputs]
        return {**data, "outputs": outputs, "rtol": self.rtol, "atol": self.atol}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Verification:
        """Read what ``to_json`` wrote."""
        outputs = tuple(
            OutputDifference(**{**one, "shape": tuple(one["shape"]), "reference_shape": tuple(one["reference_shape"])})
            for one in data["outputs"]
        )
        return cls(**{**data, "outputs": outputs})


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not isfinite(value):
        return None  # JSON has no number for it
    return list(value) if isinstance(value, tuple) else value
