from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest

from ckptaudit.errors import FormatError
from ckptaudit.formats import open_checkpoint
from ckptaudit.formats.base import Limits

PLAIN = "is a pickle that torch.save did not write, not a checkpoint"


class Payload:
    def __reduce__(self) -> tuple[object, ...]:
        return os.system, ("id",)


class Stranger:
    pass


def refusal(path: Path, data: bytes, **options: object) -> FormatError:
    path.write_bytes(data)
    with pytest.raises(FormatError) as caught:
        open_checkpoint(path, **options)  # type: ignore[arg-type]
    return caught.value


@pytest.mark.parametrize("protocol", range(6))
def test_a_plain_pickle_is_no_checkpoint(tmp_path: Path, protocol: int) -> None:
    error = refusal(tmp_path / "x.pkl", pickle.dumps({"w": [1]}, protocol))
    assert (error.code, error.reason) == ("CKPT001", PLAIN)
    assert error.hint == "if you wrote it and trust it, load it with pickle and save its state dict with torch.save"


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("name", ["x.pkl", "x.bin", "x.safetensors", "x"])
def test_code_in_it_is_named(tmp_path: Path, protocol: int, name: str) -> None:
    error = refusal(tmp_path / name, pickle.dumps([1, Payload()], protocol), allow_refused=True)
    assert error.code == "CKPT702"
    assert error.reason.startswith(f"{PLAIN}; it ")
    assert "posix.system" in error.reason
    assert error.hint == "do not load it"


def test_a_class_of_somebody_is_named(tmp_path: Path) -> None:
    error = refusal(tmp_path / "x.pkl", pickle.dumps(Stranger(), 2))
    assert error.code == "CKPT701"
    assert error.reason.endswith(f"it names {Stranger.__module__}.Stranger")


def test_the_second_of_two_pickles_counts(tmp_path: Path) -> None:
    error = refusal(tmp_path / "x.pkl", pickle.dumps(1, 2) + pickle.dumps(Payload(), 4))
    assert error.code == "CKPT702"


def test_a_huge_one_is_read_up_to_the_limit(tmp_path: Path) -> None:
    data = pickle.dumps(["x" * 50, Payload()], 2)
    assert refusal(tmp_path / "x.pkl", data, limits=Limits(pickle_bytes=30)).code == "CKPT001"
