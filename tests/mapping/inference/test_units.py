from __future__ import annotations

import pytest
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from ckptaudit.mapping.inference.units import gather, locate


@pytest.mark.parametrize(
    ("key", "path", "role"),
    [
        ("encoder.0.weight", ("encoder", "0"), "weight"),
        ("bn.running_var", ("bn",), "running_var"),
        ("attn.in_proj_weight", ("attn", "in_proj"), "weight"),
        ("attn.q_bias", ("attn", "q"), "bias"),
        ("attn.W_Q", ("attn", "Q"), "weight"),
        ("attn._b_K", ("attn", "K"), "bias"),
        ("ln.scale", ("ln",), "weight"),
        ("params.bn.scale", ("bn",), "weight"),
        ("batch_stats.bn.var", ("bn",), "running_var"),
        ("params.scale", ("params",), "weight"),
        ("pixel.mean", ("pixel", "mean"), "weight"),
        ("ln.gamma", ("ln",), "weight"),
        ("cls_token", ("cls_token",), "weight"),
        ("blocks.0.gamma_1", ("blocks", "0", "gamma_1"), "weight"),
        ("weight", ("weight",), "weight"),
        ("fc.parametrizations.weight.original0", ("fc",), "weight_g"),
        ("parametrizations.weight.original0", ("parametrizations", "weight", "original0"), "weight"),
    ],
)
def test_a_key_has_a_unit_and_a_role(key, path, role):
    assert locate(key)[:2] == (path, role)


def units_of(module):
    return {
        ".".join(u.path): set(u.leaves) for u in gather((k, tuple(v.shape)) for k, v in module.state_dict().items())
    }


def test_the_modules_of_torch_become_units():
    assert units_of(nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))) == {
        "0": {"weight", "bias"},
        "1": {"weight", "bias", "running_mean", "running_var", "num_batches_tracked"},
    }
    assert units_of(nn.MultiheadAttention(4, 2)) == {"in_proj": {"weight", "bias"}, "out_proj": {"weight", "bias"}}


def test_weight_norm_is_one_unit_old_and_new():
    assert units_of(nn.Sequential(weight_norm(nn.Linear(2, 3)))) == {"0": {"bias", "weight_g", "weight_v"}}


def test_the_layers_of_an_lstm_are_units():
    found = units_of(nn.Sequential(nn.LSTM(3, 4, bidirectional=True)))
    assert found == {f"0.{kind}.l0{way}": {"weight", "bias"} for kind in ("ih", "hh") for way in ("", ".reverse")}


def test_no_tensor_is_lost_when_names_collide():
    keys = ["a.weight", "a.kernel", "a.w", "a", "W_a", "a_weight"]
    units = gather((key, (1,)) for key in keys)
    assert sorted(leaf.key for unit in units for leaf in unit.leaves.values()) == sorted(keys)
