"""Selections: names without wrappers, globs, exclusions, regular expressions, types of modules, rows."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from ckptaudit.errors import UsageError
from ckptaudit.training.names import named_tensors
from ckptaudit.training.select import claims, select


def readable(value):
    """Name a parameter of a test the same in every process: functions print their address."""
    return re.sub(r" at 0x[0-9a-f]+", "", str(value))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3))
        self.fc = nn.Linear(4, 2)
        self.fc2 = nn.Linear(4, 2)
        self.register_buffer("scale", torch.ones(2), persistent=False)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb = nn.Embedding(10, 4)
        self.head = nn.Linear(4, 10)
        self.head.weight = self.emb.weight


def names(patterns, model=None):
    return list(select(model or Net(), patterns))


def failure(call, *arguments):
    with pytest.raises(UsageError) as caught:
        call(*arguments)
    return caught.value


# Names -----------------------------------------------------------------------------------------------------


def test_all_that_torch_names_is_there_and_non_persistent_buffers_too():
    model = Net()
    found = named_tensors(model)
    expected = dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers(remove_duplicate=False))
    assert {name: named.tensor for name, named in found.items()}.keys() == expected.keys()
    assert all(named.tensor is expected[named.path] for named in found.values())
    assert [name for name, named in found.items() if not named.persistent] == ["scale"]
    assert [n for n, named in found.items() if named.kind == "parameter"] == [n for n, _ in model.named_parameters()]
    assert found["backbone.1.running_var"].module is model.backbone[1]
    assert found["backbone.1.running_var"].attribute == "running_var"


def test_tied_tensors_have_each_of_their_names():
    assert list(named_tensors(Tied())) == ["emb.weight", "head.weight", "head.bias"]


@pytest.mark.parametrize(
    "wrap",
    [
        nn.DataParallel,
        torch.compile,
        torch.optim.swa_utils.AveragedModel,
        lambda net: nn.DataParallel(torch.compile(net)),
        lambda net: torch.compile(nn.DataParallel(net)),
    ],
)
def test_wrappers_are_not_part_of_a_name(wrap):
    wrapped = named_tensors(wrap(Net()))
    assert [name for name in wrapped if name != "n_averaged"] == list(named_tensors(Net()))


def test_a_module_of_ones_own_may_be_called_module():
    model = nn.Module()
    model.module = nn.Linear(2, 2)
    assert list(named_tensors(model)) == ["module.weight", "module.bias"]


def test_names_that_would_meet_stay_whole():
    inner = nn.Linear(2, 2)
    inner.register_buffer("n_averaged", torch.ones(()))
    wrapped = torch.optim.swa_utils.AveragedModel(inner)
    assert list(named_tensors(wrapped)) == ["n_averaged", "weight", "bias", "module.n_averaged"]


def test_checkpoint_wrappers_are_not_part_of_a_name():
    from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

    model = nn.Sequential(checkpoint_wrapper(nn.Linear(2, 2)))
    assert list(named_tensors(model)) == ["0.weight", "0.bias"]


def test_a_module_inside_itself_ends():
    model = nn.Linear(2, 2)
    model._modules["again"] = model
    assert list(named_tensors(model)) == ["weight", "bias"]


# Patterns --------------------------------------------------------------------------------------------------

BACKBONE = [name for name in named_tensors(Net()) if name.startswith("backbone.")]
HEADS = ["fc.weight", "fc.bias", "fc2.weight", "fc2.bias"]


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        ("backbone.*", BACKBONE),
        ("backbone", BACKBONE),
        ("fc", ["fc.weight", "fc.bias"]),
        ("fc*", HEADS),
        ("{fc,fc2}.weight", ["fc.weight", "fc2.weight"]),
        ("backbone.{0..1}.weight", ["backbone.0.weight", "backbone.1.weight"]),
        ("*.bias", [n for n in named_tensors(Net()) if n.endswith(".bias")]),
        (["backbone.*", "!backbone.1"], [n for n in BACKBONE if not n.startswith("backbone.1.")]),
        (["backbone.*", "!backbone.*", "backbone.0.bias"], ["backbone.0.bias"]),
        (["!backbone.*"], ["scale", *HEADS]),
        (r"re:^fc\d?\.w", ["fc.weight", "fc2.weight"]),
        (r"re:\.running_", ["backbone.1.running_mean", "backbone.1.running_var"]),
        ("module:Linear", HEADS),
        ("module:Linear/parameters", HEADS),
        (
            "module:BatchNorm2d/buffers",
            ["backbone.1.running_mean", "backbone.1.running_var", "backbone.1.num_batches_tracked"],
        ),
        ("module:_BatchNorm/parameters", ["backbone.1.weight", "backbone.1.bias"]),
        ("module:Sequential", BACKBONE),
        (lambda name, tensor, module: tensor.dim() == 4, ["backbone.0.weight", "backbone.2.weight"]),
        ([lambda name, tensor, module: isinstance(module, nn.Linear), "!fc2"], ["fc.weight", "fc.bias"]),
        ([], []),
    ],
    ids=readable,
)
def test_patterns_select(patterns, expected):
    assert names(patterns) == expected


def test_patterns_are_of_canonical_names():
    assert names("backbone.*", nn.DataParallel(Net())) == BACKBONE


def test_a_glob_reaches_below_a_parametrized_weight():
    model = nn.Sequential(parametrizations.weight_norm(nn.Linear(2, 2)))
    tensors = ["0.parametrizations.weight.original0", "0.parametrizations.weight.original1"]
    assert names("*.weight", model) == tensors


@pytest.mark.parametrize(
    ("pattern", "subject", "hint"),
    [
        ("bakbone.*", "bakbone.*", "the closest name is backbone"),
        (["backbone.*", "!backbone.layer4.*"], "!backbone.layer4.*", None),
        ("module.backbone.*", "module.backbone.*", "the closest name is backbone"),
        ("re:^zzz", "re:^zzz", "the names begin with scale, backbone, fc, fc2"),
        ("module:LayerNorm", "module:LayerNorm", "the names begin with scale, backbone, fc, fc2"),
        ("rows:bc.weight[0:1]", "rows:bc.weight[0:1]", None),
    ],
)
def test_a_pattern_that_matches_nothing_is_an_error(pattern, subject, hint):
    error = failure(select, Net(), pattern)
    assert (error.subject, error.reason) == (subject, "matches no tensor")
    assert hint is None or error.hint == hint


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("", "is an empty pattern"),
        ("!", "is an empty pattern"),
        ("re:(", "is no regular expression: missing ), unterminated subpattern at position 0"),
        ("fc.{", "has an opening brace without a closing one"),
        ("module:", "names no type of module, or another part than buffers and parameters"),
        ("module:Linear/weights", "names no type of module, or another part than buffers and parameters"),
        ("rows:fc.weight", "has no rows to select"),
        ("rows:fc.weight[]", "has no rows to select"),
        ("rows:fc.weight[1:1]", "has no rows to select"),
        ("rows:fc.weight[0:3]", "goes beyond the 2 rows of the tensor"),
        ("rows:backbone.1.num_batches_tracked[0:1]", "means a scalar, which has no rows"),
        (3, "is of type int and no pattern"),
        ([3], "is no pattern"),
    ],
)
def test_what_cannot_be_read_is_an_error(pattern, reason):
    assert failure(select, Net(), pattern).reason.startswith(reason)


# Rows ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("patterns", "rows"),
    [
        ("rows:emb.weight[0:4]", ((0, 4),)),
        ("rows:emb.weight[:4]", ((0, 4),)),
        ("rows:emb.weight[4:]", ((4, 10),)),
        ("rows:emb.weight[0:2, 2:3, 6:8]", ((0, 3), (6, 8))),
        (["rows:emb.weight[5:7]", "rows:emb.weight[0:2]"], ((0, 2), (5, 7))),
        (["emb", "!rows:emb.weight[3:]"], ((0, 3),)),
        (["emb", "!rows:emb.weight[3:5]"], ((0, 3), (5, 10))),
        (["rows:emb.weight[0:4]", "!rows:emb.weight[1:2]"], ((0, 1), (2, 4))),
        (["rows:emb.weight[0:4]", "emb.weight"], None),
        (["emb.weight", "rows:emb.weight[0:4]"], None),
    ],
    ids=readable,
)
def test_rows(patterns, rows):
    assert dict(select(Tied(), patterns).tensors) == {"emb.weight": rows}


def test_excluding_all_rows_excludes_the_tensor():
    assert len(select(Tied(), ["emb.weight", "!rows:emb.weight[:]"])) == 0


# Claims ----------------------------------------------------------------------------------------------------


def claim(model, frozen, trainable):
    tensors = named_tensors(model)
    claims(tensors, {"frozen": select(tensors, frozen), "trainable": select(tensors, trainable)})


def test_a_tensor_claimed_twice_is_an_error():
    error = failure(claim, Net(), ["backbone.*", "fc.bias"], "fc*")
    assert str(error) == "fc.bias: is selected twice, as frozen and as trainable"
    assert error.hint == "take it out of one of them with !fc.bias"


def test_a_tied_tensor_claimed_by_two_names_is_an_error():
    error = failure(claim, Tied(), "emb", "head")
    assert error.subject == "head.weight"
    assert error.reason == "is the same tensor as emb.weight (tied weights), and frozen and trainable cannot both hold"


def test_rows_apart_are_no_conflict():
    claim(Tied(), "rows:emb.weight[0:4]", "rows:head.weight[4:10]")
    failure(claim, Tied(), "rows:emb.weight[0:4]", "rows:head.weight[3:10]")
    failure(claim, Tied(), "rows:emb.weight[0:4]", "emb")


def test_disjoint_selections_are_no_conflict():
    claim(Net(), ["backbone.*"], "fc*")
