"""What is in a file, as one value: the container, its candidate state dicts, and what is remarkable about it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

from . import rules
from .collector import CollectorPaused
from .compare.align import align
from .compare.predict import predict
from .errors import FormatError
from .formats import DEFAULT_LIMITS, Candidate, Checkpoint, Limits, open_checkpoint
from .manifest import Manifest
from .policy import Graded, grade
from .records import dataclass
from .rules import Contract, Evidence, Finding

SCHEMA = "ckptaudit.inspect/1"
FILE_CHECKS = (*rules.safety.CHECKS, *rules.remarks.CHECKS, *rules.files.CHECKS)


@dataclass(frozen=True)
class Inspection:
    """One file. ``chosen`` is None where no state dict could be chosen; ``fault`` then says why."""

    checkpoint: Checkpoint
    chosen: Candidate | None
    fault: FormatError | None
    findings: tuple[Graded, ...]

    @property
    def ok(self) -> bool:
        """True when the file keeps the contract ``open``."""
        return not any(graded.level == "error" for graded in self.findings)

    def to_json(self, rows: Callable[[Iterator[Any]], Any] = list) -> dict[str, Any]:
        """Return the JSON form (schema ``ckptaudit.inspect/1``); ``rows`` as in ``Manifest.to_json``."""
        checkpoint = self.checkpoint
        return {
            "schema": SCHEMA,
            "path": checkpoint.path,
            "format": checkpoint.format,
            "size": checkpoint.size,
            "details": dict(checkpoint.details),
            "candidates": [
                {"path": c.path, "kind": c.kind, "tensors": len(c.manifest), "elements": c.manifest.numel}
                for c in checkpoint.candidates
            ],
            "choice": self.chosen.path if self.chosen else None,
            "fault": self.fault.reason if self.fault else None,
            "siblings": dict(checkpoint.siblings),
            "globals": [g.to_json() for g in checkpoint.globals],
            "manifest": self.chosen.manifest.to_json(rows) if self.chosen else None,
            "findings": [graded.to_json() for graded in self.findings],
        }


def inspect(path: str | os.PathLike[str], *, limits: Limits = DEFAULT_LIMITS) -> Inspection:
    """Read the structure of a checkpoint file; nothing in it is executed, no tensor is read.

    A pickle that names refused globals is described all the same, with a finding. Raises CkptauditError where
    the file cannot be read at all.
    """
    checkpoint = open_checkpoint(path, limits=limits, allow_refused=True)
    chosen = checkpoint.choice if isinstance(checkpoint.choice, Candidate) else None
    fault = checkpoint.choice if isinstance(checkpoint.choice, FormatError) else None
    if fault is not None and not os.path.exists(path):
        raise fault  # FILE#PATH was asked for, and is not there
    with CollectorPaused():
        findings = file_findings(checkpoint)
    if fault is not None:
        fixes = (rules.Fix("display", fault.hint),) if fault.hint else ()
        findings.append(Finding(rules.RULES[fault.code], data={"reason": fault.reason}, fixes=fixes))
    return Inspection(checkpoint, chosen, fault, grade(findings, Contract.open))


def file_findings(checkpoint: Checkpoint) -> list[Finding]:
    """Apply the rules about files to one that was opened."""
    manifest = checkpoint.choice.manifest if isinstance(checkpoint.choice, Candidate) else Manifest({})
    itself = align(manifest, manifest)
    outcome = predict(itself)
    evidence = Evidence(itself, itself, outcome, outcome, (), (), checkpoint)
    return [finding for check in FILE_CHECKS for finding in check(evidence)]
