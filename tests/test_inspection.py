"""inspect(): what a file holds as one value, with the findings that need no model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from ckptaudit import FormatError, UsageError
from ckptaudit.inspection import inspect

STATE, OTHER = nn.Linear(2, 2).state_dict(), nn.Linear(2, 2).state_dict()


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def levels(inspection):
    return [(graded.finding.rule.code, graded.level) for graded in inspection.findings]


def test_a_plain_file_is_fine():
    torch.save(STATE, "net.pth")
    found = inspect("net.pth")
    assert (found.ok, found.fault, found.findings) == (True, None, ())
    assert found.chosen.manifest.all_keys == ("weight", "bias")
    assert found.to_json()["manifest"]["tensors"][0]["key"] == "weight"


def test_a_path_object_and_a_path_inside_the_file():
    torch.save({"model": STATE, "ema": OTHER}, "net.pth")
    assert inspect(Path("net.pth")).chosen.path == "model"
    assert inspect("net.pth#ema").chosen.path == "ema"


def test_a_choice_that_cannot_be_made_is_a_finding_with_the_way_out():
    torch.save({"a": STATE, "b": OTHER}, "two.pth")
    found = inspect("two.pth")
    assert (found.ok, found.chosen, levels(found)) == (False, None, [("CKPT006", "error")])
    (fix,) = found.findings[0].finding.fixes
    assert fix.do == "pick one: ckptaudit inspect 'two.pth#a'"
    data = found.to_json()
    assert (data["choice"], data["manifest"]) == (None, None)
    assert data["fault"] == "holds 2 state dicts and no choice: a (2 tensors), b (2 tensors)"


@pytest.mark.parametrize("file", ["net.pth", "folder"])
def test_a_path_that_is_not_there_is_an_error(file):
    Path("folder").mkdir()
    torch.save({"model": STATE}, "net.pth")
    torch.save({"model": STATE}, "folder/net.pth")
    with pytest.raises(FormatError, match="has no state dict at 'ema'; it has model"):
        inspect(f"{file}#ema")


def test_a_file_whose_name_holds_a_hash_comes_first():
    torch.save({"a": STATE, "b": OTHER}, "two#a")
    assert levels(inspect("two#a")) == [("CKPT006", "error")]
    assert inspect("two#a#b").chosen.path == "b"


def test_a_whole_module_is_described_and_refused():
    torch.save(nn.Linear(2, 2), "whole.pth")
    found = inspect("whole.pth")
    assert not found.ok
    assert ("CKPT701", "error") in levels(found)
    assert "torch.nn.modules.linear.Linear" in json.dumps(found.to_json())


def test_views_of_a_larger_storage_are_a_note():
    torch.save({"w": torch.zeros(1000, 4)[:2]}, "view.pth")
    found = inspect("view.pth")
    assert found.ok
    assert levels(found) == [("CKPT008", "note")]


def test_files_that_cannot_be_read_at_all_raise():
    Path("empty").touch()
    with pytest.raises(FormatError, match="is empty"):
        inspect("empty")
    with pytest.raises(UsageError, match="no such file"):
        inspect("missing.pth")


def test_safetensors_has_neither_globals_nor_versions():
    save_file(STATE, "net.safetensors")
    found = inspect("net.safetensors")
    assert found.to_json()["globals"] == []
    assert found.chosen.manifest.versions is None
