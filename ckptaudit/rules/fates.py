"""What became of all tensors between two files: their verdicts, as reports count and list them."""

from __future__ import annotations

from typing import Any

from ..records import dataclass
from .verdicts import TensorVerdict


@dataclass(frozen=True)
class Fates:
    """One verdict per tensor. Where nothing is ``declared`` frozen or trainable, verdicts are what is seen.

    ``names_trainable`` is True where trainable tensors were named, and are not just the rest. ``names`` are all tensors
    of either side. ``new`` are those that the base does not have, ``gone`` those that the tuned side lacks; nobody
    declared them.
    """

    verdicts: tuple[TensorVerdict, ...]
    declared: bool
    names_trainable: bool = False
    names: tuple[str, ...] = ()
    new: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()

    def of(self, *verdicts: str, expected: str = "") -> tuple[str, ...]:
        """Return the names with one of the verdicts."""
        return tuple(one.name for one in self.verdicts if one.verdict in verdicts and expected in ("", one.expected))

    def to_json(self) -> dict[str, Any]:
        """Return the ``tensors`` section of a report: names by what became of them."""
        known = {one.name for one in self.verdicts}.union(self.new, self.gone)
        frozen, rest = ("frozen", "trainable") if self.declared else ("", "")
        return {
            "declared": self.declared,
            "held": list(self.of("held", expected=frozen)),
            "moved": list(self.of("moved", expected=frozen)),
            "trained": list(self.of("trained", expected=rest)),
            "unchanged": list(self.of("unchanged", expected=rest)),
            "not_compared": list(self.of("not checked", "inconclusive")),
            "new": list(self.new),
            "gone": list(self.gone),
            "passed_over": [name for name in self.names if name not in known],
        }
