"""Numbers and foreign text as people read them."""

from __future__ import annotations

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptaudit.words import binary_size, decimal_count, plural, shell_word, value_count, visible


@pytest.mark.parametrize(("count", "text"), [(0, "0 errors"), (1, "1 error"), (2, "2 errors"), (1000, "1,000 errors")])
def test_plural(count, text):
    assert plural(count, "error") == text


@pytest.mark.parametrize(
    ("nbytes", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (1024**2 - 1, "1.0 MiB"),
        (102_530_333, "97.8 MiB"),
        (1024**4, "1.0 TiB"),
        (5000 * 1024**4, "5000.0 TiB"),
    ],
)
def test_binary_size(nbytes, text):
    assert binary_size(nbytes) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0"), (999, "999"), (1000, "1.0 k"), (999_949, "999.9 k"), (999_950, "1.0 M"), (25_557_032, "25.6 M")],
)
def test_decimal_count(count, text):
    assert decimal_count(count) == text


@given(st.integers(0, 2**63))
def test_no_number_is_shown_with_more_than_its_unit_allows(number):
    digits, _, unit = decimal_count(number).partition(" ")
    assert unit == "T" or float(digits) < 1000
    digits, _, unit = binary_size(number).partition(" ")
    assert unit == "TiB" or float(digits) < 1024


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("layer1.0.weight", "layer1.0.weight"),
        ("ключ 鍵 😀", "ключ 鍵 😀"),
        ("\x1b[31m", r"\x1b[31m"),
        ("a\nb\tc\r", r"a\nb\tc\r"),
        ("\x9b \x7f \u2028 \u202e \u200b \ud800", r"\x9b \x7f \u2028 \u202e \u200b \ud800"),
        ("\U000e0001", r"\U000e0001"),
        ("back\\slash", "back\\slash"),
        ("", ""),
    ],
)
def test_visible(text, shown):
    assert visible(text) == shown


@given(st.text())
def test_what_is_visible_is_one_printable_line(text):
    assert visible(text).isprintable()
    assert visible(visible(text)) == visible(text)


@pytest.mark.parametrize("text", ["a.pth", "a b", "x#y", "", "it's", "é", "a/b-c_d.e:f,g+h=i@j%k", "$x", "*"])
def test_a_shell_word_is_that_of_shlex(text):
    assert shell_word(text) == shlex.quote(text)


@pytest.mark.parametrize(("count", "text"), [(0, "0 values"), (1, "1 value"), (2, "2 values"), (2500, "2.5 k values")])
def test_value_count(count, text):
    assert value_count(count) == text
