"""What a GPT-2 file needs beyond the pair: masks of older files, and projections that are transposed and split."""

from __future__ import annotations

import pytest
import torch
from gpt2 import GPT2Model, LinearGPT2, PublishedLM
from pairs import MAPPINGS, seeded, tokens

import ckptaudit
from ckptaudit.mapping.execute import map_state

PATH = MAPPINGS / "gpt2-to-linear.toml"


def test_the_masks_of_older_files_are_left_out():
    source, target = seeded(lambda: GPT2Model(masks=True), 1), seeded(LinearGPT2, 2)
    assert not ckptaudit.diff(target, source.state_dict(), mapping=PATH).ok
    mapping = ckptaudit.KeyMapping.of(["drop *.attn.bias", "drop *.attn.masked_bias", PATH])
    assert ckptaudit.diff(target, source.state_dict(), mapping=mapping).ok
    target.load_state_dict(map_state(mapping, source.state_dict()))
    with torch.no_grad():
        expected = PublishedLM(source.eval())(inputs := tokens())
        assert (target(inputs) - expected).abs().max() <= 1e-14 * expected.abs().max()


def test_a_square_weight_that_is_not_transposed_loads_in_silence_and_computes_something_else():
    """Shapes do not tell: attn.c_proj is square. The mapping transposes it; without that rule nothing complains."""
    source, target = seeded(GPT2Model, 1), seeded(LinearGPT2, 2)
    careless = ckptaudit.KeyMapping.of(
        [
            "add_prefix transformer.",
            "transpose transformer.h.{i}.attn.c_attn.weight",
            "transpose transformer.h.{i}.mlp.c_*.weight",
            "tie lm_head.weight = transformer.wte.weight",
        ]
    )
    assert ckptaudit.diff(target, source.state_dict(), mapping=careless).ok
    target.load_state_dict(map_state(careless, source.state_dict()))
    with torch.no_grad():
        expected = PublishedLM(source)(inputs := tokens())
        assert not torch.allclose(target(inputs), expected)


def test_a_tie_that_the_mapping_makes_is_one_tensor():
    result = map_state(ckptaudit.KeyMapping.load(PATH), seeded(GPT2Model, 1).state_dict())
    assert result["lm_head.weight"] is result["transformer.wte.weight"]


def test_two_operations_on_one_tensor_are_two_mappings():
    """Transposed and split: a tensor goes through one operation of a mapping, so a second mapping does the rest."""
    state = seeded(GPT2Model, 1).state_dict()
    both = ["transpose h.{i}.attn.c_attn.weight", "split h.{i}.attn.c_attn.* -> h.{i}.q.*, h.{i}.k.*, h.{i}.v.*"]
    with pytest.raises(ckptaudit.UsageError, match=r"also takes h\.0\.attn\.c_attn\.weight"):
        map_state(ckptaudit.KeyMapping.parse(both), state)
    first, second = (ckptaudit.KeyMapping.parse([line]) for line in both)
    result = map_state(second, map_state(first, state))
    weight, bias = state["h.1.attn.c_attn.weight"], state["h.1.attn.c_attn.bias"]
    assert torch.equal(result["h.1.k.weight"], weight[:, 16:32].T)
    assert torch.equal(result["h.1.k.bias"], bias[16:32])
