"""Whole inferences: real models changed in known ways, and the cases in which the right answer is to say less."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import pytest
import torch
from torch import nn
from torchvision import models

from ckptaudit.mapping.assignment import CONFIDENT
from ckptaudit.mapping.inference import infer

from .helpers import copies, described, manifest, renamed, said, transformer


def state_of(name, **options):
    with torch.device("meta"):
        return {key: tuple(value.shape) for key, value in getattr(models, name)(**options).state_dict().items()}


@pytest.fixture(scope="module", params=["resnet18", "efficientnet_b0", "swin_t", "densenet121"])
def real(request):
    return state_of(request.param)


def all_right(source, change):
    target, truth = renamed(source, change)
    found = infer(manifest(source), manifest(target))
    assert {one.target: one.sources for one in found.assigned} == {key: (old,) for key, old in truth.items()}
    assert found.uninitialised == found.ambiguous == found.dropped == ()
    return found


@pytest.mark.parametrize(
    "change", [str, "module.{}".format, "net.encoder.body.{}".format, lambda key: f"_orig_mod.module.{key}"]
)
def test_wrappers_and_prefixes_are_confident(real, change):
    found = all_right(real, change)
    assert min(one.confidence for one in found.assigned) >= CONFIDENT


def test_renamed_children_are_found(real):
    tops = sorted({key.partition(".")[0] for key in real})
    all_right(real, lambda key: f"part_{tops.index(key.partition('.')[0])}.{key.partition('.')[2]}")


def test_a_head_of_another_size_is_left_at_its_init():
    found = infer(manifest(state_of("resnet18")), manifest(state_of("resnet18", num_classes=7)))
    assert found.uninitialised == ("fc.weight", "fc.bias")
    assert found.dropped == ("fc.weight", "fc.bias")
    assert len(found.assigned) == 120


def test_another_first_convolution_takes_its_bias_along():
    source = transformer()
    target = source | {"patch_embed.proj.weight": (64, 1, 16, 16)}
    assert infer(manifest(source), manifest(target)).uninitialised == (
        "patch_embed.proj.weight",
        "patch_embed.proj.bias",
    )


def test_a_library_that_names_and_cuts_everything_otherwise():
    source = transformer(blocks="blocks")
    names = ("attention.qkv", "attention.out", "intermediate.dense", "output.dense")
    target = transformer("vit.", "encoder.layer", names=names, norms=("layernorm_before", "layernorm_after"))
    found = copies(source, target)
    assert found["vit.encoder.layer.7.layernorm_after.bias"] == "blocks.7.norm2.bias"
    assert found["vit.encoder.layer.11.output.dense.weight"] == "blocks.11.mlp.fc2.weight"
    assert len(found) == len(target)


def test_torchvision_and_timm_agree_on_a_resnet():
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        theirs = timm.create_model("resnet18").state_dict()
    found = infer(described(theirs), manifest(state_of("resnet18")))
    assert all(one.sources == (one.target,) and one.confidence >= CONFIDENT for one in found.assigned)
    assert len(found.assigned) == len(theirs)


def test_the_order_of_the_modules_in_the_file_may_differ():
    source = transformer(depth=4)
    target, truth = renamed(source, lambda key: key.replace("blocks", "layers").replace("norm", "ln_"))
    turned = dict(reversed(target.items()))
    assert copies(source, turned) == truth


def test_names_decide_against_the_order():
    source = {"b.weight": (4, 4), "a.weight": (4, 4), "c.weight": (4, 4)}
    target = {"net.a.weight": (4, 4), "net.b.weight": (4, 4), "net.c.weight": (4, 4)}
    assert copies(source, target) == {f"net.{x}.weight": f"{x}.weight" for x in "abc"}


def test_order_alone_is_never_confident():
    words = ("amber", "birch", "cedar", "dunes", "ember", "frost")
    other = ("lotus", "maple", "north", "olive", "pearl", "quartz")
    found = infer(manifest({f"{w}.weight": (4, 4) for w in words}), manifest({f"{w}.weight": (4, 4) for w in other}))
    assert all(one.confidence < CONFIDENT for one in found.assigned)


def test_tied_tensors_share_one_source():
    source = {"model.embed_tokens.weight": (5000, 8), "model.norm.weight": (8,)}
    found = infer(manifest(source), manifest({**source, "lm_head.weight": (5000, 8)}))
    tied = {one.target: one for one in found.assigned}["lm_head.weight"]
    assert tied.sources == ("model.embed_tokens.weight",)
    assert tied.confidence < CONFIDENT


def test_a_second_name_of_a_module_shares_its_tensors():
    source = {
        f"decoder.class_head.{i}.{role}": shape
        for i in range(3)
        for role, shape in (("weight", (5, 8)), ("bias", (5,)))
    }
    target = {
        f"model.decoder.class_head.{key[-8:] if 0 else key.split('.', 2)[2]}": shape for key, shape in source.items()
    }
    target |= {f"class_head.{key.split('.', 2)[2]}": shape for key, shape in source.items()}
    found = {key: sources for key, (sources, _) in said(source, target).items()}
    assert found["class_head.1.bias"] == found["model.decoder.class_head.1.bias"] == ("decoder.class_head.1.bias",)


def test_transposed_linear_layers_are_turned_back():
    source = {
        f"h.{i}.{n}.{r}": s
        for i in range(3)
        for n, shape in (("fc", (32, 8)), ("proj", (8, 32)))
        for r, s in (("weight", shape), ("bias", shape[:1]))
    }
    target = {key: shape[::-1] for key, shape in source.items()}
    assert {op for key, (_, op) in said(source, target).items() if key.endswith("weight")} == {"transpose"}


def test_the_collections_of_flax_belong_together():
    """Kernels lie height, width, in, out; the statistics of a norm have a tree of their own."""
    source, target = {}, {}
    for i, (inputs, outputs) in enumerate([(3, 16), (16, 16), (16, 32), (32, 32)]):
        source[f"params.block_{i}.Conv_0.kernel"] = (3, 3, inputs, outputs)
        target[f"layers.{i}.conv.weight"] = (outputs, inputs, 3, 3)
        for stored, name in {
            "params.block_{}.BatchNorm_0.scale": "weight",
            "params.block_{}.BatchNorm_0.bias": "bias",
            "batch_stats.block_{}.BatchNorm_0.mean": "running_mean",
            "batch_stats.block_{}.BatchNorm_0.var": "running_var",
        }.items():
            source[stored.format(i)] = target[f"layers.{i}.bn.{name}"] = (outputs,)
    found = said(source, target)
    assert set(found) == set(target)
    assert found["layers.2.bn.running_var"] == (("batch_stats.block_2.BatchNorm_0.var",), "copy")
    assert found["layers.2.conv.weight"] == (("params.block_2.Conv_0.kernel",), "permute(3,2,0,1)")


def test_statistics_without_a_known_name_are_open_and_not_left_at_their_init():
    source = {f"bn.{name}": (16,) for name in ("scale", "bias", "avg", "sq")}
    target = {f"bn.{name}": (16,) for name in ("weight", "bias", "running_mean", "running_var")}
    found = infer(manifest(source), manifest(target))
    assert [one.target for one in found.assigned] == ["bn.weight", "bn.bias"]
    assert found.ambiguous == ("bn.running_mean", "bn.running_var")
    without = infer(
        manifest({key: shape for key, shape in source.items() if key[3:] in ("scale", "bias")}), manifest(target)
    )
    assert without.uninitialised == ("bn.running_mean", "bn.running_var")


def test_reasons_and_rivals_can_be_checked():
    found = {
        one.target: one for one in infer(manifest(transformer()), manifest(transformer("net.", "layers"))).assigned
    }
    assert found["net.patch_embed.proj.weight"].reason == "same name under another prefix; nothing else has its shape"
    assert "names share" in found["net.layers.3.mlp.fc1.weight"].reason


def test_nothing_in_nothing_out():
    empty = manifest({})
    full = manifest({"a.weight": (2, 2)})
    assert infer(empty, empty).assigned == ()
    assert infer(full, empty).dropped == ("a.weight",)
    assert infer(empty, full).uninitialised == ("a.weight",)


def test_a_blank_of_the_same_shape_is_said_to_be_open():
    found = infer(manifest({"zebra.weight": (3, 3)}), manifest({"apple.q.weight": (3, 3)}))
    assert [*(one.target for one in found.assigned), *found.ambiguous] == ["apple.q.weight"]
    assert found.uninitialised == ()


def test_it_needs_neither_torch_nor_numpy():
    code = "import sys, ckptaudit.mapping.inference; print({'torch', 'numpy', 'scipy'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


def test_thousands_of_tensors_of_one_shape_are_left_open():
    source = manifest({f"{hash(('s', i)) % 10**9}.x{i * 7919 % 100_003}.weight": (8, 8) for i in range(4_000)})
    target = manifest({f"m{i * 104_729 % 100_003}.y.weight": (8, 8) for i in range(4_000)})
    found = infer(source, target)
    assert len(found.ambiguous) == len(target.tensors)


def test_a_source_is_given_once(real):
    target, _ = renamed(real, lambda key: key.replace("features", "body").replace("layer", "stage"))
    found = infer(manifest(real), manifest(target))
    assert max(Counter(one.sources for one in found.assigned).values()) == 1


def test_modules_of_torch_can_be_described(tmp_path):
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.LSTM(4, 5))
    state = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    assert copies(state, {f"net.{key}": shape for key, shape in state.items()}) == {f"net.{key}": key for key in state}
