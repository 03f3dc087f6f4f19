"""The audit's own faults: mapping rules that do nothing, and checks that could not run."""

import pytest
import torch
from torch import nn

import ckptaudit

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


class Doubling(nn.Linear):
    def _load_from_state_dict(self, state_dict, prefix, *rest):
        state_dict[prefix + "weight"] = state_dict[prefix + "weight"] * 2
        super()._load_from_state_dict(state_dict, prefix, *rest)


def test_what_torch_contradicts_is_not_checked():
    report = ckptaudit.diff(Doubling(4, 2), nn.Linear(4, 2).state_dict(), witness=True)
    assert codes(report) == ["CKPT906"]
    assert (report.verdict, report.exit_status, report.ok) == ("unchecked", 2, False)
    finding = found(report, "CKPT906")
    assert finding.keys == ("weight",)
    assert finding.rows == (("values", "the checkpoint's", "others in weight", "1"),)
    assert [load["loaded"] for load in finding.data["said"]] == [2]
    assert [load["altered"] for load in finding.data["torch"]] == [["weight"]]


def test_without_a_witness_nobody_sees_it():
    assert ckptaudit.diff(Doubling(4, 2), nn.Linear(4, 2).state_dict()).ok


def zero_bias():
    state = nn.Linear(4, 2).state_dict()
    state["bias"].zero_()
    return state


def test_a_witness_decides_what_cannot_be_tried_without_values():
    undecided = ckptaudit.diff(NeedsValues(4, 2), zero_bias())
    assert [fix.do for fix in found(undecided, "CKPT905").fixes] == [
        "let torch load it, with values, into a copy of the model: --witness"
    ]
    report = ckptaudit.diff(NeedsValues(4, 2), zero_bias(), witness=True)
    assert (codes(report), report.verdict) == ([], "kept")
    state = {**zero_bias(), "bias": torch.ones(2)}
    report = ckptaudit.diff(NeedsValues(4, 2), state, witness=True)
    assert codes(report) == ["CKPT906"]
    what, said, did, _ = found(report, "CKPT906").rows[0]
    assert (what, said, did.split(":")[0]) == ("strict=False", "returns", "raises AssertionError")


def test_but_not_the_load_under_a_mapping_that_cannot_be_carried_out():
    state = {f"module.{key}": value for key, value in zero_bias().items()}
    mapping = ["module.* -> *", "modul.* -> *"]
    report = ckptaudit.diff(NeedsValues(4, 2), state, mapping=mapping, witness=True)
    assert codes(report) == ["CKPT903", "CKPT905", "CKPT906"]  # as it is the hook finds no bias at all
    assert report.hearing.partly


class Alone(nn.Linear):
    def __deepcopy__(self, memo):
        raise TypeError("there is one")


def test_a_witness_that_could_not_load_is_not_a_witness():
    report = ckptaudit.diff(Alone(4, 2), zero_bias(), witness=True)
    assert codes(report) == ["CKPT905", "CKPT905"]
    assert {graded.finding.case: graded.finding.message for graded in report.findings}["witness"] == (
        "the load could not be performed: Alone cannot be copied: TypeError: there is one"
    )
    assert (report.verdict, report.hearing.agrees) == ("unchecked", False)
