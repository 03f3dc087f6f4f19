"""Manifest and TensorSpec: what they say of a state dict, how they survive a file, what they refuse to read."""

from __future__ import annotations

import json
import os

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptaudit import Manifest, TensorSpec, UsageError

HINT = "write one with: ckptaudit manifest write model.py -o model.manifest.json"


@given(st.lists(st.integers(0, 3), max_size=4), st.randoms())
@settings(max_examples=100, deadline=None)
def test_contiguous_is_what_torch_says(shape, random):
    tensor = torch.empty(shape, device="meta")
    order = random.sample(range(len(shape)), len(shape))
    for view in (tensor, tensor.permute(order), tensor[..., ::2] if shape else tensor):
        spec = TensorSpec(tuple(view.shape), "float32", stride=view.stride())
        assert spec.contiguous is view.is_contiguous()
        assert (spec.numel, spec.nbytes) == (view.numel(), 4 * view.numel())
    assert TensorSpec(tuple(shape), "float32").contiguous


class TestTies:
    A = TensorSpec((4,), "float32", storage="0", storage_nbytes=64, stride=(1,))
    MANIFEST = Manifest(
        {
            "a": A,
            "same": A,
            "later": TensorSpec((4,), "float32", storage="0", storage_nbytes=64, stride=(1,), storage_offset=4),
            "other": TensorSpec((2, 3), "int64", storage="1", storage_nbytes=48, stride=(3, 1)),
            "loose": TensorSpec((5,), "bfloat16"),
        }
    )

    def test_ties_name_the_same_elements_and_storages_are_shared_by_views_too(self):
        assert self.MANIFEST.ties() == [("a", "same")]
        assert self.MANIFEST.shared_storages() == [("a", "same", "later")]
        assert self.A.same_view(self.MANIFEST["same"])
        assert not self.A.same_view(self.MANIFEST["later"])
        assert not self.MANIFEST["loose"].same_view(self.MANIFEST["loose"])  # nobody knows

    def test_what_is_shared_is_counted_once(self):
        assert self.MANIFEST.numel == 4 + 4 + 6 + 5
        assert self.MANIFEST.nbytes == 64 + 48 + 10


def test_it_is_a_mapping_in_the_order_of_the_state_dict():
    manifest = Manifest({"b": TensorSpec((1,), "int8"), "a": TensorSpec((), "bool")}, {"x._extra_state": "dict"})
    assert (list(manifest), len(manifest), "a" in manifest, "x" in manifest) == (["b", "a"], 2, True, False)
    assert manifest.all_keys == ("b", "a", "x._extra_state")
    assert manifest.select(["x._extra_state", "a", "nothing"]).all_keys == ("a", "x._extra_state")
    assert [manifest.module_of(key) for key in ("a.b.weight", "weight")] == ["a.b", ""]


ROW = {"key": "w", "shape": [2, 3], "dtype": "float32"}


def manifest_data(**fields):
    return {"schema": "ckptaudit.manifest/1", "tensors": [ROW], **fields}


def row(**fields):
    return manifest_data(tensors=[{**ROW, **fields}])


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (None, "schema is not 'ckptaudit.manifest/1'"),
        ([], "schema is not 'ckptaudit.manifest/1'"),
        ({}, "schema is not 'ckptaudit.manifest/1'"),
        (manifest_data(schema="ckptaudit.manifest/2"), "schema is not 'ckptaudit.manifest/1'"),
        (manifest_data(tensors=None), "tensors is not a list"),
        (manifest_data(tensors={"w": [2]}), "tensors is not a list"),
        (manifest_data(tensor=[]), "tensor is no field of one"),
        (manifest_data(source=5), "source is not a text"),
        (manifest_data(tensors=["w"]), "tensors[0] has no key"),
        (manifest_data(tensors=[ROW, {**ROW, "key": 3}]), "tensors[1] has no key"),
        (manifest_data(tensors=[ROW, ROW]), "tensors[1] repeats the key 'w'"),
        (manifest_data(entries=[{"key": "w", "type": "int"}]), "entries[0] repeats the key 'w'"),
        (manifest_data(entries=[{"key": "x"}]), "entries[0] has no type"),
        (manifest_data(entries=[{"key": "x", "type": "int", "n": 1}]), "entries[0] has the unknown field 'n'"),
        (manifest_data(non_persistent=[{"key": "b"}]), "non_persistent[0] has no shape of non-negative integers"),
        (manifest_data(versions=None), "versions is not an object of integers"),
        (manifest_data(versions={"bn": "2"}), "versions is not an object of integers"),
        (manifest_data(versions={"bn": True}), "versions is not an object of integers"),
        (row(shape="23"), "tensors[0] has no shape of non-negative integers"),
        (row(shape=[2.0]), "tensors[0] has no shape of non-negative integers"),
        (row(shape=[True]), "tensors[0] has no shape of non-negative integers"),
        (row(shape=[-1]), "tensors[0] has no shape of non-negative integers"),
        (row(shape=[2**63]), "tensors[0] has no shape of non-negative integers"),
        (row(shape=[2**40, 2**40]), "tensors[0] has a size below 0 or above 2^63"),
        (row(dtype="float12"), "tensors[0] has the unknown dtype 'float12'"),
        (row(dtype="torch.float32"), "tensors[0] has the unknown dtype 'torch.float32'"),
        (row(dtype=["float32"]), "tensors[0] has the unknown dtype ['float32']"),
        (row(dtype=None), "tensors[0] has the unknown dtype None"),
        (row(colour="red"), "tensors[0] has the unknown field 'colour'"),
        (row(kind="weight"), "tensors[0] has the unknown kind 'weight'"),
        (row(kind=None), "tensors[0] has a kind of the wrong type"),
        (row(storage=0), "tensors[0] has a storage of the wrong type"),
        (row(requires_grad=1), "tensors[0] has a requires_grad of the wrong type"),
        (row(storage_nbytes=True), "tensors[0] has a storage_nbytes of the wrong type"),
        (row(storage_nbytes=-1), "tensors[0] has a size below 0 or above 2^63"),
        (row(storage_offset=-1), "tensors[0] has a size below 0 or above 2^63"),
        (row(stride=None), "tensors[0] has a stride that does not fit its shape"),
        (row(stride=[1]), "tensors[0] has a stride that does not fit its shape"),
        (row(stride=[-3, 1]), "tensors[0] has a stride that does not fit its shape"),
    ],
)
def test_what_does_not_follow_the_schema_is_refused_with_its_place(data, fault):
    with pytest.raises(UsageError) as caught:
        Manifest.from_json(data, "m.json")
    assert (caught.value.subject, caught.value.reason) == ("m.json", f"is not a manifest: {fault}")
    assert caught.value.hint == HINT


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is not valid JSON: Expecting value: line 1 column 1 (char 0)"),
        (b'{"a": 1, "b": 2, "a": 3}', "is not valid JSON: an object names 'a' twice"),
        (b"\xff\xfe", "is not valid JSON: 'utf-8' codec can't decode byte 0xff in position 0: invalid start byte"),
        (b"[" * 100_000, "is not valid JSON: maximum recursion depth exceeded"),
    ],
)
def test_a_file_that_is_no_json_is_refused(content, reason, tmp_path):
    path = tmp_path / "m.json"
    path.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        Manifest.load(path)
    assert caught.value.subject == str(path)
    assert caught.value.reason.startswith(reason)


def test_a_file_that_cannot_be_opened(tmp_path):
    for name, reason in (("nothing.json", "No such file or directory"), (".", "Is a directory")):
        with pytest.raises(UsageError, match=f"cannot be read: {reason}"):
            Manifest.load(tmp_path / name)


def test_defaults_are_left_out_and_come_back():
    spec = TensorSpec((2,), "float32")
    assert spec.to_json() == {"shape": [2], "dtype": "float32"}
    assert TensorSpec.from_json(spec.to_json()) == spec
    assert Manifest.from_json(manifest_data()) == Manifest({"w": TensorSpec((2, 3), "float32")}, source="manifest")
    assert Manifest.from_json(manifest_data(versions={})).versions == {}
    assert Manifest.from_json(manifest_data()).versions is None


def test_surrogates_and_separators_survive_a_file(tmp_path):
    keys = ["\ud800", "a\u2028b", "\x85", "\x9b", "\x7f", "ключ", '"', "\\u0041", "😀", ""]
    manifest = Manifest({key: TensorSpec((1,), "float32") for key in keys})
    manifest.save(tmp_path / "m.json")
    assert Manifest.load(tmp_path / "m.json") == manifest
    text = (tmp_path / "m.json").read_bytes().decode("utf-8")
    assert len(text.splitlines()) == text.count("\n") == len(keys) + 4
    assert "ключ" in text
    assert "😀" in text


class TestSaving:
    MANIFEST = Manifest({"a": TensorSpec((1,), "float32")}, source="x")

    def test_it_takes_a_path_of_either_kind(self, tmp_path):
        self.MANIFEST.save(tmp_path / "a.json")
        self.MANIFEST.save(str(tmp_path / "b.json"))
        assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
        assert sorted(os.listdir(tmp_path)) == ["a.json", "b.json"]

    def test_one_tensor_is_one_line(self):
        assert self.MANIFEST.dumps() == (
            '{"schema": "ckptaudit.manifest/1",\n'
            ' "source": "x",\n'
            ' "tensors": [\n'
            '  {"key": "a", "shape": [1], "dtype": "float32"}\n'
            " ]}\n"
        )
        assert json.loads(Manifest({}).dumps()) == {"schema": "ckptaudit.manifest/1", "source": "", "tensors": []}
