"""The audit's own faults: mapping rules that do nothing, and checks that could not run."""

import pytest
from torch import nn

from .support import codes, diff, found, manifest, net

MODEL = manifest(net())


def test_rules_that_matched_nothing_are_named_as_written():
    arguments = ["--map", "modul.* -> *", "--drop", "gone.*"]
    report = diff(MODEL, manifest(net()), arguments)
    finding = found(report, "CKPT903")
    assert finding.message == "2 mapping rules matched nothing"
    assert finding.rows == (("modul.* -> *", "1"), ("drop gone.*", "1"))
    assert not report.ok
    assert [graded.level for graded in report.findings] == ["error"]


@pytest.mark.parametrize("contract", ["open", "partial", "strict", "exact"])
def test_an_unused_rule_is_an_error_under_every_contract(contract):
    assert not diff(MODEL, manifest(net()), ["--drop", "gone", "--contract", contract]).ok


class NeedsValues(nn.Linear):
    def _load_from_state_dict(self, state_dict, prefix, *rest):
        assert state_dict[prefix + "bias"].sum().item() == 0
        super()._load_from_state_dict(state_dict, prefix, *rest)


def test_a_load_that_could_not_be_tried_has_not_passed():
    report = diff(NeedsValues(4, 2), nn.Linear(4, 2).state_dict())
    assert codes(report) == ["CKPT905"]
    assert (report.verdict, report.exit_status) == ("unchecked", 2)
    assert found(report, "CKPT905").message.startswith("torch's own load could not be tried: ")
    assert report.outcome.judge == "prediction"


def test_a_load_that_was_tried_is_not_mentioned():
    assert codes(diff(nn.Linear(4, 2), nn.Linear(4, 2).state_dict())) == []


def test_the_training_state_is_not_compared_and_has_not_passed():
    report = diff(MODEL, manifest(net()), ["--contract", "resume"])
    assert codes(report) == ["CKPT905"]
    assert found(report, "CKPT905").message.startswith("the training state was not compared")
    assert report.verdict == "unchecked"
