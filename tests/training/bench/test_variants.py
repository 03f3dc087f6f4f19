from __future__ import annotations

import pytest
import torch
from nets import Net, Words, make
from torch import nn
from torchvision.models import resnet18, resnet50, swin_t, vgg11, vit_b_16

from ckptaudit import UsageError
from ckptaudit.training.bench import freeze_variants
from ckptaudit.training.bench.stages import stages_of
from ckptaudit.training.bench.variants import prepare


def variant(subject, name):
    return next(one for one in subject.variants if name in (one.name, one.kind))


def prepared(name, net=Net, **options):
    model = net()
    subject = freeze_variants(model, ["2,3,16,16"], device="cpu", **options)
    return model, prepare(model, variant(subject, name))


def trained(model):
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


HEAD = {"fc.weight", "fc.bias"}
ALL = {name for name, _ in Net().named_parameters()}
FIRST = {"stem.0.weight", "stem.0.bias", "stem.1.weight", "stem.1.bias"}


@pytest.mark.parametrize(
    ("kind", "requires_grad", "in_training_mode"),
    [
        ("full", ALL, {"stem", "body", "fc"}),
        ("again", ALL, {"stem", "body", "fc"}),
        ("frozen", HEAD, {"stem", "body", "fc"}),
        ("frozen-eval", HEAD, {"fc"}),
        ("frozen-no-grad", HEAD, {"fc"}),
        ("depth", ALL - FIRST, {"body", "fc"}),
        ("norm-bias", HEAD | {name for name in ALL if "1." in name or "bias" in name}, {"stem", "body", "fc"}),
        ("cached", HEAD, {"fc"}),
        ("lr-zero", ALL, {"stem", "body", "fc"}),
        ("left-out", ALL, {"stem", "body", "fc"}),
    ],
)
def test_each_variant_is_what_it_says(kind, requires_grad, in_training_mode):
    model, groups = prepared(kind, depths=None)
    assert trained(model) == requires_grad
    assert {name for name, module in model.named_children() if module.training} == in_training_mode
    given = {id(p) for group in groups if group.get("lr") != 0 for p in group["params"]}
    wanted = HEAD if kind in ("lr-zero", "left-out") else requires_grad
    assert {name for name, p in model.named_parameters() if id(p) in given} == wanted


def test_the_pseudo_freezes_hold_what_they_leave_out():
    _, groups = prepared("lr-zero")
    assert groups[1]["lr"] == groups[1]["weight_decay"] == 0.0
    assert len(groups[1]["params"]) == len(ALL) - len(HEAD)
    assert len(prepared("left-out")[1]) == 1


def test_frozen_parts_run_without_grad_and_the_head_does_not():
    model, _ = prepared("frozen-no-grad")
    seen = {}
    model.stem[0].register_forward_pre_hook(lambda *_: seen.update(stem=torch.is_grad_enabled()))
    model.fc.register_forward_pre_hook(lambda *_: seen.update(fc=torch.is_grad_enabled()))
    model(torch.randn(2, 3, 16, 16)).sum().backward()
    assert seen == {"stem": False, "fc": True}
    assert model.fc.weight.grad is not None


def test_no_grad_ends_where_a_gradient_has_to_pass():
    model, _ = prepared("frozen-no-grad", freeze=["body", "fc"])
    model(torch.randn(2, 3, 16, 16)).sum().backward()
    assert model.stem[0].weight.grad is not None


def test_cached_features_are_those_of_the_frozen_part():
    model, shape = make("net")
    subject = freeze_variants(model, [shape], device="cpu")
    torch.manual_seed(1)
    cached = subject.build("cached features")
    torch.manual_seed(1)
    whole = subject.build("frozen eval")
    assert torch.equal(cached.forward(), whole.forward())
    cached.run()
    assert torch.equal(cached.forward(), cached.forward())


def test_cached_features_need_a_head_of_their_own():
    class Two(Net):
        def forward(self, images):
            return super().forward(images) * 2

    for net, options in ((Two, {}), (Net, {"freeze": "body"})):
        subject = freeze_variants(net(), ["2,3,16,16"], device="cpu", **options)
        with pytest.raises(UsageError, match="cached features"):
            subject.build("cached features")
        assert subject.plan()["cached features"].cost is None


def test_variants_share_the_memory_of_parameters_and_not_of_buffers():
    model, shape = make("net")
    subject = freeze_variants(model, [shape], device="cpu")
    built = [subject.build(name).optimizer.param_groups[0]["params"][0] for name in ("full", "full again")]
    assert built[0] is not built[1]
    assert built[0].data_ptr() == built[1].data_ptr() == next(model.parameters()).data_ptr()
    before = model.stem[1].running_mean.clone()
    subject.build("full").run()
    assert torch.equal(model.stem[1].running_mean, before)


def test_the_model_keeps_its_modes_and_flags():
    model, shape = make("net")
    model.eval()
    model.stem[0].weight.requires_grad_(False)
    subject = freeze_variants(model, [shape], device="cpu")
    subject.plan()
    subject.build("frozen eval")
    assert not model.training
    assert [name for name, p in model.named_parameters() if not p.requires_grad] == ["stem.0.weight"]


def stages(model, *shape, dtype=torch.float32):
    batch = torch.zeros(shape, device="meta", dtype=dtype)
    return [stage.label for stage in stages_of(model, lambda: model(batch))]


def on_meta(build):
    with torch.device("meta"):
        return build()


def test_stages_are_those_that_people_know():
    resnet = ["conv1, bn1", "layer1", "layer2", "layer3", "layer4", "fc"]
    assert stages(on_meta(resnet18), 2, 3, 64, 64) == resnet
    assert stages(on_meta(resnet50), 2, 3, 64, 64) == resnet
    vit = stages(on_meta(vit_b_16), 1, 3, 224, 224)
    assert vit[:2] == ["conv_proj", "encoder.layers.encoder_layer_0"]
    assert vit[-2:] == ["encoder.layers.encoder_layer_11, encoder.ln", "heads"]
    assert len(vit) == 14
    assert stages(on_meta(swin_t), 1, 3, 224, 224)[1] == "features.1"
    vgg = stages(on_meta(vgg11), 1, 3, 224, 224)
    assert (vgg[0], vgg[-1]) == ("features", "classifier.6")
    assert stages(on_meta(Words), 2, 5, dtype=torch.int64) == ["embedding", "encoder, norm", "head"]


def test_stages_hold_every_parameter_once():
    for build, shape in ((vit_b_16, (1, 3, 224, 224)), (Net, (1, 3, 16, 16))):
        model = on_meta(build)
        found = [
            n for s in stages_of(model, lambda m=model, s=shape: m(torch.zeros(s, device="meta"))) for n in s.parameters
        ]
        assert sorted(found) == sorted(name for name, _ in model.named_parameters())


def test_stages_come_in_the_order_of_calls():
    class Backwards(Net):
        def __init__(self):
            super().__init__()
            self.late = self._modules.pop("stem")  # defined last, called first

        def forward(self, images):
            return self.fc(self.body(self.late(images)).mean((2, 3)))

    assert stages(Backwards().to("meta"), 2, 3, 16, 16)[0] == "late"


@pytest.mark.parametrize(("patterns", "words"), [("*", "every parameter"), ("stem.1.running_mean", "no parameter")])
def test_freezing_all_or_nothing_is_refused(patterns, words):
    with pytest.raises(UsageError, match=words):
        freeze_variants(Net(), ["2,3,16,16"], freeze=patterns, device="cpu")


def test_one_stage_cannot_be_frozen_in_part():
    with pytest.raises(UsageError, match="one stage"):
        freeze_variants(nn.Sequential(nn.Linear(4, 4)), ["2,4"], device="cpu")


def test_depths_are_spread_and_the_names_say_how_many_train():
    subject = freeze_variants(on_meta(vit_b_16), ["1,3,224,224"], depths=3, device="cpu")
    assert [v.name for v in subject.variants if v.kind == "depth"] == ["last 13", "last 7", "last 2"]


def test_tied_weights_are_frozen_under_both_names():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.body, self.out = nn.Embedding(9, 4), nn.Linear(4, 4), nn.Linear(4, 9)
            self.out.weight = self.embedding.weight

        def forward(self, words):
            return self.out(self.body(self.embedding(words)))

    subject = freeze_variants(Tied(), ["2,3:int64"], freeze="embedding", device="cpu")
    cost = subject.plan()["frozen eval"].cost
    assert cost.gradients == 4 * (4 * 4 + 4 + 9)
