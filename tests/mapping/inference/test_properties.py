"""For any two manifests: no exception, one answer, every key accounted for; and no confident mistake on renamed trees."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from ckptaudit.mapping.assignment import CONFIDENT
from ckptaudit.mapping.inference import infer

from .helpers import manifest

NAMES = """
0 1 2 10 a b qkv kv q k v query key weight bias W_Q b_Q q_bias in_proj_weight in_proj_bias norm1 norm2 gate up fc_1 fc_2
gate_up_proj . .. é ² ٣ _ running_mean num_batches_tracked weight_g weight_ih_l0 bias_hh_l0_reverse self_attn
self_attn_layer_norm parametrizations.weight.original0 parametrizations.weight.original1 position embed head
"""
SEGMENTS = st.sampled_from([*NAMES.split(), "", "9" * 5000])
KEYS = st.lists(SEGMENTS, min_size=1, max_size=5).map(".".join)
SHAPES = st.sampled_from(
    [
        (),
        (1,),
        (4,),
        (8,),
        (12,),
        (0,),
        (4, 4),
        (12, 4),
        (4, 12),
        (2, 4, 2),
        (4, 4, 1, 1),
        (0, 4),
        (0, 0),
        (1, 4),
        (2000, 4),
    ]
)
TENSORS = st.dictionaries(KEYS, SHAPES, max_size=24)


@given(TENSORS, TENSORS)
@settings(max_examples=150, deadline=None, derandomize=True)
def test_every_key_is_accounted_for(source, target):
    found = infer(manifest(source), manifest(target))
    assert found == infer(manifest(source), manifest(target))
    listed = [*(one.target for one in found.assigned), *found.uninitialised, *found.ambiguous]
    assert sorted(listed) == sorted(target)
    used = {key for one in found.assigned for key in one.sources}
    assert used | set(found.dropped) == set(source)
    assert used.isdisjoint(found.dropped)
    for one in found.assigned:
        assert 0.5 <= one.confidence <= 1.0
        assert one.reason
        if one.op == "copy":
            assert source[one.sources[0]] == target[one.target]


WORDS = [f"{a}{b}{c}" for a in "bdfgkl" for b in "aeiou" for c in "mnprst"]
INSIDE, ENDS = WORDS[:20], WORDS[20:30]


@st.composite
def trees(draw):
    """A tree with lists of blocks, and the same tree with every name but numbers and leaf names replaced.

    One of several siblings may get the name of another. Were it two, the names would say something that is not so, and
    so would a name from another depth: who sees ``a.0.bar`` on one side and ``bar`` on the other takes it for a tensor
    that moved, and is right to.
    """
    fresh = draw(st.permutations(WORDS))
    names = {}
    blocks = draw(st.integers(1, 7))
    inside = draw(
        st.lists(
            st.tuples(st.sampled_from(INSIDE), st.sampled_from([(4, 4), (8, 4), (4, 8), (4,), (4, 4, 3, 3)])),
            min_size=1,
            max_size=5,
            unique_by=lambda x: x[0],
        )
    )
    ends = draw(
        st.lists(
            st.tuples(st.sampled_from(ENDS), st.sampled_from([(4,), (9, 4), (4, 3, 7, 7)])),
            max_size=3,
            unique_by=lambda x: x[0],
        )
    )
    tensors = {f"{name}.weight": shape for name, shape in ends}
    for i in range(blocks):
        tensors |= {f"trunk.{i}.{name}.weight": shape for name, shape in inside}

    old = {"trunk"}.union(INSIDE, ENDS)
    names["trunk"] = next(one for one in fresh if one not in old)
    for siblings in ([name for name, _ in inside], [name for name, _ in ends]):
        friend = draw(st.permutations(siblings))[:2] if len(siblings) > 1 and draw(st.booleans()) else ()
        if friend:
            names[friend[0]] = friend[1]
        for name in siblings:
            if name not in names:
                names[name] = next(one for one in fresh if one not in old and one not in names.values())

    def change(key):
        return ".".join(names.get(segment, segment) for segment in key.split("."))

    truth = {change(key): key for key in tensors}
    order = draw(st.permutations(sorted(truth)))
    return tensors, {key: tensors[truth[key]] for key in order}, truth


@given(trees())
@settings(max_examples=120, deadline=None, derandomize=True)
def test_a_renamed_tree_is_recovered_or_left_open_and_never_confidently_wrong(case):
    source, target, truth = case
    for one in infer(manifest(source), manifest(target)).assigned:
        if one.confidence >= CONFIDENT:
            assert one.sources == (truth[one.target],)


@given(trees())
@settings(max_examples=60, deadline=None, derandomize=True)
def test_a_prefix_changes_nothing_whatever_the_order(case):
    source, _, _ = case
    target = {f"wrapped.{key}": shape for key, shape in reversed(source.items())}
    found = infer(manifest(source), manifest(target))
    assert {one.target: one.sources for one in found.assigned} == {f"wrapped.{key}": (key,) for key in source}
    assert max(Counter(one.sources for one in found.assigned).values()) == 1
