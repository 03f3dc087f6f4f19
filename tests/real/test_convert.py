"""Every real checkpoint converts, and what comes out loads strictly, with the same bits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import ckptaudit
from ckptaudit.errors import CkptauditError, FormatError
from ckptaudit.formats import Candidate, open_checkpoint
from conversion.support import bits, same, ties

from . import torch_view
from .catalogue import FILES
from .models import Unpacked
from .test_diff import PAIRS, Pair

pytestmark = pytest.mark.real

RealFile = Callable[[str], Path]
READ = [name for name, (_, file) in FILES.items() if file.format != "torch-package" and file.verdict in (None, "inert")]
REFUSED = [name for name, (_, file) in FILES.items() if file.verdict not in (None, "inert")]


def converted(path: Path, folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what safetensors and torch load of a file that was converted to the one, and from there to the other.

    What safetensors has no form for is left out; the conversion has to have said so.
    """
    try:
        result = ckptaudit.convert(path, folder / "x.safetensors")
    except ckptaudit.UsageError as error:
        reason = error.reason
        result = ckptaudit.convert(path, folder / "x.safetensors", drop_non_tensors=True)
        assert reason.startswith("holds what the result cannot keep: ") and result.left_out
    assert result.verified
    ckptaudit.convert(folder / "x.safetensors", folder / "back.pth")
    back = torch.load(folder / "back.pth", weights_only=True)
    for step in open_checkpoint(folder / "back.pth").chosen.path.split("."):
        back = back[step] if step else back
    return load_file(folder / "x.safetensors"), back


@pytest.mark.parametrize("name", READ)
@pytest.mark.filterwarnings("ignore:`torch.jit.load` is deprecated")
def test_there_and_back(name: str, real_file: RealFile, tmp_path: Path) -> None:
    path, (_, file) = real_file(name), FILES[name]
    try:
        choice = open_checkpoint(path).choice
    except FormatError:  # torch.package
        choice = None
    if not isinstance(choice, Candidate):
        with pytest.raises(CkptauditError):
            ckptaudit.convert(path, tmp_path / "x.safetensors", drop_non_tensors=True)
        assert not list(tmp_path.iterdir())
        return
    if file.format == "torchscript":
        shown = torch.jit.load(path, map_location="cpu").state_dict()
    else:
        shown = torch_view.at(torch_view.load(path, file), choice.path)
    tensors = {key: value for key, value in shown.items() if isinstance(value, torch.Tensor)}
    plain, back = converted(path, tmp_path)
    assert same({key: back[key] for key in back if isinstance(back[key], torch.Tensor)}, tensors)
    assert ties(back) == ties(tensors)
    assert {key: bits(plain[key]) for key in plain} == {key: bits(tensors[key]) for key in plain}
    if file.format != "torchscript":
        assert torch_view.versions(back) == torch_view.versions(shown)


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_is_not_converted(name: str, real_file: RealFile, tmp_path: Path) -> None:
    with pytest.raises(FormatError):
        ckptaudit.convert(real_file(name), tmp_path / "x.safetensors", drop_non_tensors=True)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", [name for name, pair in PAIRS.items() if pair.loads])
def test_the_result_loads_strictly(name: str, real_file: RealFile, unpacked: Unpacked, tmp_path: Path) -> None:
    pair: Pair = PAIRS[name]
    saved = torch_view.load(real_file(pair.member), FILES[pair.member][1])
    state = torch_view.at(saved, pair.state)
    plain, back = converted(real_file(pair.member), tmp_path)
    for result in (plain, back):
        model = pair.build(unpacked, saved)
        model.load_state_dict(result, strict=True)
        model.load_state_dict({key: torch.zeros_like(value) for key, value in model.state_dict().items()})
        model.load_state_dict(result, strict=True)
        loaded = model.state_dict()
        assert all(bits(loaded[key]) == bits(state[key]) for key in state)
