"""Helpers of the tests of the pickle family: write with torch, read with ours, compare with torch."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path

import torch

from ckptaudit.formats.base import DEFAULT_LIMITS, ByteSource, Checkpoint, Limits, RawTensor
from ckptaudit.formats.torch_files.zip import read_torch_zip
from ckptaudit.manifest import TensorSpec


def read(path: Path, wanted: str = "", *, limits: Limits = DEFAULT_LIMITS, allow_refused: bool = False) -> Checkpoint:
    return read_torch_zip(ByteSource(path), wanted=wanted, limits=limits, allow_refused=allow_refused)


def save(value: object, path: Path, **options: object) -> Path:
    torch.save(value, path, **options)  # type: ignore[arg-type]
    return path


def rezip(
    path: Path,
    out: Path,
    *,
    replace: dict[str, bytes] | None = None,
    drop: tuple[str, ...] = (),
    method: int = 0,
) -> Path:
    """Write the archive again with Python's zipfile, with some records replaced, added or left out."""
    replace = dict(replace or {})
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(out, "w", method) as target:
        top = source.namelist()[0].partition("/")[0]
        for name in source.namelist():
            short = name.partition("/")[2]
            if short not in drop:
                target.writestr(name, replace.pop(short, None) or source.read(name))
        for short, data in replace.items():
            target.writestr(f"{top}/{short}", data)
    return out


def with_pickle(tmp_path: Path, data: bytes, **records: bytes) -> Path:
    """Write an archive around a data.pkl made by hand."""
    path = tmp_path / "made.pt"
    with zipfile.ZipFile(path, "w") as target:
        for name, content in {"data.pkl": data, **records, "version": b"3\n"}.items():
            target.writestr(f"made/{name}", content)
    return path


def pickled(path: Path) -> bytes:
    with zipfile.ZipFile(path) as source:
        return source.read(next(name for name in source.namelist() if name.endswith("/data.pkl")))


def storage_bytes(tensor: torch.Tensor) -> bytes:
    storage = tensor.untyped_storage()
    return bytes(storage.tolist()) if storage.nbytes() else b""


def raw_bytes(raw: RawTensor) -> bytes:
    return b"".join(raw.storage_chunks())


def facts_of(tensor: torch.Tensor) -> dict[str, object]:
    """Say what torch says of a strided tensor, in the words of TensorSpec."""
    return {
        "shape": tuple(tensor.shape),
        "dtype": str(tensor.dtype).removeprefix("torch."),
        "stride": tensor.stride(),
        "storage_offset": tensor.storage_offset(),
        "requires_grad": tensor.requires_grad,
        "kind": "parameter" if type(tensor) is torch.nn.Parameter else "tensor",
        "conj": tensor.is_conj(),
        "neg": tensor.is_neg(),
        "layout": "strided",
    }


def facts(spec: TensorSpec) -> dict[str, object]:
    names = ("shape", "dtype", "stride", "storage_offset", "requires_grad", "kind", "conj", "neg", "layout")
    return {name: getattr(spec, name) for name in names}


def assert_same_tensors(checkpoint: Checkpoint, loaded: dict[str, torch.Tensor]) -> None:
    """Compare a manifest and its raw bytes with what torch.load returned for the same file."""
    manifest, path = checkpoint.manifest, checkpoint.chosen.path
    assert list(manifest.tensors) == list(loaded)
    names: dict[int, set[str]] = {}
    for key, tensor in loaded.items():
        spec = manifest[key]
        assert facts(spec) == facts_of(tensor), key
        storage = tensor.untyped_storage()
        assert spec.storage_nbytes == storage.nbytes(), key
        assert raw_bytes(checkpoint.raw[path][key]) == storage_bytes(tensor), key
        if storage.nbytes():
            names.setdefault(storage.data_ptr(), set()).add(str(spec.storage))
    assert all(len(shared) == 1 for shared in names.values())
    assert len(set().union(*names.values())) == len(names) if names else True


def dumps(value: object, protocol: int = 2) -> bytes:
    buffer = io.BytesIO()
    pickle.dump(value, buffer, protocol)
    return buffer.getvalue()
