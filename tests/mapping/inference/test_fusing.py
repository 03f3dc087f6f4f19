from __future__ import annotations

import pytest
import torch

from ckptaudit.mapping.inference.fusing import groups_of, part_op, plans
from ckptaudit.mapping.inference.units import gather

from .helpers import copies, said


def units(tensors):
    return gather(tensors.items())


@pytest.mark.parametrize("sizes", [(4, 4, 4), (8, 4, 4), (6, 2, 2), (5, 3), (7, 2, 4)])
def test_the_parts_of_a_fused_tensor_are_torchs(sizes):
    fused = torch.arange(sum(sizes))
    for k, expected in enumerate(fused.split(sizes)):
        name, numbers = part_op(sizes, k).rstrip(")").split("(")
        dim, a, b = map(int, numbers.split(","))
        part = fused.chunk(b, dim)[a] if name == "chunk" else fused[a:b]
        assert torch.equal(part, expected)


def test_siblings_that_make_a_matrix_are_a_group():
    (group,) = groups_of(units({"attn.q.weight": (8, 8), "attn.k.weight": (4, 8), "attn.v.weight": (4, 8)})[:3])[:1]
    assert (group.names, group.shape, group.sizes) == (("query", "key", "value"), (16, 8), (8, 4, 4))


def test_parts_without_a_row_are_no_group():
    assert groups_of(units({f"attn.{c}.weight": (0, 8) for c in "qkv"})) == []


def test_nothing_is_split_where_both_sides_have_the_fused_tensor():
    fused = {"a.qkv.weight": (12, 4), "a.q.weight": (4, 4), "a.k.weight": (4, 4), "a.v.weight": (4, 4)}
    assert plans(units(fused), units(fused)) == ({}, {})


def test_a_fused_projection_is_split_with_its_bias():
    source = {"attn.qkv.weight": (12, 4), "attn.qkv.bias": (12,), "attn.proj.weight": (4, 4), "attn.proj.bias": (4,)}
    target = {
        f"self.{name}.{role}": (4, 4)[: 2 - (role == "bias")]
        for name in ("query", "key", "value", "out")
        for role in ("weight", "bias")
    }
    found = said(source, target)
    for k, name in enumerate(("query", "key", "value")):
        for role in ("weight", "bias"):
            assert found[f"self.{name}.{role}"] == ((f"attn.qkv.{role}",), f"chunk(0,{k},3)")
    assert found["self.out.weight"] == (("attn.proj.weight",), "copy")


def test_the_order_of_the_parts_is_that_of_their_roles_and_not_of_the_keys():
    source = {"attn.in_proj_weight": (12, 4), "fc.weight": (9, 4)}
    target = {
        "attn.v_proj.weight": (4, 4),
        "attn.k_proj.weight": (4, 4),
        "attn.q_proj.weight": (4, 4),
        "fc.weight": (9, 4),
    }
    found = said(source, target)
    assert [found[f"attn.{c}_proj.weight"][1] for c in "qkv"] == ["chunk(0,0,3)", "chunk(0,1,3)", "chunk(0,2,3)"]


def test_parts_are_joined_in_order_and_of_any_size():
    source = {
        "attn.k.weight": (2, 8),
        "attn.q.weight": (8, 8),
        "attn.v.weight": (2, 8),
        "mlp.up.weight": (20, 8),
        "mlp.gate.weight": (20, 8),
    }
    found = said(source, {"attn.qkv.weight": (12, 8), "mlp.gate_up.weight": (40, 8)})
    assert found["attn.qkv.weight"] == (("attn.q.weight", "attn.k.weight", "attn.v.weight"), "concat(0)")
    assert found["mlp.gate_up.weight"] == (("mlp.gate.weight", "mlp.up.weight"), "concat(0)")


def test_only_the_modules_that_differ_are_split():
    main = {f"blocks.{i}.attn.qkv.weight": (12, 4) for i in range(3)}
    source = {**main, "class_blocks.0.attn.qkv.weight": (12, 4)}
    target = {**main, **{f"class_blocks.0.attn.{c}.weight": (4, 4) for c in "qkv"}}
    found = said(source, target)
    assert {key: found[key] for key in main} == {key: ((key,), "copy") for key in main}
    assert found["class_blocks.0.attn.k.weight"] == (("class_blocks.0.attn.qkv.weight",), "chunk(0,1,3)")


def test_a_bias_that_stands_apart_joins_its_part():
    source = {"attn.qkv.weight": (12, 4), "attn.q_bias": (4,), "attn.v_bias": (4,)}
    target = {
        "attn.query.weight": (4, 4),
        "attn.query.bias": (4,),
        "attn.key.weight": (4, 4),
        "attn.value.weight": (4, 4),
        "attn.value.bias": (4,),
    }
    found = said(source, target)
    assert found["attn.query.bias"] == (("attn.q_bias",), "copy")
    assert found["attn.value.weight"] == (("attn.qkv.weight",), "chunk(0,2,3)")
    assert found["attn.value.bias"] == (("attn.v_bias",), "copy")


def test_a_fused_bias_is_cut_where_the_weight_stays_whole():
    source = {"attn.qkv.weight": (12, 4), "attn.qkv.bias": (12,), "norm.weight": (4,)}
    target = {"self.q_bias": (4,), "self.v_bias": (4,), "self.qkv.weight": (12, 4), "norm.weight": (4,)}
    found = said(source, target)
    assert found["self.qkv.weight"] == (("attn.qkv.weight",), "copy")
    assert found["self.q_bias"] == (("attn.qkv.bias",), "chunk(0,0,3)")
    assert found["self.v_bias"] == (("attn.qkv.bias",), "chunk(0,2,3)")


def test_a_fused_tensor_of_which_a_part_is_missing_is_not_made():
    source = {"attn.q.weight": (4, 4), "attn.k.weight": (4, 4)}
    assert "attn.qkv.weight" not in copies(source, {"attn.qkv.weight": (12, 4)})
