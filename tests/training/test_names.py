"""One walk finds what torch's own walks find, and the attributes beside it."""

from __future__ import annotations

import torch
from torch import nn

from ckptaudit.training.names import Walk


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 2)
        self.again = self.linear
        self.norm = nn.BatchNorm1d(2)
        self.norm.register_buffer("scratch", torch.zeros(1), persistent=False)
        self.table = torch.zeros(3)
        self.trainable = True
        self.kernel = (3, 3)
        self.layers = [nn.Linear(2, 2)]


def test_tensors_and_modules_are_those_of_torch():
    model = nn.Sequential(Block(), Block())
    walk = Walk(model)
    theirs = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    registered = {name: named.tensor for name, named in walk.tensors.items() if named.kind != "attribute"}
    assert registered.keys() == dict(theirs).keys()
    assert all(registered[name] is tensor for name, tensor in theirs)
    assert walk.modules == list(model.named_modules())
    assert {name for name, named in walk.tensors.items() if not named.persistent} == {
        *("0.table", "1.table", "0.norm.scratch", "1.norm.scratch")
    }


def test_attributes_that_may_mean_something_are_kept_once():
    block = Block()
    walk = Walk(nn.Sequential(block, block))
    assert [(own.path, own.name) for own in walk.own if own.module is block] == [("0", "trainable"), ("0", "layers")]


def test_attributes_are_found_whatever_the_order_of_those_that_every_module_has():
    block = Block()
    block.__dict__ = dict(reversed(vars(block).items()))
    assert {own.name for own in Walk(block).own if own.module is block} == {"trainable", "layers"}
    assert "table" in Walk(block).tensors


def test_a_module_inside_itself_ends():
    block = Block()
    block.itself = block
    assert "linear.weight" in Walk(block).tensors
    assert not any("itself" in name for name in Walk(block).tensors)
