"""What was said of a load, held against what a real one did: the witness is heard."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from ..model.witness import RealLoad, Testimony
from ..outcome import LoadOutcome, key_of_error
from ..records import dataclass

Row = tuple[str, str, str]  # what it is about, what was said, what torch did


@dataclass(frozen=True)
class Hearing:
    """The witness's word on a report.

    ``unheard`` says why there was no real load; nothing else is known then. ``disagreements`` are empty where torch
    did as the report says, ``keys`` those of the state dict that they are about. ``reader`` is what read the file,
    ``note`` why that was not torch. ``opinions`` are both sides of each load that was performed; ``partly`` says that
    the one with the mapping was not, whose rules have findings of their own. ``prediction`` tells whether the
    prediction that needs no model code, as for a manifest, says the same as torch too.
    """

    reader: str = ""
    disagreements: tuple[Row, ...] = ()
    keys: tuple[str, ...] = ()
    opinions: tuple[tuple[LoadOutcome, RealLoad], ...] = ()
    partly: bool = False
    prediction: bool = True
    note: str = ""
    unheard: str = ""

    @property
    def agrees(self) -> bool:
        """True where a real load was made and did as was said."""
        return not (self.unheard or self.disagreements)

    def to_json(self) -> dict[str, Any]:
        """Return the ``witness`` section of a report."""
        return {
            "agrees": self.agrees,
            "reader": self.reader or None,
            "note": self.note,
            "unheard": self.unheard,
            "loads": len(self.opinions),
            "disagreements": [{"what": w, "said": said, "torch": did} for w, said, did in self.disagreements],
            "prediction_agrees": self.prediction,
        }


def hear(
    testimony: Testimony | str, said: Sequence[LoadOutcome], predicted: Sequence[LoadOutcome], *, partly: bool = False
) -> Hearing:
    """Compare a testimony with what was said of the same loads: as it is, then with the mapping if there is one."""
    if isinstance(testimony, str):
        return Hearing(unheard=testimony)
    rows: list[Row] = []
    keys: dict[str, None] = dict.fromkeys(testimony.misread)
    if testimony.misread:
        rows.append(
            ("the file", "as inspect shows it", f"{testimony.reader} reads {_named(testimony.misread)} otherwise")
        )
    for load, outcome, when in zip(testimony.loads, said, ("", ", with the mapping"), strict=False):
        for (what, one, other), about in _differences(load, outcome):
            rows.append((what + when, one, other))
            keys |= dict.fromkeys(about)
    foretold = not any(
        difference
        for load, outcome in zip(testimony.loads, predicted, strict=False)
        for difference in _differences(load, outcome)
    )
    return Hearing(
        reader=testimony.reader,
        disagreements=tuple(rows),
        keys=tuple(keys),
        opinions=tuple(zip(said, testimony.loads, strict=False)),
        partly=partly,
        prediction=foretold,
        note=testimony.note,
    )


def _differences(load: RealLoad, said: LoadOutcome) -> Iterator[tuple[Row, Iterable[str]]]:
    """Yield what differs between a real load and what was said of it, each with the keys it is about."""
    did = load.outcome
    for flag, promised, raised in (
        ("strict=False", said.non_strict, load.raised or (_TORCHS if did.errors else "")),
        ("strict=True", said.strict, load.strict_raised),
    ):
        if promised is bool(raised) or (load.raised and flag == "strict=False"):
            yield (flag, "returns" if promised else "raises", f"raises {raised}" if raised else "returns"), ()
    if load.raised:
        return  # there are no lists, and what was copied until then is nothing anybody foretold
    for name, one, other in (
        ("missing_keys", said.missing_keys, did.missing_keys),
        ("unexpected_keys", said.unexpected_keys, did.unexpected_keys),
        ("refused keys", _refused(said), _refused(did)),
    ):
        if alone := set(one) ^ set(other):
            mine, torchs = (tuple(key for key in keys if key in alone) for keys in (one, other))
            yield (name, _named(mine), _named(torchs)), (*mine, *torchs)
    if said.judge == "torch" and said.errors != did.errors and _refused(said) == _refused(did):
        yield ("messages", "; ".join(said.errors), "; ".join(did.errors)), ()
    if not did.loaded <= said.loaded <= load.at_most:
        yield ("loaded", f"{said.loaded:,}", f"{did.loaded:,}"), ()
    if load.altered:
        yield ("values", "the checkpoint's", f"others in {_named(load.altered)}"), load.altered
    if load.touched:
        yield ("initial values", "kept", f"others in {_named(load.touched)}"), load.touched


_TORCHS = "RuntimeError"


def _refused(outcome: LoadOutcome) -> tuple[str, ...]:
    return tuple(key for key in map(key_of_error, outcome.errors) if key is not None)


def _named(keys: Sequence[str]) -> str:
    """Name the first few of some keys."""
    more = f" and {len(keys) - _SHOWN:,} more" if len(keys) > _SHOWN else ""
    return f"{', '.join(keys[:_SHOWN])}{more}" if keys else "none of them"


_SHOWN = 3
