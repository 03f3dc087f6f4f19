"""The eight changes of fixtures/article: what ckptaudit says of each, with torch's own load as the judge."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

import ckptaudit

HERE = Path(__file__).parents[1] / "fixtures" / "article"
CHECKPOINT = str(HERE / "resnet18.pth")


def built(name):
    spec = importlib.util.spec_from_file_location(f"article_{name}", HERE / name / "model.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    make = getattr(module, "build_model", None) or module.Classifier
    with torch.device("meta"):
        return make()


def torchs_word(name, strict):
    state = torch.load(CHECKPOINT, weights_only=True)
    try:
        return built(name).load_state_dict(state, strict=strict, assign=True)
    except RuntimeError:
        return None


# change: (codes as found, missing, unexpected, mismatched, loaded without mapping, matched with the proposed mapping)
EXPECTED = {
    "add_layer": (["CKPT101"], 2, 0, 0, 122, 122),
    "delete_layer": (["CKPT102"], 0, 32, 0, 90, 90),
    "replace_layer": (["CKPT101", "CKPT102"], 6, 24, 0, 98, 98),
    "replace_in_modules": (["CKPT201"], 0, 0, 2, 120, 120),
    "extract_layers": (["CKPT104", "CKPT102"], 120, 122, 0, 0, 120),
    "own_class": (["CKPT103", "CKPT101", "CKPT102"], 122, 122, 0, 0, 120),
    "changed_head": (["CKPT201"], 0, 0, 2, 120, 120),
    "changed_input": (["CKPT201"], 0, 0, 1, 121, 121),
}


def test_every_change_has_its_folder():
    assert {path.parent.name for path in HERE.glob("*/model.py")} == set(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_what_is_said_of_a_change(name):
    codes, missing, unexpected, mismatched, loaded, matched = EXPECTED[name]
    report = ckptaudit.diff(str(HERE / name / "model.py"), CHECKPOINT)
    data = report.to_json()
    assert [f["code"] for f in data["findings"] if f["level"] == "error"] == codes
    alignment = data["alignment"]
    sizes = [len(alignment[f"{kind}_keys"]) for kind in ("missing", "unexpected", "mismatched")]
    assert sizes == [missing, unexpected, mismatched]
    assert data["loads"]["non_strict"]["loaded"] == loaded
    assert report.outcome.loaded == matched
    assert data["loads"]["judge"] == "torch"
    assert data["exit_status"] == 1


@pytest.mark.parametrize("name", EXPECTED)
def test_torch_agrees(name):
    report = ckptaudit.diff(built(name), CHECKPOINT, witness=True)
    assert (report.hearing.agrees, report.hearing.prediction, report.hearing.reader) == (True, True, "torch.load")
    assert len(report.hearing.opinions) == (1 if report.mapping is None else 2)
    loads = report.to_json()["loads"]
    assert loads["strict"]["as_is"] is (torchs_word(name, strict=True) is not None)
    result = torchs_word(name, strict=False)
    assert loads["non_strict"]["as_is"] is (result is not None)
    if result is not None:
        assert result.missing_keys == loads["non_strict"]["missing_keys"]
        assert result.unexpected_keys == loads["non_strict"]["unexpected_keys"]


def test_the_witness_of_a_model_that_is_built_in_its_own_process():
    report = ckptaudit.diff(str(HERE / "own_class" / "model.py"), CHECKPOINT, witness=True)
    assert (report.hearing.agrees, len(report.hearing.opinions), report.hearing.reader) == (True, 2, "torch.load")


def test_the_unchanged_model_keeps_every_contract_but_resume():
    for contract in ("open", "partial", "strict", "exact"):
        assert ckptaudit.diff("torchvision.models:resnet18", CHECKPOINT, contract=contract).ok
