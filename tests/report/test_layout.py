"""Lines and columns: nothing is wider than asked, and nothing is lost."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptaudit.compare.hearing import Hearing
from ckptaudit.keys import KeyPattern
from ckptaudit.report.layout import break_word, folded_keys, folded_rows, witness_words, wrap, wrap_command
from ckptaudit.report.table import grid
from ckptaudit.rules import RULES, Finding

LETTERS = "ab.,/}0 "
WORDS = st.text(st.sampled_from(LETTERS), max_size=120)


def squeeze(text):
    return "".join(text.split())


@given(WORDS, st.integers(20, 80), st.integers(0, 9), st.integers(0, 9))
def test_wrapped_text_is_whole_and_narrow(text, width, indent, hanging):
    lines = wrap(text, width, " " * indent, " " * hanging)
    assert max(len(line.rstrip()) for line in lines) <= width
    assert squeeze("".join(lines)) == squeeze(text)
    assert all(line.startswith(" " * hanging) for line in lines[1:] if line.strip())


@given(st.text(st.sampled_from("ab.,/}"), max_size=120), st.integers(1, 40))
def test_a_broken_word_is_whole(word, width):
    pieces = list(break_word(word, width))
    assert "".join(pieces) == word
    assert max(map(len, pieces)) <= width


def test_a_key_is_broken_after_its_marks():
    assert list(break_word("encoder.layers.12.attention.weight", 20)) == ["encoder.layers.12.", "attention.weight"]
    assert list(break_word("a" * 25, 10)) == ["a" * 10, "a" * 10, "a" * 5]


def test_what_would_act_is_shown_before_lines_are_counted():
    assert wrap("\x1b[31m" * 10, 20) == [r"\x1b[31m\x1b[31m\x1b", *wrap(r"[31m" + r"\x1b[31m" * 7, 20)]
    assert wrap("a\nb", 20) == [r"a\nb"]


class TestCommands:
    def test_an_option_stays_with_its_value(self):
        text = "--map 'module.* -> *' --drop 'fc.*' --contract partial"
        lines = wrap_command(text, 30, "  fix  ", "       ")
        assert lines == ["  fix  --map 'module.* -> *'", "       --drop 'fc.*'", "       --contract partial"]

    def test_whole_options_where_they_fit(self):
        text = "--map 'layer1.* -> 4.*' --map 'layer2.* -> 5.*'"
        assert wrap_command(text, 40) == ["--map 'layer1.* -> 4.*'", "--map 'layer2.* -> 5.*'"]

    def test_advice_in_words(self):
        text = "save the state dict alone: torch.save(model.state_dict(), path)"
        assert squeeze("".join(wrap_command(text, 30))) == squeeze(text)


CELLS = st.text(st.sampled_from("abc.,{}0_ ()"), min_size=1, max_size=70).map(str.strip).filter(bool)


@st.composite
def tables(draw):
    columns = draw(st.integers(1, 5))
    row = st.lists(CELLS, min_size=columns, max_size=columns)
    return draw(st.none() | row), draw(st.lists(row, min_size=1, max_size=6))


@given(tables(), st.integers(40, 200))
@settings(max_examples=200, deadline=None)
def test_a_grid_is_never_wider_than_asked_and_loses_no_character(table, width):
    headers, rows = table
    lines = grid(rows, headers or (), width)
    assert max(map(len, lines)) <= width
    cells = [cell for row in ([headers] if headers else []) + rows for cell in row]
    assert sorted(squeeze("".join(lines))) == sorted(squeeze("".join(cells)))


def test_a_narrow_column_keeps_its_text_in_reading_order():
    lines = grid([["encoder.layers.0.attention.weight", "(768, 768)"]], ("key", "checkpoint"), 40)
    assert lines == [
        "  key                checkpoint",
        "  encoder.layers.0.  (768, 768)",
        "  attention.weight",
    ]


def test_columns_are_as_wide_as_their_widest_cell():
    assert grid([["fc.weight", "(10,)"], ["b", "()"]], ("key", "model"), 80) == [
        "  key        model",
        "  fc.weight  (10,)",
        "  b          ()",
    ]


def finding(code, rows=(), keys=()):
    return Finding(RULES[code], keys, rows=rows)


class TestFolding:
    KEYS = st.lists(
        st.text(st.sampled_from("ab01.{*,\\"), min_size=1, max_size=9), min_size=1, max_size=12, unique=True
    )

    @given(KEYS, st.randoms())
    def test_folded_rows_expand_to_the_keys(self, keys, random):
        shapes = {key: random.choice(["(1,)", "(2,)"]) for key in keys}
        rows = folded_rows(finding("CKPT201", tuple((key, shape, "(3,)") for key, shape in shapes.items())))
        again = {key: shape for text, shape, _, _ in rows for key in KeyPattern.parse(text).expand()}
        assert again == shapes
        assert sum(int(count) for *_, count in rows) == len(keys)

    @given(KEYS)
    def test_folded_keys_expand_to_the_keys(self, keys):
        patterns = folded_keys(finding("CKPT101", keys=tuple(keys)))
        assert sorted(key for text in patterns for key in KeyPattern.parse(text).expand()) == sorted(keys)

    def test_rows_that_are_counted_already_are_left_alone(self):
        rows = (("module.*", "*", "320"),)
        assert folded_rows(finding("CKPT103", rows)) == list(rows)

    def test_rules_of_a_mapping_are_no_keys(self):
        assert folded_keys(finding("CKPT903", keys=("modul.* -> *",))) == ["modul.* -> *"]

    def test_no_rows(self):
        assert folded_rows(finding("CKPT101")) == []


@pytest.mark.parametrize("width", [0, -3])
def test_no_room_at_all_is_no_endless_loop(width):
    assert list(break_word("abc", width)) == ["abc"]


@pytest.mark.parametrize(
    ("hearing", "words"),
    [
        (Hearing("torch.load"), "torch's own load did the same (read by torch.load)"),
        (
            Hearing("memory", partly=True),
            "torch's own load did the same (from memory); the mapping could not be carried out",
        ),
        (
            Hearing("ckptaudit", note="torch has no reader of dcp"),
            "torch's own load did the same (read by ckptaudit: torch has no reader of dcp)",
        ),
        (
            Hearing("safetensors", prediction=False),
            "torch's own load did the same (read by safetensors); a manifest in place of the model's code would not have "
            "foretold it",
        ),
        (Hearing("torch.load", disagreements=(("loaded", "1", "2"),)), "torch's own load did otherwise"),
        (Hearing(unheard="it is gone"), "the load could not be performed"),
    ],
)
def test_the_words_of_the_witness(hearing, words):
    assert witness_words(hearing) == f"witness: {words}"
