"""Every rule of the lint runs on every case of the catalogue: what it says is kept, and no control fails."""

from __future__ import annotations

import json
import re
from pathlib import Path

import lint_hits
import pytest
from catalogue import CASES

from ckptaudit.rules import RULES

HITS = json.loads(lint_hits.TABLE.read_text())
RESEARCH = Path(__file__).parents[3] / "shared" / "research" / "freeze.md"
# The rules of the research: FZ001 is CKPT804, as for two files, and FZ002 to FZ028 are CKPT806 to CKPT832 in its order.
RULES_OF_RESEARCH = [
    "freeze-pattern-unmatched",
    "frozen-requires-grad",
    "frozen-norm-in-train-mode",
    "frozen-has-gradient",
    "frozen-in-optimizer",
    "trainable-in-no-optimizer",
    "stale-parameters",
    "parameter-held-twice",
    "learning-rate-zero",
    "memory-shared-with-trainable",
    "tied-names-disagree",
    "flag-without-effect",
    "frozen-embedding-renormalised",
    "frozen-reparametrized",
    "frozen-observer",
    "unregistered-tensors",
    "lazy-not-initialised",
    "dropout-in-frozen",
    "wrapper-prefix",
    "empty-group",
    "inference-tensors",
    "reentrant-checkpoint",
    "gradient-outside-optimizers",
    "stale-gradient-in-norm",
    "update-below-precision",
    "averaged-copy-differs",
    "reducer-out-of-date",
    "schedule-out-of-date",
]


def levels(case):
    return {level for moment in HITS[case.id] for level in moment.values()}


def of(*outcomes):
    return [pytest.param(case, id=case.id) for case in CASES if case.outcome in outcomes]


def test_every_rule_of_the_research_has_its_code():
    codes = ["CKPT804", *(f"CKPT{number}" for number in range(806, 833))]
    assert [RULES[code].name for code in codes] == RULES_OF_RESEARCH


@pytest.mark.skipif(not RESEARCH.exists(), reason="the research notes are not beside this checkout")
def test_the_research_has_no_other_rules():
    numbered = {int(number) for number in re.findall(r"\bFZ(\d{3}) ", RESEARCH.read_text())}
    assert numbered - {0} == set(range(1, 29))


def test_no_rule_fires_anywhere_else_than_recorded():
    found = lint_hits.hits()
    assert json.loads(found) == HITS
    assert found == lint_hits.TABLE.read_text()


@pytest.mark.parametrize("case", of("moved", "stuck"))
def test_lint_and_audit_together_find_everything(case):
    """What the audit finds is proved by test_catalogue.py; where it refuses the patterns, the lint has an error."""
    assert case.audit or "error" in HITS[case.id][0].values()


@pytest.mark.parametrize("case", of("control", "transient"))
def test_a_control_does_not_fail(case):
    assert levels(case) <= {"warning", "note"}


@pytest.mark.parametrize(("outcome", "least"), [("moved", 29), ("stuck", 9)])
def test_the_lint_alone_warns_of_most_that_can_be_seen_before_a_step(outcome, least):
    warned = [case.id for case in CASES if case.outcome == outcome and {"error", "warning"} & levels(case)]
    assert len(warned) >= least, warned


def test_rules_of_the_catalogue():
    """These rules have a case; the others have their fixtures, and tests of their own in test_lint.py."""
    fired = {code for row in HITS.values() for moment in row for code in moment}
    assert fired == {
        f"CKPT8{n:02}" for n in (4, 6, 7, 8, 9, 10, 11, 13, 14, 15, 16, 17, 18, 19, 20, 21, 23, 24, 27, 29, 33, 34)
    }
