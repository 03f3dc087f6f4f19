"""One call for every format: paths, inner paths, folders, and what is imported for it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import ckptaudit
from ckptaudit.errors import FormatError, UsageError
from ckptaudit.formats import DEFAULT_LIMITS, Candidate, Checkpoint, Limits, RawTensor, base, open_checkpoint
from ckptaudit.manifest import Manifest

WEIGHTS = {"w": torch.ones(2)}


def error_of(path, kind=FormatError):
    with pytest.raises(kind) as caught:
        open_checkpoint(path)
    return caught.value


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "resnet50.pth"
    save_file(WEIGHTS, path)
    return path


def test_a_file_is_read_for_what_it_is_not_for_its_name(weights):
    checkpoint = open_checkpoint(weights)
    assert isinstance(checkpoint, Checkpoint)
    assert isinstance(checkpoint.chosen, Candidate)
    assert isinstance(checkpoint.tensor("w"), RawTensor)
    assert isinstance(DEFAULT_LIMITS, Limits)
    assert checkpoint.format == "safetensors"
    assert open_checkpoint(str(weights)).manifest == checkpoint.manifest


@pytest.mark.parametrize(("format_name", "zipped"), [("torch-zip", True), ("torch-legacy", False)])
def test_the_formats_of_torch_pick_by_the_inner_path(tmp_path, format_name, zipped):
    path = tmp_path / "run.safetensors"
    data = {"model": WEIGHTS, "ema": {"w": torch.zeros(3)}, "epoch": 3}
    torch.save(data, path, _use_new_zipfile_serialization=zipped)
    checkpoint = open_checkpoint(f"{path}#ema")
    assert checkpoint.format == format_name
    assert checkpoint.manifest["w"].shape == (3,)
    assert open_checkpoint(f"{path}#model").manifest["w"].shape == (2,)


def test_a_file_whose_name_holds_the_separator_comes_first(weights):
    odd = weights.with_name("resnet50.pth#ema")
    save_file({"odd": torch.ones(1)}, odd)
    assert list(open_checkpoint(odd).manifest) == ["odd"]
    error = open_checkpoint(f"{odd}#model.x").choice
    assert isinstance(error, FormatError)
    assert error.reason.startswith("has no state dict at 'model.x'")
    assert error.subject == str(odd)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("resnet5O.pth", "did you mean {folder}/resnet50.pth"),
        ("Resnet50.pth#state_dict", "did you mean {folder}/resnet50.pth"),
        ("vit.ckpt", None),
        ("runs/resnet50.pth", "there is no folder {folder}/runs"),
        ("x" * 300 + ".pth", None),
    ],
)
def test_a_missing_file_names_those_that_are_meant(weights, name, hint):
    error = error_of(weights.parent / name, UsageError)
    assert error.reason == "no such file"
    assert error.subject == str(weights.parent / name.partition("#")[0])
    assert error.hint == (hint and hint.format(folder=weights.parent))


def test_a_missing_file_in_the_working_folder(weights, monkeypatch):
    monkeypatch.chdir(weights.parent)
    assert error_of("resnet50.pt", UsageError).hint == "did you mean resnet50.pth"


def test_text_that_can_be_no_path_is_a_usage_error():
    for text in ("", "a\0b", "#state_dict"):
        assert error_of(text, UsageError).reason == "no such file"


def test_what_is_no_file_cannot_be_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert error_of(tmp_path / "pipe", UsageError).reason == "is not a regular file"


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_numpy_archive_is_told_from_the_zip_of_torch(tmp_path, save):
    save(tmp_path / "weights.npz", w=np.ones(2))
    error = error_of(tmp_path / "weights.npz")
    assert (error.code, error.reason) == ("CKPT001", "is a NumPy archive (.npz), not a checkpoint")


@pytest.mark.parametrize(
    ("name", "zipped", "fact"),
    [
        ("x.safetensors", True, "a torch-zip file under the name *.safetensors"),
        ("x.safetensors", False, "a torch-legacy file under the name *.safetensors"),
        ("x.pt", None, "a safetensors file under the name *.pt"),
        ("x.bin", None, "a safetensors file under the name *.bin"),
        ("x.PTH", None, "a safetensors file under the name *.pth"),
        ("x.safetensors", None, None),
        ("x.pt", True, None),
        ("x.weights", True, None),
        ("x", None, None),
    ],
)
def test_a_name_that_loaders_go_by_and_that_is_wrong_is_a_fact(tmp_path, name, zipped, fact):
    path = tmp_path / name
    if zipped is None:
        save_file(WEIGHTS, path)
    else:
        torch.save(WEIGHTS, path, _use_new_zipfile_serialization=zipped)
    assert open_checkpoint(path).details.get("misnamed") == fact


def test_a_manifest_is_told_from_a_checkpoint(tmp_path):
    path = tmp_path / "model.manifest.json"
    Manifest({}).save(path)
    error = error_of(path)
    assert error.reason == "is a manifest: it describes a state dict and holds no tensors"
    assert (error.code, error.hint) == ("CKPT001", f"ckptaudit manifest show {path}")


class TestFolders:
    @pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "epoch3.ckpt"])
    def test_the_one_checkpoint_is_taken(self, tmp_path, name):
        (tmp_path / "config.json").write_text("{}")
        save_file(WEIGHTS, tmp_path / name)
        assert open_checkpoint(tmp_path).path == str(tmp_path / name)
        assert isinstance(open_checkpoint(f"{tmp_path}#model").choice, FormatError)

    def test_the_index_comes_before_its_shards(self, tmp_path):
        for name in ("x-1.safetensors", "x-2.safetensors"):
            save_file({name: torch.ones(1)}, tmp_path / name)
        index = tmp_path / "x.safetensors.index.json"
        index.write_text('{"weight_map": {"x-1.safetensors": "x-1.safetensors", "x-2.safetensors": "x-2.safetensors"}}')
        assert open_checkpoint(tmp_path).path == str(index)

    def test_the_model_comes_before_what_training_left(self, tmp_path):
        for name in ("model.safetensors", "optimizer.pt", "rng_state.pth"):
            save_file(WEIGHTS, tmp_path / name)
        assert open_checkpoint(tmp_path).path == str(tmp_path / "model.safetensors")

    @pytest.mark.parametrize(
        "names",
        [
            ("model.safetensors", "pytorch_model.bin"),
            ("a.safetensors.index.json", "b.bin.index.json"),
            ("a.pth", "b.ckpt"),
        ],
    )
    def test_a_choice_is_listed(self, tmp_path, names):
        for name in names:
            save_file(WEIGHTS, tmp_path / name)
        error = error_of(tmp_path)
        assert error.reason == f"is a folder with 2 checkpoints: {', '.join(names)}"
        assert (error.code, error.hint) == ("CKPT001", f"name one of them: {tmp_path / names[0]}")

    def test_a_long_list_is_cut(self, tmp_path):
        for number in range(13):
            save_file(WEIGHTS, tmp_path / f"{number:02}.pt")
        listed = ", ".join(f"{number:02}.pt" for number in range(10))
        assert error_of(tmp_path).reason == f"is a folder with 13 checkpoints: {listed} and 3 more"

    def test_none_is_said(self, tmp_path):
        error = error_of(tmp_path)
        assert error.reason == "is a folder without a checkpoint"
        assert error.hint == "name the checkpoint file itself"

    def test_a_distributed_checkpoint_is_known_by_its_metadata(self, tmp_path):
        for name in (".metadata", "__0_0.distcp", "common.pt"):
            (tmp_path / name).write_bytes(b"x")
        error = error_of(tmp_path)
        assert (error.code, error.subject) == ("CKPT001", str(tmp_path / ".metadata"))
        (tmp_path / "x.safetensors.index.json").touch()
        assert error_of(tmp_path).reason == "is a folder with 2 checkpoints: .metadata, x.safetensors.index.json"

    def test_a_distributed_checkpoint_without_metadata(self, tmp_path):
        (tmp_path / "__0_0.distcp").write_bytes(b"x")
        (tmp_path / ".metadata").mkdir()
        error = error_of(tmp_path)
        assert error.reason == "is a distributed checkpoint without the .metadata that says what it holds"
        assert (error.code, error.hint) == ("CKPT501", "get .metadata from where the checkpoint comes from")

    def test_a_distributed_checkpoint_with_metadata_for_each_rank(self, tmp_path):
        for name in ("__0.metadata", "__0_0.distcp"):
            (tmp_path / name).write_bytes(b"x")
        error = error_of(tmp_path)
        what = "a .metadata for each rank (use_collectives=False)"
        assert (error.code, error.reason) == ("CKPT703", f"is a distributed checkpoint with {what}, which is not read")
        assert error.hint == "save it with collectives, as torch.distributed.checkpoint.save does by itself"


def test_reading_safetensors_imports_neither_torch_nor_the_pickle_reader(weights):
    code = """
import sys
for name in ("torch", "numpy", "pickle", "pickletools", "zipfile", "logging", "difflib", "tarfile"):
    sys.modules[name] = None
from ckptaudit.formats import open_checkpoint
assert list(open_checkpoint(sys.argv[1]).manifest) == ["w"]
package = "ckptaudit.formats."
ours = {name.removeprefix(package) for name in sys.modules if name.startswith(package)}
assert ours == {"base", "choice", "identify", "noted", "oddities", "safetensors", "strict_json"}, ours
"""
    env = {**os.environ, "PYTHONPATH": str(Path(ckptaudit.__file__).parents[1])}
    subprocess.run([sys.executable, "-c", code, str(weights)], check=True, env=env)


@pytest.mark.parametrize("name", ["x.pth", "x.safetensors"])
def test_a_file_that_is_written_to_while_it_is_read_is_not_judged(tmp_path, monkeypatch, name):
    """What was checked has to be what will be loaded."""
    path = tmp_path / name
    (save_file if name.endswith("safetensors") else torch.save)({"w": torch.ones(2)}, path)
    assert open_checkpoint(path)
    read = base.ByteSource.read

    def writing(source, offset, length):
        os.utime(path, ns=(1, 1))
        return read(source, offset, length)

    monkeypatch.setattr(base.ByteSource, "read", writing)
    with pytest.raises(FormatError, match="was written to while it was read") as caught:
        open_checkpoint(path)
    assert caught.value.code == "CKPT703"
