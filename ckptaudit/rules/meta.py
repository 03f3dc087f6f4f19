"""Area 9: faults of the audit itself."""

from __future__ import annotations

from collections.abc import Iterator

from .base import Contract, Evidence, Finding, Fix, Rule

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
        "witness": "the load could not be performed: {reason}",
        "values": "the values were not compared: {reason}",
        "unread": "{count} {tensors} could not be compared: {reason}",
        "target": "{reason}",
        "resume": "the training state was not compared: there are no rules for optimizers and schedulers yet",
    },
    details={"": "the verdict is predicted from names and shapes; load hooks may change it"},
    columns=(),
    why="What was not checked has not passed.",
    fix="See the reason. A load hook that needs values cannot run on the meta device; --witness gives it the values.",
    example="a load hook that calls .item()",
)
PREDICTION_DISAGREES = Rule(
    code="CKPT906",
    name="prediction-disagrees",
    fixed="error",
    summary="torch's own load did otherwise than this report says: exit status 2",
    messages={"": "torch's own load did otherwise than this report says"},
    details={"": "believe torch; what else the report says of this load may be as wrong"},
    columns=("what", "said", "torch"),
    why="A report that torch contradicts is worth nothing, and whoever trusted it has to know.",
    fix="Believe torch. A load hook that goes by the values cannot be foretold; anything else is a fault of ckptaudit.",
    example="diff --witness, and a load hook that refuses some values",
)


def check_audit(evidence: Evidence) -> Iterator[Finding]:
    """Yield what went wrong with the audit."""
    if evidence.given is not None and evidence.given.unused:
        rules = tuple(str(rule) for rule in evidence.given.unused)
        yield Finding(UNUSED_MAPPING_RULE, rules, rows=tuple((rule, "1") for rule in rules))
    if evidence.contract is Contract.resume:
        yield Finding(CHECK_SKIPPED, case="resume")
    yield from _check_load(evidence)


def _check_load(evidence: Evidence) -> Iterator[Finding]:
    """Yield what keeps the word on the load from being torch's: nobody could ask, or the witness contradicts."""
    hearing = evidence.hearing
    if evidence.undecided and (hearing is None or hearing.unheard or hearing.partly):
        fixes = () if hearing else (_ASK_THE_WITNESS,)
        yield Finding(CHECK_SKIPPED, data={"reason": evidence.undecided}, fixes=fixes)
    if hearing is None:
        return
    if hearing.unheard:
        yield Finding(CHECK_SKIPPED, case="witness", data={"reason": hearing.unheard})
    if hearing.disagreements:
        said, did = zip(*hearing.opinions, strict=True)
        data = {"said": [load.to_json() for load in said], "torch": [load.to_json() for load in did]}
        rows = tuple((*row, "1") for row in hearing.disagreements)
        yield Finding(PREDICTION_DISAGREES, hearing.keys, data=data, rows=rows, fixes=(_REPORT_IT,))


_ASK_THE_WITNESS = Fix("display", "let torch load it, with values, into a copy of the model: --witness")
_REPORT_IT = Fix(
    "display", "unless the model's own hooks explain it, report it with the file of: --output json=report.json"
)


CHECKS = (check_audit,)
