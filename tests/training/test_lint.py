"""The lint of a training setup, rule by rule: what fires, what is one point away and does not, and that nothing changes."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

import ckptaudit
from ckptaudit.errors import UsageError


class Net(nn.Module):
    def __init__(self, *backbone):
        super().__init__()
        self.backbone = nn.Sequential(*(backbone or (nn.Linear(4, 4), nn.Tanh())))
        self.fc = nn.Linear(4, 2)

    def forward(self, inputs):
        return self.fc(self.backbone(inputs))


def frozen_net(*backbone):
    model = Net(*backbone)
    model.backbone.requires_grad_(False)
    return model


def sgd(model, **options):
    return torch.optim.SGD(model.parameters(), lr=0.1, **options)


def lint(model, optimizers=None, *, frozen="backbone", **options):
    return ckptaudit.lint_training(model, sgd(model) if optimizers is None else optimizers, frozen=frozen, **options)


def said(report):
    return {(graded.finding.rule.code, graded.finding.case): graded.level for graded in report.findings}


def backward(model):
    model(torch.randn(3, 4)).square().mean().backward()


# As a whole ------------------------------------------------------------------------------------------------


def test_a_sound_setup_is_kept_in_silence():
    report = lint(frozen_net(), trainable="fc")
    assert (report.ok, report.findings) == (True, ())
    assert str(report).splitlines()[-2:] == [
        "Looked at 4 tensors and 1 parameter group; nothing was run.",
        'Contract "exact": kept.',
    ]


def test_one_cause_is_one_finding():
    """The flags of a subtree that was never frozen: one finding, though each tensor is in an optimizer as well."""
    report = lint(Net(nn.Linear(4, 4), nn.Linear(4, 4)))
    assert said(report) == {("CKPT806", ""): "error"}
    assert report.findings[0].finding.keys == tuple(
        f"backbone.{i}.{kind}" for i in (0, 1) for kind in ("weight", "bias")
    )


def test_without_an_optimizer_groups_are_not_judged():
    report = lint(Net(), [], trainable="fc")
    assert (report.ok, report.findings) == (True, ())
    assert "without an optimizer, at no parameter group" in str(report)


MODELS = [
    "resnet18", "densenet121", "vgg11_bn", "efficientnet_b0", "convnext_tiny", "swin_t", "vit_b_16", "mobilenet_v3_small",
    "maxvit_t", "inception_v3", "fcn_resnet50", "retinanet_resnet50_fpn",
]  # fmt: skip


@pytest.mark.filterwarnings("ignore:The default weight initialization of inception_v3")
@pytest.mark.parametrize("name", MODELS)
def test_models_of_torchvision_raise_no_alarm(name):
    """Frozen as it is meant nothing is said; frozen by flags alone, norms and dropout are."""
    from torchvision.models import get_model

    backbone = {"weights_backbone": None} if "resnet50" in name else {}
    with torch.device("meta"):
        model = get_model(name, weights=None, **backbone)
    head = [part for part, module in model.named_children() if list(module.parameters())][-1]
    frozen = ckptaudit.freeze(model, f"!{head}")
    assert not lint(model, frozen=f"!{head}", trainable=head).findings
    frozen.thaw()
    for part, parameter in model.named_parameters():
        parameter.requires_grad = part.startswith(f"{head}.")
    assert {code for code, _ in said(lint(model, frozen=f"!{head}", trainable=head))} <= {"CKPT807", "CKPT822"}


def everything(model, optimizer, scheduler):
    """All that a lint could leave a trace in."""
    groups = [{k: list(map(id, v)) if k == "params" else v for k, v in g.items()} for g in optimizer.param_groups]
    return {
        "values": {name: tensor.clone() for name, tensor in model.state_dict().items()},
        "tensors": {
            n: (id(p), p.requires_grad, p.grad, p._version, dict(vars(p))) for n, p in model.named_parameters()
        },
        "modules": {n: (m.training, sorted(vars(m)), len(m._forward_hooks)) for n, m in model.named_modules()},
        "groups": groups,
        "state": sorted(map(id, optimizer.state)),
        "optimizer": sorted(vars(optimizer)),
        "scheduler": copy.deepcopy(scheduler.state_dict()),
        "random": torch.random.get_rng_state(),
    }


def equal(one, other):
    if isinstance(one, torch.Tensor):
        return one is other or (isinstance(other, torch.Tensor) and torch.equal(one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(equal, one, other))
    return one == other


def test_everything_is_left_as_it_is_found():
    model = Net(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.1)).bfloat16()
    model.backbone.requires_grad = False
    groups = [{"params": model.backbone.parameters(), "lr": 0.0}, {"params": model.fc.parameters()}]
    optimizer = torch.optim.AdamW(groups, lr=1e-6)
    model(torch.randn(3, 4).bfloat16()).mean().backward()
    optimizer.step()
    scheduler = lr_scheduler.OneCycleLR(optimizer, max_lr=[0.0, 0.1], total_steps=10)
    before = everything(model, optimizer, scheduler)
    report = lint(model, optimizer, schedulers=scheduler, averaged=copy.deepcopy(model))
    assert len(report.findings) > 2
    assert equal(before, everything(model, optimizer, scheduler))


def test_a_pattern_that_cannot_be_read_is_refused():
    with pytest.raises(UsageError, match="is an empty pattern"):
        lint(frozen_net(), frozen="")


@pytest.mark.parametrize("optimizers", [nn.Linear(2, 2), "SGD", [None]])
@pytest.mark.parametrize("call", [ckptaudit.lint_training, ckptaudit.audit_training])
def test_what_is_no_optimizer_is_refused(call, optimizers):
    with pytest.raises(UsageError, match="which has no param_groups"):
        call(frozen_net(), optimizers, frozen="backbone")


def test_patterns_that_match_nothing_name_the_closest():
    report = lint(frozen_net(), frozen=["backbone", "backbon.0"], trainable=["fc", "heads"])
    assert said(report) == {("CKPT804", ""): "error"}
    assert (report.verdict, report.exit_status) == ("unchecked", 2)
    rows = report.findings[0].finding.rows
    assert [row[:2] for row in rows] == [("backbon.0", "frozen"), ("heads", "trainable")]
    assert "backbone.0" in rows[0][2]


def test_a_report_says_the_same_each_time():
    model = Net()
    assert str(lint(model)) == str(lint(model))


# Flags -----------------------------------------------------------------------------------------------------


def test_frozen_by_omission_is_a_warning():
    model = Net()
    assert said(lint(model, sgd(model.fc))) == {("CKPT806", "omitted"): "warning"}
    backward(model)
    assert said(lint(model, sgd(model.fc))) == {("CKPT827", ""): "warning"}


@pytest.mark.parametrize("name", ["require_grad", "required_grad", "requires_gradient", "requires_grads"])
def test_a_misspelt_flag_is_found(name):
    model = Net()
    for parameter in model.backbone.parameters():
        setattr(parameter, name, False)
    assert said(lint(model)) == {("CKPT816", ""): "error"}


def test_attributes_of_others_are_no_flags():
    model = Net()
    model.backbone.requires_grad_(False)
    model.fc.weight.grad_added_to_main_grad = False  # of Megatron
    model.fc.gradient_checkpointing = False
    model.fc.requires_grad = True  # idle, and in agreement
    assert not lint(model).findings


def test_thawing_by_attribute_is_found():
    model = Net()
    model.requires_grad_(False)
    model.fc.requires_grad = True
    assert said(lint(model, trainable="fc")) == {("CKPT816", ""): "error"}


def test_a_flag_that_nobody_declared_is_a_warning():
    model = Net(nn.Linear(4, 4), nn.Linear(4, 4))
    model.backbone[0].requires_grad_(False)
    model.backbone[1].requires_grad = False
    assert said(lint(model, frozen="backbone.0")) == {("CKPT816", ""): "warning"}


def test_what_is_declared_is_held_to():
    model = frozen_net()
    model.fc.requires_grad_(False)
    assert said(lint(model)) == {("CKPT833", ""): "warning"}
    assert said(lint(model, trainable="fc")) == {("CKPT833", ""): "error"}


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated")
@pytest.mark.parametrize("wrap", [nn.utils.weight_norm, nn.utils.parametrizations.weight_norm])
def test_parameters_of_a_computed_weight(wrap):
    model = frozen_net()
    wrap(model.backbone[0])
    for parameter in model.backbone.parameters():
        parameter.requires_grad_(True)
    codes = said(lint(model))
    assert codes[("CKPT818", "")] == "error"
    model.backbone.requires_grad_(False)
    assert not lint(model).findings


def test_a_wrapper_is_blamed_only_where_nothing_was_frozen():
    model = Net(nn.Linear(4, 4), nn.Linear(4, 4))
    model.backbone[0].requires_grad_(False)
    assert said(lint(nn.DataParallel(model))) == {("CKPT806", ""): "error"}


# Modes -----------------------------------------------------------------------------------------------------


def norm_net(norm=None):
    return frozen_net(nn.Linear(4, 4), norm or nn.BatchNorm1d(4))


@pytest.mark.parametrize(
    "norm",
    [
        nn.BatchNorm1d(4, track_running_stats=False),
        nn.LayerNorm(4),
        nn.InstanceNorm1d(4),
    ],
)
def test_norms_without_running_statistics_are_silent(norm):
    assert not lint(norm_net(norm)).findings


def test_a_frozen_norm_of_torchvision_is_silent():
    from torchvision.ops import FrozenBatchNorm2d

    assert not lint(norm_net(FrozenBatchNorm2d(4))).findings


def test_statistics_switched_off_later_hold():
    """What Lightning's BaseFinetuning does: batch statistics in the forward pass, and the running ones stay."""
    model = norm_net()
    model.backbone[1].track_running_stats = False
    held = model.backbone[1].running_mean.clone()
    model(torch.randn(3, 4))
    assert torch.equal(held, model.backbone[1].running_mean)
    assert not lint(model).findings


def test_eval_mode_is_a_note_unless_somebody_holds_it():
    class Held(Net):
        def train(self, mode=True):
            super().train(mode)
            self.backbone.eval()
            return self

    model = norm_net()
    model.backbone.eval()
    assert said(lint(model)) == {("CKPT834", ""): "note"}
    held = Held(nn.Linear(4, 4), nn.BatchNorm1d(4))
    held.backbone.requires_grad_(False)
    assert not lint(held.train()).findings


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.spectral_norm`")
@pytest.mark.parametrize("wrap", [nn.utils.spectral_norm, nn.utils.parametrizations.spectral_norm])
def test_spectral_norm_iterates_in_train_mode(wrap):
    model = Net()
    wrap(model.backbone[0])
    model.backbone.requires_grad_(False)
    assert said(lint(model)) == {("CKPT818", "iterates"): "error"}
    model.backbone.eval()
    assert not lint(model).findings


class DropPath(nn.Module):
    def __init__(self, drop_prob):
        super().__init__()
        self.drop_prob = drop_prob


@pytest.mark.parametrize(
    ("layer", "drops"),
    [
        (nn.Dropout(0.1), True),
        (nn.Dropout(0.0), False),
        (nn.MultiheadAttention(4, 1, dropout=0.1), True),
        (nn.LSTM(4, 4, num_layers=2, dropout=0.1), True),
        (DropPath(0.2), True),
        (DropPath(0.0), False),
        (nn.AlphaDropout(0.1), True),
    ],
)
def test_dropout_counts_where_all_around_it_is_frozen(layer, drops):
    model = frozen_net(nn.Linear(4, 4), layer)
    assert said(lint(model)) == ({("CKPT822", ""): "note"} if drops else {})
    model.backbone.eval()
    assert not lint(model).findings


def test_dropout_beside_something_that_trains_is_meant():
    model = frozen_net(nn.Linear(4, 4), nn.Dropout(0.1))
    model.backbone[0].bias.requires_grad_(True)
    assert not lint(model, frozen="backbone.0.weight").findings


# Gradients and groups --------------------------------------------------------------------------------------


def test_a_history_of_lbfgs_is_an_error():
    model = Net()
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=2)
    fresh = copy.copy(optimizer)
    model.backbone.requires_grad_(False)
    assert not lint(model, fresh).findings
    model.requires_grad_(True)
    for _ in range(2):
        optimizer.step(lambda: (optimizer.zero_grad(), model(torch.ones(3, 4)).sum(), backward(model))[1])
    model.zero_grad()
    model.backbone.requires_grad_(False)
    assert said(lint(model, optimizer)) == {("CKPT809", "history"): "error"}


def test_rows_decay_though_their_gradient_is_masked():
    model = nn.Sequential(nn.Embedding(10, 4), nn.Linear(4, 2))
    rows = "rows:0.weight[0:5]"
    assert said(lint(model, sgd(model, weight_decay=0.1), frozen=rows)) == {("CKPT809", "rows"): "error"}
    assert not lint(model, sgd(model), frozen=rows).findings
    optimizer, held = sgd(model, weight_decay=0.1), model[0].weight[:5].clone()
    model(torch.arange(10)).sum().backward()
    model[0].weight.grad[:5] = 0
    optimizer.step()
    assert not torch.equal(held, model[0].weight[:5])  # as torch itself shows


def test_a_parameter_twice_in_a_group_moves_twice():
    model = frozen_net()
    with pytest.warns(UserWarning, match="duplicate"):
        optimizer = torch.optim.SGD([*model.fc.parameters(), model.fc.bias], lr=0.1)
    assert said(lint(model, optimizer)) == {("CKPT812", ""): "error"}


def test_an_empty_group_beside_full_ones_is_a_warning():
    model = frozen_net()
    optimizer = torch.optim.SGD([{"params": model.fc.parameters()}, {"params": []}], lr=0.1)
    report = lint(model, optimizer)
    assert said(report) == {("CKPT824", ""): "warning"}
    assert report.findings[0].finding.keys == ("SGD.param_groups[1]",)


def test_an_optimizer_of_two_models_is_right():
    model, other = frozen_net(), nn.Linear(2, 2)
    assert not lint(model, torch.optim.SGD([*model.fc.parameters(), *other.parameters()], lr=0.1)).findings


def test_levels_of_what_no_optimizer_has():
    model = frozen_net()
    model.extra = nn.Linear(4, 2)
    assert said(lint(model, sgd(model.fc))) == {("CKPT810", ""): "warning"}
    assert said(lint(model, sgd(model.fc), trainable=["fc", "extra"])) == {("CKPT810", ""): "error"}
    assert not lint(model, sgd(model.fc), trainable="fc").findings


# Learning rates --------------------------------------------------------------------------------------------


def at_zero(model):
    return torch.optim.SGD(
        [{"params": model.backbone.parameters(), "lr": 0.0}, {"params": model.fc.parameters()}], lr=0.1, momentum=0.9
    )


SCHEDULES = {
    "step": lambda o: lr_scheduler.StepLR(o, 3),
    "linear": lr_scheduler.LinearLR,
    "cosine": lambda o: lr_scheduler.CosineAnnealingLR(o, 10),
    "cosine to a minimum": lambda o: lr_scheduler.CosineAnnealingLR(o, 10, eta_min=1e-3),
    "restarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 5, eta_min=1e-3),
    "polynomial": lambda o: lr_scheduler.PolynomialLR(o, 10),
    "lambda": lambda o: lr_scheduler.LambdaLR(o, lambda epoch: epoch),
    "averaging": lambda o: torch.optim.swa_utils.SWALR(o, swa_lr=0.05),
    "sequence": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.ConstantLR(o), lr_scheduler.CosineAnnealingLR(o, 5, eta_min=1e-3)], [4]
    ),
    "chain": lambda o: lr_scheduler.ChainedScheduler([lr_scheduler.LinearLR(o), lr_scheduler.StepLR(o, 3)]),
    "plateau": lr_scheduler.ReduceLROnPlateau,
}


@pytest.mark.filterwarnings("ignore:.*lr_scheduler.step", "ignore:The epoch parameter")
@pytest.mark.parametrize("make", SCHEDULES.values(), ids=SCHEDULES)
def test_the_schedule_runs_ahead_as_it_will(make):
    """Held against the real scheduler, stepped on an optimizer of its own."""
    model = Net()
    optimizer, real = at_zero(model), at_zero(model)
    scheduler, stepped = make(optimizer), make(real)
    rates = []
    for _ in range(20):
        stepped.step(*((1.0,) if isinstance(stepped, lr_scheduler.ReduceLROnPlateau) else ()))
        rates.append(float(real.param_groups[0]["lr"]))
    step = next((index for index, rate in enumerate(rates, 1) if rate), None)
    report = lint(model, optimizer, schedulers=scheduler)
    if step is None:
        assert said(report) == {("CKPT813", ""): "warning"}
    else:
        assert said(report) == {("CKPT813", "raised"): "error"}
        assert f"makes it {rates[step - 1]:.3g} at step {step}" in report.findings[0].finding.rows[0][2]


def test_a_schedule_that_was_not_given_is_named():
    model = Net()
    optimizer = at_zero(model)
    assert "nothing that was given raises it" in lint(model, optimizer).findings[0].finding.rows[0]
    lr_scheduler.StepLR(optimizer, 3)
    assert "a scheduler drives it that was not given" in lint(model, optimizer).findings[0].finding.rows[0]


def test_methods_and_models_are_not_copied_with_a_schedule():
    class Trainer:
        def __init__(self):
            self.calls = 0

        def __deepcopy__(self, memo):
            raise AssertionError("the trainer was copied")

        def rate(self, epoch):
            return 1.0

    model = Net()
    optimizer = at_zero(model)
    scheduler = lr_scheduler.LambdaLR(optimizer, Trainer().rate)
    assert said(lint(model, optimizer, schedulers=scheduler)) == {("CKPT813", ""): "warning"}


def test_a_trainable_group_at_zero():
    model = frozen_net()
    optimizer = torch.optim.SGD(model.fc.parameters(), lr=0.0)
    assert said(lint(model, optimizer)) == {("CKPT813", "trainable"): "warning"}
    assert said(lint(model, optimizer, trainable="fc")) == {("CKPT813", "trainable"): "error"}
    warmup = torch.optim.SGD(model.fc.parameters(), lr=1.0)
    scheduler = lr_scheduler.LambdaLR(warmup, lambda epoch: min(epoch / 10, 1))
    assert warmup.param_groups[0]["lr"] == 0
    assert not lint(model, warmup, schedulers=scheduler).findings


@pytest.mark.parametrize(
    ("make", "raises"),
    [
        (lambda o: lr_scheduler.LambdaLR(o, lambda epoch: 1.0), True),
        (lambda o: lr_scheduler.OneCycleLR(o, max_lr=0.1, total_steps=10), True),
        (lambda o: lr_scheduler.StepLR(o, 3), False),
    ],
)
@pytest.mark.filterwarnings("ignore:.*lr_scheduler.step")
def test_a_group_added_after_the_scheduler(make, raises):
    """Held against what the real step does."""
    model = frozen_net()
    optimizer = sgd(model.fc)
    scheduler = make(optimizer)
    model.backbone.requires_grad_(True)
    optimizer.add_param_group({"params": model.backbone.parameters()})
    report = lint(model, optimizer, frozen=[], schedulers=[scheduler])
    assert said(report) == ({("CKPT832", ""): "error"} if raises else {})
    if raises:
        with pytest.raises((ValueError, KeyError)) as caught:
            scheduler.step()
        assert type(caught.value).__name__ in report.findings[0].finding.rows[0][2]
    else:
        scheduler.step()


def test_a_scheduler_of_another_optimizer():
    model = frozen_net()
    scheduler = lr_scheduler.StepLR(sgd(model), 3)
    assert said(lint(model, sgd(model), schedulers=scheduler)) == {("CKPT832", "other"): "warning"}


# Sharing ---------------------------------------------------------------------------------------------------


def test_a_name_declared_both_ways():
    model = frozen_net()
    report = lint(model, trainable=["fc", "backbone.0.bias"])
    assert said(report) == {("CKPT815", "claimed"): "error"}
    assert report.findings[0].finding.keys == ("backbone.0.bias",)


def test_columns_of_one_memory_do_not_meet():
    """Two views whose spans overlap have no element in common."""
    memory = torch.randn(4, 8)
    model = frozen_net()
    model.fc = nn.Linear(4, 4)
    model.backbone[0].weight = nn.Parameter(memory[:, :4], requires_grad=False)
    model.fc.weight = nn.Parameter(memory[:, 4:])
    assert not lint(model).findings
    model.fc.weight = nn.Parameter(memory[:, 3:7])
    assert said(lint(model)) == {("CKPT814", ""): "error"}


def test_flattened_weights_share_a_storage_and_no_element():
    model = nn.ModuleDict({"a": nn.LSTM(4, 4), "fc": nn.Linear(4, 2)})
    model["a"].weight_ih_l0.requires_grad_(False)
    assert not lint(model, frozen="a.weight_ih_l0").findings


# Modules ---------------------------------------------------------------------------------------------------


def test_an_observer_that_is_off_is_silent():
    from torch.ao.quantization import FakeQuantize, disable_observer

    model = frozen_net(nn.Linear(4, 4), FakeQuantize())
    assert said(lint(model)) == {("CKPT819", ""): "error"}
    model.backbone.apply(disable_observer)
    assert not lint(model).findings


def test_a_list_of_layers_that_are_registered_elsewhere_is_silent():
    model = frozen_net()
    model.layers = [model.backbone, model.fc]
    assert not lint(model).findings
    model.layers.append(nn.Linear(4, 4))
    assert said(lint(model)) == {("CKPT820", "modules"): "warning"}


def test_plain_tensors_count_in_the_frozen_part_alone():
    model = frozen_net()
    model.scale = torch.ones(4)
    assert not lint(model).findings
    model.backbone.scale = torch.ones(4)
    assert said(lint(model)) == {("CKPT820", ""): "warning"}


def test_a_pruned_weight_is_computed_and_no_plain_tensor():
    from torch.nn.utils import prune

    model = frozen_net()
    prune.l1_unstructured(model.backbone[0], "weight", amount=0.5)
    model.backbone.requires_grad_(False)
    assert not lint(model).findings


def test_a_reentrant_checkpoint_after_something_that_trains_is_silent():
    from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import CheckpointImpl, checkpoint_wrapper

    model = frozen_net()
    model.fc = checkpoint_wrapper(model.fc, checkpoint_impl=CheckpointImpl.REENTRANT)
    assert said(lint(model)) == {("CKPT826", ""): "warning"}
    model.backbone.append(nn.Linear(4, 4))
    assert not lint(model, frozen="backbone.0").findings


def test_inference_tensors_of_the_frozen_part():
    model = frozen_net()
    with torch.inference_mode():
        model.backbone[0] = nn.Linear(4, 4)
    model.backbone.requires_grad_(False)
    assert said(lint(model)) == {("CKPT825", ""): "warning"}


@pytest.mark.parametrize(
    ("make", "rounds_away"),
    [
        (lambda p: torch.optim.SGD(p, lr=1e-6), True),
        (lambda p: torch.optim.SGD(p, lr=0.1), False),
        (lambda p: torch.optim.AdamW(p, lr=1e-4), True),
        (lambda p: torch.optim.AdamW(p, lr=1e-2), False),
    ],
)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_updates_that_round_away(make, rounds_away, dtype):
    """Held against a real step, for values of 1."""
    model = frozen_net().to(dtype)
    nn.init.ones_(model.fc.weight)
    nn.init.ones_(model.fc.bias)
    optimizer = make(model.fc.parameters())
    rounds_away = rounds_away and dtype == torch.bfloat16
    assert said(lint(model, optimizer)) == ({("CKPT829", ""): "warning"} if rounds_away else {})
    for parameter in model.fc.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    assert torch.equal(model.fc.weight, torch.ones_like(model.fc.weight)) == rounds_away


def test_an_averaged_copy():
    model = frozen_net()
    average = torch.optim.swa_utils.AveragedModel(model)
    assert not lint(model, averaged=average).findings
    with torch.no_grad():
        average.module.backbone[0].bias[1].add_(1e-7)
        average.module.fc.bias.add_(1)
    report = lint(model, averaged=[average])
    assert said(report) == {("CKPT830", ""): "error"}
    assert report.findings[0].finding.keys == ("backbone.0.bias",)
