from __future__ import annotations

import pytest

from ckptaudit.mapping.inference.naming import Names, tail
from ckptaudit.mapping.inference.units import Unit


def alike(a, b):
    first, second = (Unit(tuple(text.split("."))) for text in (a, b))
    return Names([first, second]).alike(first.stem, second.stem)


@pytest.mark.parametrize(
    ("name", "better", "worse"),
    [
        ("blocks.0.attn.q", "layer.0.attention.query", "layer.0.attention.key"),
        ("encoder.0.norm", "encoder.layer.0.layer_norm", "decoder.layer.0.layer_norm"),
        ("mlp.fc1", "mlp.linear1", "attn.out"),
        ("left.conv", "left.c", "right.conv"),
        ("temporal_norm1", "temporal_layernorm", "layernorm_after"),
        ("h.0.attn.proj", "layers.0.self_attn.dense", "layers.0.self_attn.k_proj"),
    ],
)
def test_what_means_the_same_is_more_alike(name, better, worse):
    assert alike(name, better) > alike(name, worse)


def test_likeness_is_symmetric_and_one_for_the_same():
    assert alike("a.norm1.x", "b.ln_1.y") == pytest.approx(alike("b.ln_1.y", "a.norm1.x"))
    assert alike("encoder.attn", "encoder.attn") == pytest.approx(1.0)
    assert alike("abc", "xyz") == 0.0


def test_ends_are_compared_word_by_word():
    def of(a, b):
        return tail(tuple(a.split(".")), tuple(b.split(".")))

    assert of("layers.0.ffn1_layer_norm", "encoder.layers.0.ffn1.layer_norm") > of(
        "layers.0.ffn1_layer_norm", "layers.0.ffn2.layer_norm"
    )
    assert of("a.b", "x.a.b") > of("a.b", "x.c.b") > of("a.b", "x.c.d") == 0.0
