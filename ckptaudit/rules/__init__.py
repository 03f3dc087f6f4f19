"""The catalogue: every rule, found by code or name, and the checks in the order in which causes absorb symptoms."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ..errors import UsageError
from . import (
    files,
    freezing,
    keys,
    meta,
    modules,
    ranks,
    remarks,
    safety,
    tensors,
    training_flags,
    training_modules,
    training_optimizers,
    upkeep,
    values,
)
from .base import UNCHECKED_CODES, Contract, Evidence, Finding, Fix, Level, Rule

__all__ = ["RULES", "UNCHECKED_CODES", "Contract", "Evidence", "Finding", "Fix", "Level", "Rule", "find_rule", "run"]

_TRAINING = (freezing, training_flags, training_optimizers, training_modules)
_AREAS = (files, keys, ranks, tensors, values, modules, safety, *_TRAINING, meta, upkeep)
_DEFINED = [value for area in _AREAS for value in vars(area).values() if isinstance(value, Rule)]
RULES: dict[str, Rule] = {rule.code: rule for rule in sorted(_DEFINED, key=lambda rule: rule.code)}

CHECKS: tuple[Callable[[Evidence], Iterator[Finding]], ...] = (
    *safety.CHECKS,
    *remarks.CHECKS,
    *files.CHECKS,
    *keys.ROOT_CAUSES,
    *ranks.CHECKS,
    *tensors.CHECKS,
    *values.CHECKS,
    *modules.CHECKS,
    *keys.CHECKS,
    *meta.CHECKS,
)


def run(evidence: Evidence) -> list[Finding]:
    """Apply every check; each sees only the missing and unexpected keys that no earlier one explained."""
    findings: list[Finding] = []
    for check in CHECKS:
        for finding in check(evidence):
            findings.append(finding)
            evidence = evidence.without(finding.explains)
    return findings


def find_rule(text: str) -> Rule:
    """Look a rule up by code or name. Raises UsageError naming the closest one."""
    for rule in RULES.values():
        if text.upper() == rule.code or text.lower() == rule.name:
            return rule
    from difflib import get_close_matches

    names = [rule.name for rule in RULES.values()]
    close = get_close_matches(text.lower(), names, n=1) or _close_codes(text.upper())
    hint = f"ckptaudit explain {close[0]}" if close else "list every rule: ckptaudit explain"
    raise UsageError(text, "is no rule", hint)


def _close_codes(text: str) -> list[str]:
    """Return the codes like a text, best first: of those with as many characters in common, in the same places."""
    from difflib import get_close_matches

    alike = get_close_matches(text, RULES, n=len(RULES), cutoff=0.7)
    return sorted(alike, key=lambda code: sum(map(str.__eq__, code, text)), reverse=True)
