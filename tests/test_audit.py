"""ckptaudit.diff: whatever the inputs are given as, the verdict is one; what was not checked has not passed."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

import ckptaudit
from ckptaudit import KeyMapping, Manifest, UsageError, open_checkpoint


class Net(nn.Module):
    def __init__(self, classes=3):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.bn = nn.BatchNorm2d(4)
        self.fc = nn.Linear(4, classes)


@pytest.fixture
def path(tmp_path):
    torch.save(Net().state_dict(), tmp_path / "net.pth")
    return tmp_path / "net.pth"


def codes(report):
    return [graded.finding.rule.code for graded in report.findings]


def test_every_kind_of_input_gives_one_verdict(path):
    manifest = Manifest.of(Net())
    manifest.save(path.parent / "net.manifest.json")
    models = [Net(), manifest, str(path.parent / "net.manifest.json"), path, open_checkpoint(path)]
    checkpoints = [path, str(path), open_checkpoint(path), torch.load(path, weights_only=True), manifest]
    for model in models:
        for checkpoint in checkpoints:
            report = ckptaudit.diff(model, checkpoint)
            assert report.ok
            assert report.alignment.matched_keys == tuple(Net().state_dict())


def test_the_order_of_a_model_and_a_checkpoint_does_not_matter(path):
    one, other = ckptaudit.diff(Net(5), path), ckptaudit.diff(path, Net(5))
    assert one.to_json() == other.to_json()
    assert one.model.name == "Net"
    assert codes(one) == ["CKPT201"]


def test_something_else_is_refused():
    with pytest.raises(UsageError, match="int: is neither a path, a model, a state dict"):
        ckptaudit.diff(Net(), 3)
    with pytest.raises(UsageError, match="loose: is no contract; choose one of open, partial, strict, exact, resume"):
        ckptaudit.diff(Net(), {}, contract="loose")


def test_a_live_model_is_not_touched(path):
    model = Net(5)
    model.fc.requires_grad_(False)
    model.bn.eval()
    before = copy.deepcopy(model.state_dict())
    versions = {name: tensor._version for name, tensor in model.state_dict(keep_vars=True).items()}
    seed = torch.get_rng_state()
    ckptaudit.diff(model, path)
    after = model.state_dict(keep_vars=True)
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert {name: tensor._version for name, tensor in after.items()} == versions
    assert not model.fc.weight.requires_grad
    assert not model.bn.training
    assert torch.equal(seed, torch.get_rng_state())


def wrapped(state):
    return {f"module.{key}": value for key, value in state.items()}


def test_a_given_mapping_is_applied_before_anything_else():
    report = ckptaudit.diff(Net(), wrapped(Net().state_dict()), mapping=["module.* -> *"])
    loads = report.to_json()["loads"]
    assert report.ok
    assert (loads["strict"]["as_is"], loads["strict"]["with_mapping"]) == (False, True)
    assert report.to_json()["mapping"] == {"given": ["module.* -> *"], "proposed": []}
    assert len(report.alignment.unexpected_keys) == len(Net().state_dict())  # as they are, before any mapping


def test_a_proposal_comes_on_top_of_the_given_mapping():
    state = {key.replace("fc.", "head."): value for key, value in Net().state_dict().items()}
    report = ckptaudit.diff(Net(), wrapped(state), mapping=KeyMapping.parse(["module.* -> *"]))
    assert codes(report) == ["CKPT104"]
    assert report.to_json()["mapping"] == {"given": ["module.* -> *"], "proposed": ["head.* -> fc.*"]}
    assert report.outcome.strict


def test_a_mapping_keeps_the_module_versions():
    state = Net().state_dict()
    del state["bn.num_batches_tracked"]
    renamed = type(state)((f"module.{key}", value) for key, value in state.items())
    renamed._metadata = {f"module.{path}".rstrip("."): entry for path, entry in state._metadata.items()}
    report = ckptaudit.diff(Net(), renamed, mapping=["module.* -> *"])
    assert not report.ok  # with its version the counter of a batch norm is required; without it would be forgiven
    assert report.outcome.missing_keys == ("bn.num_batches_tracked",)


def test_rules_that_collide_or_match_nothing_are_findings():
    state = {**wrapped(Net().state_dict()), "fc.bias": torch.zeros(3)}
    report = ckptaudit.diff(Net(), state, mapping=["module.* -> *", "nothing.* -> *"])
    assert set(codes(report)) == {"CKPT107", "CKPT903"}
    assert report.verdict == "broken"


@pytest.mark.parametrize(
    ("dtype", "contract", "levels"),
    [
        (torch.float64, "strict", ["warning"]),
        (torch.float64, "exact", ["error"]),
        (torch.float64, "partial", ["note"]),
        (torch.float16, "exact", []),
    ],
)
def test_a_contract_grades_the_cast(dtype, contract, levels):
    report = ckptaudit.diff(Net(), Net().to(dtype).state_dict(), contract=contract)
    assert [graded.level for graded in report.findings] == levels
    assert codes(report) == ["CKPT301"] * len(levels)


class NeedsValues(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(2, 2)
        self.register_load_state_dict_pre_hook(lambda module, state, *rest: state["fc.weight"].sum().item())


def test_a_load_that_cannot_be_tried_is_not_passed():
    report = ckptaudit.diff(NeedsValues(), NeedsValues().state_dict())
    assert (report.verdict, report.exit_status, report.ok) == ("unchecked", 2, False)
    assert codes(report) == ["CKPT905"]
    assert report.to_json()["loads"]["judge"] == "prediction"


def test_the_contract_resume_is_not_passed_unchecked(path):
    report = ckptaudit.diff(Net(), path, contract="resume")
    assert (report.verdict, report.exit_status) == ("unchecked", 2)
    assert codes(report) == ["CKPT905"]


def test_a_path_object_names_the_file_in_the_report(path):
    report = ckptaudit.diff(Net(), Path(path))
    assert report.checkpoint.name == str(path)
    assert report.checkpoint.format == "torch-zip"


def test_one_rule_may_be_given_as_text():
    report = ckptaudit.diff(Net(), wrapped(Net().state_dict()), mapping="module.* -> *")
    assert report.ok
    assert report.mapping.given == ("module.* -> *",)


def test_a_mapping_without_rules_is_none():
    for mapping in (None, [], (), KeyMapping()):
        assert ckptaudit.diff(Net(), Net(), mapping=mapping).mapping is None


def test_the_same_report_comes_from_a_model_and_its_manifest(path):
    live, described = ckptaudit.diff(Net(5), path), ckptaudit.diff(Manifest.of(Net(5)), path)
    assert live.findings == described.findings
    assert (live.outcome.judge, described.outcome.judge) == ("torch", "prediction")
    assert live.outcome.strict == described.outcome.strict


def test_operations_on_tensors_reach_torchs_own_load():
    state = Net().state_dict()
    state["fc.weight"] = state["fc.weight"].T.contiguous()
    report = ckptaudit.diff(Net(), state, mapping=["transpose fc.weight"])
    assert (report.verdict, report.outcome.judge, report.outcome.strict) == ("kept", "torch", True)


def test_an_operation_that_does_not_fit_ends_the_audit():
    with pytest.raises(ckptaudit.UsageError, match=r"transpose fc\.bias: fc\.bias \(3,\) has 1 dimensions"):
        ckptaudit.diff(Net(), Net().state_dict(), mapping=["transpose fc.bias"])


def test_a_mapping_may_be_the_path_of_a_file(tmp_path):
    path = tmp_path / "map.toml"
    path.write_text('[[rule]]\nrename = "module.* -> *"\n')
    for given in (path, str(path), [path]):
        assert ckptaudit.diff(Net(), wrapped(Net().state_dict()), mapping=given).ok


@pytest.mark.parametrize("rule", ["init fc.*", "expect_missing fc.*"])
def test_keys_that_are_expected_to_be_missing_break_nothing(rule):
    state = {key: value for key, value in Net().state_dict().items() if not key.startswith("fc.")}
    report = ckptaudit.diff(Net(), state, mapping=[rule])
    assert (report.verdict, report.findings) == ("kept", ())
    assert not report.outcome.strict
    assert report.mapping.to_json()["expected_missing"] == ["fc.weight", "fc.bias"]


def test_an_expectation_that_is_not_met_is_a_rule_that_matches_nothing():
    report = ckptaudit.diff(Net(), Net().state_dict(), mapping=["expect_missing fc.*"])
    assert codes(report) == ["CKPT903"]
    assert report.mapping.to_json() == {"given": ["expect_missing fc.*"], "proposed": []}


def test_nothing_is_proposed_for_a_key_that_is_to_keep_its_values():
    state = {key.replace("fc.", "head."): value for key, value in Net().state_dict().items()}
    assert codes(ckptaudit.diff(Net(), state)) == ["CKPT104"]
    report = ckptaudit.diff(Net(), state, mapping=["expect_missing fc.*"])
    assert codes(report) == ["CKPT102"]


def test_a_witness_agrees_and_touches_nothing(path):
    model = Net()
    before = copy.deepcopy(model.state_dict())
    report = ckptaudit.diff(model, path, witness=True)
    assert (report.ok, report.hearing.agrees, report.hearing.reader) == (True, True, "torch.load")
    assert report.to_json()["witness"]["agrees"] is True
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert ckptaudit.diff(model, path).to_json()["witness"] is None


def test_a_witness_loads_under_the_given_and_the_proposed_mapping():
    state = {key.replace("fc.", "head."): value for key, value in Net().state_dict().items()}
    report = ckptaudit.diff(Net(), wrapped(state), mapping=["module.* -> *"], witness=True)
    as_is, mapped = report.hearing.opinions
    assert (as_is[1].outcome.loaded, mapped[1].outcome.loaded) == (0, len(state))
    assert (report.hearing.agrees, report.hearing.prediction) == (True, True)


def test_a_witness_needs_a_model_and_values(path):
    with pytest.raises(UsageError, match="is a manifest, into which no witness can load"):
        ckptaudit.diff(Manifest.of(Net()), path, witness=True)
    with pytest.raises(UsageError, match="is a checkpoint, into which no witness can load"):
        ckptaudit.diff(path, path, witness=True)
    with pytest.raises(UsageError, match="is a manifest and holds no values that a witness could load"):
        ckptaudit.diff(Net(), Manifest.of(Net()), witness=True)
    with pytest.raises(UsageError, match="Net: is a model and holds no values"):
        ckptaudit.diff(Net(), Net(), witness=True)


def test_a_model_that_prediction_alone_would_get_wrong():
    old, new = nn.utils.weight_norm, nn.utils.parametrizations.weight_norm
    with pytest.warns(FutureWarning):
        state = old(nn.Linear(2, 2)).state_dict()
    report = ckptaudit.diff(new(nn.Linear(2, 2)), state, witness=True)
    assert (report.ok, report.hearing.agrees, report.hearing.prediction) == (True, True, False)
