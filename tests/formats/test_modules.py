from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch_files import facts, read, save

from ckptaudit.errors import FormatError
from ckptaudit.formats.base import Limits
from ckptaudit.formats.modules import PathBudget, assemble, is_module
from ckptaudit.formats.pickles.nodes import Call, GlobalRef, PDict
from ckptaudit.formats.pickles.rebuild import Rebuilder


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", torch.arange(4))
        self.register_buffer("window", torch.ones(2), persistent=False)
        self.register_parameter("absent", None)
        self.scale = nn.Parameter(torch.ones(3))
        self.norm = nn.BatchNorm2d(3)
        self.inner = nn.ModuleDict({"a": nn.Linear(2, 2, bias=False), "b": nn.ModuleList([nn.LSTM(2, 3)])})
        self.again = self.norm


def test_the_state_dict_of_a_pickled_module(tmp_path: Path) -> None:
    block = Block()
    path = save({"model": block, "epoch": 3}, tmp_path / "x.pt")
    with pytest.raises(FormatError) as caught:
        read(path)
    assert caught.value.code == "CKPT701"
    assert "test_modules.Block" in caught.value.reason
    checkpoint = read(path, allow_refused=True)
    assert [(c.path, c.kind) for c in checkpoint.candidates] == [("model", "module")]
    state = block.state_dict(keep_vars=True)
    manifest = checkpoint.manifest
    assert list(manifest.tensors) == list(state)
    for key, tensor in state.items():
        spec = manifest[key]
        assert (spec.shape, f"torch.{spec.dtype}") == (tuple(tensor.shape), str(tensor.dtype))
        assert (spec.kind == "parameter") == isinstance(tensor, nn.Parameter)
        assert facts(spec)["requires_grad"] == tensor.requires_grad
    assert ("norm.weight", "again.weight") in manifest.ties()
    assert checkpoint.siblings == {"epoch": "int"}
    assert set(checkpoint.raw["model"]) == set(state)


def test_a_whole_module_at_the_top(tmp_path: Path) -> None:
    checkpoint = read(save(nn.Linear(2, 3), tmp_path / "x.pt"), allow_refused=True)
    assert [(c.path, c.kind) for c in checkpoint.candidates] == [("", "module")]
    assert list(checkpoint.manifest.tensors) == ["weight", "bias"]
    assert {g.name for g in checkpoint.globals if g.verdict == "refused"} == {"torch.nn.modules.linear.Linear"}


def module(**parts: PDict) -> Call:
    node = Call(GlobalRef("a.Net"), ())
    places = ("_parameters", "_buffers", "_modules")
    node.state = PDict((place, parts.get(place, PDict())) for place in places)
    return node


def test_what_is_no_module() -> None:
    assert is_module(module())
    assert not is_module(PDict())
    assert not is_module(Call(GlobalRef("a.Net"), ()))


def nested(depth: int, copies: int) -> Call:
    node = module()
    for _ in range(depth):
        node = module(_modules=PDict((str(i), node) for i in range(copies)))
    return node


@pytest.mark.parametrize(
    ("depth", "copies", "reason"),
    [
        (600, 1, "holds containers nested deeper than 512"),
        (60, 2, "holds more than 5,000 paths to containers and tensors"),
    ],
)
def test_deep_and_repeated_modules_are_limited(depth: int, copies: int, reason: str) -> None:
    limits = Limits(paths=5000)
    rebuilder = Rebuilder("x.pt", lambda pid: pytest.fail(str(pid)), limits)
    with pytest.raises(FormatError) as caught:
        assemble(nested(depth, copies), rebuilder, budget=PathBudget("x.pt", limits))
    assert caught.value.reason == reason
    assert caught.value.code == "CKPT703"
