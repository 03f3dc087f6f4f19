"""Two checkpoints of one run, tensor by tensor: what is frozen held or moved, what is trainable changed or did not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ..compare.difference import Difference
from ..compare.values import compare, incomparable, rows_of
from ..dtypes import DTYPES
from ..errors import UsageError
from ..formats.base import RawTensor
from ..manifest import Manifest, TensorSpec
from ..mapping.mapping import KeyMapping
from ..rules.base import shape_text
from ..rules.verdicts import Cause, TensorVerdict, is_statistic
from ..selection import Rows, Selection
from ..sources import Source
from .names import canonical_names


class Side:
    """The tensors of one checkpoint by canonical name; ``mapping`` gives its keys other names first."""

    def __init__(self, source: Source, mapping: KeyMapping | None = None) -> None:
        if not source.has_values:
            raise UsageError(source.name, f"is a {source.kind} and has no values", "name a checkpoint")
        self.source, self.name = source, source.name
        self.manifest: Manifest = source.manifest
        origin = {key: key for key in self.manifest}
        if mapping is not None:
            mapped = mapping.apply(self.manifest)
            mapped.check()
            if mapped.recipes:
                hint = "convert the checkpoint first: ckptaudit convert IN OUT --map RULE"
                raise UsageError("mapping", "has operations on tensors, and bits are compared", hint)
            self.manifest, origin = mapped.manifest, {**mapped.origin, **_aliases(mapped.ties, mapped.origin)}
        self.keys = {name: origin[key] for name, key in canonical_names(self.manifest).items()}
        self.specs: dict[str, TensorSpec] = {name: source.manifest[key] for name, key in self.keys.items()}

    def raw(self, name: str) -> RawTensor | str:
        """Return where the bytes of a tensor lie, or why they do not."""
        return self.source.raw(self.keys[name])

    def ties(self) -> list[set[str]]:
        """Return the groups of canonical names that share one tensor."""
        names = {key: name for name, key in self.keys.items()}
        return [{names[key] for key in group if key in names} for group in self.source.manifest.ties()]


def _aliases(ties: tuple[tuple[str, str], ...], origin: Mapping[str, str]) -> dict[str, str]:
    return {alias: origin[first] for alias, first in ties if first in origin}


class Run:
    """What a run made of ``base``: ``tuned``."""

    def __init__(self, base: Side, tuned: Side) -> None:
        self.base, self.tuned = base, tuned
        self._tied = {name: group for group in tuned.ties() for name in group}

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Every name of either side, those of the tuned one first, with its shape there."""
        specs = {**self.tuned.specs, **{n: s for n, s in self.base.specs.items() if n not in self.tuned.specs}}
        return {name: spec.shape for name, spec in specs.items()}

    def frozen(self, name: str, selection: Selection) -> TensorVerdict | None:
        """Judge a tensor that is to hold; None for a counter that only one side has, as old files have none."""
        base, tuned = self.base.specs.get(name), self.tuned.specs.get(name)
        if base is None or tuned is None:
            if name.endswith("num_batches_tracked"):
                return None
            if tuned is None:
                return _moved(name, Cause("gone", f"{self.tuned.name} has no tensor of this name"))
            return _unread(name, "frozen", f"is not in {self.base.name}")
        if base.layout == "uninitialized":
            return _unread(name, "frozen", f"was never initialized in {self.base.name}")
        if (base.dtype, base.shape) != (tuned.dtype, tuned.shape):
            was, now = base.dtype, tuned.dtype
            if was == now:
                was, now = shape_text(base.shape), shape_text(tuned.shape)
            return _moved(name, Cause("converted", f"it went from {was} to {now}"))
        first, second = self.base.raw(name), self.tuned.raw(name)
        if reason := _obstacle(first, second):
            return _unread(name, "frozen", reason)
        assert isinstance(first, RawTensor)
        assert isinstance(second, RawTensor)
        difference = _compared(first, second, selection.tensors[name])
        if difference is None:
            return TensorVerdict(name, "tensor", "frozen", "held")
        return _moved(name, self._why(name, base.dtype, difference, selection), difference)

    def trainable(self, name: str, selection: Selection) -> TensorVerdict:
        """Judge a tensor that is to change; the first difference is enough."""
        base, tuned = self.base.specs.get(name), self.tuned.specs.get(name)
        if base is None or tuned is None:
            side = self.base if base is None else self.tuned
            return TensorVerdict(name, "tensor", "trainable", "inconclusive", Cause("absent", f"is not in {side.name}"))
        if (base.dtype, base.shape) != (tuned.dtype, tuned.shape):
            return TensorVerdict(name, "tensor", "trainable", "trained")
        first, second = self.base.raw(name), self.tuned.raw(name)
        if reason := _obstacle(first, second):
            return _unread(name, "trainable", reason)
        assert isinstance(first, RawTensor)
        assert isinstance(second, RawTensor)
        changed = _compared(first, second, selection.tensors[name], measure=False)
        return TensorVerdict(name, "tensor", "trainable", "trained" if changed else "unchanged")

    def _why(self, name: str, dtype: str, difference: Difference, frozen: Selection) -> Cause:
        """Say what two files tell of a cause; a live audit (``audit_training``) sees more."""
        if is_statistic(name):
            text = "its norm was in train mode, where each forward pass updates its statistics"
            return Cause("statistics", text)
        if others := sorted(self._tied.get(name, set()) - {name} - set(frozen)):
            return Cause("tied", f"it is the same tensor as {others[0]}, which is not frozen")
        if difference.is_rounding(dtype):
            return Cause("rounding", "it is off by rounding: averaged with itself (EMA), or added to and taken back")
        if difference.scale is not None:
            return Cause("scaled", "all of it was scaled by one factor, as weight decay does, which needs no gradient")
        return Cause("written", "an optimizer trained it, or other code wrote it")


def is_trainable(spec: TensorSpec, name: str) -> bool:
    """Tell whether a tensor may be a parameter: statistics and integers are none."""
    return DTYPES[spec.dtype].kind in ("float", "complex") and not is_statistic(name)


def _moved(name: str, cause: Cause, difference: Difference | None = None) -> TensorVerdict:
    return TensorVerdict(name, "tensor", "frozen", "moved", cause, difference=difference)


def _unread(name: str, expected: str, reason: str) -> TensorVerdict:
    return TensorVerdict(name, "tensor", expected, "not checked", Cause("unread", reason))  # type: ignore[arg-type]


def _obstacle(first: RawTensor | str, second: RawTensor | str) -> str:
    if isinstance(first, str):
        return first
    return second if isinstance(second, str) else incomparable(first, second)


def _compared(first: RawTensor, second: RawTensor, rows: Rows | None, *, measure: bool = True) -> Difference | None:
    """Compare tensors, or some rows of them; of several ranges of rows, the largest difference."""
    found = [compare(*pair, measure=measure) for pair in _parts(first, second, rows)]
    differences = [one for one in found if one is not None]
    return max(differences, key=lambda one: one.max_abs or 0.0, default=None)


def _parts(first: RawTensor, second: RawTensor, rows: Rows | None) -> Iterator[tuple[RawTensor, RawTensor]]:
    if rows is None:
        yield first, second
    else:
        yield from ((rows_of(first, *part), rows_of(second, *part)) for part in rows)
