"""Every real checkpoint is read to what torch.load shows, or refused by the name torch refuses it for."""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ckptaudit.errors import FormatError
from ckptaudit.formats import Candidate, Checkpoint, RawTensor, open_checkpoint

from . import torch_view
from .catalogue import FILES, File

pytestmark = pytest.mark.real

RealFile = Callable[[str], Path]
ALBERT = "rxnmapper/models/transformers/albert_heads_8_uspto_all_1310k/pytorch_model.bin"
METAPREDICT = "metapredict/backend/networks/"
PICKLED = {name: file for name, (_, file) in FILES.items() if file.format in ("torch-zip", "torch-legacy")}
REFUSED = [name for name, file in PICKLED.items() if file.refused]
SHOWN = [name for name, file in PICKLED.items() if file.refused is None or file.allow]


def opened(path: Path, file: File) -> Checkpoint:
    """Open the file; where it is refused, insist."""
    return open_checkpoint(path, allow_refused=file.verdict not in (None, "inert"))


def flat_name(candidate: Candidate, key: str) -> str:
    """Return the path of a candidate's tensor from the top of the file."""
    return ".".join(part for part in (candidate.path, key) if part)


@pytest.mark.parametrize("name", SHOWN)
def test_tensors_are_those_of_torch(name: str, real_file: RealFile) -> None:
    """Keys, order, shapes, dtypes, strides, offsets, storage sizes and requires_grad, in every candidate."""
    path, (_, file) = real_file(name), FILES[name]
    shown = dict(torch_view.tensors(torch_view.load(path, file)))
    checkpoint = opened(path, file)

    assert checkpoint.format == file.format
    assert checkpoint.size == path.stat().st_size
    keys = [flat_name(candidate, key) for candidate in checkpoint.candidates for key in candidate.manifest]
    assert sorted(keys) == sorted(shown)
    for candidate in checkpoint.candidates:
        within = [flat_name(candidate, key) for key in candidate.manifest]
        assert within == [key for key in shown if key in set(within)]
        for key, spec in candidate.manifest.tensors.items():
            expected = torch_view.facts(shown[flat_name(candidate, key)])
            ours = {fact: getattr(spec, fact) for fact in expected}
            ours["requires_grad"] = bool(spec.requires_grad)  # the oldest tensors do not record it
            assert ours == expected, key


@pytest.mark.parametrize("name", SHOWN)
def test_storage_sharing_and_versions_are_those_of_torch(name: str, real_file: RealFile) -> None:
    path, (_, file) = real_file(name), FILES[name]
    loaded = torch_view.load(path, file)
    shown = dict(torch_view.tensors(loaded))
    for candidate in opened(path, file).candidates:
        manifest = candidate.manifest
        named = {key: shown[flat_name(candidate, key)] for key in manifest}
        assert manifest.shared_storages() == torch_view.shared_storages(named)
        assert manifest.versions == torch_view.versions(torch_view.at(loaded, candidate.path))


@pytest.mark.parametrize("name", SHOWN)
def test_raw_bytes_are_those_of_torch(name: str, real_file: RealFile) -> None:
    """The first, the last and the largest strided tensor of every candidate."""
    path, (_, file) = real_file(name), FILES[name]
    shown = dict(torch_view.tensors(torch_view.load(path, file)))
    checkpoint = opened(path, file)
    for candidate in checkpoint.candidates:
        raw = checkpoint.raw[candidate.path]
        keys = [key for key, spec in candidate.manifest.tensors.items() if spec.layout == "strided"]
        chosen = {keys[0], keys[-1], max(keys, key=lambda key: raw[key].spec.numel)} if keys else set()
        for key in chosen:
            expected = shown[flat_name(candidate, key)].contiguous().reshape(-1)
            assert torch.equal(rebuild(raw[key]).view(torch.uint8), expected.view(torch.uint8)), key


def rebuild(raw: RawTensor) -> torch.Tensor:
    """Return the tensor as a flat contiguous one, from the bytes of its storage."""
    assert raw.byteorder == "little"
    storage = bytearray(b"".join(raw.storage_chunks()))
    assert len(storage) == raw.nbytes
    flat = torch.frombuffer(storage, dtype=getattr(torch, raw.spec.dtype))
    assert raw.spec.stride is not None
    return flat.as_strided(raw.spec.shape, raw.spec.stride, raw.spec.storage_offset).reshape(-1).clone()


@pytest.mark.parametrize("name", REFUSED)
def test_a_global_torch_refuses_is_named(name: str, real_file: RealFile) -> None:
    """Plain data outside torch's list is read as inert data; everything else is refused, by name."""
    path, (_, file) = real_file(name), FILES[name]
    assert file.refused
    with pytest.raises(pickle.UnpicklingError, match=re.escape(f"GLOBAL {file.refused} ")):
        torch.load(path, map_location="cpu", weights_only=True)

    if file.verdict != "inert":
        with pytest.raises(FormatError, match=re.escape(file.refused)) as error:
            open_checkpoint(path)
        assert error.value.subject == str(path)
        assert error.value.hint
    globals_ = opened(path, file).globals
    # Python 2's builtins are Python 3's.
    verdicts = {one.verdict for one in globals_ if one.name.removeprefix("builtins.") == file.refused}
    assert verdicts == {file.verdict}


def test_torchscript_holds_the_state_dict_of_jit_load(real_file: RealFile) -> None:
    path = real_file("silero_vad/data/silero_vad.jit")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`torch.jit.load` is deprecated", FutureWarning)
        shown = torch.jit.load(path, map_location="cpu").state_dict()
    checkpoint = open_checkpoint(path)
    assert checkpoint.format == "torchscript"
    assert list(checkpoint.manifest) == list(shown)
    for key, spec in checkpoint.manifest.tensors.items():
        expected = torch_view.facts(shown[key].detach())
        expected["requires_grad"] = spec.requires_grad  # a state dict's tensors are detached
        assert {fact: getattr(spec, fact) for fact in expected} == expected, key
        flat = shown[key].detach().contiguous().reshape(-1)
        assert torch.equal(rebuild(checkpoint.tensor(key)).view(torch.uint8), flat.view(torch.uint8)), key


def test_torch_package_is_told_apart(real_file: RealFile) -> None:
    path = real_file("silero_stress/data/accentor.pt")
    with pytest.raises(RuntimeError, match="failed locating file"):
        torch.load(path, map_location="cpu", weights_only=True)
    with pytest.raises(FormatError) as error:
        open_checkpoint(path)
    assert error.value.subject == str(path)
    assert error.value.reason == "is a torch.package archive, which holds code and pickles, not one state dict"
    assert "torch.package.PackageImporter" in (error.value.hint or "")


@pytest.mark.parametrize("name", [name for name, file in PICKLED.items() if file.verdict in (None, "inert")])
def test_choice(name: str, real_file: RealFile) -> None:
    """An obvious state dict is chosen; where there is none, or several, that is an error with a hint."""
    checkpoint = open_checkpoint(real_file(name))
    kinds = {candidate.path: candidate.kind for candidate in checkpoint.candidates}
    top = [path for path in ("", "state_dict") if kinds.get(path) == "state_dict"]
    if top:
        assert checkpoint.chosen.path == top[0]
        return
    with pytest.raises(FormatError) as error:
        _ = checkpoint.chosen
    assert error.value.code == "CKPT006"
    assert error.value.hint


def test_the_quirks_are_there(real_file: RealFile) -> None:
    """The files still have what they are in the catalogue for."""

    def tensors(name: str):
        return [spec for one in open_checkpoint(real_file(name)).candidates for spec in one.manifest.tensors.values()]

    assert len(FILES) >= 25
    assert [spec.layout for spec in tensors("cytotrace2_py/resources/background.pt")] == ["sparse_coo"]
    assert any(spec.shape == () for spec in tensors("m6anet/model/model_states/human_hct116.pt"))
    assert any(spec.dtype == "bool" for spec in tensors("neuralop/datasets/data/darcy_test_16.pt"))
    for net, strided in {"pnet": 5, "rnet": 6, "onet": 8}.items():
        specs = tensors(f"facenet_pytorch/data/{net}.pt")
        assert sum(not spec.contiguous for spec in specs) == strided
    lstm = open_checkpoint(real_file(METAPREDICT + "metapredict_network_v2_200epochs_nl1_hs20.pt")).manifest
    assert [len(names) for names in lstm.shared_storages()] == [8]
    assert lstm.ties() == []
    albert = open_checkpoint(real_file(ALBERT)).manifest
    assert [len(names) for names in albert.ties()] == [2, 2]
    lightning = tensors(METAPREDICT + "epoch023_val_loss1529.48.ckpt")
    assert {spec.location for spec in lightning} >= {"cuda:3"}
