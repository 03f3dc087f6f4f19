"""Every way of the catalogue: found by the audit, at the right tensor, with the right cause; every control silent."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from catalogue import CASES

from ckptaudit.errors import UsageError
from ckptaudit.training.audit import audit_training

pytestmark = [
    pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated"),
    pytest.mark.filterwarnings("ignore:`torch.nn.utils.spectral_norm`"),
    pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad=True"),
    pytest.mark.filterwarnings("ignore:.*lr_scheduler.step"),
]


def outcome(case, **options):
    torch.manual_seed(1)
    audits = []

    def audit(*arguments, schedulers=(), **named):  # which are the lint's
        audits.append(audit_training(*arguments, **named, **options))
        return audits[-1]

    case.run(audit)
    return audits[0]


def of(kind):
    return [pytest.param(case, id=case.id) for case in CASES if case.outcome == kind]


def test_the_catalogue_is_whole():
    assert Counter(case.outcome for case in CASES) == {"moved": 50, "stuck": 14, "control": 13, "transient": 4}
    assert len({case.id for case in CASES}) == len(CASES)


@pytest.mark.parametrize("blame", [False, True], ids=["", "blame"])
@pytest.mark.parametrize("case", of("moved"))
def test_what_moved_is_found_with_its_cause(case, blame):
    audit = outcome(case, blame=blame)
    moved = [one for one in audit.verdicts if one.verdict == "moved"]
    assert moved
    assert all(one.expected == "frozen" for one in moved)
    # Under blame the dispatcher comes between a write and the version counter: who wrote is named instead.
    written = {"written"} if blame and {"in-place", "unseen"} & set(case.audit) else set()
    assert {one.cause.kind for one in moved} <= {*case.audit, *written}
    levels = {graded.level for graded in audit.report.findings if graded.finding.rule.code in ("CKPT801", "CKPT803")}
    assert levels - {"warning"} == (set() if case.id == "H02" else {"error"})
    assert audit.report.ok == (case.id == "H02")


@pytest.mark.parametrize("case", of("stuck"))
def test_what_did_not_train_is_found_with_its_cause(case):
    if case.error:
        with pytest.raises(UsageError, match=case.error):
            outcome(case)
        return
    audit = outcome(case)
    stuck = [one for one in audit.verdicts if one.verdict not in ("held", "trained")]
    assert {one.cause.kind for one in stuck} == set(case.audit)
    assert {graded.level for graded in audit.report.findings} == {"error"}
    assert not audit.report.ok


@pytest.mark.parametrize("blame", [False, True], ids=["", "blame"])
@pytest.mark.parametrize("case", of("control"))
def test_a_control_is_silent(case, blame):
    audit = outcome(case, blame=blame)
    assert not audit.report.findings
    assert {one.verdict for one in audit.verdicts} == {"held", "trained"}


@pytest.mark.parametrize("case", of("transient"))
def test_what_may_be_meant_fails_nothing_and_is_said(case):
    audit = outcome(case)
    unknown = [one for one in audit.verdicts if one.verdict not in ("held", "trained")]
    assert {(one.verdict, one.cause.kind) for one in unknown} == {("inconclusive", *case.audit)}
    assert audit.report.ok
    assert [graded.level for graded in audit.report.findings] == ["warning"]
