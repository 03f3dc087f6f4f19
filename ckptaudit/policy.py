"""Findings become a Report: graded by the contract, with a verdict and an exit status."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from .records import dataclass, field
from .rules import Contract, Finding, Level

if TYPE_CHECKING:
    from .compare.align import Alignment
    from .compare.hearing import Hearing
    from .outcome import LoadOutcome

SCHEMA = "ckptaudit.report/1"

Verdict = Literal["kept", "broken", "unchecked"]
EXIT_STATUS: dict[Verdict, int] = {"kept": 0, "broken": 1, "unchecked": 2}
_LEVEL_ORDER: dict[Level, int] = {"error": 0, "warning": 1, "note": 2}
UNCHECKED_CODES = frozenset({"CKPT703", "CKPT905", "CKPT906"})


@dataclass(frozen=True)
class Graded:
    """A finding with the level that the contract gives it."""

    level: Level
    finding: Finding

    def to_json(self) -> dict[str, Any]:
        """Return the ``findings`` entry of a report."""
        return self.finding.to_json(self.level)


@dataclass(frozen=True)
class Side:
    """One input, for the head of a report.

    ``role`` is ``checkpoint`` or ``model``; ``kind`` says what was given for it (``checkpoint``, ``model``,
    ``manifest``, ``state dict``). ``tensors`` counts tensors, ``elements`` their values, ``nbytes`` the bytes of
    their storages. ``facts`` are short remarks for people, in order (``zip, 97.8 MiB``; ``built on meta``).
    """

    role: str
    kind: str
    name: str
    tensors: int
    elements: int
    nbytes: int
    facts: tuple[str, ...] = ()
    choice: str = ""
    siblings: Mapping[str, str] = field(default_factory=dict)
    format: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the ``inputs`` entry of a report."""
        data: dict[str, Any] = {"kind": self.kind, "name": self.name, "tensors": self.tensors}
        data |= {"elements": self.elements, "nbytes": self.nbytes, "facts": list(self.facts)}
        if self.kind == "checkpoint":
            data |= {"format": self.format, "choice": self.choice, "siblings": dict(self.siblings)}
        return data


@dataclass(frozen=True)
class MappingUse:
    """The mapping of a report: the rules that were given, and those that are proposed on top of them.

    ``expected_missing`` are the model's keys that the checkpoint lacks, and need not have by the rules.
    """

    given: tuple[str, ...]
    proposed: tuple[str, ...]
    expected_missing: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the ``mapping`` section of a report."""
        data = {"given": list(self.given), "proposed": list(self.proposed)}
        return data | ({"expected_missing": list(self.expected_missing)} if self.expected_missing else {})


@dataclass(frozen=True)
class Report:
    """What an audit found. ``ok`` is True when the contract is kept.

    ``alignment`` and the outcomes are those of a load, and None where there was none (an audit of training).
    ``remarks`` are sentences for people, shown before the verdict.
    ``hearing`` is the witness's word on it, None where none was asked for.
    """

    command: str
    contract: Contract
    verdict: Verdict
    checkpoint: Side
    model: Side
    alignment: Alignment | None
    outcome_as_is: LoadOutcome | None
    outcome: LoadOutcome | None
    mapping: MappingUse | None
    findings: tuple[Graded, ...]
    skipped_rules: tuple[str, ...] = ()
    accepted: tuple[Graded, ...] = ()
    hearing: Hearing | None = None
    remarks: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """True when the contract is kept."""
        return self.verdict == "kept"

    @property
    def exit_status(self) -> int:
        """0 kept, 1 broken, 2 not fully checked."""
        return EXIT_STATUS[self.verdict]

    def text(self, width: int = 80, *, verbose: bool = False) -> str:
        """Return the report as a terminal of that width shows it; ``verbose`` shows notes and all rows."""
        from .report import render

        return render(self, "table", width, verbose).rstrip("\n")

    def __str__(self) -> str:
        return self.text()

    def count(self, level: Level) -> int:
        """Count the findings of one level."""
        return sum(1 for graded in self.findings if graded.level == level)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form (schema ``ckptaudit.report/1``)."""
        return {
            "schema": SCHEMA,
            "command": self.command,
            "contract": self.contract.name,
            "verdict": self.verdict,
            "exit_status": self.exit_status,
            "inputs": {"checkpoint": self.checkpoint.to_json(), "model": self.model.to_json()},
            "alignment": self.alignment.to_json() if self.alignment else None,
            "loads": self._loads(),
            "mapping": self.mapping.to_json() if self.mapping else None,
            "findings": [graded.to_json() for graded in self.findings],
            "accepted": [graded.to_json() for graded in self.accepted],
            "skipped_rules": list(self.skipped_rules),
            "witness": self.hearing.to_json() if self.hearing else None,
        }

    def _loads(self) -> dict[str, Any] | None:
        if self.outcome is None or self.outcome_as_is is None:
            return None
        return {
            "strict": {"as_is": self.outcome_as_is.strict, "with_mapping": self.outcome.strict},
            "non_strict": {
                "as_is": self.outcome_as_is.non_strict,
                "with_mapping": self.outcome.non_strict,
                "loaded": self.outcome_as_is.loaded,
                "missing_keys": list(self.outcome_as_is.missing_keys),
                "unexpected_keys": list(self.outcome_as_is.unexpected_keys),
            },
            "judge": self.outcome_as_is.judge,
        }


def grade(findings: Iterable[Finding], contract: Contract) -> tuple[Graded, ...]:
    """Give every finding its level, and sort: as is before under the proposed mapping, errors first, then by code."""
    graded = [Graded(finding.level(contract), finding) for finding in findings]
    return tuple(sorted(graded, key=_order))


def _order(graded: Graded) -> tuple[bool, int, str]:
    return graded.finding.mapped, _LEVEL_ORDER[graded.level], graded.finding.rule.code


def verdict_of(findings: Iterable[Graded]) -> Verdict:
    """Decide: whatever could not be checked has not passed; an error breaks the contract."""
    findings = list(findings)
    if any(graded.finding.rule.code in UNCHECKED_CODES for graded in findings):
        return "unchecked"
    return "broken" if any(graded.level == "error" for graded in findings) else "kept"
