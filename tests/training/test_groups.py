"""param_groups: what the optimizer gets, and what is refused."""

from __future__ import annotations

import pytest
import torch
from test_freezing import Net, changed, state, train
from torch import nn

from ckptaudit.errors import UsageError
from ckptaudit.training.groups import param_groups

THREE = {"backbone.0": "freeze", "backbone.1": {"lr": 1e-4}, "fc.*": {"lr": 1e-2, "weight_decay": 0.0}}


def test_each_trainable_parameter_is_in_one_group():
    model = Net()
    groups = param_groups(model, THREE)
    assert [group["name"] for group in groups] == ["backbone.1", "fc.*"]
    assert [group["lr"] for group in groups] == [1e-4, 1e-2]
    by_name = dict(model.named_parameters())
    expected = [[p for name, p in by_name.items() if name.startswith(prefix)] for prefix in ("backbone.1", "fc")]
    assert [[id(p) for p in group["params"]] for group in groups] == [[id(p) for p in ps] for ps in expected]
    assert [name for name, p in by_name.items() if not p.requires_grad] == [
        name for name in by_name if name.startswith("backbone.0.")
    ]


@pytest.mark.parametrize(
    "optimizer",
    [
        torch.optim.SGD,
        torch.optim.Adam,
        torch.optim.AdamW,
        torch.optim.RMSprop,
        torch.optim.Adagrad,
        torch.optim.Adadelta,
        torch.optim.Adamax,
        torch.optim.NAdam,
        torch.optim.RAdam,
        torch.optim.ASGD,
        torch.optim.Rprop,
    ],
)
def test_any_optimizer_takes_the_groups(optimizer):
    model = Net()
    optimizer = optimizer(param_groups(model, THREE), lr=0.5)
    assert [group["lr"] for group in optimizer.param_groups] == [1e-4, 1e-2]
    before = state(model)
    train(model, optimizer)
    assert not any(key.startswith("backbone.0.") for key in changed(before, state(model)))
    assert {"backbone.1.0.weight", "fc.weight"} <= changed(before, state(model))


def test_lbfgs_takes_the_one_group_it_can_have():
    model = Net()
    (group,) = param_groups(model, {"backbone": "freeze", "fc": {}})
    assert torch.optim.LBFGS([group]).param_groups[0]["params"] == [*model.fc.parameters()]


def test_the_rest_can_be_named_by_exclusion():
    groups = param_groups(Net(), {"backbone": "freeze", "!backbone": {"lr": 1.0}})
    assert [len(group["params"]) for group in groups] == [2]
    several = {("backbone.*", "!backbone.1"): "freeze", ("backbone.1", "fc"): {"lr": 1.0}}
    assert [group["name"] for group in param_groups(Net(), several)] == ["backbone.1, fc"]


def test_a_parameter_frozen_before_needs_no_group():
    model = Net()
    model.backbone.requires_grad_(False)
    assert [len(group["params"]) for group in param_groups(model, {"fc": {"lr": 1.0}})] == [2]


def test_a_tied_parameter_is_there_once():
    model = nn.Sequential(nn.Embedding(4, 4), nn.Linear(4, 4, bias=False))
    model[1].weight = model[0].weight
    (group,) = param_groups(model, {"*": {"lr": 1.0}})
    assert len(group["params"]) == 1
    (group,) = param_groups(model, {"0": {"lr": 1.0}})
    assert len(group["params"]) == 1


def refused(groups, model=None):
    model = model or Net()
    flags = [p.requires_grad for p in model.parameters()]
    with pytest.raises(UsageError) as caught:
        param_groups(model, groups)
    assert [p.requires_grad for p in model.parameters()] == flags
    return str(caught.value), caught.value.hint


def test_what_does_not_add_up_is_refused():
    assert refused({"backbone": "freeze"}) == (
        "fc.weight: is trainable and in no group, with 1 more parameter",
        'add "fc.*": {"lr": ...} or "freeze"',
    )
    assert refused({"backbone": "freeze", "*": {"lr": 1.0}})[0] == (
        "backbone.0.0.weight: is selected twice, as backbone and as *"
    )
    assert refused({"backbone": "freeze", "fd": {}})[0] == "fd: matches no tensor"
    assert refused({"backbone": "frozen", "fc": {}})[0] == "backbone: has no options of a group: 'frozen'"
    assert refused({"backbone": {"params": []}, "fc": {}})[0].startswith("backbone: has no options of a group")
    buffers = {"module:BatchNorm1d/buffers": {"lr": 1.0}, "!module:BatchNorm1d/buffers": {}}
    assert refused(buffers)[0] == "module:BatchNorm1d/buffers: matches buffers only; an optimizer trains parameters"
    assert refused({"backbone": {}, "fc.bias": {}, "rows:fc.weight[0:1]": {}})[0] == (
        "fc.weight: is selected in part, and an optimizer takes whole tensors"
    )
    model = Net()
    model.fc.bias.requires_grad = False
    assert refused({"*": {"lr": 1.0}}, model)[0] == "fc.bias: has requires_grad=False, and its group is to train"
