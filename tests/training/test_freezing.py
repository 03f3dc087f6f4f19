"""freeze: what it holds, with real optimizers, and how it is undone."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

from ckptaudit.errors import UsageError
from ckptaudit.training.freezing import freeze


def block():
    return nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(block(), block())
        self.fc = nn.Linear(4, 2)

    def forward(self, inputs):
        return self.fc(self.backbone(inputs))


def train(model, optimizer, steps=3):
    for _ in range(steps):
        model.train()
        optimizer.zero_grad()
        model(torch.randn(8, 4)).square().mean().backward()
        optimizer.step()


def state(model):
    return {key: value.clone() for key, value in model.state_dict().items()}


def changed(before, after):
    return {key for key in before if not torch.equal(before[key], after[key])}


OPTIMIZERS = [
    lambda params: torch.optim.SGD(params, lr=0.1, momentum=0.9, weight_decay=0.1),
    lambda params: torch.optim.AdamW(params, lr=0.1, weight_decay=0.1),
    lambda params: torch.optim.AdamW(params, lr=0.1, fused=True),
    lambda params: torch.optim.RMSprop(params, lr=0.1, momentum=0.9),
    lambda params: torch.optim.NAdam(params, lr=0.1),
    lambda params: torch.optim.Adagrad(params, lr=0.1),
]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("midway", [False, True])
def test_what_is_frozen_holds_and_the_rest_moves(optimizer, midway):
    model = Net()
    optimizer = optimizer(model.parameters())
    if midway:
        train(model, optimizer)
    freeze(model, "backbone.*")
    before = state(model)
    train(model, optimizer)
    assert changed(before, state(model)) == {"fc.weight", "fc.bias"}


def test_plain_flags_do_not_hold_the_statistics():
    model = Net()
    model.backbone.requires_grad_(False)
    before = state(model)
    train(model, torch.optim.SGD(model.fc.parameters(), lr=0.1))
    assert "backbone.0.1.running_mean" in changed(before, state(model))


def test_a_gradient_left_over_is_not_applied():
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(torch.randn(8, 4)).sum().backward()
    freeze(model, "backbone")
    before = state(model)
    optimizer.step()
    assert changed(before, state(model)) == {"fc.weight", "fc.bias"}


def modes(model):
    return {name for name, module in model.named_modules() if module.training}


def test_the_mode_follows_what_is_wholly_frozen():
    model = Net()
    freeze(model, "backbone.0")
    assert modes(model.train()) == {"", "backbone", "fc", *(f"backbone.1{part}" for part in ("", ".0", ".1", ".2"))}
    model.backbone[0][1].train()
    assert not model.backbone[0][1].training
    assert modes(model.eval()) == set()


def test_statistics_alone_can_be_held():
    model = Net()
    freeze(model, "module:BatchNorm1d/buffers")
    before = state(model)
    train(model, torch.optim.SGD(model.parameters(), lr=0.1))
    moved = changed(before, state(model))
    assert not any("running" in key or "tracked" in key for key in moved)
    assert {"backbone.0.1.weight", "backbone.0.0.weight", "fc.weight"} <= moved
    assert model.backbone[0][2].training


def test_thawing_gives_back_flags_and_the_mode_last_asked_for():
    model = Net().eval()
    model.backbone[0][0].weight.requires_grad = False
    frozen = freeze(model, "backbone.*")
    assert frozen.parameters == tuple(n for n, _ in model.named_parameters() if n.startswith("backbone."))
    assert frozen.buffers == tuple(n for n, _ in model.named_buffers())
    model.train()
    frozen.thaw()
    frozen.thaw()
    assert modes(model) == {name for name, _ in model.named_modules()}
    assert [n for n, p in model.named_parameters() if not p.requires_grad] == ["backbone.0.0.weight"]
    assert "train" not in vars(model.backbone)


def test_a_block_freezes_for_its_time():
    model = Net()
    with freeze(model, "backbone"):
        assert not model.backbone[0][0].weight.requires_grad
    assert all(p.requires_grad for p in model.parameters())
    with pytest.raises(ZeroDivisionError), freeze(model, "backbone"):
        raise ZeroDivisionError
    assert all(p.requires_grad for p in model.parameters())
    assert all(module.training for module in model.modules())


def test_freezing_twice_is_undone_in_order():
    model = Net()
    outer = freeze(model, "backbone")
    inner = freeze(model, "backbone.0")
    inner.thaw()
    assert not model.train().backbone[0][1].training
    outer.thaw()
    assert model.backbone[0][1].training


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_are_frozen_by_themselves(duplicate):
    model = Net()
    frozen = freeze(model, "backbone")
    twin = duplicate(model)
    frozen.thaw()
    twin.train()
    model.train()
    assert not twin.backbone[0][1].training
    assert model.backbone[0][1].training
    before = state(twin)
    train(twin, torch.optim.SGD(twin.parameters(), lr=0.1))
    assert changed(before, state(twin)) == {"fc.weight", "fc.bias"}


def failure(model, patterns):
    with pytest.raises(UsageError) as caught:
        freeze(model, patterns)
    assert all(p.requires_grad for p in model.parameters())
    return str(caught.value)


def test_what_cannot_be_frozen_is_refused():
    assert failure(Net(), "bakbone.*") == "bakbone.*: matches no tensor"
    reason = "fc.weight: is selected in part, and requires_grad is of whole tensors"
    assert failure(Net(), "rows:fc.weight[0:1]") == reason
    model = Net()
    model.head = nn.Linear(4, 2)
    model.head.weight = model.fc.weight
    said = "fc.weight: is the same tensor as head.weight (tied weights): freezing one freezes both"
    assert failure(model, "head") == said
    assert freeze(model, ["head", "fc"]).parameters == ("fc.weight", "fc.bias", "head.weight", "head.bias")
