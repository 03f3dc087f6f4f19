"""Real training: torchvision's ResNet-18 with a new head on generated images, with whatever people put in their loops."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from torchvision.models import resnet18

import ckptaudit
from ckptaudit.testing import assert_param_groups

HERE = Path(__file__).parent


def network():
    torch.manual_seed(0)
    model = resnet18()
    model.fc = nn.Linear(512, 2)
    return model


def images(count=2):
    """Return images of two kinds, stripes along and across, with their labels."""
    labels = torch.arange(count) % 2
    stripes = torch.sin(torch.arange(64.0) / 3).expand(count, 3, 64, 64)
    turned = torch.where(labels[:, None, None, None] == 1, stripes.transpose(2, 3), stripes)
    return turned + 0.1 * torch.randn(count, 3, 64, 64), labels


def loss_of(model, **options):
    inputs, labels = images(**options)
    return nn.functional.cross_entropy(model(inputs).float(), labels)


class Plain:
    """A training loop; the others differ from it in one point."""

    steps = 2

    def optimizer(self, parameters):
        return torch.optim.SGD(parameters, lr=0.01, momentum=0.9, weight_decay=1e-4)

    def prepare(self, model):
        return model

    def step(self, model, optimizer):
        optimizer.zero_grad()
        loss_of(model).backward()
        optimizer.step()

    def run(self, model, optimizer):
        for _ in range(self.steps):
            model.train()
            self.step(model, optimizer)


class Adam(Plain):
    def optimizer(self, parameters):
        return torch.optim.Adam(parameters, lr=0.01)


class AdamWForeach(Plain):
    def optimizer(self, parameters):
        return torch.optim.AdamW(parameters, lr=0.01, foreach=True)


class AdamWFused(Plain):
    def optimizer(self, parameters):
        return torch.optim.AdamW(parameters, lr=0.01, fused=True)


class Accumulation(Plain):
    def step(self, model, optimizer):
        optimizer.zero_grad()
        for _ in range(2):
            (loss_of(model) / 2).backward()
        optimizer.step()


class Autocast(Plain):
    def step(self, model, optimizer):
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = loss_of(model)
        loss.backward()
        optimizer.step()


class Scaled(Plain):
    def __init__(self):
        self.scaler = torch.amp.GradScaler("cpu", init_scale=8.0)

    def step(self, model, optimizer):
        optimizer.zero_grad()
        self.scaler.scale(loss_of(model)).backward()
        self.scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        self.scaler.step(optimizer)
        self.scaler.update()


class Scheduled(Plain):
    steps = 3

    def run(self, model, optimizer):
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=4)
        for _ in range(self.steps):
            model.train()
            self.step(model, optimizer)
            scheduler.step()


class ChannelsLast(Plain):
    def prepare(self, model):
        return model.to(memory_format=torch.channels_last)


class Checkpointed(Plain):
    def prepare(self, model):
        inner = model.layer4.forward
        model.layer4.forward = lambda inputs: checkpoint(inner, inputs, use_reentrant=False)
        return model


class Averaged(Plain):
    def run(self, model, optimizer):
        average = torch.optim.swa_utils.AveragedModel(
            model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9), use_buffers=True
        )
        with ckptaudit.audit_training(average, frozen=["!fc", "!n_averaged"], trainable="fc") as self.audit:
            for _ in range(self.steps):
                model.train()
                self.step(model, optimizer)
                average.update_parameters(model)


class Compiled(Plain):
    def prepare(self, model):
        return torch.compile(model, backend="aot_eager")


LOOPS = [
    Plain, Adam, AdamWForeach, AdamWFused, Accumulation, Autocast, Scaled, Scheduled, ChannelsLast, Checkpointed,
    Averaged, Compiled,
]  # fmt: skip


@pytest.mark.parametrize("loop", LOOPS)
def test_frozen_by_freeze_holds_in_every_loop(loop):
    loop, model = loop(), network()
    groups = ckptaudit.param_groups(model, {"!fc": "freeze", "fc": {"lr": 0.01}})
    optimizer, trained = loop.optimizer(groups), loop.prepare(model)
    with ckptaudit.audit_training(trained, optimizer, frozen="!fc", trainable="fc") as audit:
        loop.run(trained, optimizer)
    assert [one.name for one in audit.verdicts if one.verdict not in ("held", "trained")] == []
    assert len(audit.verdicts) == 122
    assert audit.report.findings == ()
    assert audit.steps == loop.steps
    if isinstance(loop, Averaged):
        assert loop.audit.report.ok, str(loop.audit)


@pytest.mark.parametrize("loop", [Plain, AdamWFused, Accumulation, Autocast, Checkpointed, Compiled])
def test_flags_alone_do_not_hold_the_statistics_in_any_loop(loop):
    loop, model = loop(), network()
    for name, parameter in model.named_parameters():
        parameter.requires_grad = name.startswith("fc.")
    optimizer, trained = loop.optimizer(model.fc.parameters()), loop.prepare(model)
    with ckptaudit.audit_training(trained, optimizer, frozen="!fc", trainable="fc") as audit:
        loop.run(trained, optimizer)
    (graded,) = audit.report.findings
    assert graded.finding.rule.code == "CKPT803"
    assert len(graded.finding.keys) == 60
    assert {one.when for one in audit.verdicts if one.verdict == "moved"} == {"at step 1"}


def test_layers_that_train_at_rates_of_their_own():
    model = network()
    groups = {"layer4": {"lr": 1e-3}, "fc": {"lr": 1e-2}, ("!layer4", "!fc"): "freeze"}
    optimizer = torch.optim.AdamW(ckptaudit.param_groups(model, groups))
    trainable = ["layer4", "fc", "!module:BatchNorm2d/buffers"]
    with ckptaudit.audit_training(model, optimizer, frozen=["!layer4", "!fc"], trainable=trainable) as audit:
        Plain().run(model, optimizer)
    assert audit.report.ok
    assert {one.verdict for one in audit.verdicts} == {"held", "trained"}
    assert_param_groups(model, optimizer, groups)


def test_the_weights_of_the_file_are_those_after_training(tmp_path):
    model = network()
    pretrained = resnet18().state_dict()
    torch.save(pretrained, tmp_path / "resnet18.pth")
    own = model.state_dict()
    own.update({key: value for key, value in pretrained.items() if not key.startswith("fc.")})
    model.load_state_dict(own)
    optimizer = torch.optim.SGD(ckptaudit.param_groups(model, {"!fc": "freeze", "fc": {"lr": 0.01}}))
    with ckptaudit.audit_training(model, optimizer, frozen="!fc", against=tmp_path / "resnet18.pth") as audit:
        Plain().run(model, optimizer)
    assert audit.report.ok
    model.layer1[0].conv1.weight.data[0, 0, 0, 0] += 1e-7
    with ckptaudit.audit_training(model, optimizer, frozen="!fc", against=tmp_path / "resnet18.pth") as audit:
        Plain().run(model, optimizer)
    (moved,) = [one for one in audit.verdicts if one.verdict == "moved"]
    assert (moved.name, moved.when, moved.difference.changed) == ("layer1.0.conv1.weight", "before the audit", 1)


def test_code_that_a_compiler_made_is_audited_too():
    """With the default backend, which needs a C++ compiler."""
    if shutil.which(os.environ.get("CXX", "g++")) is None:
        pytest.skip("no C++ compiler for torch.compile")
    model = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 2))
    model[0].requires_grad_(False)
    optimizer = torch.optim.SGD(model[1].parameters(), lr=0.01)
    compiled = torch.compile(model)
    with ckptaudit.audit_training(compiled, optimizer, frozen="0", trainable="1") as audit:
        for _ in range(2):
            compiled(torch.randn(8, 4)).square().mean().backward()
            optimizer.step()
    (graded,) = audit.report.findings
    assert graded.finding.keys == ("0.running_mean", "0.running_var", "0.num_batches_tracked")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("ddp")


def run_two(case, folder):
    """Train in two processes; return what each said."""
    folder = folder / case
    folder.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(HERE.parents[1]), "GLOO_SOCKET_IFNAME": "lo"}
    command = [sys.executable, str(HERE / "ddp_worker.py")]
    workers = [subprocess.Popen([*command, str(rank), str(folder), case], env=environment) for rank in range(2)]
    with contextlib.ExitStack() as stack:
        for worker in workers:
            stack.callback(worker.kill)
        assert [worker.wait(timeout=300) for worker in workers] == [0, 0]
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without torch.distributed")
@pytest.mark.parametrize("case", ["frozen", "flags", "broadcast"])
def test_two_processes_audit_their_own_model(case, folder):
    said = run_two(case, folder)
    assert said[0]["head"] == said[1]["head"]  # the head's gradients were averaged
    assert [one["steps"] for one in said] == [3, 3]
    moved = [{n: why for n, (verdict, why) in one["verdicts"].items() if verdict == "moved"} for one in said]
    statistics = {f"backbone.1.{name}" for name in ("running_mean", "running_var", "num_batches_tracked")}
    assert all({"backbone.0.weight", "backbone.3.bias", "fc.weight"} <= set(one["verdicts"]) for one in said)
    if case == "frozen":
        assert moved == [{}, {}]
        assert all(one["ok"] for one in said)
    elif case == "flags":
        assert [set(one) for one in moved] == [statistics, statistics]
    else:  # rank 0 sends its buffers to rank 1, whose module is in eval mode
        assert moved[0] == {}
        assert set(moved[1]) == {"backbone.1.running_mean"}
        assert "a broadcast of DDP" in moved[1]["backbone.1.running_mean"]
