from __future__ import annotations

import pytest

from ckptaudit.mapping.inference.words import EXCLUSIVE, MEANING, number, split, stem, words


@pytest.mark.parametrize(
    ("segment", "meant"),
    [
        ("self_attn", ("self", "attention")),
        ("layer_norm1", ("norm", "1")),
        ("selfAttention", ("self", "attention")),
        ("q_proj", ("query", "proj")),
        ("in_proj", ("qkv",)),
        ("query_key_value", ("qkv",)),
        ("w1", ("gate",)),
        ("conv2d", ("conv", "2", "d")),
        ("0", ("0",)),
        ("", ()),
    ],
)
def test_a_segment_is_split_into_what_its_words_mean(segment, meant):
    assert split(segment) == meant
    assert words(segment) == tuple(word for word in meant if not word.isdigit())


def test_numbers_are_taken_apart():
    assert (stem("block3-12"), number("block3-12")) == ("block#-#", 12)
    assert (stem("conv"), number("conv")) == ("conv", None)
    assert number("9" * 5000) is not None


def test_every_word_has_one_meaning_which_means_itself():
    assert all(MEANING[meaning] == meaning for meaning in MEANING.values())


def test_exclusive_roles_are_words_as_they_come_out():
    known = {MEANING.get(word, word) for group in EXCLUSIVE for word in group}
    assert {word for group in EXCLUSIVE for word in group} == known
