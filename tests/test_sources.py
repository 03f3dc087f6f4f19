"""Whatever a user may name for a side, opened: told apart by what it is."""

from __future__ import annotations

import json
import os
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from torch import nn

from ckptaudit import Manifest, UsageError, open_checkpoint
from ckptaudit.sources import is_manifest_file, is_model_like, open_source


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"epoch": 3, "model": NET.state_dict()}, "net.pth")
    Manifest.of(NET).save("net.json")


NET = nn.Linear(2, 3)


class TestKinds:
    @pytest.mark.parametrize(
        ("given", "kind", "name"),
        [
            ("net.pth", "checkpoint", "net.pth"),
            ("net.pth#model", "checkpoint", "net.pth"),
            (Path("net.pth"), "checkpoint", "net.pth"),
            ("net.json", "manifest", "net.json"),
            (Path("net.json"), "manifest", "net.json"),
            (NET, "model", "Linear"),
            (NET.state_dict(), "state dict", "state dict"),
            (dict(NET.state_dict()), "state dict", "state dict"),
            (Manifest.of(NET), "manifest", "manifest"),
            (Manifest({}), "manifest", "manifest"),
        ],
        ids=lambda value: type(value).__name__,
    )
    def test_what_is_given_is_told_apart(self, given, kind, name):
        with open_source(given) as source:
            assert (source.kind, source.side("model").name) == (kind, name)
            assert source.manifest is source.manifest

    def test_an_open_checkpoint_is_used_as_it_is(self):
        checkpoint = open_checkpoint("net.pth")
        with open_source(checkpoint) as source:
            assert source.checkpoint is checkpoint
            assert source.side("checkpoint").choice == "model"

    @pytest.mark.parametrize(
        ("given", "name"), [(3, "int"), (None, "NoneType"), ([NET], "list"), (nn.Linear, "type"), (b"net.pth", "bytes")]
    )
    def test_anything_else_is_refused(self, given, name):
        with pytest.raises(UsageError) as caught:
            open_source(given)
        reason = "is neither a path, a model, a state dict, a Checkpoint nor a Manifest"
        assert (caught.value.subject, caught.value.reason) == (name, reason)

    def test_models_are_known_without_opening_anything(self):
        specs = ["model.py", "a/model.py:Net", "torchvision.models:resnet18", Path("model.py"), NET]
        others = ["net.pth", "net.json", "net.pth#model", NET.state_dict(), Manifest({}), 3, "missing.pth"]
        assert [is_model_like(given) for given in specs] == [True] * len(specs)
        assert [is_model_like(given) for given in others] == [False] * len(others)


class TestSides:
    def test_a_checkpoint(self):
        side = open_source("net.pth").side("checkpoint")
        size = f"{os.path.getsize('net.pth') / 1024:.1f} KiB"
        assert side.facts == ("torch-zip", size)
        assert side.to_json() == {
            "kind": "checkpoint",
            "name": "net.pth",
            "tensors": 2,
            "elements": 9,
            "nbytes": 36,
            "facts": ["torch-zip", size],
            "format": "torch-zip",
            "choice": "model",
            "siblings": {"epoch": "int"},
        }

    def test_a_live_model_says_where_it_lives(self):
        with torch.device("meta"):
            on_meta = nn.Linear(2, 2)
        assert open_source(on_meta).side("model").facts == ("built on meta",)
        assert open_source(NET).side("model").facts == ("built on cpu",)

    def test_the_others_have_no_facts(self):
        for given in ("net.json", NET.state_dict()):
            assert open_source(given).side("model").facts == ()


class TestArguments:
    @pytest.mark.parametrize(
        ("given", "name", "hint"),
        [
            ("net.pth", "net.pth", "leave it out, or name the model's code"),
            ("net.json", "net.json", "leave it out, or name the model's code"),
            (NET, "a Linear", "build the model with it"),
            (Manifest({}), "a Manifest", "build the model with it"),
        ],
        ids=lambda value: type(value).__name__,
    )
    def test_they_are_for_model_specs(self, given, name, hint):
        with pytest.raises(UsageError) as caught:
            open_source(given, ["x=1"])
        error = caught.value
        assert (error.subject, error.reason, error.hint) == ("--arg", f"is for a model spec, and {name} is none", hint)


class TestManifestFiles:
    @pytest.mark.parametrize(
        ("content", "is_manifest"),
        [
            (b'{"schema": "ckptaudit.manifest/1", "tensors": []}', True),
            (b'\xef\xbb\xbf\n {"schema": "ckptaudit.manifest/1"}', True),
            (b'{"schema": "ckptaudit.manifest/99"}', True),  # to be refused as a manifest, by its version
            (b'{"a": "' + b"x" * 10_000 + b'", "schema": "ckptaudit.manifest/1"}', True),
            (b'{"schema": "ckptaudit.report/1"}', False),
            (b'{"weight_map": {}}', False),
            (b"ckptaudit.manifest/1", False),
            (b"", False),
        ],
    )
    def test_the_schema_tells(self, content, is_manifest):
        Path("file").write_bytes(content)
        assert is_manifest_file("file") is is_manifest

    def test_a_safetensors_file_that_speaks_of_manifests_is_none(self):
        header = json.dumps({"__metadata__": {"of": "ckptaudit.manifest/1"}}).encode()
        Path("x.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
        assert not is_manifest_file("x.safetensors")

    def test_what_is_no_file_is_none(self):
        os.mkfifo("pipe")  # opening it would wait for ever
        assert [is_manifest_file(name) for name in ("missing", ".", "pipe", "net.pth#model")] == [False] * 4


def test_a_module_that_is_a_mapping_is_a_model():
    assert open_source(nn.ModuleDict({"fc": NET})).kind == "model"
    assert open_source(OrderedDict(NET.state_dict())).kind == "state dict"
