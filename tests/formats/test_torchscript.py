from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn
from torch_files import raw_bytes, read, rezip, storage_bytes

from ckptaudit.errors import FormatError
from ckptaudit.formats.base import DEFAULT_LIMITS, ByteSource
from ckptaudit.formats.torchscript import declared_state
from ckptaudit.formats.zip_directory import read_zip_directory
from ckptaudit.records import replace

pytestmark = pytest.mark.filterwarnings("ignore")


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", torch.arange(4))
        self.steps = [1, 2]
        self.memory = torch.zeros(2)  # a tensor, but no buffer: not in the state dict
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4))
        self.tied = self.body

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x) + self.table.sum() + self.steps[0] + self.memory.sum()


def test_the_weights_are_those_of_jit_load(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    torch.jit.save(torch.jit.script(Net()), str(path))
    checkpoint = read(path)
    assert checkpoint.format == "torchscript"
    assert [(c.path, c.kind) for c in checkpoint.candidates] == [("", "module")]
    assert {g.verdict for g in checkpoint.globals} == {"allowed", "inert"}
    state = torch.jit.load(str(path)).state_dict()
    assert set(checkpoint.manifest.tensors) == set(state)
    for key, tensor in state.items():
        spec = checkpoint.manifest[key]
        assert (spec.shape, f"torch.{spec.dtype}", spec.stride) == (
            tuple(tensor.shape),
            str(tensor.dtype),
            tensor.stride(),
        )
        assert raw_bytes(checkpoint.tensor(key)) == storage_bytes(tensor)


def test_traced_and_optimized_modules(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU()).eval()
    traced = torch.jit.trace(model, torch.ones(1, 2))
    for name, script in {"traced": traced, "frozen": torch.jit.freeze(torch.jit.script(model))}.items():
        path = tmp_path / f"{name}.pt"
        torch.jit.save(script, str(path))
        assert set(read(path).manifest.tensors) == set(torch.jit.load(str(path)).state_dict())


def test_without_its_code_every_tensor_is_listed(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    torch.jit.save(torch.jit.script(Net()), str(path))
    with zipfile.ZipFile(path) as archive:
        code = tuple(name.partition("/")[2] for name in archive.namelist() if "/code/" in name)
    stripped = rezip(path, tmp_path / "stripped.pt", drop=code)
    assert set(read(stripped).manifest.tensors) == {*read(path).manifest.tensors, "memory"}


def test_code_that_unpacks_to_more_than_the_limit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    torch.jit.save(torch.jit.script(Net()), str(path))
    with pytest.raises(FormatError) as caught:
        read(path, limits=replace(DEFAULT_LIMITS, string_bytes=100))
    assert caught.value.code == "CKPT703"
    assert caught.value.reason.endswith("has more than 100 bytes of text")


def test_broken_code_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    torch.jit.save(torch.jit.script(Net()), str(path))
    with zipfile.ZipFile(path) as archive:
        info = next(info for info in archive.infolist() if info.filename.endswith(f"{__name__}.py"))
        name = info.filename.partition("/")[2]
        assert info.compress_type == zipfile.ZIP_DEFLATED
    record = read_zip_directory(ByteSource(path), DEFAULT_LIMITS)[info.filename]
    data = bytearray(path.read_bytes())
    data[record.offset : record.offset + record.size] = b"\xff" * record.size
    path.write_bytes(data)
    with pytest.raises(FormatError) as caught:
        read(path)
    assert (caught.value.code, caught.value.reason) == (
        "CKPT002",
        f"is a broken torch archive: its record {name} does not unpack",
    )


def test_declared_state() -> None:
    code = """class Net(Module):
  __parameters__ = ["weight", "bias", ]
  __buffers__ = ["table", ]
  weight : Tensor
class Empty(Module):
  __parameters__ = []
  __buffers__ = []
class Plain(NamedTuple):
  weight : Tensor
"""
    assert declared_state(code, "__torch__.a") == {
        "__torch__.a.Net": frozenset({"weight", "bias", "table"}),
        "__torch__.a.Empty": frozenset(),
    }
