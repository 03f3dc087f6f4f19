"""A mapping on real tensors against what it foretells, and its laws."""

from collections import OrderedDict

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import INVERTIBLE, bits_of, fitting

from ckptaudit.errors import UsageError
from ckptaudit.manifest import Manifest
from ckptaudit.mapping.execute import map_state
from ckptaudit.mapping.mapping import KeyMapping

LOSSY = [
    "drop *.proj.weight",
    "slice module.fc.weight stop=2",
    "adapt_input_conv module.conv1.weight in_chans=1",
    "cast *.a.weight dtype=float16",
    "resample_pos_embed module.pos_embed size=3x3",
    "init module.fc.bias",
    "select_prefix module.",
    "add_prefix net.",
    "tie *.alias = *.b.weight",
]
SUBSETS = st.lists(st.sampled_from(INVERTIBLE + LOSSY), unique=True)


def applied(lines, state):
    """Apply the rules that do something there and do not get in each other's way; None where some do."""
    mapping = KeyMapping.parse(lines)
    try:
        idle = mapping.apply(Manifest.of(state)).unused
        mapping = KeyMapping(tuple(rule for rule in mapping.rules if rule not in idle))
        return mapping, map_state(mapping, state)
    except UsageError:
        return None


@settings(max_examples=150, deadline=None)
@given(SUBSETS, st.integers(0, 999))
def test_foretold_and_executed_agree_in_keys_order_shapes_dtypes_and_versions(lines, seed):
    state = fitting(seed)
    before = {key: bits_of(value) for key, value in state.items()}
    metadata = dict(state._metadata)
    if (done := applied(lines, state)) is None:
        return
    mapping, result = done
    foretold = mapping.apply(Manifest.of(state)).manifest
    real = Manifest.of(result)
    assert [(key, spec.shape, spec.dtype) for key, spec in real.tensors.items()] == [
        (key, spec.shape, spec.dtype) for key, spec in foretold.tensors.items()
    ]
    assert real.versions == foretold.versions
    assert sorted(real.ties()) == sorted(foretold.ties())
    assert {key: bits_of(value) for key, value in state.items()} == before
    assert state._metadata == metadata
    again = map_state(mapping, state)
    assert [(key, bits_of(value)) for key, value in again.items()] == [(k, bits_of(v)) for k, v in result.items()]


@settings(max_examples=150, deadline=None)
@given(SUBSETS)
def test_every_key_is_accounted_for(lines):
    state = fitting(0)
    if (done := applied(lines, state)) is None:
        return
    mapped = done[0].apply(Manifest.of(state))
    used = {*mapped.origin.values(), *(key for recipe in mapped.recipes.values() for key in recipe.sources)}
    assert used | set(mapped.dropped) == set(state)
    assert used.isdisjoint(mapped.dropped)
    assert set(mapped.manifest) == set(mapped.origin) | set(mapped.recipes)
    assert set(mapped.origin).isdisjoint(mapped.recipes)
    assert {alias for alias, _ in mapped.ties} <= set(mapped.manifest)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(INVERTIBLE), unique=True), st.integers(0, 999))
def test_inverse_of_applied_is_the_same_bit_for_bit(lines, seed):
    state = fitting(seed)
    if (done := applied(lines, state)) is None:
        return
    mapping, result = done
    back = map_state(mapping.invert(Manifest.of(state)), result)
    assert {key: bits_of(value) for key, value in back.items()} == {key: bits_of(v) for key, v in state.items()}


@settings(max_examples=100, deadline=None)
@given(SUBSETS)
def test_what_does_not_act_again_is_idempotent(lines):
    state = fitting(0)
    if (done := applied(lines, state)) is None:
        return
    mapping, _ = done
    manifest = Manifest.of(state)
    once = mapping.apply(manifest).manifest
    again = mapping.acting_again(manifest)
    if again:
        return
    try:
        twice = mapping.apply(once)
    except UsageError:
        return  # refused
    assert twice.manifest.tensors == once.tensors
    assert not twice.recipes


def test_the_rules_that_would_act_again_are_named():
    state = Manifest.of({"module.a": torch.zeros(2, 3), "b": torch.zeros(3)})
    mapping = KeyMapping.parse(["module.* -> *", "add_prefix x.", "transpose x.a", "drop x.b"])
    assert [str(rule) for rule in mapping.acting_again(state)] == ["add_prefix x.", "transpose x.a"]
    refuses = KeyMapping.parse(["concat module.a, c -> module.a dim=1"])
    assert refuses.acting_again(Manifest.of({"module.a": torch.zeros(2, 3), "c": torch.zeros(2, 3)})) == ()
    tied = KeyMapping.parse(["tie c = b"])
    assert tied.acting_again(state) == tied.rules  # the second time it would collide
    guarded = KeyMapping.parse(["module.* -> *", "transpose a when=2x3"])
    assert guarded.acting_again(state) == ()


def test_entries_keep_their_place_and_metadata_moves():
    state = OrderedDict(
        [("m.a", torch.arange(4)), ("m._extra_state", {"level": 1}), ("m.b", torch.arange(4)), ("m.c", torch.arange(2))]
    )
    state._metadata = OrderedDict({"": {"version": 1}, "m": {"version": 2, "other": 1}})
    result = map_state(KeyMapping.parse(["m.* -> n.*", "concat n.a, n.b -> n.ab"]), state)
    assert list(result) == ["n.ab", "n._extra_state", "n.c"]
    assert result["n.c"] is state["m.c"]
    assert result._metadata == {"": {"version": 1}, "n": {"version": 2}}
    assert result["n.ab"].tolist() == [0, 1, 2, 3, 0, 1, 2, 3]


def test_a_plain_dict_gets_no_metadata():
    assert not hasattr(map_state(KeyMapping.parse(["a -> b"]), {"a": torch.zeros(1)}), "_metadata")


def test_tied_names_are_one_tensor():
    result = map_state(KeyMapping.parse(["transpose a", "tie b = a"]), {"a": torch.zeros(2, 3)})
    assert result["a"] is result["b"]
    assert result["a"].shape == (3, 2)


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        (["m.* -> *"], "a: would receive m.a and a under the mapping"),
        (["b.* -> *"], "b.* -> *: matches nothing"),
        (["tie a = m.a"], "a: would receive a and m.a under the mapping"),
        (["transpose m.a -> a"], "a: would receive m.a and a under the mapping"),
        (["transpose zz"], "transpose zz: matches nothing"),
        (["transpose m.a dims=0,2"], "transpose m.a dims=0,2: m.a (2, 3) has 2 dimensions and no dimension 2"),
    ],
)
def test_what_would_lose_a_tensor_or_do_nothing_is_an_error(lines, text):
    with pytest.raises(UsageError) as caught:
        map_state(KeyMapping.parse(lines), {"m.a": torch.zeros(2, 3), "a": torch.zeros(2, 3)})
    assert str(caught.value) == text


def test_views_are_not_kept_alive():
    state = {"qkv": torch.zeros(300, 8)}
    result = map_state(KeyMapping.parse(["split qkv -> q, k, v"]), state)
    assert [value.untyped_storage().nbytes() for value in result.values()] == [3200] * 3


def test_conjugate_and_negative_views_become_values():
    value = torch.tensor([[1 + 2j, 3 - 4j]])
    state = {"a": value.conj(), "b": value.conj().imag}
    assert state["b"].is_neg()
    result = map_state(KeyMapping.parse(["transpose a", "transpose b"]), state)
    assert result["a"].tolist() == [[1 - 2j], [3 + 4j]]
    assert result["b"].tolist() == [[-2.0], [4.0]]
