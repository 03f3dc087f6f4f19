import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptaudit.errors import UsageError
from ckptaudit.keys import KeyPattern, fold, natural_key

NAMES = st.sampled_from(
    ["conv1", "bn2", "layer4", "weight", "bias", "0", "1", "12", "007", "a b", "", "x{", "*", "1..4"]
)
KEYS = st.one_of(
    st.lists(NAMES, min_size=1, max_size=4).map(".".join),
    st.text(alphabet="ab.1203{},*\\é ", max_size=8),
)


def texts(keys):
    return [str(pattern) for pattern in fold(keys)]


@given(st.lists(KEYS, max_size=40))
@settings(max_examples=400, deadline=None)
def test_folding_loses_nothing_and_names_no_key_twice(keys):
    expanded = [key for pattern in fold(keys) for key in pattern.expand()]
    assert sorted(expanded) == sorted(set(keys))


@given(st.lists(KEYS, min_size=1, max_size=20))
@settings(max_examples=200, deadline=None)
def test_a_pattern_reads_back_and_matches_what_it_expands_to(keys):
    for pattern in fold(keys):
        again = KeyPattern.parse(str(pattern))
        assert str(again) == str(pattern)
        assert list(again.expand()) == list(pattern.expand())
        assert pattern.count == len(list(pattern.expand()))
        assert all(pattern.matches(key) for key in pattern.expand())


@given(st.lists(KEYS, min_size=1, max_size=20), KEYS)
@settings(max_examples=200, deadline=None)
def test_a_pattern_matches_nothing_else(keys, other):
    for pattern in fold(keys):
        assert pattern.matches(other) is (other in set(pattern.expand()))


def test_indices_fold_where_the_sets_agree():
    keys = [
        f"layer{i}.{j}.bn{k}.{leaf}" for i in (1, 2) for j in (0, 1, 2) for k in (1, 2) for leaf in ("weight", "bias")
    ]
    assert texts(keys) == ["layer{1,2}.{0..2}.bn{1,2}.{bias,weight}"]


def test_gaps_are_kept():
    assert texts(["h.0.w", "h.1.w", "h.2.w", "h.31.w"]) == ["h.{0..2,31}.w"]


def test_a_ragged_set_is_not_filled_up():
    keys = ["layers.0.blocks.0", "layers.0.blocks.1", "layers.1.blocks.0", "layers.1.blocks.5"]
    assert sorted(key for pattern in fold(keys) for key in pattern.expand()) == keys
    assert len(texts(keys)) <= 3


def test_names_between_dots_merge():
    assert texts(["q.weight", "k.weight", "v.weight"]) == ["{k,q,v}.weight"]


@pytest.mark.parametrize(
    ("name", "most"), [("resnet50", 11), ("vit_b_16", 10), ("densenet121", 14), ("convnext_tiny", 9), ("swin_t", 15)]
)
def test_real_models_fold_to_a_screen(name, most):
    import torch
    from torchvision import models

    with torch.device("meta"):
        keys = list(getattr(models, name)().state_dict())
    folded = fold(keys)
    assert sum(pattern.count for pattern in folded) == len(keys)
    assert len(folded) <= most, texts(keys)
    assert max(len(str(pattern)) for pattern in folded) <= 112  # densenet121: one line of alternatives


def test_a_hundred_thousand_keys_fold_in_seconds():
    keys = [
        f"layers.{i}.experts.{j}.{part}.weight"
        for i in range(100)
        for j in range(250)
        for part in ("w1", "w2", "w3", "gate")
    ]
    assert texts(keys) == ["layers.{0..99}.experts.{0..249}.{gate,w1,w2,w3}.weight"] or len(texts(keys)) <= 2


@pytest.mark.parametrize(
    ("pattern", "key", "fits"),
    [
        ("backbone.*", "backbone.layer1.0.weight", True),
        ("backbone.*", "xbackbone.fc", False),
        ("*.num_batches_tracked", "bn.num_batches_tracked", True),
        ("layer{1..3}.*", "layer2.w", True),
        ("layer{1..3}.*", "layer4.w", False),
        ("{bias,weight}", "weight", True),
        (r"a\*b", "a*b", True),
        (r"a\*b", "axb", False),
    ],
)
def test_matching(pattern, key, fits):
    assert KeyPattern.parse(pattern).matches(key) is fits


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a{b", "has an opening brace without a closing one"),
        ("a}b", "has a closing brace without an opening one at 1"),
        ("a{5..1}", "has a range that is empty or longer than 1,000,000"),
        ("a{0..99999999}", "has a range that is empty or longer than 1,000,000"),
    ],
)
def test_faults_are_named(text, reason):
    with pytest.raises(UsageError) as caught:
        KeyPattern.parse(text)
    assert (caught.value.subject, caught.value.reason) == (text, reason)


def test_a_star_cannot_be_listed():
    with pytest.raises(UsageError, match="endlessly many keys"):
        list(KeyPattern.parse("a.*").expand())


def test_natural_order():
    assert sorted(["layer10", "layer9", "layer1.10", "layer1.2"], key=natural_key) == [
        "layer1.2",
        "layer1.10",
        "layer9",
        "layer10",
    ]
