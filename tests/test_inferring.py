"""``infer_mapping``: what it opens, what it says, and that its rules do what it says."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import ckptaudit
from ckptaudit import KeyMapping, Manifest, TensorSpec, infer_mapping

sys.path.insert(0, str(Path(__file__).parent / "mapping"))

from corpus import CASES, FOLDER, manifest, read  # isort: skip

ROOT = Path(__file__).parents[1]


def described(shapes):
    return Manifest({key: TensorSpec(tuple(shape), "float32") for key, shape in shapes.items()})


def net(prefix="", names=("embed", "block", "head"), classes=10):
    """Return a small network: an embedding, four blocks, a head."""
    embed, block, head = names
    shapes = {f"{embed}.weight": (100, 8)}
    for i in range(4):
        shapes |= {f"{block}.{i}.up.weight": (16, 8), f"{block}.{i}.up.bias": (16,)}
        shapes |= {f"{block}.{i}.down.weight": (8, 16), f"{block}.{i}.down.bias": (8,)}
    shapes |= {f"{head}.weight": (classes, 8), f"{head}.bias": (classes,)}
    return described({f"{prefix}{key}": shape for key, shape in shapes.items()})


def test_a_prefix_is_one_rule_and_sure():
    found = infer_mapping(net("module."), net())
    assert found.mapping.to_json() == ["module.* -> *"]
    assert (found.ok, found.exit_status) == (True, 0)
    assert len(found.assignments) == 19
    assert found.to_check == found.dropped == found.init == ()
    assert found.ambiguous == {}
    assert [(use.tensors, use.confidence >= 0.9) for use in found.uses] == [(19, True)]


def test_what_fits_under_its_own_name_is_kept_and_a_head_is_left_at_init():
    found = infer_mapping(net(), net(classes=7))
    assert len(found.kept) == 17
    assert found.init == found.dropped == ("head.weight", "head.bias")
    assert [(str(use.rule), use.left) for use in found.uses] == [
        ("drop head.*", ("head.weight", "head.bias")),
        ("expect_missing head.*", ("head.weight", "head.bias")),
    ]
    assert found.ok


def test_what_order_alone_decides_is_to_be_checked():
    words = ("amber", "birch", "cedar"), ("lotus", "maple", "north")
    source, target = (described({f"{word}.weight": (4, 4) for word in side}) for side in words)
    found = infer_mapping(source, target)
    assert not found.ok
    assert len(found.to_check) + len(found.ambiguous) == 3


def test_an_open_tensor_has_the_candidates_that_would_fit():
    chaos = [f"{number * 7919 % 1009:x}" for number in range(40)]
    source = described({f"{word}.a.weight": (4, 4) for word in chaos} | {"norm.scale": (4,)})
    target = described({f"{word}q.z.weight": (4, 4) for word in reversed(chaos)} | {"b.c.weight": (5, 4)})
    found = infer_mapping(source, target)
    assert found.ambiguous
    for key, candidates in found.ambiguous.items():
        assert target[key].shape == (4, 4)
        assert candidates
        assert {source[one].shape for one in candidates} == {(4, 4)}
        assert not set(candidates) & {key for one in found.assignments for key in one.sources}


def test_two_checkpoints_without_anything_in_common():
    found = infer_mapping(described({"a.weight": (3, 3)}), described({"b.bias": (7,)}))
    assert (found.assignments, found.ok) == ((), False)
    assert found.init == ("b.bias",)


def test_every_kind_of_side_is_opened(tmp_path):
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    state = {f"net.{key}": value for key, value in model.state_dict().items()}
    torch.save(state, tmp_path / "old.pth")
    Manifest.of(model).save(tmp_path / "net.json")
    sources = [tmp_path / "old.pth", state, Manifest.of(state), ckptaudit.open_checkpoint(tmp_path / "old.pth")]
    for source in sources:
        for target in (model, tmp_path / "net.json", Manifest.of(model)):
            assert infer_mapping(source, target).mapping.to_json() == ["net.* -> *"]


def test_sides_in_the_wrong_order_are_swapped():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    state = {f"net.{key}": value for key, value in model.state_dict().items()}
    found = infer_mapping(model, state)
    assert found.mapping.to_json() == ["net.* -> *"]
    assert found.checkpoint.kind == "state dict"


def test_a_model_spec_takes_arguments():
    spec = "torchvision.models:resnet18"
    found = infer_mapping(ROOT / "fixtures/article/resnet18.pth", spec, arguments=["num_classes=10"])
    assert found.init == found.dropped == ("fc.weight", "fc.bias")
    assert found.ok


def test_the_mapping_loads():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    state = {f"net.{key}": torch.rand_like(value, dtype=torch.float) for key, value in model.state_dict().items()}
    state["net.1.num_batches_tracked"] = torch.tensor(3)
    ckptaudit.load(model, state, mapping=infer_mapping(state, model).mapping)
    assert all(torch.equal(value, state[f"net.{key}"]) for key, value in model.state_dict().items())


def test_the_file_of_the_rules_says_how_sure_each_is(tmp_path):
    source = net("model.", ("tok", "layers", "out"), classes=11)
    found = infer_mapping(source, net())
    path = tmp_path / "mapping.toml"
    path.write_text(found.to_toml())
    assert KeyMapping.load(path) == found.mapping
    comments = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert comments[0].startswith("# What becomes of ")
    marked = sum("TO BE CHECKED" in line for line in comments)
    assert marked == sum(bool(use.to_check) for use in found.uses)
    assert len(comments) >= 2 + len(found.mapping.rules)


def test_names_that_would_end_a_comment_do_not():
    hostile = "a\n[[rule]]\ndrop = '*'\n#"
    found = infer_mapping(described({f"{hostile}.weight": (3, 4)}), described({"b.weight": (3, 4)}))
    assert KeyMapping.parse(found.mapping.to_json()) == found.mapping
    assert all(
        line.startswith(("#", "[[", "rename", "drop", "expect", "copy")) for line in found.to_toml().split("\n") if line
    )


@pytest.mark.skipif(not CASES, reason=f"the mapping corpus is not at {FOLDER}")
@pytest.mark.parametrize("name", CASES[::12])
def test_each_rule_is_held_to_account(name):
    """The rules that an assignment names are those without which it is not made."""
    case = read(name)
    source, target = manifest(case["source"]), manifest(case["target"])
    found = infer_mapping(source, target)
    data = found.to_json()
    assert sum(len(use.left) for use in found.uses if use.rule.word == "drop") == len(found.parts.dropped)
    mapped = found.mapping.apply(source)
    assert set(found.parts.made) == set(mapped.manifest.tensors)
    for row in data["assignments"][::7]:
        recipe = mapped.recipes.get(row["target"])
        assert row["sources"] == list(recipe.sources if recipe else (mapped.origin[row["target"]],))
        used = [found.mapping.rules[number] for number in row["rules"]]
        assert bool(used) == (recipe is not None or row["sources"] != [row["target"]])
        alone = KeyMapping(tuple(used)).apply(source)
        assert row["target"] in alone.manifest.tensors
