"""Findings become a Report: graded by the contract, with a verdict and an exit status."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from .errors import CkptauditError, FormatError
from .place import Place
from .records import dataclass, field
from .rules import RULES, UNCHECKED_CODES, Contract, Finding, Fix, Level

if TYPE_CHECKING:
    from .compare.align import Alignment
    from .compare.hearing import Hearing
    from .compare.summary import Values
    from .outcome import LoadOutcome
    from .rules.fates import Fates

SCHEMA = "ckptaudit.report/1"
CHECK_SCHEMA = "ckptaudit.check/1"

Verdict = Literal["kept", "broken", "unchecked"]
EXIT_STATUS: dict[Verdict, int] = {"kept": 0, "broken": 1, "unchecked": 2}
_LEVEL_ORDER: dict[Level, int] = {"error": 0, "warning": 1, "note": 2}


@dataclass(frozen=True)
class Graded:
    """A finding with the level that the contract gives it; of an accepted one the ``reason`` for that."""

    level: Level
    finding: Finding
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the ``findings`` entry of a report, or the one of ``accepted``."""
        return self.finding.to_json(self.level) | ({"reason": self.reason} if self.reason else {})


@dataclass(frozen=True)
class Side:
    """One input, for the head of a report.

    ``role`` is ``checkpoint`` or ``model``; ``kind`` says what was given for it (``checkpoint``, ``model``,
    ``manifest``, ``state dict``). ``tensors`` counts tensors, ``elements`` their values, ``nbytes`` the bytes of
    their storages. ``facts`` are short remarks for people, in order (``zip, 97.8 MiB``; ``built on meta``).
    ``place`` is the file, or the line of the code, that it is.
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
    place: Place | None = None

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
    ``alignment`` is the one that all these rules make; ``origin`` has the file's names of its keys. ``fix`` is what the
    proposed ones are called.
    """

    given: tuple[str, ...]
    proposed: tuple[str, ...]
    expected_missing: tuple[str, ...] = ()
    alignment: Alignment | None = None
    origin: Mapping[str, str] = field(default_factory=dict)
    fix: str = "the safe fix"

    def to_json(self) -> dict[str, Any]:
        """Return the ``mapping`` section of a report."""
        data = {"given": list(self.given), "proposed": list(self.proposed)}
        return data | ({"expected_missing": list(self.expected_missing)} if self.expected_missing else {})


@dataclass(frozen=True)
class Report:
    """What an audit found. ``ok`` is True when the contract is kept.

    ``alignment`` and the outcomes are those of a load, and None where there was none (an audit of training).
    ``remarks`` are sentences for people, shown before the verdict.
    ``hearing`` is the witness's word on it, and ``values`` the comparison of values, None where none was asked for.
    ``fates`` say what became of each tensor between two files. ``places`` are the lines of the user's code that define
    keys of the findings, as far as known.
    ``accepted`` findings count for nothing, each for a reason. ``target`` is the one of the configuration that was
    checked. ``error`` is why nothing could be: then one finding says so, and the sides have names alone.
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
    places: Mapping[str, Place] = field(default_factory=dict)
    target: str = ""
    error: CkptauditError | None = None
    values: Values | None = None
    fates: Fates | None = None

    @property
    def ok(self) -> bool:
        """True when the contract is kept."""
        return self.verdict == "kept"

    @property
    def exit_status(self) -> int:
        """0 kept, 1 broken, 2 not fully checked."""
        return EXIT_STATUS[self.verdict]

    def places_of(self, finding: Finding) -> list[Place]:
        """Return the places of a finding in the code of the model, each once, in the order of its keys."""
        return list(dict.fromkeys(self.places[key] for key in finding.keys if key in self.places))

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
        sides = {} if self.error else {"checkpoint": self.checkpoint.to_json(), "model": self.model.to_json()}
        return {
            "schema": SCHEMA,
            "command": self.command,
            **({"target": self.target, "file": self.checkpoint.name} if self.target else {}),
            "contract": self.contract.name,
            "verdict": self.verdict,
            "exit_status": self.exit_status,
            **({"error": self.error.to_json()} if self.error else {}),
            "inputs": sides,
            "alignment": self.alignment.to_json() if self.alignment else None,
            "loads": self._loads(),
            "mapping": self.mapping.to_json() if self.mapping else None,
            **({"values": self.values.to_json()} if self.values is not None else {}),
            **({"tensors": self.fates.to_json()} if self.fates is not None else {}),
            "findings": [self._finding(graded) for graded in self.findings],
            "accepted": [self._finding(graded) for graded in self.accepted],
            "skipped_rules": list(self.skipped_rules),
            "witness": self.hearing.to_json() if self.hearing else None,
        }

    def _finding(self, graded: Graded) -> dict[str, Any]:
        places = [place.to_json() for place in self.places_of(graded.finding)]
        return graded.to_json() | ({"places": places} if places else {})

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


@dataclass(frozen=True)
class CheckReport:
    """What a check of a project found: a Report for each target and committed file, and the project's own findings.

    ``config`` is the configuration's path; ``against`` the revision or folder whose committed files were the measure,
    empty where it is the present one. ``findings`` are about the configuration, the baseline and the manifests.
    """

    config: str
    reports: tuple[Report, ...]
    findings: tuple[Graded, ...] = ()
    against: str = ""

    @property
    def verdict(self) -> Verdict:
        """The worst one: whatever was not checked has not passed, and outweighs what is known to be broken."""
        return max([verdict_of(self.findings), *(one.verdict for one in self.reports)], key=EXIT_STATUS.__getitem__)

    @property
    def ok(self) -> bool:
        """True when every contract is kept."""
        return self.verdict == "kept"

    @property
    def exit_status(self) -> int:
        """0 kept, 1 broken, 2 not fully checked."""
        return EXIT_STATUS[self.verdict]

    def count(self, level: Level) -> int:
        """Count the findings of one level, over all reports."""
        own = sum(1 for graded in self.findings if graded.level == level)
        return own + sum(one.count(level) for one in self.reports)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form (schema ``ckptaudit.check/1``)."""
        return {
            "schema": CHECK_SCHEMA,
            "command": "check",
            "config": self.config,
            "against": self.against or None,
            "verdict": self.verdict,
            "exit_status": self.exit_status,
            "findings": [graded.to_json() for graded in self.findings],
            "reports": [one.to_json() for one in self.reports],
        }


def failed(error: CkptauditError, command: str, contract: Contract, checkpoint: Side, model: Side) -> Report:
    """Return the report of a comparison that could not be made; what a file breaks is its own rule's finding."""
    code = error.code if isinstance(error, FormatError) else "CKPT905"
    case = "" if isinstance(error, FormatError) else "target"
    reason = error.reason if isinstance(error, FormatError) else f"{error.subject}: {error.reason}"
    fixes = (Fix("display", error.hint),) if error.hint else ()
    graded = Graded("error", Finding(RULES[code], case=case, data={"reason": reason}, fixes=fixes))
    return Report(command, contract, "unchecked", checkpoint, model, None, None, None, None, (graded,), error=error)


def grade(
    findings: Iterable[Finding], contract: Contract, levels: Mapping[str, Level | None] | None = None
) -> tuple[Graded, ...]:
    """Give every finding its level, and sort: as is before under the proposed mapping, errors first, then by code.

    ``levels`` says otherwise for some rules, by code; None leaves their findings out.
    """
    levels = levels or {}
    graded = [
        Graded(level, finding)
        for finding in findings
        if (level := levels.get(finding.rule.code, finding.level(contract))) is not None
    ]
    return tuple(sorted(graded, key=_order))


def _order(graded: Graded) -> tuple[bool, int, str]:
    return graded.finding.mapped, _LEVEL_ORDER[graded.level], graded.finding.rule.code


def verdict_of(findings: Iterable[Graded]) -> Verdict:
    """Decide: whatever could not be checked has not passed; an error breaks the contract."""
    findings = list(findings)
    if any(graded.finding.rule.code in UNCHECKED_CODES for graded in findings):
        return "unchecked"
    return "broken" if any(graded.level == "error" for graded in findings) else "kept"
