"""What is noted in a safetensors file is checked like everything else in it."""

from __future__ import annotations

import contextlib
import json

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from ckptaudit import CkptauditError, FormatError, convert, open_checkpoint
from ckptaudit.formats import DEFAULT_LIMITS
from ckptaudit.records import replace

TENSORS = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2)}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def noted(**sections):
    notes = {"schema": "ckptaudit.notes/1", **sections}
    return written(json.dumps(notes))


def written(text, **others):
    save_file(TENSORS, "x.safetensors", metadata={"format": "pt", "ckptaudit": text, **others})
    return open_checkpoint("x.safetensors", with_payload=True)


def test_an_alias_is_a_tie():
    checkpoint = noted(aliases={"head": {"of": "b", "at": 0}, "tail": {"of": "b", "at": 3}})
    assert list(checkpoint.manifest) == ["head", "a", "b", "tail"]
    assert checkpoint.manifest.ties() == [("head", "b", "tail")]
    assert checkpoint.details["notes of ckptaudit convert"] == "2 aliases"
    assert checkpoint.details["metadata.format"] == "pt"
    assert "metadata.ckptaudit" not in checkpoint.details


def test_an_alias_may_be_a_view():
    checkpoint = noted(aliases={"row": {"of": "a", "at": 9, "offset": 3, "shape": [3], "stride": [1]}})
    spec = checkpoint.manifest["row"]
    assert (spec.shape, spec.stride, spec.storage_offset, spec.storage) == ((3,), (1,), 3, "a")


def test_entries_and_versions():
    around = {"epoch": 1, "model": {"$state_dict": True}}
    checkpoint = noted(entries={"n": {"at": 1, "value": {"$tuple": [1]}}}, versions={"": None, "x": 2}, around=around)
    assert checkpoint.manifest.entries == {"n": "tuple"}
    assert checkpoint.manifest.versions == {"": None, "x": 2}
    payload = checkpoint.read_payload()
    assert (payload.entries, payload.around, payload.places) == ({"n": {"$tuple": [1]}}, around, {"n": 1})


VIEW = {"of": "a", "at": 0, "offset": 0, "shape": [2], "stride": [1]}
BROKEN = {
    "an alias of nothing": {"aliases": {"x": {"of": "c", "at": 0}}},
    "an alias of an alias": {"aliases": {"x": {"of": "y", "at": 0}, "y": {"of": "a", "at": 0}}},
    "an alias that is there": {"aliases": {"b": {"of": "a", "at": 0}}},
    "an alias without a place": {"aliases": {"x": {"of": "a"}}},
    "an alias with a place below 0": {"aliases": {"x": {"of": "a", "at": -1}}},
    "an alias with a place beyond all counting": {"aliases": {"x": {"of": "a", "at": 2**63 + 4}}},
    "an alias with an odd place": {"aliases": {"x": {"of": "a", "at": True}}},
    "an alias that is none": {"aliases": {"x": 1}},
    "an alias with more": {"aliases": {"x": {"of": "a", "at": 0, "dtype": "F64"}}},
    "an alias under a list": {"aliases": {"x": {"of": [], "at": 0}}},
    "half a view": {"aliases": {"x": {"of": "a", "at": 0, "offset": 0}}},
    "a view beyond the end": {"aliases": {"x": {**VIEW, "offset": 5}}},
    "a view below the beginning": {"aliases": {"x": {**VIEW, "offset": -1}}},
    "a view of other rank": {"aliases": {"x": {**VIEW, "stride": [1, 1]}}},
    "a view without numbers": {"aliases": {"x": {**VIEW, "shape": ["2"]}}},
    "a key that acts": {"aliases": {"\x1b[31m": {"of": "a", "at": 0}}},
    "aliases in a list": {"aliases": []},
    "an entry that is a tensor, too": {"entries": {"x": {"at": 0, "value": 1}}, "aliases": {"x": {"of": "a", "at": 0}}},
    "an entry without a value": {"entries": {"x": {"at": 0}}},
    "no place for the state dict": {"around": {"epoch": 1}},
    "two places": {"around": {"a": {"$state_dict": True}, "b": [{"$state_dict": True}]}},
    "a version that is none": {"versions": {"": "1"}},
    "a large version": {"versions": {"": 1 << 40}},
    "kinds that are no keys": {"parameters": [1]},
    "another section": {"code": "x"},
    "another schema": {"schema": "ckptaudit.notes/2"},
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_notes_are_refused(case):
    with pytest.raises(FormatError) as caught:
        noted(**BROKEN[case])
    assert caught.value.code in ("CKPT002", "CKPT003")


@pytest.mark.parametrize(
    "text", ["", "[]", "1", "{", '{"schema": 1, "schema": 2}', "[" * 3000, '{"schema": NaN}', "\ud800"[:0] + "nul"]
)
def test_notes_that_are_no_json_are_refused(text):
    with pytest.raises(FormatError, match="has broken notes of ckptaudit convert") as caught:
        written(text)
    assert caught.value.hint == "write the file again from its source, with: ckptaudit convert"


def test_notes_are_under_the_limits():
    aliases = {f"x{number}": {"of": "a", "at": 0} for number in range(100)}
    noted(aliases=aliases)
    for limit in ({"tensors": 50}, {"json_tokens": 100}, {"key_bytes": 2}):
        with pytest.raises(FormatError):
            open_checkpoint("x.safetensors", limits=replace(DEFAULT_LIMITS, **limit))


def test_many_aliases_take_no_time():
    aliases = {f"x{number}": {"of": "a", "at": number} for number in range(50_000)}
    assert len(noted(aliases=aliases).manifest) == 50_002


def test_a_bad_value_is_refused_when_it_is_written():
    noted(entries={"n": {"at": 0, "value": {"$dtype": "float32\nos\nsystem"}}})
    with pytest.raises(Exception, match="has notes with a value that is none"):
        convert("x.safetensors", "x.pth")


def test_a_cut_list_of_kinds_changes_nothing_else():
    checkpoint = noted(parameters=["a"], buffers=["b"], requires_grad=["a", "nowhere"])
    assert [(spec.kind, spec.requires_grad) for spec in checkpoint.manifest.tensors.values()] == [
        ("parameter", True),
        ("buffer", False),
    ]


WHOLE = {
    "schema": "ckptaudit.notes/1",
    "aliases": {"x": {"of": "a", "at": 0}, "y": {**VIEW, "at": 4}},
    "entries": {"n": {"at": 1, "value": {"$tuple": [1, {"$bytes": "AA=="}]}}},
    "around": {"epoch": 1, "model": {"$state_dict": True}},
    "versions": {"": 1, "x": None},
    "parameters": ["a"],
    "requires_grad": ["a"],
}
JUNK = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=3)
    | st.just([])
    | st.just({})
    | st.just(VIEW)
)


def places(value, path=()):
    """Yield the path of every value in a JSON value."""
    yield path
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(inner, (*path, key))


def changed(value, path, junk):
    if not path:
        return junk
    copy = value.copy()
    copy[path[0]] = changed(value[path[0]], path[1:], junk)
    return copy


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from(list(places(WHOLE))), JUNK), min_size=1, max_size=2))
def test_whatever_notes_say_they_are_read_or_refused(changes):
    notes = WHOLE
    for path, junk in changes:
        with contextlib.suppress(KeyError, IndexError, TypeError, AttributeError):
            notes = changed(notes, path, junk)
    try:
        checkpoint = written(json.dumps(notes))
        convert("x.safetensors", "x.pth")
    except CkptauditError:
        return
    state = torch.load("x.pth", weights_only=True)
    if isinstance(state, dict) and "a" in state:
        assert set(state) == set(checkpoint.manifest.all_keys)
