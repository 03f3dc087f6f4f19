"""For every dtype and kind of tensor: the manifest is what torch.load shows."""

from __future__ import annotations

import collections
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn
from torch_files import assert_same_tensors, facts, facts_of, raw_bytes, read, rezip, save, storage_bytes

from ckptaudit.formats.pickles.globals import DTYPE_NAMES

pytestmark = pytest.mark.filterwarnings("ignore")

UNSAVED = {f"{sign}int{bits}" for sign in ("", "u") for bits in range(1, 8)}  # torch.save raises KeyError
QUANTIZED = {"qint32", "qint8", "quint2x4", "quint4x2", "quint8"}


def of_dtype(name: str) -> torch.Tensor:
    dtype = getattr(torch, name)
    return torch.arange(6 * dtype.itemsize, dtype=torch.uint8).view(dtype)[:6].reshape(2, 3)


@pytest.mark.parametrize("name", sorted({n.removeprefix("torch.") for n in DTYPE_NAMES} - UNSAVED - QUANTIZED))
def test_every_dtype(name: str, tmp_path: Path) -> None:
    path = save({"weight": of_dtype(name), "slice": of_dtype(name)[1:, 1:]}, tmp_path / "x.pt")
    assert_same_tensors(read(path), torch.load(path))


@pytest.mark.parametrize("name", sorted(UNSAVED))
def test_torch_cannot_save_the_others(name: str, tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        save({"weight": torch.empty(2, dtype=getattr(torch, name))}, tmp_path / "x.pt")


def quantized() -> dict[str, torch.Tensor]:
    x = torch.randn(4, 6)
    scales, zeros = torch.full((4,), 0.1), torch.zeros(4, dtype=torch.long)
    return {
        "qint8": torch.quantize_per_tensor(x, 0.1, 0, torch.qint8),
        "quint8": torch.quantize_per_tensor(x, 0.1, 3, torch.quint8),
        "qint32": torch.quantize_per_tensor(x, 0.1, 0, torch.qint32),
        "per_channel": torch.quantize_per_channel(x, scales, zeros, 0, torch.qint8),
        "view": torch.quantize_per_tensor(x, 0.1, 0, torch.qint8)[1:3],
        "quint4x2": torch._empty_affine_quantized((5,), scale=0.1, zero_point=0, dtype=torch.quint4x2),
    }


def test_quantized(tmp_path: Path) -> None:
    path = save(quantized(), tmp_path / "x.pt")
    assert_same_tensors(read(path), torch.load(path))


def strided() -> dict[str, torch.Tensor]:
    base = torch.arange(24.0).reshape(4, 6)
    complex_base = torch.randn(3, 3, dtype=torch.complex64)
    weight = nn.Parameter(torch.randn(3, 4))
    attributed = torch.ones(2)
    attributed.note = "kept"  # type: ignore[attr-defined]
    frozen = nn.Parameter(torch.ones(2), requires_grad=False)
    marked = nn.Parameter(torch.ones(2))
    marked.partition_dim = 0  # type: ignore[attr-defined]
    return {
        "base": base,
        "transposed": base.t(),
        "row": base[1],
        "window": base[1:3, 2:5],
        "steps": base[::2, ::3],
        "expanded": torch.ones(3, 1).expand(3, 5),
        "zero-dim": torch.tensor(3),
        "empty": torch.empty(0, 3),
        "empty view": base[4:],
        "ones": torch.ones(1, 1, 1),
        "tied": weight,
        "tied too": weight,
        "data": weight.data,
        "frozen": frozen,
        "marked": marked,
        "attributed": attributed,
        "requires_grad": torch.ones(2, requires_grad=True),
        "conj": complex_base.conj(),
        "neg": torch.randn(2, dtype=torch.complex64).conj().imag,
        "channels_last": torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
        "key with spaces, ünïcode and 'quotes'": torch.ones(1),
        "": torch.ones(1),
    }


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_views_ties_and_flags(protocol: int, tmp_path: Path) -> None:
    path = save(strided(), tmp_path / "x.pt", pickle_protocol=protocol)
    checkpoint = read(path)
    assert_same_tensors(checkpoint, torch.load(path, weights_only=False))
    assert checkpoint.manifest.ties() == [("tied", "tied too", "data")]


def test_lstm_weights_are_views_of_one_buffer(tmp_path: Path) -> None:
    flat = torch.randn(40)
    views = {"ih": flat[:12].view(4, 3), "hh": flat[12:28].view(4, 4), "bias": flat[28:32]}
    path = save(views, tmp_path / "x.pt")
    checkpoint = read(path)
    assert_same_tensors(checkpoint, torch.load(path))
    assert checkpoint.manifest.shared_storages() == [("ih", "hh", "bias")]
    assert checkpoint.manifest.nbytes == 160


def test_buffers_are_told_from_parameters(tmp_path: Path) -> None:
    path = save({"b": nn.Buffer(torch.ones(2)), "p": nn.Parameter(torch.ones(2))}, tmp_path / "x.pt")
    manifest = read(path).manifest
    assert {key: spec.kind for key, spec in manifest.tensors.items()} == {"b": "buffer", "p": "parameter"}


def test_meta_tensors_have_no_bytes(tmp_path: Path) -> None:
    path = save({"m": torch.empty(2, 3, device="meta", dtype=torch.float16)}, tmp_path / "x.pt")
    checkpoint = read(path)
    loaded = torch.load(path)["m"]
    spec = checkpoint.manifest["m"]
    assert facts(spec) == facts_of(loaded)
    assert (spec.location, spec.storage) == ("meta", None)
    assert checkpoint.raw == {"": {}}


SPARSE = {
    "sparse_coo": lambda x: x.to_sparse(),
    "sparse_csr": lambda x: x.to_sparse_csr(),
    "sparse_csc": lambda x: x.to_sparse_csc(),
    "sparse_bsr": lambda x: x.to_sparse_bsr((2, 2)),
    "sparse_bsc": lambda x: x.to_sparse_bsc((2, 2)),
}


@pytest.mark.parametrize("layout", SPARSE)
def test_sparse_layouts(layout: str, tmp_path: Path) -> None:
    tensor = SPARSE[layout](torch.eye(4, dtype=torch.float64))
    path = save({"s": tensor, "again": tensor}, tmp_path / "x.pt")
    checkpoint = read(path)
    loaded = torch.load(path)["s"]
    spec = checkpoint.manifest["s"]
    assert (spec.shape, spec.dtype) == (tuple(loaded.shape), "float64")
    assert f"torch.{spec.layout}" == str(loaded.layout) == f"torch.{layout}"
    assert spec.stride is None
    assert checkpoint.manifest.ties() == [("s", "again")]
    with zipfile.ZipFile(path) as archive:
        sizes = [info.file_size for info in archive.infolist() if "/data/" in info.filename]
    assert spec.storage_nbytes == sum(sizes)
    assert checkpoint.raw == {"": {}}


def test_uninitialized_parameters(tmp_path: Path) -> None:
    path = save(nn.LazyLinear(3).state_dict(), tmp_path / "x.pt")
    checkpoint = read(path)
    spec = checkpoint.manifest["weight"]
    assert (spec.layout, spec.kind, spec.shape) == ("uninitialized", "parameter", ())
    verdicts = {g.name: g.verdict for g in checkpoint.globals if g.verdict != "allowed"}
    assert verdicts == {"torch.nn.parameter.UninitializedParameter": "inert"}


def test_numpy_backed_device_tensors(tmp_path: Path) -> None:
    class OnDevice:
        def __reduce__(self) -> tuple[object, ...]:
            function = torch._utils._rebuild_device_tensor_from_cpu_tensor
            return function, (torch.ones(2, 3), torch.float32, "cpu", True)

    path = save({"x": OnDevice()}, tmp_path / "x.pt")
    loaded = torch.load(path)["x"]
    spec = read(path).manifest["x"]
    assert facts(spec) == {**facts_of(loaded), "kind": "tensor"}
    assert spec.location == "cpu"


def test_numpy_arrays_are_entries(tmp_path: Path) -> None:
    numpy = pytest.importorskip("numpy")
    values = {"w": torch.ones(1), "a": numpy.ones(3), "s": numpy.float64(1.0), "d": numpy.dtype("f4")}
    for protocol in (2, 4, 5):
        path = save(values, tmp_path / "x.pt", pickle_protocol=protocol)
        checkpoint = read(path)
        assert checkpoint.manifest.entries == {"a": "numpy.ndarray", "s": "numpy scalar", "d": "numpy.dtype"}
        assert {g.verdict for g in checkpoint.globals} == {"allowed", "inert"}


def test_state_dict_of_a_module_with_its_versions(tmp_path: Path) -> None:
    model = nn.Sequential(collections.OrderedDict(conv=nn.Conv2d(3, 4, 3), norm=nn.BatchNorm2d(4)))
    path = save(model.state_dict(), tmp_path / "x.pt")
    checkpoint = read(path)
    loaded = torch.load(path)
    assert_same_tensors(checkpoint, loaded)
    expected = {name: facts.get("version") for name, facts in loaded._metadata.items()}
    assert checkpoint.manifest.versions == expected == {"": 1, "conv": 1, "norm": 2}


def test_safe_objects_beside_the_tensors(tmp_path: Path) -> None:
    values = {
        "w": torch.ones(2),
        "int": 3,
        "big": 2**100,
        "none": None,
        "size": torch.Size([2]),
        "dtype": torch.float16,
        "device": torch.device("cuda:0"),
        "layout": torch.strided,
        "bytes": b"\x00\xff",
        "bytearray": bytearray(b"ab"),
        "complex": 1j,
        "set": {1},
        "counter": collections.Counter("aab"),
        "ordered": collections.OrderedDict(a=1),
        "list": [1],
        "dict": {"a": 1},
        "storage": torch.ones(2).untyped_storage(),
    }
    path = save(values, tmp_path / "x.pt")
    torch.load(path)
    assert read(path).manifest.entries == {
        "int": "int",
        "big": "int",
        "none": "NoneType",
        "size": "torch.Size",
        "dtype": "torch.float16",
        "device": "torch.device",
        "layout": "torch.layout",
        "bytes": "bytes",
        "bytearray": "bytearray",
        "complex": "complex",
        "set": "set",
        "counter": "collections.Counter",
        "ordered": "collections.OrderedDict",
        "list": "list",
        "dict": "dict",
        "storage": "torch storage",
    }


@pytest.mark.parametrize("alignment", [64, 4096])
def test_storage_alignment(alignment: int, tmp_path: Path) -> None:
    from torch.utils.serialization import config

    before = config.save.storage_alignment
    config.save.storage_alignment = alignment
    try:
        path = save({"a": torch.ones(3), "b": torch.ones(5)}, tmp_path / "x.pt")
    finally:
        config.save.storage_alignment = before
    checkpoint = read(path)
    assert_same_tensors(checkpoint, torch.load(path))
    assert all(raw.offset % alignment == 0 for raw in checkpoint.raw[""].values())


def test_archives_of_older_torch_and_of_other_zip_writers(tmp_path: Path) -> None:
    path = save({"a": torch.ones(3), "b": torch.ones(2, dtype=torch.bfloat16)}, tmp_path / "x.pt")
    extras = ("byteorder", ".format_version", ".storage_alignment", ".data/serialization_id")
    old = rezip(path, tmp_path / "old.pt", drop=extras)
    checkpoint = read(old)
    assert_same_tensors(checkpoint, torch.load(old))
    assert checkpoint.details == {"archive version": "3", "byteorder": "little"}


def test_big_endian_archives(tmp_path: Path) -> None:
    path = save({"a": torch.arange(4, dtype=torch.int32)}, tmp_path / "x.pt")
    swapped = b"".join(n.to_bytes(4, "big") for n in range(4))
    big = rezip(path, tmp_path / "big.pt", replace={"byteorder": b"big", "data/0": swapped})
    checkpoint = read(big)
    raw = checkpoint.tensor("a")
    assert raw.byteorder == "big"
    assert raw_bytes(raw) == swapped
    assert torch.load(big)["a"].tolist() == [0, 1, 2, 3]
    assert facts(raw.spec) == facts_of(torch.load(big)["a"])


def test_locations_are_recorded(tmp_path: Path) -> None:
    path = save({"a": torch.ones(2)}, tmp_path / "x.pt")
    with zipfile.ZipFile(path) as archive:
        data = archive.read("x/data.pkl")
    data = data.replace(b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:3")
    moved = rezip(path, tmp_path / "cuda.pt", replace={"data.pkl": data})
    assert read(moved).manifest["a"].location == "cuda:3"


def test_subclasses_are_read_as_tensors_only_on_request(tmp_path: Path) -> None:
    path = save({"s": torch.ones(2).as_subclass(Subclass)}, tmp_path / "x.pt")
    with pytest.raises(Exception, match=r"test_torch_zip_oracle\.Subclass"):
        read(path)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path)
    assert read(path, allow_refused=True).manifest["s"].shape == (2,)


class Subclass(torch.Tensor):
    pass


@pytest.mark.parametrize("layout", [torch.strided, torch.jagged])
def test_nested_tensors_are_entries(layout: torch.layout, tmp_path: Path) -> None:
    nested = torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=layout)
    path = save({"n": nested, "w": torch.ones(1)}, tmp_path / "x.pt")
    manifest = read(path, allow_refused=True).manifest
    assert list(manifest.tensors) == ["w"]
    assert manifest.entries["n"] in ("nested tensor", "torch.nested._internal.nested_tensor.NestedTensor")


def test_whole_storages_come_back_for_views(tmp_path: Path) -> None:
    base = torch.arange(100, dtype=torch.int16)
    path = save({"end": base[98:]}, tmp_path / "x.pt")
    checkpoint = read(path)
    assert raw_bytes(checkpoint.tensor("end")) == storage_bytes(base)
    assert checkpoint.tensor("end").nbytes == 200
