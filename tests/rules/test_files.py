"""The file: what readers refuse with a code, and what is said of a file that opens."""

import argparse
import json

import pytest
import torch

from ckptaudit import audit
from ckptaudit.errors import FormatError
from ckptaudit.formats import DEFAULT_LIMITS, open_checkpoint
from ckptaudit.inspection import inspect
from ckptaudit.rules import RULES

from .support import FIXTURES, codes, diff, follow, found, manifest, net

import rule_hits  # isort: skip

MODEL = manifest(net())
REASONS = {
    "CKPT001": "is a git-lfs pointer to a file of",
    "CKPT002": "gives the storage '0' 4,000 bytes, the record has 40",
    "CKPT003": "has the tensor 'weight', which overlaps the tensor 'bias' by 8 bytes",
    "CKPT501": "names the shard 'checkpoint-00002-of-00002.safetensors', which is not there",
    "CKPT502": "puts 'fc.bias' into checkpoint-00001-of-00002.safetensors, which does not hold it",
    "CKPT701": "it names my_project.config.Config",
    "CKPT702": "it names posix.system",
    "CKPT503": "has the key 'conv.weight' in two of its shards, checkpoint-00001-of-00002.safetensors and",
    "CKPT705": "names the shard '../clean/checkpoint-00002-of-00002.safetensors', which is not the name of a file",
    "CKPT703": "has a dict key of 5,000 characters",
    "CKPT704": "8 bytes follow the pickle in its data.pkl",
}


def zeros(shapes):
    return {key: torch.zeros(shape) for key, shape in shapes.items()}


def fires(code):
    return rule_hits.checkpoint_of(FIXTURES / "rules" / code / "fires")


@pytest.mark.parametrize("code", REASONS)
def test_a_refused_file_says_which_rule_it_breaks_and_why(code):
    with pytest.raises(FormatError) as caught:
        audit.diff(MODEL, str(fires(code)))
    assert caught.value.code == code
    assert REASONS[code] in caught.value.reason
    assert caught.value.hint


@pytest.mark.parametrize("code", ["CKPT701", "CKPT702"])
def test_inspect_describes_a_pickle_that_is_refused(code):
    inspected = inspect(fires(code))
    assert [(g.level, g.finding.rule.code) for g in inspected.findings] == [("error", code)]
    assert not inspected.ok
    assert inspected.findings[0].finding.message.startswith("the pickle names ")
    assert len(inspected.chosen.manifest) == 3


def test_inspect_describes_a_file_without_a_choice():
    inspected = inspect(fires("CKPT006"))
    assert [(g.level, g.finding.rule.code) for g in inspected.findings] == [("error", "CKPT006")]
    assert inspected.findings[0].finding.message == (
        "holds 2 state dicts and no choice: generator (3 tensors), discriminator (3 tensors)"
    )


@pytest.mark.parametrize("limit", ["pickle_bytes", "pickle_opcodes", "memo_entries", "zip_entries", "string_bytes"])
def test_a_file_over_any_limit_is_not_fully_scanned(limit):
    path = FIXTURES / "rules" / "CKPT703" / "clean" / "checkpoint.pth"
    with pytest.raises(FormatError) as caught:
        open_checkpoint(path, limits=replace_limits(**{limit: 1}))
    assert caught.value.code == "CKPT703"


def replace_limits(**changes):
    values = {name: getattr(DEFAULT_LIMITS, name) for name in type(DEFAULT_LIMITS).__annotations__}
    return type(DEFAULT_LIMITS)(**(values | changes))


def test_every_code_that_a_reader_gives_is_a_rule():
    sources = (FIXTURES.parent / "ckptaudit" / "formats").rglob("*.py")
    named = {word[:8] for path in sources for word in path.read_text().split("CKPT")[1:] for word in [f"CKPT{word}"]}
    assert {code for code in named if code[4:].isdigit()} <= set(RULES)


# Files that open -------------------------------------------------------------------------------------------


def test_plain_data_outside_of_torchs_list_is_named(tmp_path):
    path = tmp_path / "lightning.ckpt"
    torch.save({"hyper_parameters": argparse.Namespace(lr=1), "state_dict": zeros(net())}, path)
    with pytest.raises(Exception, match="weights_only"):
        torch.load(path, weights_only=True)
    report = diff(MODEL, str(path))
    finding = found(report, "CKPT004")
    assert finding.message == "torch.load opens it only with a full pickle: argparse.Namespace"
    assert not report.ok
    torch.save({"hyper_parameters": {"lr": 1}, "state_dict": zeros(net())}, path)
    assert diff(MODEL, str(path)).ok


@pytest.mark.parametrize("side", ["fires", "clean"])
def test_the_old_format_is_a_note_and_opens(side):
    folder = FIXTURES / "rules" / "CKPT005" / side
    report = diff(str(folder / "model.manifest.json"), str(folder / "checkpoint.pth"))
    assert codes(report) == (["CKPT005"] if side == "fires" else [])
    assert report.ok
    assert torch.equal(torch.load(folder / "checkpoint.pth")["weight"], torch.zeros(2, 4))


def test_a_list_where_the_model_has_a_tensor(tmp_path):
    path = tmp_path / "lists.pth"
    torch.save(zeros(net()) | {"fc.bias": [0.0, 0.0]}, path)
    report, fixed = follow(MODEL, str(path))
    assert codes(report) == ["CKPT007"]
    assert found(report, "CKPT007").rows == (("fc.bias", "list", "(2,)"),)
    assert found(report, "CKPT007").message == "1 tensor of the model is no tensor in the checkpoint"
    assert fixed.ok
    module = torch.nn.ModuleDict({"conv": torch.nn.Conv2d(3, 4, 1, bias=False), "fc": torch.nn.Linear(4, 2)})
    assert codes(diff(module, str(path))) == ["CKPT007"]
    with pytest.raises(RuntimeError, match="While copying"):
        module.load_state_dict(torch.load(path), strict=False)


def stored(tmp_path, state):
    path = tmp_path / "views.pth"
    torch.save(state, path)
    report = diff(str(path), str(path))
    return [g.finding for g in report.findings if g.finding.rule.code == "CKPT008"]


def test_a_view_of_a_large_storage(tmp_path):
    table = torch.zeros(64, 4)
    [finding] = stored(tmp_path, {"weight": table[:2]})
    assert finding.message == "1 tensor saved with more storage than shown (992 bytes more)"
    assert finding.rows == (("weight", "32 B", "1,024 B"),)
    assert finding.data == {"extra": 992}
    assert stored(tmp_path, {"weight": table[:2].clone()}) == []


@pytest.mark.parametrize(
    "views",
    [
        lambda table: {"a": table[:2], "b": table[2:]},
        lambda table: {"a": table, "b": table},
        lambda table: {"a": table, "b": table[:1]},
        lambda table: {"a": table[:1].expand(8, 4)[:, :1].clone().expand(8, 9)},
    ],
    ids=["halves", "tied", "whole and part", "expanded"],
)
def test_storages_that_are_shown_whole(tmp_path, views):
    assert stored(tmp_path, views(torch.zeros(4, 4))) == []


def test_names_of_one_view_show_it_once(tmp_path):
    part = torch.zeros(4, 4)[:2]
    [finding] = stored(tmp_path, {"a": part, "b": part})
    assert finding.data == {"extra": 32}


def test_the_index_of_a_fixture_is_the_one_of_its_shards():
    folder = FIXTURES / "rules" / "CKPT501" / "clean"
    index = json.loads((folder / "checkpoint.safetensors.index.json").read_text())
    assert set(index["weight_map"].values()) == {path.name for path in folder.glob("*.safetensors")}
    assert index["metadata"]["total_size"] == inspect(folder).chosen.manifest.nbytes
