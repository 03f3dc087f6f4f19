"""How far a tensor moved. Oracles: numpy's spacing and nextafter, and plain comparison of the whole."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ckptaudit.compare.difference import Difference
from ckptaudit.training.difference import SAMPLE, compare, positions, sample


def moved(before, after, rows=None):
    return compare(sample(before, rows), after, rows)


def test_a_small_tensor_is_known_exactly():
    before = torch.zeros(4, 3)
    after = before.clone()
    after[1, 2], after[3, 0] = 0.5, -0.25
    found = moved(before, after)
    assert (found.changed, found.looked, found.total, found.max_abs, found.rows) == (2, 12, 12, 0.5, (1, 3))
    assert found.text == "by up to 0.5, in 2 of 12 values, rows 1, 3"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_ulps_count_the_floats_between(dtype, steps):
    before = torch.tensor([1.0, -3.0, 0.0, -0.0], dtype=dtype)
    after = before.clone()
    for _ in range(steps):
        bits = after.view(torch.int16 if dtype.itemsize == 2 else torch.int32 if dtype.itemsize == 4 else torch.int64)
        bits[0] += 1  # the next float away from zero
    assert moved(before, after).max_ulp == steps
    if dtype in (torch.float32, torch.float64):
        assert after[0].item() == before[0].item() + steps * np.spacing(before.numpy()[0])


def test_ulps_cross_zero_and_the_zeros_are_one_place():
    tiny = float(np.finfo(np.float32).smallest_subnormal)
    assert moved(torch.tensor([-tiny]), torch.tensor([tiny])).max_ulp == 2
    zeros = moved(torch.tensor([-0.0]), torch.tensor([0.0]))
    assert (zeros.changed, zeros.max_abs, zeros.max_ulp) == (1, 0.0, 0)
    assert zeros.text == "zeros changed their sign"


def test_ulps_between_the_ends_of_float64_do_not_overflow():
    large = torch.tensor([torch.finfo(torch.float64).max], dtype=torch.float64)
    assert moved(large, -large).max_ulp == 2 * 0x7FEFFFFFFFFFFFFF


def test_a_nan_that_stays_is_no_change():
    nan = float("nan")
    assert moved(torch.tensor([nan, 1.0]), torch.tensor([nan, 1.0])).changed == 0
    found = moved(torch.tensor([1.0, 1.0]), torch.tensor([nan, 1.0]))
    assert (found.changed, found.max_ulp, found.text) == (1, None, "to NaN, in 1 of 2 values")


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64, torch.uint8, torch.float8_e4m3fn])
def test_other_dtypes_have_no_ulps(dtype):
    before = torch.zeros(3).to(dtype)
    after = torch.tensor([0.0, 1.0, 0.0]).to(dtype)
    assert moved(before, after) == Difference(1, 3, 3, 1.0, None, ())


def test_a_large_tensor_is_sampled_and_says_so():
    before = torch.randn(300, 200)
    after = before + 1
    found = moved(before, after)
    assert found.changed == found.looked <= SAMPLE < found.total == 60_000
    assert len(sample(before, None)) > SAMPLE // 2
    after = before.clone()
    after[7] += 1
    found = moved(before, after)
    assert found.rows == (7,)
    assert found.changed < found.looked
    assert "sampled values, rows 7" in found.text
    after = before.clone()
    after[0, 1] += 1
    assert moved(before, after).text == f"in none of {found.looked:,} sampled values"


def test_a_whole_old_tensor_is_compared_whole():
    before = torch.randn(300, 200)
    after = before.clone()
    after[0, 1] += 1
    found = compare(before, after, None)
    assert (found.changed, found.looked, found.rows) == (1, 60_000, (0,))
    assert compare(before, after, ((1, 300),)).changed == 0


@pytest.mark.parametrize("shape", [(10, 3), (5000, 7), (10, 30, 40)])
@pytest.mark.parametrize("rows", [((0, 2), (5, 7)), ((9, 10),)])
def test_of_rows_only_those_rows_are_kept(shape, rows):
    tensor = torch.arange(torch.Size(shape).numel()).reshape(shape)
    at = positions(shape, rows)
    assert torch.equal(sample(tensor, rows), at)
    width = tensor.numel() // shape[0]
    assert {int(p) // width for p in at} <= {row for a, b in rows for row in range(a, b)}
    assert len(at) <= SAMPLE
    other = tensor.clone()
    other[3] = 0
    assert moved(tensor, other, rows).changed == 0
    other[rows[0][0]] = -1
    assert moved(tensor, other, rows).changed > 0


def test_the_layout_of_memory_does_not_matter():
    before = torch.randn(4, 8, 9, 30).contiguous(memory_format=torch.channels_last)
    assert moved(before, before.contiguous()).changed == 0


def test_scalars_and_empty_tensors():
    assert moved(torch.tensor(1), torch.tensor(3)).max_abs == 2.0
    assert moved(torch.zeros(0), torch.zeros(0)).changed == 0
