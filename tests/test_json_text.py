"""JSON that line-based tools can read."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from ckptaudit.json_text import pieces, to_lines

TEXTS = st.text(st.characters(), max_size=6)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=12,
)


@given(st.dictionaries(TEXTS, VALUES, max_size=4), st.booleans())
def test_it_is_json_of_the_same_value(data, ascii_only):
    text = to_lines(data, ascii_only=ascii_only)
    assert json.loads(text) == data
    assert text.encode("utf-8")
    assert text.isascii() or not ascii_only
    assert text.splitlines() == text.split("\n")[:-1]


@given(st.text(st.characters(categories=["Cs"]), min_size=1, max_size=1))
def test_a_lone_surrogate_has_an_escape(text):
    assert json.loads(to_lines({"a": text}, ascii_only=False)) == {"a": text}


def test_the_layout():
    data = {"schema": "x", "empty": [], "rows": [{"a": 1}, {"b": [1, 2]}], "names": ["p", "q"]}
    assert to_lines(data) == (
        '{"schema": "x",\n "empty": [],\n "rows": [\n  {"a": 1},\n  {"b": [1, 2]}\n ],\n "names": ["p", "q"]}\n'
    )
    assert to_lines({}) == "{}\n"


@given(st.lists(st.dictionaries(TEXTS, VALUES, max_size=2), max_size=250), st.booleans())
def test_iterators_are_written_as_the_lists_they_stand_for(rows, ascii_only):
    def data(items):
        return {"a": 1, "b": {"c": 2, "rows": items, "d": []}}

    written = "".join(pieces(data(iter(rows)), ascii_only=ascii_only))
    assert written == "".join(pieces(data(rows), ascii_only=ascii_only)) == to_lines(data(rows), ascii_only=ascii_only)


def test_delete_has_an_escape():
    assert to_lines({"a\x7f": "\x7f"}) == '{"a\\u007f": "\\u007f"}\n'
