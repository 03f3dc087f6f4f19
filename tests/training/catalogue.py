"""The catalogue of ways in which frozen tensors move and trainable ones do not, with its controls, as data.

Each case is a function that takes ``audit(model, optimizers, frozen=..., trainable=...)``, a context manager, and trains
inside it. ``audit`` and ``error`` say what the audit of training is to find; lint_hits.json what the lint finds.
Letters group the cases: A running statistics, B gradients left over, C flags, D ties, E lr=0, F optimizers, G
reparametrizations, H buffers and attributes, I averages, J graphs, K precision, L writes, M adapters, N observers, S starts.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


@dataclass(frozen=True)
class Case:
    """One way. ``outcome`` is moved, stuck, control or transient; ``audit`` the kinds of cause, any of which is right."""

    id: str
    way: str
    outcome: str
    run: Callable
    audit: tuple[str, ...] = ()
    error: str = ""


CASES: list[Case] = []


def case(id_, outcome, way, *audit, error=""):
    def add(function):
        CASES.append(Case(id_, way, outcome, function, audit, error))
        return function

    return add


class Net(nn.Module):
    def __init__(self, backbone=None, fc=None):
        super().__init__()
        self.backbone = backbone or nn.Sequential(nn.Linear(4, 4), nn.Tanh())
        self.fc = fc or nn.Linear(4, 2)

    def forward(self, inputs):
        return self.fc(self.backbone(inputs))


def norms(norm=None):
    return Net(nn.Sequential(nn.Linear(4, 4), norm or nn.BatchNorm1d(4)))


def flags_off(module):
    for parameter in module.parameters():
        parameter.requires_grad = False


def batch(*shape):
    return torch.randn(*(shape or (8, 4)))


def loss_of(model, inputs=None):
    return model(batch() if inputs is None else inputs).square().mean()


def train(model, optimizer, steps=3, *, to_none=True, inputs=None):
    for _ in range(steps):
        optimizer.zero_grad(set_to_none=to_none)
        loss_of(model, inputs).backward()
        optimizer.step()


def sgd(parameters, **options):
    return torch.optim.SGD(parameters, **{"lr": 0.1, **options})


# A: running statistics -------------------------------------------------------------------------------------


@case("A01", "moved", "norm statistics move in train mode though affine and convolution are frozen", "statistics")
def a01(audit):
    model = norms()
    flags_off(model.backbone)
    optimizer = sgd(model.fc.parameters())
    with audit(model, optimizer, frozen="backbone"):
        train(model, optimizer)


@case("A02", "moved", "eval() once, and model.train() in each epoch ends it", "statistics")
def a02(audit):
    model = norms()
    flags_off(model.backbone)
    model.backbone.eval()
    optimizer = sgd(model.fc.parameters())
    with audit(model, optimizer, frozen="backbone"):
        for _ in range(2):
            model.train()
            train(model, optimizer, 2)


@case("A03", "moved", "features computed once under no_grad, in train mode", "statistics")
def a03(audit):
    model = norms()
    flags_off(model.backbone)
    optimizer = sgd(model.fc.parameters())
    with audit(model, optimizer, frozen="backbone"):
        with torch.no_grad():
            features = model.backbone(batch())
        train(model.fc, optimizer, inputs=features)


@case("A04", "moved", "InstanceNorm(track_running_stats=True) in train mode", "statistics")
def a04(audit):
    model = norms(nn.Sequential(nn.Unflatten(1, (2, 2)), nn.InstanceNorm1d(2, track_running_stats=True), nn.Flatten()))
    flags_off(model.backbone)
    optimizer = sgd(model.fc.parameters())
    with audit(model, optimizer, frozen="backbone"):
        train(model, optimizer)


# B: gradients and state left over --------------------------------------------------------------------------


def midway(audit, make, *, to_none=False):
    """Train all, freeze by flags, go on with the same optimizer."""
    model = Net()
    optimizer = make(model.parameters())
    train(model, optimizer)
    flags_off(model.backbone)
    with audit(model, optimizer, frozen="backbone"):
        train(model, optimizer, to_none=to_none)


@case("B01", "moved", "SGD with weight decay, gradients zeroed and not None", "zero-gradient")
def b01(audit):
    midway(audit, lambda p: sgd(p, weight_decay=0.1))


@case("B02", "moved", "SGD with momentum, gradients zeroed and not None", "zero-gradient")
def b02(audit):
    midway(audit, lambda p: sgd(p, momentum=0.9))


@case("B03", "moved", "Adam's moments, gradients zeroed and not None", "zero-gradient")
def b03(audit):
    midway(audit, lambda p: torch.optim.Adam(p, lr=0.01))


@case("B04", "moved", "AdamW, gradients zeroed and not None", "zero-gradient")
def b04(audit):
    midway(audit, lambda p: torch.optim.AdamW(p, lr=0.01))


@case("B05", "control", "the same with set_to_none=True")
def b05(audit):
    midway(audit, lambda p: sgd(p, weight_decay=0.1, momentum=0.9), to_none=True)


@case("B06", "moved", "frozen after backward and before step", "stale-gradient")
def b06(audit):
    model = Net()
    optimizer = sgd(model.parameters())
    loss_of(model).backward()
    flags_off(model.backbone)
    with audit(model, optimizer, frozen="backbone"):
        optimizer.step()


@case("B07", "moved", "LBFGS steps along a history made before freezing", "history")
def b07(audit):
    model = Net()
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=2)
    inputs = batch()

    def closure():
        optimizer.zero_grad()
        loss = loss_of(model, inputs)
        loss.backward()
        return loss

    for _ in range(2):
        optimizer.step(closure)
    flags_off(model.backbone)
    for parameter in model.backbone.parameters():
        parameter.grad = None
    with audit(model, optimizer, frozen="backbone"):
        for _ in range(2):
            optimizer.step(closure)


@case("B08", "moved", "a gradient assigned by hand", "stale-gradient")
def b08(audit):
    model = Net()
    flags_off(model.backbone)
    optimizer = sgd(model.parameters())
    with audit(model, optimizer, frozen="backbone"):
        for _ in range(2):
            optimizer.zero_grad()
            loss_of(model).backward()
            model.backbone[0].weight.grad = torch.ones(4, 4)
            optimizer.step()


@case("B09", "moved", "RMSprop's momentum, gradients zeroed and not None", "zero-gradient")
def b09(audit):
    midway(audit, lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.9, centered=True))


@case("B10", "moved", "NAdam, gradients zeroed and not None", "zero-gradient")
def b10(audit):
    midway(audit, lambda p: torch.optim.NAdam(p, lr=0.01))


@case("B11", "control", "Adagrad without decay: zeros move nothing")
def b11(audit):
    midway(audit, lambda p: torch.optim.Adagrad(p, lr=0.01))


# C: flags --------------------------------------------------------------------------------------------------


@case("C01", "moved", "model.requires_grad_(True) after the optimizer was made over all", "trained")
def c01(audit):
    model = Net()
    flags_off(model.backbone)
    optimizer = sgd(model.parameters())
    with audit(model, optimizer, frozen="backbone"):
        train(model, optimizer, 1)
        model.requires_grad_(True)
        train(model, optimizer, 2)


@case("C02", "moved", "module.requires_grad = False, which does nothing", "trained")
def c02(audit):
    model = Net()
    model.backbone.requires_grad = False
    optimizer = sgd(model.parameters())
    with audit(model, optimizer, frozen="backbone"):
        train(model, optimizer)


@case("C03", "moved", "a misspelt p.require_grad = False", "trained")
def c03(audit):
    model = Net()
    for parameter in model.backbone.parameters():
        parameter.require_grad = False
    optimizer = sgd(model.parameters())
    with audit(model, optimizer, frozen="backbone"):
        train(model, optimizer)


@case("C04", "moved", "frozen by prefix, and a wrapper put module. before it", "trained")
def c04(audit):
    model = nn.DataParallel(Net())
    for name, parameter in model.named_parameters():
        parameter.requires_grad = not name.startswith("backbone")
    optimizer = sgd(model.parameters())
    with audit(model, optimizer, frozen="backbone"):
        train(model.module, optimizer)


@case("C05", "moved", "a layer assigned after freezing has requires_grad=True", "trained")
def c05(audit):
    model = Net()
    flags_off(model.backbone)
    model.backbone[0] = nn.Linear(4, 4)
    optimizer = sgd(model.parameters())
    with audit(model, optimizer, frozen="backbone"):
        train(model, optimizer)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 1, batch_first=True)

    def forward(self, inputs):
        return self.attention(inputs[:, None], inputs[:, None], inputs[:, None])[0][:, 0]


@case("C06", "moved", "isinstance(m, nn.Linear) misses in_proj_weight of attention", "trained")
def c06(audit):
    model = Net(Attention())
    for module in model.backbone.modules():
        if isinstance(module, nn.Linear):
            flags_off(module)
    optimizer = sgd(model.parameters())
    with audit(model, optimizer, frozen="backbone"):
        train(model, optimizer)


# D: ties ---------------------------------------------------------------------------------------------------


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb = nn.Embedding(10, 4)
        self.head = nn.Linear(4, 10, bias=False)
        self.head.weight = self.emb.weight

    def forward(self, _inputs):
        return self.head(self.emb(torch.arange(8)))


@case("D01", "stuck", "freezing the embedding freezes the tied head", error="is the same tensor as emb.weight")
def d01(audit):
    model = Tied()
    model.emb.weight.requires_grad = False
    with audit(model, sgd(model.parameters()), frozen="emb", trainable="head"):
        loss_of(model)


@case("D02", "moved", "two parameters over one memory", "shared-memory")
def d02(audit):
    model = Net()
    model.backbone[0].weight = nn.Parameter(model.fc.weight.data.repeat(2, 1))
    model.fc.weight = nn.Parameter(model.backbone[0].weight.data[:2])
    flags_off(model.backbone)
    optimizer = sgd(model.fc.parameters())
    with audit(model, optimizer, frozen="backbone"):
        train(model, optimizer)


@case("D03", "moved", "the head is frozen by name, and trains under the name of the tied embedding", "tied")
def d03(audit):
    model = Tied()
    optimizer = sgd(parameter for name, parameter in model.named_parameters() if not name.startswith("head"))
    with audit(model, optimizer, frozen="head"):
        train(model, optimizer)


# E: lr=0 ---------------------------------------------------------------------------------------------------


def at_zero(model, **options):
    return sgd([{"params": model.backbone.parameters(), "lr": 0.0}, {"params": model.fc.parameters()}], **options)


@case("E01", "control", "a group at lr=0, SGD with weight decay")
def e01(audit):
    model = Net()
    optimizer = at_zero(model, weight_decay=0.1)
    with audit(model, optimizer, frozen="backbone"):
        train(model, optimizer)


@case("E02", "control", "a group at lr=0, AdamW")
def e02(audit):
    model = Net()
    groups = [{"params": model.backbone.parameters(), "lr": 0.0}, {"params": model.fc.parameters()}]
    optimizer = torch.optim.AdamW(groups, lr=0.01)
    with audit(model, optimizer, frozen="backbone"):
        train(model, optimizer)


@case("E03", "moved", "lr=0 times one infinite gradient is NaN", "lr-zero")
def e03(audit):
    model = Net()
    optimizer = at_zero(model)
    with audit(model, optimizer, frozen="backbone"):
        train(model, optimizer, 1)
        optimizer.zero_grad()
        (loss_of(model) * float("inf")).backward()
        optimizer.step()


@case("E04", "moved", "a scheduler with eta_min > 0 raises lr=0", "lr-raised")
def e04(audit):
    model = Net()
    optimizer = at_zero(model)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=10, eta_min=1e-2)
    with audit(model, optimizer, frozen="backbone", schedulers=scheduler):
        for _ in range(3):
            train(model, optimizer, 1)
            scheduler.step()


@case("E05", "moved", "OneCycleLR(max_lr=number) overwrites the lr of each group", "lr-raised", "trained")
def e05(audit):
    model = Net()
    optimizer = at_zero(model, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=10)
    with audit(model, optimizer, frozen="backbone", schedulers=scheduler):
        for _ in range(3):
            train(model, optimizer, 1)
            scheduler.step()


@case("E06", "moved", "lr=0 turns -0.0 into 0.0", "lr-zero")
def e06(audit):
    model = Net()
    nn.init.constant_(model.backbone[0].weight, -0.0)
    optimizer = at_zero(model)
    with audit(model, optimizer, frozen="backbone"):
        train(model, optimizer)


# F: optimizers ---------------------------------------------------------------------------------------------


@case("F01", "stuck", "the optimizer was made before the head was replaced", "stale")
def f01(audit):
    model = Net()
    optimizer = sgd(model.parameters())
    model.fc = nn.Linear(4, 2)
    with audit(model, optimizer, frozen=[], trainable="fc"):
        train(model, optimizer)


@case("F02", "stuck", "load_state_dict(assign=True) after the optimizer was made", "stale")
def f02(audit):
    model = Net()
    optimizer = sgd(model.parameters())
    state = {key: value.clone() for key, value in model.state_dict().items()}
    with audit(model, optimizer, frozen=[], trainable="*"):
        model.load_state_dict(state, assign=True)
        train(model, optimizer)


@case("F03", "stuck", "copy.deepcopy(model) after the optimizer was made", "stale")
def f03(audit):
    model = Net()
    optimizer = sgd(model.parameters())
    model = copy.deepcopy(model)
    with audit(model, optimizer, frozen=[], trainable="*"):
        train(model, optimizer)


@case("F04", "stuck", "a new layer is in no group", "absent")
def f04(audit):
    model = Net()
    model.backbone.append(nn.Linear(4, 4))
    optimizer = sgd(model.fc.parameters())
    with audit(model, optimizer, frozen="backbone.0", trainable=["fc", "backbone.2"]):
        train(model, optimizer)


@case("F05", "stuck", "a generator that was used up makes an empty group", "absent")
def f05(audit):
    model = Net()
    head = model.fc.parameters()
    sum(parameter.numel() for parameter in head)
    optimizer = sgd([{"params": model.backbone.parameters()}, {"params": head}])
    with audit(model, optimizer, frozen=[], trainable=["fc", "backbone"]):
        train(model, optimizer)


@case("F07", "stuck", "unfrozen later, and the optimizer was made from what had requires_grad", "absent")
def f07(audit):
    model = Net()
    flags_off(model.backbone)
    optimizer = sgd(filter(lambda parameter: parameter.requires_grad, model.parameters()))
    with audit(model, optimizer, frozen=[], trainable=["fc", "backbone"]):
        model.requires_grad_(True)
        train(model, optimizer)


@case("F08", "stuck", "layers in a Python list are in no parameters()", error="heads: matches no tensor")
def f08(audit):
    model = Net()
    model.heads = [nn.Linear(4, 2)]
    with audit(model, sgd(model.parameters()), frozen="backbone", trainable="heads"):
        loss_of(model)


# G: reparametrizations -------------------------------------------------------------------------------------


def spectral(audit, wrap):
    model = Net(nn.Sequential(nn.Linear(4, 64), wrap(nn.Linear(64, 64)), nn.Linear(64, 4)))
    flags_off(model.backbone)
    optimizer = sgd(model.fc.parameters())
    with audit(model, optimizer, frozen="backbone"):
        train(model, optimizer)


@case("G01", "moved", "torch.nn.utils.spectral_norm iterates in train mode", "power-iteration", "attribute")
def g01(audit):
    spectral(audit, nn.utils.spectral_norm)


@case("G02", "moved", "parametrizations.spectral_norm iterates in train mode", "power-iteration")
def g02(audit):
    spectral(audit, nn.utils.parametrizations.spectral_norm)


@case("G03", "moved", "module.weight.requires_grad_(False) of a parametrized weight", "trained")
def g03(audit):
    model = Net(nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))))
    with torch.no_grad():
        model.backbone[0].weight.requires_grad_(False)
    model.backbone[0].bias.requires_grad_(False)
    optimizer = sgd(model.parameters())
    with audit(model, optimizer, frozen="backbone"):
        train(model, optimizer)


@case("G04", "moved", "endswith('.weight') misses parametrizations.weight.original0", "trained")
def g04(audit):
    model = Net(nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))))
    for name, parameter in model.backbone.named_parameters():
        parameter.requires_grad = not name.endswith((".weight", ".bias"))
    optimizer = sgd(model.parameters())
    with audit(model, optimizer, frozen="backbone"):
        train(model, optimizer)


@case("G06", "moved", "weight_norm on a frozen layer makes new parameters with requires_grad", "trained", "attribute")
def g06(audit):
    model = Net()
    flags_off(model.backbone)
    nn.utils.weight_norm(model.backbone[0])
    optimizer = sgd(model.parameters())
    with audit(model, optimizer, frozen="backbone"):
        train(model, optimizer)


@case("G07", "control", "pruning of a frozen layer")
def g07(audit):
    from torch.nn.utils import prune

    model = Net()
    prune.l1_unstructured(model.backbone[0], "weight", amount=0.5)
    flags_off(model.backbone)
    optimizer = sgd(model.parameters())
    with audit(model, optimizer, frozen=["backbone", "!backbone.0.weight"]):
        train(model, optimizer)


# H: buffers and attributes ---------------------------------------------------------------------------------


class Counting(nn.Module):
    def __init__(self, *, registered):
        super().__init__()
        if registered:
            self.register_buffer("level", torch.zeros(4), persistent=False)
        else:
            self.level = torch.zeros(4)

    def forward(self, inputs):
        self.level += inputs.detach().mean(0)
        return inputs + self.level


@case("H01", "moved", "a buffer that no state dict has", "buffer")
def h01(audit):
    model = Net(Counting(registered=True))
    optimizer = sgd(model.fc.parameters())
    with audit(model, optimizer, frozen="backbone"):
        train(model, optimizer)


@case("H02", "moved", "a plain tensor attribute", "attribute")
def h02(audit):
    model = Net(Counting(registered=False))
    optimizer = sgd(model.fc.parameters())
    with audit(model, optimizer, frozen="backbone"):
        train(model, optimizer)


@case("H03", "control", "a lazy layer frozen before it has a shape")
def h03(audit):
    model = Net(nn.Sequential(nn.LazyLinear(4)))
    for parameter in model.backbone.parameters():
        parameter.requires_grad = False
    optimizer = sgd(model.parameters())
    with audit(model, optimizer, frozen="backbone"):
        train(model, optimizer)


@case("H05", "moved", "Embedding(max_norm) renormalises its rows in place", "max-norm")
def h05(audit):
    model = Net(nn.Sequential(nn.Embedding(10, 4, max_norm=0.5)))
    flags_off(model.backbone)
    optimizer = sgd(model.fc.parameters())
    with audit(model, optimizer, frozen="backbone"):
        train(model, optimizer, inputs=torch.arange(8))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(4, 4, batch_first=True)

    def forward(self, inputs):
        return self.lstm(inputs[:, None])[0][:, 0]


@case("H06", "control", "a frozen LSTM, its weights flattened")
def h06(audit):
    model = Net(Recurrent())
    flags_off(model.backbone)
    optimizer = sgd(model.fc.parameters())
    with audit(model, optimizer, frozen="backbone"):
        model.backbone.lstm.flatten_parameters()
        train(model, optimizer)


# I: averages -----------------------------------------------------------------------------------------------


def averaged(audit, make, update):
    """Train a student, and audit the averaged copy of it."""
    student = Net()
    flags_off(student.backbone)
    optimizer = sgd(student.parameters())
    copied = make(student)
    with audit(copied, (), frozen="backbone", trainable="fc"):
        for _ in range(5):
            train(student, optimizer, 1)
            update(copied, student)


@case("I01", "control", "swa_utils.AveragedModel")
def i01(audit):
    averaged(audit, torch.optim.swa_utils.AveragedModel, lambda copied, student: copied.update_parameters(student))


@case("I02", "control", "swa_utils.get_ema_multi_avg_fn")
def i02(audit):
    ema = torch.optim.swa_utils.get_ema_multi_avg_fn(0.999)
    make = lambda student: torch.optim.swa_utils.AveragedModel(student, multi_avg_fn=ema)  # noqa: E731
    averaged(audit, make, lambda copied, student: copied.update_parameters(student))


@case("I03", "moved", "a hand-written average d*e + (1-d)*p drifts by rounding", "rounding")
def i03(audit):
    def update(copied, student):
        with torch.no_grad():
            for mean, parameter in zip(copied.parameters(), student.parameters(), strict=True):
                mean.copy_(0.999 * mean + (1 - 0.999) * parameter)

    averaged(audit, copy.deepcopy, update)


@case("I04", "control", "timm.utils.ModelEmaV3")
def i04(audit):
    from timm.utils import ModelEmaV3

    student = Net()
    flags_off(student.backbone)
    optimizer = sgd(student.parameters())
    average = ModelEmaV3(student, decay=0.9)
    with audit(average.module, (), frozen="backbone", trainable="fc"):
        for _ in range(5):
            train(student, optimizer, 1)
            average.update(student)


@case("I05", "moved", "swa_utils.update_bn estimates frozen statistics anew", "statistics")
def i05(audit):
    model = norms()
    flags_off(model.backbone)
    model.eval()
    optimizer = sgd(model.fc.parameters())
    with audit(model, optimizer, frozen="backbone"):
        train(model, optimizer)
        torch.optim.swa_utils.update_bn([batch() for _ in range(3)], model)


@case("I06", "moved", "slow weights taken before loading are copied back", "in-place")
def i06(audit):
    model = Net()
    slow = [parameter.detach().clone() for parameter in model.parameters()]
    model.load_state_dict(Net().state_dict())
    flags_off(model.backbone)
    optimizer = sgd(model.fc.parameters())
    with audit(model, optimizer, frozen="backbone"):
        train(model, optimizer)
        with torch.no_grad():
            for parameter, old in zip(model.parameters(), slow, strict=True):
                parameter.copy_(old.lerp(parameter, 0.5))


@case("I07", "control", "timm's Lookahead passes over parameters without gradients")
def i07(audit):
    from timm.optim import Lookahead

    model = Net()
    flags_off(model.backbone)
    optimizer = Lookahead(sgd(model.parameters()), k=2)
    with audit(model, optimizer, frozen="backbone"):
        train(model, optimizer, 4)


@case("I08", "moved", "a teacher swapped in for evaluation, and not swapped back", "in-place")
def i08(audit):
    model, teacher = Net(), Net()
    flags_off(model.backbone)
    optimizer = sgd(model.fc.parameters())
    with audit(model, optimizer, frozen="backbone"):
        train(model, optimizer)
        model.load_state_dict(teacher.state_dict())


# J: graphs -------------------------------------------------------------------------------------------------


class Branches(Net):
    """A second layer that is reached in some way of its own."""

    def __init__(self, reach):
        super().__init__()
        self.extra = nn.Linear(4, 4)
        self.reach = reach

    def forward(self, inputs):
        return self.fc(self.backbone(inputs) + self.reach(self.extra, inputs))


def branch(audit, reach, steps=3):
    model = Branches(reach)
    flags_off(model.backbone)
    optimizer = sgd(parameter for parameter in model.parameters() if parameter.requires_grad)
    with audit(model, optimizer, frozen="backbone", trainable=["fc", "extra"]):
        train(model, optimizer, steps)


@case("J01", "stuck", "a trainable part inside no_grad", "no-gradient")
def j01(audit):
    branch(audit, torch.no_grad()(lambda layer, inputs: layer(inputs)))


@case("J02", "stuck", "checkpoint(use_reentrant=True) of inputs without gradients", "no-gradient")
def j02(audit):
    branch(audit, lambda layer, inputs: checkpoint(layer, inputs, use_reentrant=True))


@case("J03", "control", "checkpoint(use_reentrant=False)")
def j03(audit):
    branch(audit, lambda layer, inputs: checkpoint(layer, inputs, use_reentrant=False))


@case("J05", "stuck", "zero_grad between backward and step", "no-gradient")
def j05(audit):
    model = Net()
    flags_off(model.backbone)
    optimizer = sgd(model.fc.parameters())
    with audit(model, optimizer, frozen="backbone", trainable="fc"):
        for _ in range(3):
            loss_of(model).backward()
            optimizer.zero_grad()
            optimizer.step()


@case("J06", "transient", "accumulation over four batches, and three were seen", "no-step")
def j06(audit):
    model = Net()
    flags_off(model.backbone)
    optimizer = sgd(model.fc.parameters())
    with audit(model, optimizer, frozen="backbone", trainable="fc"):
        for index in range(3):
            (loss_of(model) / 4).backward()
            if index % 4 == 3:
                optimizer.step()
                optimizer.zero_grad()


@case("J07", "control", "the optimizer steps inside the backward pass")
def j07(audit):
    model = Net()
    flags_off(model.backbone)
    optimizers = {parameter: sgd([parameter]) for parameter in model.fc.parameters()}

    def step(parameter):
        optimizers[parameter].step()
        optimizers[parameter].zero_grad()

    for parameter in model.fc.parameters():
        parameter.register_post_accumulate_grad_hook(step)
    with audit(model, optimizers.values(), frozen="backbone", trainable="fc"):
        for _ in range(3):
            loss_of(model).backward()


@case("J09", "stuck", "a dead ReLU: gradients that are exactly zero", "zero-gradient")
def j09(audit):
    model = Branches(lambda layer, inputs: torch.relu(layer(inputs) - 1e6))
    flags_off(model.backbone)
    optimizer = sgd(parameter for parameter in model.parameters() if parameter.requires_grad)
    with audit(model, optimizer, frozen="backbone", trainable=["fc", "extra"]):
        train(model, optimizer)


@case("J10", "stuck", "a branch that is not in the graph", "no-gradient")
def j10(audit):
    branch(audit, lambda layer, inputs: 0.0)


# K: precision ----------------------------------------------------------------------------------------------


@case("K01", "stuck", "updates too small for bfloat16", "rounding")
def k01(audit):
    model = Net().bfloat16()
    nn.init.constant_(model.fc.weight, 1.0)
    nn.init.constant_(model.fc.bias, 1.0)
    flags_off(model.backbone)
    optimizer = sgd(model.fc.parameters(), lr=1e-6)
    with audit(model, optimizer, frozen="backbone", trainable="fc"):
        train(model, optimizer, inputs=batch().bfloat16())


@case("K02", "transient", "a gradient scaler skips its first steps", "no-step")
def k02(audit):
    model = Net()
    flags_off(model.backbone)
    optimizer = sgd(model.fc.parameters())
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127)
    with audit(model, optimizer, frozen="backbone", trainable="fc"):
        for _ in range(2):
            optimizer.zero_grad()
            scaler.scale(loss_of(model) * 1e6).backward()
            scaler.step(optimizer)
            scaler.update()


@case("K03", "moved", "model.half().float() rounds", "relocated")
def k03(audit):
    model = Net()
    flags_off(model.backbone)
    optimizer = sgd(model.fc.parameters())
    with audit(model, optimizer, frozen="backbone"):
        train(model, optimizer)
        model.half().float()


# L: writes -------------------------------------------------------------------------------------------------


def writing(audit, write):
    model = Net()
    flags_off(model.backbone)
    optimizer = sgd(model.fc.parameters())
    with audit(model, optimizer, frozen="backbone"):
        train(model, optimizer, 1)
        write(model.backbone[0].weight)
        train(model, optimizer, 1)


@case("L01", "moved", "an in-place operation on a frozen leaf needs no no_grad", "in-place")
def l01(audit):
    writing(audit, lambda weight: weight.mul_(0.9))


@case("L02", "moved", "p.data written", "unseen")
def l02(audit):
    writing(audit, lambda weight: weight.data.mul_(0.9))


@case("L03", "moved", "p.data = another tensor", "relocated")
def l03(audit):
    writing(audit, lambda weight: setattr(weight, "data", weight.data * 0.9))


@case("L04", "moved", "a NumPy view written", "unseen")
def l04(audit):
    writing(audit, lambda weight: weight.numpy().__imul__(0.9))


@case("L05", "moved", "set_() to another storage", "relocated")
def l05(audit):
    writing(audit, lambda weight: weight.set_(weight.detach() * 0.9))


@case("L06", "moved", "detach().mul_()", "in-place")
def l06(audit):
    writing(audit, lambda weight: weight.detach().mul_(0.9))


@case("L07", "moved", "torch._foreach_mul_", "in-place")
def l07(audit):
    writing(audit, lambda weight: torch._foreach_mul_([weight], 0.9))


@case("L08", "moved", "torch.utils.swap_tensors", "relocated")
def l08(audit):
    writing(
        audit, lambda weight: torch.utils.swap_tensors(weight, nn.Parameter(weight.detach() * 0.9, requires_grad=False))
    )


@case("L09", "moved", "add_(e) and sub_(e) do not give the bits back", "rounding")
def l09(audit):
    def perturb(weight):
        noise = torch.full_like(weight, 0.1)
        weight.add_(noise)
        weight.sub_(noise)

    writing(audit, perturb)


@case("L10", "moved", "model.apply(init) after loading", "in-place")
def l10(audit):
    writing(audit, lambda weight: nn.init.kaiming_uniform_(weight))


# M, N, S: adapters, observers, starts ----------------------------------------------------------------------


class Lora(nn.Module):
    def __init__(self):
        super().__init__()
        self.base = nn.Linear(4, 4)
        self.lora_a = nn.Parameter(torch.randn(2, 4))
        self.lora_b = nn.Parameter(torch.zeros(4, 2))

    def forward(self, inputs):
        return self.base(inputs) + inputs @ self.lora_a.t() @ self.lora_b.t()


def lora(audit, steps, **options):
    model = Lora()
    flags_off(model.base)
    optimizer = sgd([model.lora_a, model.lora_b])
    with audit(model, optimizer, frozen="base", trainable="lora_*"):
        train(model, optimizer, steps)
        if options:
            for sign in (1, -1) * 8:
                model.base.weight.data += sign * 37 * (model.lora_b @ model.lora_a).data


@case("M01", "transient", "LoRA: the gradient of A is zero while B is", "zero-once")
def m01(audit):
    lora(audit, 1)


@case("M03", "moved", "merging an adapter and taking it out again", "rounding", "unseen")
def m03(audit):
    lora(audit, 2, merge=True)


class MinMaxObserver(nn.Module):
    """What observers of torch.ao.quantization do, in train and eval mode."""

    def __init__(self):
        super().__init__()
        self.register_buffer("min_val", torch.tensor(float("inf")))

    def forward(self, inputs):
        self.min_val.copy_(torch.minimum(self.min_val, inputs.detach().min()))
        return inputs


@case("N01", "moved", "observers of quantization move in eval mode", "observer")
def n01(audit):
    model = Net(nn.Sequential(nn.Linear(4, 4), MinMaxObserver()))
    flags_off(model.backbone)
    model.backbone.eval()
    optimizer = sgd(model.fc.parameters())
    with audit(model, optimizer, frozen="backbone"):
        train(model, optimizer)


class Residual(nn.Module):
    """A branch whose last norm begins at zero, as resnet(zero_init_residual=True)."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Linear(4, 4)
        self.scale = nn.Parameter(torch.zeros(4))

    def forward(self, inputs):
        return inputs + self.scale * self.conv(inputs)


@case("S01", "transient", "zero-initialised residuals: no gradient for the branch at first", "zero-once")
def s01(audit):
    model = Net(fc=nn.Sequential(Residual(), nn.Linear(4, 2)))
    flags_off(model.backbone)
    optimizer = sgd(model.fc.parameters())
    with audit(model, optimizer, frozen="backbone", trainable="fc"):
        train(model, optimizer, 1)
