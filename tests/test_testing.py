"""The assertions: silent where all is well, and the report's text where not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import ckptaudit
from ckptaudit import testing
from ckptaudit.errors import CkptauditError

FIXTURES = Path(__file__).parents[1] / "fixtures"


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
        self.fc = nn.Linear(4, 2)

    def forward(self, inputs):
        return self.fc(self.backbone(inputs))


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Net()


def step_of(model, optimizer):
    def step():
        model.train()
        optimizer.zero_grad()
        model(torch.randn(8, 4)).square().mean().backward()
        optimizer.step()

    return step


def message(function, *arguments, **options):
    with pytest.raises(AssertionError) as caught:
        function(*arguments, **options)
    return str(caught.value)


def test_a_training_setup(model):
    groups = ckptaudit.param_groups(model, {"backbone": "freeze", "fc": {"lr": 0.1}})
    optimizer = torch.optim.SGD(groups)
    assert testing.assert_training_setup(model, optimizer, frozen="backbone", trainable="fc").ok
    model.fc = nn.Linear(4, 3)
    text = message(testing.assert_training_setup, model, optimizer, frozen="backbone")
    assert "warning[CKPT811] stale-parameters: 2 trainable tensors" in text
    text = message(testing.assert_training_setup, model, optimizer, frozen="backbone", trainable="fc")
    assert "error[CKPT811]" in text


def test_notes_fail_no_training_setup(model):
    model.backbone.requires_grad_(False).eval()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    report = testing.assert_training_setup(model, optimizer, frozen="backbone")
    assert [graded.finding.rule.code for graded in report.findings] == ["CKPT834"]


def test_frozen_and_trained(model):
    groups = ckptaudit.param_groups(model, {"backbone": "freeze", "fc": {"lr": 0.1}})
    optimizer = torch.optim.SGD(groups)
    step = step_of(model, optimizer)
    assert testing.assert_frozen(model, "backbone", step).steps == 3
    assert testing.assert_trained(model, "fc", step, steps=2, optimizers=optimizer).steps == 2
    testing.assert_optimizer_covers(model, optimizer)
    testing.assert_param_groups(model, optimizer, {"backbone": "freeze", "fc": {"lr": 0.1}})


def test_what_is_not_frozen_is_reported(model):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    said = message(testing.assert_frozen, model, "backbone", step_of(model, optimizer))
    assert "error[CKPT801] frozen-tensor-changed: " in said
    assert "requires_grad is True, and SGD trains it" in said
    assert "error[CKPT803]" in said


def test_what_is_not_trained_is_reported_and_so_is_what_is_not_known(model):
    step = step_of(model, torch.optim.SGD(model.fc.parameters(), lr=0.1))
    assert "not in optimizer" in message(testing.assert_trained, model, ["fc", "backbone.0"], step)
    assert "no optimizer step" in message(testing.assert_trained, model, "fc", step, steps=0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    said = message(testing.assert_trained, model, "fc", lambda: None, optimizers=optimizer)
    assert "made no step (gradient accumulation" in said


def test_what_cannot_be_read_is_not_frozen():
    model = nn.Sequential(nn.LazyLinear(2))
    said = message(testing.assert_frozen, model, "0", lambda: None)
    assert "check-skipped" in said


def test_the_values_of_a_checkpoint(model, tmp_path):
    torch.save(model.state_dict(), tmp_path / "base.pth")
    testing.assert_matches_checkpoint(model, tmp_path / "base.pth")
    with torch.no_grad():
        model.fc.bias[0] += 1
    testing.assert_matches_checkpoint(model, tmp_path / "base.pth", "backbone")
    said = message(testing.assert_matches_checkpoint, model, tmp_path / "base.pth")
    assert "before the audit, by up to 1, in 1 of 2 values" in said
    torch.save({f"module.{k}": v for k, v in model.state_dict().items()}, tmp_path / "ddp.pth")
    testing.assert_matches_checkpoint(model, tmp_path / "ddp.pth", mapping="module.* -> *")


def test_parameter_groups(model):
    optimizer = torch.optim.SGD(
        [{"params": model.backbone.parameters(), "lr": 1e-4}, {"params": model.fc.weight, "lr": 1e-2}], lr=1.0
    )
    testing.assert_param_groups(model, optimizer, {"backbone": {"lr": 1e-4}, "fc.weight": {"lr": 1e-2}})
    assert message(
        testing.assert_param_groups, model, optimizer, {"backbone.0": "freeze", "fc": {"lr": 1e-3, "x": 1}}
    ) == (
        "the parameter groups are not as expected\n\n"
        "  parameter          expected      found\n"
        "  backbone.0.weight  frozen        requires_grad=True\n"
        "  backbone.0.weight  in no group   in a group with lr=0.0001\n"
        "  backbone.0.bias    frozen        requires_grad=True\n"
        "  backbone.0.bias    in no group   in a group with lr=0.0001\n"
        "  fc.weight          lr=0.001      lr=0.01\n"
        "  fc.weight          x=1           x=not given\n"
        "  fc.bias            in one group  in no group\n"
    )
    with pytest.raises(CkptauditError, match="matches no tensor"):
        testing.assert_param_groups(model, optimizer, {"head": "freeze"})
    model.fc.weight.requires_grad = False
    assert "requires_grad=False" in message(testing.assert_param_groups, model, optimizer, {"fc.weight": {}})


def test_an_optimizer_covers_a_model(model):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    testing.assert_optimizer_covers(model, optimizer)
    testing.assert_optimizer_covers(
        model, torch.optim.SGD(model.fc.parameters()), torch.optim.SGD(model.backbone.parameters())
    )
    two = message(testing.assert_optimizer_covers, model, optimizer, torch.optim.SGD(model.fc.parameters()))
    assert "fc.weight  in one group  in 2 groups" in two.replace("   ", "  ")
    model.fc = nn.Linear(4, 2)
    said = message(testing.assert_optimizer_covers, model, optimizer)
    assert [line.split()[0] for line in said.splitlines()[3:]] == ["fc.weight", "fc.bias", "a", "a"]
    assert "a tensor of shape (2, 4)" in said
    model.backbone.requires_grad_(False)
    testing.assert_optimizer_covers(model, torch.optim.SGD(model.fc.parameters()))


def test_loads_and_safe():
    article = FIXTURES / "article"
    testing.assert_loads("torchvision.models:resnet18", article / "resnet18.pth")
    mapped = {"mapping": "module.* -> *"}
    resnet50 = FIXTURES / "resnet50"
    assert "CKPT103" in message(testing.assert_loads, resnet50 / "model.manifest.json", resnet50 / "dataparallel.pth")
    said = message(testing.assert_loads, resnet50 / "model.manifest.json", resnet50 / "dataparallel.pth", **mapped)
    assert "CKPT103" not in said
    testing.assert_safe(article / "resnet18.pth", integrity=True)
    assert "CKPT702" in message(testing.assert_safe, FIXTURES / "rules" / "CKPT702" / "fires")


def test_importing_it_needs_no_torch():
    code = "import sys, ckptaudit.testing; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


def test_assert_frozen_between_two_files(tmp_path):
    base = {"backbone.weight": torch.ones(3), "fc.weight": torch.ones(2)}
    tuned = {**base, "fc.weight": torch.zeros(2)}
    torch.save(base, tmp_path / "base.pth")
    torch.save(tuned, tmp_path / "tuned.pth")
    files = (tmp_path / "base.pth", tmp_path / "tuned.pth")
    assert testing.assert_frozen_between(*files, "backbone", trainable="fc").ok
    with pytest.raises(AssertionError, match=r"error\[CKPT801\] frozen-tensor-changed: 1 frozen tensor changed"):
        testing.assert_frozen_between(*files, "fc")
    with pytest.raises(AssertionError, match=r"error\[CKPT804\]"):
        testing.assert_frozen_between(*files, "fcc")


def test_assert_same_values():
    state = {"weight": torch.tensor([1.0, 2.0])}
    testing.assert_same_values(state, {"weight": torch.tensor([1.0, 2.0])})
    close = {"weight": torch.tensor([1.0, 2.01])}
    testing.assert_same_values(state, close, rtol=0.01)
    for other in (close, {"weight": torch.tensor([1.0])}, {}):
        with pytest.raises(AssertionError, match='Contract "exact": broken'):
            testing.assert_same_values(state, other)
