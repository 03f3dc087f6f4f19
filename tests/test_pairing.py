"""``diff(values=True)``: what is compared with what, under mappings, for files, state dicts and live models."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import ckptaudit
from ckptaudit import Manifest
from ckptaudit.errors import UsageError


@pytest.fixture
def state():
    torch.manual_seed(0)
    return {"conv.weight": torch.randn(3, 4), "fc.weight": torch.randn(4, 2), "fc.bias": torch.zeros(2)}


@pytest.fixture
def files(tmp_path, state):
    """Write two files: the second with one value changed."""
    torch.save(state, tmp_path / "one.pth")
    torch.save({**state, "fc.bias": torch.tensor([0.0, 0.25])}, tmp_path / "two.pth")
    return tmp_path / "one.pth", tmp_path / "two.pth"


def codes(report):
    return [(graded.finding.rule.code, graded.level) for graded in report.findings]


def states(report):
    return {one.key: one.state for one in report.values.tensors}


def test_equal_files_are_equal_bit_for_bit(files):
    report = ckptaudit.diff(files[0], files[0], values=True)
    assert report.ok and not report.findings and report.contract.name == "exact"
    assert set(states(report).values()) == {"identical"}


def test_a_value_that_differs_breaks_the_exact_contract(files):
    report = ckptaudit.diff(*files, values=True)
    assert codes(report) == [("CKPT305", "error")] and report.exit_status == 1
    assert states(report)["fc.bias"] == "changed" and states(report)["conv.weight"] == "identical"
    assert codes(ckptaudit.diff(*files, values=True, contract="strict")) == [("CKPT305", "warning")]
    assert ckptaudit.diff(*files).values is None


def test_a_tolerance_lets_it_pass(files):
    report = ckptaudit.diff(*files, values=True, atol=0.25)
    assert report.ok and states(report)["fc.bias"] == "close"
    assert not ckptaudit.diff(*files, values=True, atol=0.2).ok
    for wrong in ({"rtol": -1}, {"atol": math.nan}, {"rtol": math.inf}):
        with pytest.raises(UsageError, match="it is a tolerance, and not below 0"):
            ckptaudit.diff(*files, values=True, **wrong)


def test_values_meet_under_the_mapping(files, state, tmp_path):
    torch.save({f"module.{key}": value for key, value in state.items()}, tmp_path / "wrapped.pth")
    report = ckptaudit.diff(files[0], tmp_path / "wrapped.pth", values=True, mapping="module.* -> *")
    assert report.ok and set(states(report).values()) == {"identical"}
    report = ckptaudit.diff(files[1], tmp_path / "wrapped.pth", values=True)  # under the mapping that it proposes
    assert states(report) == {"conv.weight": "identical", "fc.weight": "identical", "fc.bias": "changed"}
    assert report.values.tensors[0].origin == "module.conv.weight"


def test_what_operations_make_is_not_compared_and_said(files):
    report = ckptaudit.diff(files[0], files[0], values=True, mapping="reshape fc.weight shape=4x2")
    assert report.exit_status == 2
    assert report.values.unread == {"fc.weight": "is made by operations on tensors, which are not carried out here"}
    assert codes(report) == [("CKPT905", "error")]


def test_dtypes_are_converted_exactly_and_said(state, tmp_path):
    half = {key: value.half().float() for key, value in state.items()}
    report = ckptaudit.diff({key: value.half() for key, value in half.items()}, half, values=True, contract="strict")
    assert set(states(report).values()) == {"equal"}
    assert codes(report) == [("CKPT301", "warning")]


def test_a_live_model_has_values():
    torch.manual_seed(0)
    model = nn.Linear(4, 2)
    saved = {key: value.detach().clone() for key, value in model.state_dict().items()}
    assert ckptaudit.diff(model, saved, values=True).ok
    with torch.no_grad():
        model.bias[0] += 1
    report = ckptaudit.diff(model, saved, values=True)
    assert codes(report) == [("CKPT305", "error")]
    [changed] = report.values.of("changed")
    assert (changed.key, changed.difference.changed, changed.difference.total) == ("bias", 1, 2)


def test_a_model_on_meta_and_a_manifest_have_none(files, state):
    with torch.device("meta"):
        model = nn.Linear(4, 2)
    report = ckptaudit.diff(
        model, {key: torch.ones_like(value, device="cpu") for key, value in model.state_dict().items()}, values=True
    )
    assert report.values.unread == dict.fromkeys(("weight", "bias"), "is on the meta device and has no values")
    report = ckptaudit.diff(Manifest.of(state), files[0], values=True)
    assert codes(report) == [("CKPT905", "error")] and report.exit_status == 2
    assert report.findings[0].finding.message == "the values were not compared: manifest, a manifest, has none"


def test_values_out_of_range_are_counted_even_where_the_model_has_none(state):
    wanted = Manifest.of({key: value.half() for key, value in state.items()})
    saved = {**state, "fc.bias": torch.tensor([70000.0, math.inf])}
    report = ckptaudit.diff(wanted, saved, values=True)
    assert ("CKPT302", "error") in codes(report)
    assert report.values.overflows == {"fc.bias": (1, 2)}


def test_sparse_and_quantized_tensors_are_not_passed(tmp_path):
    sparse = torch.eye(3).to_sparse()
    torch.save({"w": sparse, "b": torch.ones(1)}, tmp_path / "sparse.pth")
    report = ckptaudit.diff(tmp_path / "sparse.pth", tmp_path / "sparse.pth", values=True)
    assert report.exit_status == 2 and set(report.values.unread) == {"w"}
    assert states(report) == {"b": "identical"}


def test_ties_are_compared_once_and_reported_under_both_names(tmp_path):
    weight = torch.ones(3)
    torch.save({"a": weight, "b": weight}, tmp_path / "one.pth")
    torch.save({"a": weight * 2, "b": weight * 2}, tmp_path / "two.pth")
    report = ckptaudit.diff(tmp_path / "one.pth", tmp_path / "two.pth", values=True)
    assert states(report) == {"a": "changed", "b": "changed"}


def test_a_file_that_is_written_to_meanwhile_is_refused(files, monkeypatch):
    from ckptaudit.compare import summary

    real = summary.compare

    def slow(*arguments, **options):
        with open(files[0], "ab") as file:
            file.write(b"\0")
        return real(*arguments, **options)

    monkeypatch.setattr(summary, "compare", slow)
    with pytest.raises(ckptaudit.FormatError, match="was written to while it was read"):
        ckptaudit.diff(*files, values=True)
