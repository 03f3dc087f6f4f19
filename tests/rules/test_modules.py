"""Ties, buffers, extra state, versions, parametrizations and load hooks of live models, against torch's own word."""

import copy
import warnings
from collections import OrderedDict

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune, spectral_norm, weight_norm

import ckptaudit
from ckptaudit.formats import open_checkpoint

from .support import codes, diff, follow, found, manifest, spec

old_weight_norm = weight_norm


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(8, 4)
        self.head = nn.Linear(4, 8, bias=False)
        self.head.weight = self.embed.weight


def loads(model, state):
    """Return the keys that torch misses and does not expect."""
    return tuple(map(sorted, copy.deepcopy(model).load_state_dict(state, strict=False)))


# Ties ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kept", "lost"), [("embed.weight", "head.weight"), ("head.weight", "embed.weight")])
def test_a_missing_tie_is_no_missing_key(kept, lost):
    state = {kept: torch.zeros(8, 4)}
    assert loads(Tied(), state) == ([lost], [])
    report = diff(Tied(), state)
    assert codes(report) == ["CKPT402"]
    finding = found(report, "CKPT402")
    assert finding.message == "1 tensor of the model is missing, but tied to one that is there"
    assert finding.rows == ((lost, kept),)
    assert finding.fixes[0].do == f'state["{lost}"] = state["{kept}"]'
    exec(finding.fixes[0].do, {"state": state})
    assert diff(Tied(), state).ok


def test_a_tie_that_is_missing_as_a_whole_is_missing_keys():
    assert codes(
        diff(nn.ModuleDict({"lm": Tied(), "fc": nn.Linear(2, 2)}), nn.ModuleDict({"fc": nn.Linear(2, 2)}).state_dict())
    ) == ["CKPT101"]


def tied_file(tmp_path, second):
    path = tmp_path / "tied.pth"
    torch.save({"embed.weight": torch.zeros(8, 4), "head.weight": second}, path)
    return str(path)


def test_values_of_a_tie_are_compared_in_the_file(tmp_path):
    assert codes(diff(Tied(), tied_file(tmp_path, torch.zeros(8, 4)))) == []
    report = diff(Tied(), tied_file(tmp_path, torch.ones(8, 4)))
    assert codes(report) == ["CKPT401"]
    finding = found(report, "CKPT401")
    assert finding.message == "1 tensor tied in the model, with different values in the checkpoint"
    assert finding.rows == (("head.weight", "embed.weight"),)
    assert not diff(Tied(), tied_file(tmp_path, torch.ones(8, 4)), ["--contract", "exact"]).ok


def test_values_of_a_tie_are_found_under_a_mapping(tmp_path):
    path = tmp_path / "tied.pth"
    torch.save({"module.embed.weight": torch.zeros(8, 4), "module.head.weight": torch.ones(8, 4)}, path)
    report = diff(Tied(), str(path))
    assert codes(report) == ["CKPT103", "CKPT401"]
    assert found(report, "CKPT401").mapped


def test_one_storage_under_both_names_is_not_read(tmp_path):
    path = tmp_path / "tied.pth"
    torch.save(Tied().state_dict(), path)
    checkpoint = open_checkpoint(path)
    path.write_bytes(b"")  # nothing can be read any more
    assert codes(ckptaudit.diff(Tied(), checkpoint)) == []


@pytest.mark.parametrize("second", [torch.zeros(4, 8).T, torch.zeros(9, 4)[1:]], ids=["strided", "a view"])
def test_values_of_a_tie_are_compared_whatever_their_layout(tmp_path, second):
    assert "CKPT401" not in codes(diff(Tied(), tied_file(tmp_path, second)))
    changed = second.clone()
    changed[-1, -1] = 1
    view = torch.stack([changed, changed], -1)[..., 0]
    assert "CKPT401" in codes(diff(Tied(), tied_file(tmp_path, view)))


def test_without_a_file_the_values_of_a_tie_are_not_known():
    finding = found(diff(Tied(), manifest({"embed.weight": (8, 4), "head.weight": (8, 4)})), "CKPT401")
    assert finding.case == "undecided"


# Buffers ---------------------------------------------------------------------------------------------------


class Positions(nn.Module):
    def __init__(self, persistent):
        super().__init__()
        self.embed = nn.Embedding(8, 4)
        self.register_buffer("ids", torch.arange(8), persistent=persistent)


def test_a_buffer_that_left_the_state_dict():
    state = Positions(True).state_dict()
    assert loads(Positions(False), state) == ([], ["ids"])
    report, fixed = follow(Positions(False), state)
    assert codes(report) == ["CKPT403"]
    assert found(report, "CKPT403").message == (
        "1 buffer of the checkpoint that the model does not save (persistent=False)"
    )
    assert found(report, "CKPT403").fixes[0].do == "--drop ids"
    assert fixed.ok


def test_a_buffer_that_entered_the_state_dict():
    state = Positions(False).state_dict()
    assert loads(Positions(True), state) == (["ids"], [])
    report, fixed = follow(Positions(True), state)
    assert codes(report) == ["CKPT403"]
    assert found(report, "CKPT403").message == "1 buffer of the model is not in the checkpoint"
    assert fixed.ok


def test_buffers_of_a_missing_module_are_missing_keys():
    model = nn.ModuleDict({"norm": nn.BatchNorm1d(3), "fc": nn.Linear(3, 2)})
    state = nn.ModuleDict({"fc": nn.Linear(3, 2)}).state_dict()
    report = diff(model, state)
    assert codes(report) == ["CKPT101", "CKPT408"]
    assert found(report, "CKPT101").keys == ("norm.weight", "norm.bias", "norm.running_mean", "norm.running_var")
    assert found(report, "CKPT408").keys == ("norm.num_batches_tracked",)  # a counter that torch does not ask for


def test_both_directions_at_once_are_two_findings():
    model = nn.ModuleDict({"a": Positions(True), "b": Positions(False)})
    state = nn.ModuleDict({"a": Positions(False), "b": Positions(True)}).state_dict()
    report, fixed = follow(model, state)
    assert codes(report) == ["CKPT403", "CKPT403"]
    assert fixed.ok


# Extra state -----------------------------------------------------------------------------------------------


class Quantizer(nn.Linear):
    def __init__(self):
        super().__init__(4, 2)
        self.bits = 8

    def get_extra_state(self):
        return {"bits": self.bits}

    def set_extra_state(self, state):
        self.bits = state["bits"]


@pytest.mark.parametrize(
    ("model", "saved", "message"),
    [
        (Quantizer, lambda: nn.Linear(4, 2), "1 extra state of the model is not in the checkpoint"),
        (lambda: nn.Linear(4, 2), Quantizer, "1 extra state of the checkpoint has no module to go to"),
    ],
    ids=["missing", "unexpected"],
)
def test_extra_state_on_one_side(model, saved, message):
    state = saved().state_dict()
    assert sum(map(len, loads(model(), state))) == 1
    report, fixed = follow(model(), state)
    assert codes(report) == ["CKPT404"]
    assert found(report, "CKPT404").message == message
    assert fixed.ok


# Versions --------------------------------------------------------------------------------------------------


class Versioned(nn.Linear):
    _version = 2


@pytest.mark.parametrize(("saved", "fires"), [(1, False), (2, False), (3, True), (None, False)])
def test_a_newer_module_version(saved, fires):
    state = OrderedDict(Versioned(4, 2).state_dict())
    state._metadata = OrderedDict({"": {"version": saved} if saved else {}})
    report = diff(Versioned(4, 2), state)
    assert codes(report) == (["CKPT406"] if fires else [])
    if fires:
        assert found(report, "CKPT406").rows == (("(the model itself)", "3", "2"),)
        assert found(report, "CKPT406").message == "1 module saved in a newer version than the model's"


# Parametrizations ------------------------------------------------------------------------------------------


def conv():
    return nn.ModuleDict({"conv": nn.Conv1d(3, 4, 1)})


def changed(change):
    model = conv()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        change(model["conv"])
    return model


FORMS = {
    "plain": conv,
    "old weight_norm": lambda: changed(old_weight_norm),
    "old spectral_norm": lambda: changed(spectral_norm),
    "weight_norm": lambda: changed(parametrizations.weight_norm),
    "spectral_norm": lambda: changed(parametrizations.spectral_norm),
    "orthogonal": lambda: changed(parametrizations.orthogonal),
    "pruned": lambda: changed(lambda m: prune.l1_unstructured(m, "weight", 0.5)),
}
BRIDGED = {("old weight_norm", "weight_norm")}
SAME_NAMES = {"old weight_norm", "old spectral_norm"}  # weight_v of both, in other shapes: a size mismatch
PAIRS = [(a, b) for a in FORMS for b in FORMS if a != b and {a, b} != SAME_NAMES]


@pytest.mark.parametrize(("saved", "wanted"), PAIRS)
def test_another_parametrization_is_one_finding(saved, wanted):
    state = FORMS[saved]().state_dict()
    missing, unexpected = map(set, FORMS[wanted]().load_state_dict(state, strict=False))
    report = diff(FORMS[wanted](), state)
    if (saved, wanted) in BRIDGED:
        assert missing == unexpected == set()
        assert codes(report) == ["CKPT408"]
        assert report.ok
        return
    assert codes(report) == ["CKPT407"], (missing, unexpected)
    finding = found(report, "CKPT407")
    assert missing | unexpected == finding.explains
    assert not report.ok


def test_names_that_only_end_like_a_parametrization_are_missing_and_unexpected():
    report = diff(manifest({"attn.bias": (7,), "x": (3,)}), manifest({"attn.bias_v": (5,), "x": (3,)}))
    assert codes(report) == ["CKPT101", "CKPT102"]


def test_a_removed_parametrization_leaves_the_bias_alone():
    model = FORMS["weight_norm"]()
    parametrize.remove_parametrizations(model["conv"], "weight")
    assert codes(diff(model, FORMS["plain"]().state_dict())) == []


# Load hooks ------------------------------------------------------------------------------------------------


def test_what_hooks_bridge_is_a_note_and_no_error():
    report = diff(FORMS["weight_norm"](), FORMS["old weight_norm"]().state_dict())
    finding = found(report, "CKPT408")
    assert finding.message == "4 keys on one side only or of another shape, bridged by the model's own load code"
    assert report.ok


def test_load_code_that_refuses_is_quoted():
    model = nn.InstanceNorm1d(3, affine=True)
    state = dict(nn.InstanceNorm1d(3, affine=True, track_running_stats=True).state_dict())
    del state["num_batches_tracked"]
    with pytest.raises(RuntimeError, match="Unexpected running stats"):
        copy.deepcopy(model).load_state_dict(state, strict=False)
    report = diff(model, state)
    assert codes(report) == ["CKPT409"]
    assert found(report, "CKPT409").data["reason"].startswith("Unexpected running stats buffer(s)")
    assert not diff(model, state, ["--contract", "partial"]).ok


def test_a_size_mismatch_is_never_called_a_hook_error():
    assert codes(diff(nn.Linear(4, 2), nn.Linear(4, 3).state_dict())) == ["CKPT201"]
    assert codes(diff(manifest(w=spec(2, 3)), manifest(w=spec(3, 3)))) == ["CKPT201"]
