"""The values of two state dicts held against each other, tensor by tensor: one record for reports and checks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

from ..formats.base import RawTensor
from ..records import dataclass, field
from .difference import Difference, number
from .tally import Tolerance
from .values import EXACT, compare, incomparable

Progress = Callable[[int, int], None]
State = Literal["identical", "equal", "close", "changed"]


@dataclass(frozen=True)
class Pair:
    """Two tensors that are to hold the same values.

    ``key`` is the name on the second side (the model's), ``origin`` that in the checkpoint. A side is a text where its
    bytes cannot be had: why, as the end of a sentence.
    """

    key: str
    origin: str
    first: RawTensor | str
    second: RawTensor | str


@dataclass(frozen=True)
class Compared:
    """Two tensors that were compared; ``difference`` is None where they are equal bit for bit."""

    key: str
    origin: str
    dtypes: tuple[str, str]
    total: int
    difference: Difference | None = None

    @property
    def state(self) -> State:
        """Equal bit for bit, in value alone (another dtype), within the tolerance, or none of these."""
        if self.difference is None:
            return "identical" if self.dtypes[0] == self.dtypes[1] else "equal"
        return "changed" if self.difference.beyond else "close"

    def to_json(self) -> dict[str, Any]:
        """Return the entry of ``values.tensors`` in a report."""
        data: dict[str, Any] = {"key": self.key, "checkpoint_key": self.origin, "state": self.state}
        data |= {"dtypes": list(self.dtypes), "total": self.total}
        if (found := self.difference) is not None:
            data |= {"changed": found.changed, "beyond_tolerance": found.beyond, "max_ulp": found.max_ulp}
            data |= {name: number(getattr(found, name)) for name in ("max_abs", "max_rel", "cosine", "scale")}
            data |= {"nan": list(found.nan), "inf": list(found.inf)}
        return data


@dataclass(frozen=True)
class Values:
    """All comparisons of two state dicts. ``unread`` says of others why there is none; ``absent`` why of all of them.

    ``overflows`` counts the values of the checkpoint that the model's dtype has no room for, of how many. ``nbytes``
    counts the bytes of the first side's tensors that were compared.
    """

    tensors: tuple[Compared, ...]
    unread: Mapping[str, str] = field(default_factory=dict)
    absent: str = ""
    tolerance: Tolerance = EXACT
    nbytes: int = 0
    overflows: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    def of(self, *states: State) -> tuple[Compared, ...]:
        """Return those in one of the states."""
        return tuple(one for one in self.tensors if one.state in states)

    def to_json(self) -> dict[str, Any]:
        """Return the ``values`` section of a report; tensors that are identical are counted there, and not listed."""
        return {
            "compared": len(self.tensors),
            **{state: len(self.of(state)) for state in ("identical", "equal", "close", "changed")},
            "tolerance": {"rtol": self.tolerance.rtol, "atol": self.tolerance.atol},
            "nbytes": self.nbytes,
            "tensors": [one.to_json() for one in self.tensors if one.state != "identical"],
            "not_compared": [{"key": key, "reason": reason} for key, reason in self.unread.items()],
            "reason": self.absent or None,
        }


def compare_all(pairs: Iterable[Pair], tolerance: Tolerance = EXACT, progress: Progress | None = None) -> Values:
    """Compare all pairs, tied ones once. ``progress(done, total)`` is told the bytes of the first side."""
    pairs = list(pairs)
    unread: dict[str, str] = {}
    ready: list[tuple[Pair, RawTensor, RawTensor]] = []
    for pair in pairs:
        if isinstance(pair.first, str) or isinstance(pair.second, str):
            unread[pair.key] = pair.first if isinstance(pair.first, str) else str(pair.second)
        elif reason := incomparable(pair.first, pair.second):
            unread[pair.key] = reason
        else:
            ready.append((pair, pair.first, pair.second))
    total, done = sum(first.spec.nbytes for _, first, _ in ready), 0
    known: dict[Any, Difference | None] = {}
    found = []
    for pair, first, second in ready:
        place = (_place(first), _place(second))
        if place not in known:
            known[place] = compare(first, second, tolerance)
        dtypes = (first.spec.dtype, second.spec.dtype)
        found.append(Compared(pair.key, pair.origin, dtypes, first.spec.numel, known[place]))
        done += first.spec.nbytes
        if progress is not None and total:
            progress(done, total)
    return Values(tuple(found), unread, "", tolerance, total)


def _place(raw: RawTensor) -> Any:
    """Return a value equal for two tensors that are the same elements of the same bytes."""
    spec = raw.spec
    return (
        raw.source.identity,
        raw.offset,
        spec.shape,
        spec.stride,
        spec.storage_offset,
        spec.dtype,
        spec.conj,
        spec.neg,
    )
