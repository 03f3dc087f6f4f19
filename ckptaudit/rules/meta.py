"""Area 9: faults of the audit itself."""

from __future__ import annotations

from collections.abc import Iterator

from .base import Contract, Evidence, Finding, Rule

UNUSED_MAPPING_RULE = Rule(
    code="CKPT903",
    name="unused-mapping-rule",
    fixed="error",
    summary="a mapping rule matched nothing",
    messages={"": "{count} mapping rule{s} matched nothing"},
    details={"": "such a rule does nothing; look for a misspelt name"},
    columns=("rule",),
    why="A misspelt rule does nothing, in silence.",
    fix="Correct the rule, or remove it.",
    example="--map 'modul.* -> *'",
)
CHECK_SKIPPED = Rule(
    code="CKPT905",
    name="check-skipped",
    fixed="error",
    summary="a check could not run: exit status 2",
    messages={
        "": "torch's own load could not be tried: {reason}",
        "unread": "{count} {tensors} could not be compared: {reason}",
        "resume": "the training state was not compared: there are no rules for optimizers and schedulers yet",
    },
    details={"": "the verdict is predicted from names and shapes; load hooks may change it"},
    columns=(),
    why="What was not checked has not passed.",
    fix="See the reason; a load hook that needs values cannot run on the meta device.",
    example="a load hook that calls .item()",
)


def check_audit(evidence: Evidence) -> Iterator[Finding]:
    """Yield what went wrong with the audit."""
    if evidence.given is not None and evidence.given.unused:
        rules = tuple(str(rule) for rule in evidence.given.unused)
        yield Finding(UNUSED_MAPPING_RULE, rules, rows=tuple((rule, "1") for rule in rules))
    if evidence.contract is Contract.resume:
        yield Finding(CHECK_SKIPPED, case="resume")
    if evidence.undecided:
        yield Finding(CHECK_SKIPPED, data={"reason": evidence.undecided})


CHECKS = (check_audit,)
