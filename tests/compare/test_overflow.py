"""Values that a cast has no room for, without torch. Oracle: the mapping's own check, which casts with torch."""

from __future__ import annotations

import pytest
import torch

from ckptaudit.compare.overflow import count_out_of_range
from ckptaudit.mapping.ranges import out_of_range

from .test_values import raw_of

FLOATS = [
    "float64",
    "float32",
    "float16",
    "bfloat16",
    "float8_e4m3fn",
    "float8_e5m2",
    "float8_e4m3fnuz",
    "float8_e5m2fnuz",
]
INTEGERS = ["int64", "int32", "int16", "int8", "uint8"]


def around_the_ends():
    ends = [torch.finfo(getattr(torch, name)).max for name in FLOATS if name != "float64"]
    sizes = torch.tensor(
        [end * (1 + step) for end in ends for step in (-1e-3, 0, 1e-3, 0.02, 0.04, 0.0625, 0.07, 0.2)],
        dtype=torch.float64,
    )
    ties = torch.tensor(
        [65520.0, 65519.99, 464.0, 463.9, 464.1, 61440.0, 248.0, 2.0**128 - 2.0**103, float("inf"), float("nan"), 0.0]
    )
    values = torch.cat([sizes, ties.double()])
    return torch.cat([values, -values])


@pytest.mark.parametrize("source", ["float64", "float32", "bfloat16"])
@pytest.mark.parametrize("target", FLOATS)
def test_floats_out_of_range(source, target, tmp_path):
    values = around_the_ends().to(getattr(torch, source))
    expected = int(out_of_range(values, values.to(getattr(torch, target))).sum())
    if target != source:
        assert count_out_of_range(raw_of(values, tmp_path / "x"), target) == expected


@pytest.mark.parametrize("target", [*INTEGERS, "float16"])
def test_integers_out_of_range(target, tmp_path):
    values = torch.tensor(
        [0, 1, -1, 127, 128, -128, -129, 255, 256, 65504, 65520, 2**31 - 1, 2**31, -(2**31) - 1, 2**62]
    )
    expected = int(out_of_range(values, values.to(getattr(torch, target))).sum())
    assert count_out_of_range(raw_of(values, tmp_path / "x"), target) == expected


def test_complex_values_have_two_parts(tmp_path):
    values = torch.tensor([70000 + 0j, 1 - 70000j, 1 + 1j], dtype=torch.complex64)
    assert count_out_of_range(raw_of(values, tmp_path / "x"), "complex32") == 2
