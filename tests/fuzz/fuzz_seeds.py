"""The files that are changed: small ones of every kind that torch and safetensors write."""

from __future__ import annotations

import argparse
import collections
import io
import json
import pickle
import re
import struct
import tarfile
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as save_safetensors
from torch import nn

from ckptaudit.manifest import Manifest

Files = dict[str, bytes]


def _dense() -> dict[str, Any]:
    base = torch.arange(24.0).reshape(4, 6)
    weight = nn.Parameter(torch.arange(6.0).reshape(2, 3))
    noted = torch.ones(2)
    noted.note = "kept"  # type: ignore[attr-defined]
    whole = torch.ones(2, 2, dtype=torch.complex64)
    return {
        "base": base,
        "turned": base.t(),
        "part": base[1:3, 2:5],
        "wide": torch.ones(3, 1).expand(3, 2),
        "weight": weight,
        "tied": weight,
        "frozen": nn.Parameter(torch.ones(2), requires_grad=False),
        "buffer": nn.Buffer(torch.ones(1)),
        "noted": noted,
        "empty": torch.empty(0, 3),
        "steps": torch.tensor(3),
        "conj": whole.conj(),
        "neg": torch.ones(2, dtype=torch.complex64).conj().imag,
    }


def _dtypes() -> dict[str, Any]:
    names = (
        "float16",
        "bfloat16",
        "float64",
        "int8",
        "uint8",
        "int16",
        "int32",
        "int64",
        "bool",
        "complex128",
        "uint16",
    )
    small = ("float8_e4m3fn", "float8_e5m2", "float8_e8m0fnu", "float4_e2m1fn_x2", "complex32", "uint64")
    raw = torch.arange(32, dtype=torch.uint8)
    return {name: raw.clone().view(getattr(torch, name))[:2] for name in (*names, *small)} | {
        "bool": torch.ones(2).bool()
    }


def _quantized() -> dict[str, Any]:
    x = torch.arange(8.0).reshape(2, 4)
    scales, zeros = torch.full((2,), 0.5), torch.zeros(2, dtype=torch.long)
    return {
        "q": torch.quantize_per_tensor(x, 0.5, 0, torch.qint8),
        "c": torch.quantize_per_channel(x, scales, zeros, 0, torch.qint8),
        "u": torch.quantize_per_tensor(x, 0.5, 3, torch.quint8)[:1],
    }


def _sparse() -> dict[str, Any]:
    eye = torch.eye(3)
    return {"coo": eye.to_sparse(), "csr": eye.to_sparse_csr(), "bsc": torch.eye(4).to_sparse_bsc((2, 2)), "dense": eye}


def _plain() -> dict[str, Any]:
    return {
        "w": torch.ones(2),
        "int": 3,
        "big": 2**100,
        "none": None,
        "float": 0.5,
        "size": torch.Size([2]),
        "dtype": torch.float16,
        "device": torch.device("cuda:0"),
        "layout": torch.strided,
        "bytes": b"\x00\xff",
        "bytearray": bytearray(b"ab"),
        "complex": 1j,
        "set": {1, 2},
        "counter": collections.Counter("aab"),
        "ordered": collections.OrderedDict(a=1),
        "list": [1, torch.zeros(1)],
        "storage": torch.ones(2).untyped_storage(),
        7: (1, 2),
    }


def _module() -> nn.Module:
    return nn.Sequential(collections.OrderedDict(conv=nn.Conv2d(1, 2, 1), norm=nn.BatchNorm2d(2)))


def _training() -> dict[str, Any]:
    model = nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    return {
        "epoch": 3,
        "state_dict": model.state_dict(),
        "optimizer_states": [optimizer.state_dict()],
        "hyper_parameters": {"lr": 1e-3, "sizes": (1, 2)},
        "callbacks": {"ModelCheckpoint{}": {"best": torch.tensor(0.5), "path": "a.ckpt"}},
        "ema": {"weight": torch.ones(2, 2), "bias": torch.ones(2)},
    }


def _objects() -> list[Any]:
    """Return what is saved: every kind of tensor, and what lies around tensors."""
    lazy = nn.LazyLinear(2).state_dict()
    whole = {
        "args": argparse.Namespace(lr=1),
        "model": _module().state_dict(),
        "at": collections.defaultdict(list, a=[1]),
    }
    meta = {"m": torch.empty(2, 3, device="meta"), "w": torch.ones(1)}
    dicts = [_dense(), _dtypes(), _quantized(), _sparse(), _plain(), _module().state_dict(), _training()]
    return [*dicts, meta, lazy, whole, _module(), nn.Parameter(torch.ones(2)), [torch.ones(2), {"a": (torch.ones(1),)}]]


def _saved(value: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


def torch_zip() -> list[Files]:
    newer = [_saved(value, pickle_protocol=protocol) for value, protocol in zip(_objects(), (4, 5, 3, 4), strict=False)]
    return [{"x.pt": data} for data in [*map(_saved, _objects()), *newer]]


def torch_legacy() -> list[Files]:
    """Return streams; the addresses that name storages are made the same in every run."""
    found = []
    for value in _objects():
        data = _saved(value, _use_new_zipfile_serialization=False)
        for number, address in enumerate(sorted(set(re.findall(rb"(?<!\d)\d{13,16}(?!\d)", data)))):
            data = data.replace(address, b"%0*d" % (len(address), number + 1))
        found.append({"x.pt": data})
    return found


def torchscript() -> list[Files]:
    model = _module().eval()
    scripts = [
        torch.jit.script(model),
        torch.jit.trace(model, torch.ones(1, 1, 2, 2)),
        torch.jit.script(nn.Linear(2, 2)),
    ]
    buffers = [io.BytesIO() for _ in scripts]
    for script, buffer in zip(scripts, buffers, strict=True):
        torch.jit.save(script, buffer)
    return [{"x.pt": buffer.getvalue()} for buffer in buffers]


class _Ref:
    def __init__(self, key: int) -> None:
        self.key = key


class _Pickler(pickle.Pickler):
    def persistent_id(self, value: Any) -> str | None:
        return str(value.key) if isinstance(value, _Ref) else None


def _dump(value: Any, protocol: int = 2) -> bytes:
    buffer = io.BytesIO()
    _Pickler(buffer, protocol).dump(value)
    return buffer.getvalue()


def _tensor(
    key: int, storage: int, kind: str, shape: tuple[int, ...], stride: tuple[int, ...], offset: int = 0
) -> bytes:
    head = _dump((key, storage, getattr(torch, f"{kind}Tensor"))) + struct.pack("<i4x", len(shape))
    return head + struct.pack(f"<{2 * len(shape) + 1}q", *shape, *stride, offset)


def torch_tar() -> list[Files]:
    """Return tars in the form of torch before 0.2, which no torch of today writes."""
    storages = [(11, "Float", 12, 4), (12, "Long", 2, 8)]
    held = [
        _dump((key, "cpu", getattr(torch, f"{kind}Storage"))) + struct.pack("<q", count) + bytes(range(count * size))
        for key, kind, count, size in storages
    ]
    listed = [
        _tensor(1, 11, "Float", (3, 4), (4, 1)),
        _tensor(2, 11, "Float", (2, 2), (1, 4), 5),
        _tensor(3, 12, "Long", (1,), (1,), 1),
        _tensor(4, 13, "Float", (3,), (1,), 1),
    ]
    state = collections.OrderedDict({"w": _Ref(1), "part": _Ref(2), "steps": _Ref(3), "view": _Ref(4), "tied": _Ref(1)})
    found = []
    for value in (state, {"epoch": 1, "model": state, "memory": _Ref(11)}):
        members = {
            "sys_info": _dump({"protocol_version": 1000, "little_endian": True, "type_sizes": {"int": 4}}),
            "pickle": _dump(value),
            "tensors": _dump(len(listed)) + b"".join(listed),
            "storages": _dump(len(held)) + b"".join(held) + _dump([(13, 11, 4, 4)]),
        }
        target = io.BytesIO()
        with tarfile.open(fileobj=target, mode="w:", format=tarfile.PAX_FORMAT) as tar:
            for name, data in members.items():
                info = tarfile.TarInfo(name)
                info.size, info.mtime = len(data), 1.5
                tar.addfile(info, io.BytesIO(data))
        found.append({"x.tar": target.getvalue()})
    return found


def _safe(tensors: dict[str, Any], metadata: dict[str, str] | None = None) -> bytes:
    return save_safetensors({key: value.detach().contiguous().clone() for key, value in tensors.items()}, metadata)


def safetensors() -> list[Files]:
    dtypes = _dtypes()
    unknown = ("complex128", "complex32")  # to the format
    known = {key: value for key, value in dtypes.items() if key not in unknown}
    pair = {"a": torch.ones(2), "b": torch.zeros(1)}
    module = {key: value.detach() for key, value in _module().state_dict().items()}
    empty = {"e": torch.empty(0, 2), "s": torch.tensor(1.0)}
    found = [_safe(pair), _safe(pair, {"format": "pt"}), _safe(known), _safe(module), _safe(empty), _safe({})]
    return [{"x.safetensors": data} for data in found]


def sharded() -> list[Files]:
    """Return folders: an index, and two shards it names."""
    a, b = {"a.weight": torch.ones(2, 2), "a.bias": torch.ones(2)}, {"b.weight": torch.zeros(3)}
    found = []
    for stem, suffix, write in (("model", "safetensors", _safe), ("pytorch_model", "bin", _saved)):
        names = [f"{stem}-0000{number}-of-00002.{suffix}" for number in (1, 2)]
        where = {key: name for part, name in zip((a, b), names, strict=True) for key in part}
        index = {"metadata": {"total_size": 36}, "weight_map": where}
        parts = {name: write(part) for part, name in zip((a, b), names, strict=True)}
        found.append({f"{stem}.{suffix}.index.json": json.dumps(index).encode(), **parts})
    return found


def manifests() -> list[Files]:
    model = _module()
    lazy = nn.Sequential(nn.Conv2d(1, 1, 1), nn.Linear(1, 1, bias=False))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.json")
        Manifest.of(model).save(path)
        whole = path.read_bytes()
    rich = Manifest.of(lazy).to_json()
    rich |= {
        "entries": [{"key": "n", "type": "int"}],
        "versions": {"": 1, "a": None},
        "non_persistent": rich["tensors"],
    }
    field = {
        "storage": "0",
        "storage_nbytes": 4,
        "requires_grad": True,
        "conj": False,
        "stride": [1],
        "location": "cpu",
    }
    full = {"schema": "ckptaudit.manifest/1", "tensors": [{"key": "a", "shape": [1], "dtype": "float32", **field}]}
    return [{"x.json": data} for data in (whole, json.dumps(rich).encode(), json.dumps(full).encode())]


def pickles() -> list[Files]:
    """Return bare pickles of the protocols 2 to 5, with persistent ids as torch writes them and without."""
    import zipfile

    found = []
    for files in torch_zip() + torchscript():
        with zipfile.ZipFile(io.BytesIO(files["x.pt"])) as archive:
            found.append(
                archive.read("archive/data.pkl") if "archive/data.pkl" in archive.namelist() else b"\x80\x02N."
            )
    plain = {key: value for key, value in _plain().items() if key not in ("w", "list", "storage")}
    found += [_dump(plain, protocol) for protocol in (2, 3, 4, 5)]
    loop: list[Any] = [{1: "a"}, frozenset({2}), -(2**40), 2**3000]
    loop.append(loop)
    found += [_dump([loop, {"w": _Ref(3)}, (1, 2, 3, 4)], protocol) for protocol in (2, 4)]
    return [{"x.pkl": data} for data in found]


def quietly(make: Any) -> list[Files]:
    """Make seeds the same way every time, and without the warnings of old functions."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return list(make())
