"""Values compared without torch. Oracle: torch, and the live audit's own comparison, over every dtype and layout."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptaudit import TensorSpec
from ckptaudit.compare.decode import common, decoder
from ckptaudit.compare.values import Tolerance, compare, incomparable, rows_of
from ckptaudit.dtypes import DTYPES
from ckptaudit.formats.base import ByteSource, RawTensor
from ckptaudit.training.difference import compare as torch_compare

FLOATS = [name for name, row in DTYPES.items() if row.kind == "float" and hasattr(torch, name)]
NUMBERS = [*FLOATS, "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool"]
COMPLEX = ["complex64", "complex128", "complex32"]
pytestmark = pytest.mark.filterwarnings("ignore:ComplexHalf")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("values")


def raw_of(tensor, path, byteorder="little"):
    """Write the storage of a tensor to a file, and describe the tensor as a view of it."""
    storage = torch.tensor([], dtype=torch.uint8).set_(tensor.untyped_storage())
    data = bytes(storage.numpy())
    if byteorder == "big":
        width = tensor.element_size() // (2 if tensor.is_complex() else 1)
        data = b"".join(data[at : at + width][::-1] for at in range(0, len(data), width))
    path.write_bytes(b"head!" + data)
    spec = TensorSpec(
        tuple(tensor.shape),
        str(tensor.dtype).removeprefix("torch."),
        stride=tensor.stride(),
        storage_offset=tensor.storage_offset(),
        conj=tensor.is_conj(),
        neg=tensor.is_neg(),
    )
    return RawTensor(spec, ByteSource(path), 5, len(data), byteorder)


def apart(folder, before, after, **options):
    return compare(raw_of(before, folder / "before"), raw_of(after, folder / "after"), **options)


def of_bits(dtype, seed, count=300):
    """Return values of every kind: random bits, NaN and infinities among them."""
    torch_dtype = getattr(torch, dtype)
    bits = torch.randint(0, 256, (count * torch_dtype.itemsize,), generator=torch.Generator().manual_seed(seed))
    return (bits % 2 if dtype == "bool" else bits).to(torch.uint8).view(torch_dtype)


@pytest.mark.parametrize("dtype", [*NUMBERS, *COMPLEX])
def test_equal_values_are_equal_in_every_dtype(dtype, folder):
    values = of_bits(dtype, 1)
    assert apart(folder, values, values.clone()) is None


@pytest.mark.parametrize("dtype", FLOATS)
def test_decoded_values_are_those_of_torch(dtype):
    width = DTYPES[dtype].itemsize
    codes = np.arange(256 ** min(width, 2), dtype=f"u{min(width, 2)}")
    if width > 2:
        codes = np.random.default_rng(0).integers(0, 256, 8 * 1000, dtype="u1")
    expected = torch.frombuffer(bytearray(codes.tobytes()), dtype=getattr(torch, dtype)).to(torch.float64).numpy()
    with np.errstate(invalid="ignore"):  # NaN that signal
        found = decoder(dtype)(bytearray(codes.tobytes())).astype("f8")
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    "dtype", ["bfloat16", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu"]
)
def test_decoded_values_are_those_of_ml_dtypes(dtype):
    import ml_dtypes

    width = DTYPES[dtype].itemsize
    codes = np.arange(256**width, dtype=f"u{width}")
    expected = codes.view(getattr(ml_dtypes, dtype)).astype("f4")
    np.testing.assert_array_equal(decoder(dtype)(codes.tobytes()), expected)


@pytest.mark.parametrize("dtype", NUMBERS)
@pytest.mark.parametrize("seed", range(3))
def test_differences_are_those_that_torch_finds(dtype, seed, folder):
    """Random bits on both sides: what the live audit says of the same tensors."""
    before, after = of_bits(dtype, seed).clone(), of_bits(dtype, seed + 100)
    after[::3] = before[::3]
    found, expected = apart(folder, before, after), torch_compare(before, after, None)
    assert (found.changed, found.looked, found.total) == (expected.changed, expected.looked, expected.total)
    assert found.max_ulp == expected.max_ulp
    if dtype not in ("int64", "uint64"):  # torch subtracts in float64
        np.testing.assert_allclose(found.max_abs, expected.max_abs, rtol=1e-6)
    wide = [side.to(torch.float64) for side in (before, after)]
    assert found.nan == tuple(int(side.isnan().sum()) for side in wide)
    assert found.inf == tuple(int(side.isinf().sum()) for side in wide)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("spread", [1e-3, 0.5, 5.0])
def test_numbers_of_finite_floats(dtype, spread, folder):
    random = torch.Generator().manual_seed(0)
    before = torch.randn(40, 50, generator=random).to(getattr(torch, dtype))
    before[3] = 0
    after = (before.double() + spread * torch.randn(40, 50, generator=random)).to(getattr(torch, dtype))
    after[7] = before[7]
    found, expected = apart(folder, before, after), torch_compare(before, after, None)
    assert found.changed == expected.changed
    assert (found.max_ulp, found.rows) == (expected.max_ulp, expected.rows)
    np.testing.assert_allclose(found.max_abs, expected.max_abs, rtol=1e-6)
    a, b = before.double().flatten(), after.double().flatten()
    known = a != 0
    np.testing.assert_allclose(found.max_rel, float(((b - a)[known] / a[known]).abs().max()), rtol=1e-6)
    np.testing.assert_allclose(1 - found.cosine, 1 - float(torch.cosine_similarity(a, b, dim=0)), rtol=1e-3, atol=1e-12)


@pytest.mark.parametrize("dtype", COMPLEX)
def test_complex_values(dtype, folder):
    before = torch.complex(torch.tensor([1.0, 2.0, 0.0]), torch.tensor([0.0, -1.0, 0.0])).to(getattr(torch, dtype))
    after = torch.complex(torch.tensor([1.0, 5.0, 0.0]), torch.tensor([0.0, 3.0, 0.0])).to(getattr(torch, dtype))
    found = apart(folder, before, after)
    assert (found.changed, found.max_abs, found.max_ulp) == (1, 5.0, None)
    np.testing.assert_allclose(found.max_rel, 5 / 5**0.5, rtol=1e-6)


def test_signs_of_zero_and_nan_payloads_are_differences_of_bits(folder):
    zeros = apart(folder, torch.tensor([0.0, 1.0]), torch.tensor([-0.0, 1.0]))
    assert (zeros.changed, zeros.max_abs, zeros.max_ulp) == (1, 0.0, 0)
    assert zeros.text == "zeros changed their sign, in 1 of 2 values"
    bits = torch.tensor([0x7FC00000, 0x7FC00001], dtype=torch.int32).view(torch.float32)
    payload = apart(folder, bits, bits.flip(0))
    assert (payload.changed, payload.max_abs, payload.nan) == (2, 0.0, (2, 2))


def test_nan_and_infinity_are_told(folder):
    nan, inf = float("nan"), float("inf")
    found = apart(folder, torch.tensor([nan, 1.0, 2.0]), torch.tensor([nan, nan, 2.5]))
    assert (found.changed, found.nan, found.size) == (2, (1, 2), "to NaN")
    found = apart(folder, torch.tensor([inf, 1.0, 2.0]), torch.tensor([inf, inf, 2.5]))
    assert (found.changed, found.inf, found.max_abs, found.max_ulp, found.cosine) == (2, (1, 2), inf, None, None)


def test_a_change_without_end_is_no_infinity_of_a_value(folder):
    """The difference of two finite float32 can be too large for float32."""
    large = torch.finfo(torch.float32).max
    found = apart(folder, torch.tensor([large]), torch.tensor([-large]))
    assert (found.inf, found.nan, found.max_abs) == ((0, 0), (0, 0), 2 * large)
    assert found.max_ulp == torch_compare(torch.tensor([large]), torch.tensor([-large]), None).max_ulp


def test_integers_are_subtracted_exactly(folder):
    low, high = torch.iinfo(torch.int64).min, torch.iinfo(torch.int64).max
    assert apart(folder, torch.tensor([low]), torch.tensor([high])).max_abs == float(2**64 - 1)
    assert apart(folder, torch.tensor([2**62]), torch.tensor([2**62 + 1])).max_abs == 1.0


LAYOUTS = {
    "contiguous": lambda t: t,
    "transposed": lambda t: t.transpose(0, 1).contiguous().transpose(0, 1),
    "channels_last": lambda t: t.contiguous(memory_format=torch.channels_last),
    "strided": lambda t: torch.stack([t, t], -1)[..., 0],
    "in a larger storage": lambda t: torch.cat([torch.ones(3, *t.shape[1:]), t])[3:],
}


@pytest.mark.parametrize("second", LAYOUTS)
@pytest.mark.parametrize("first", LAYOUTS)
@pytest.mark.parametrize("byteorder", ["little", "big"])
def test_layout_and_byte_order_do_not_count(first, second, byteorder, folder):
    values = torch.randn(6, 5, 4, 3, generator=torch.Generator().manual_seed(0))
    changed = values.clone()
    changed[2, 1, 3, 0] += 1
    raws = [
        raw_of(LAYOUTS[first](values), folder / "a", byteorder),
        raw_of(LAYOUTS[second](values), folder / "b"),
        raw_of(LAYOUTS[second](changed), folder / "c", byteorder),
    ]
    assert compare(raws[0], raws[1]) is None
    found = compare(raws[0], raws[2])
    assert (found.changed, found.total) == (1, values.numel())
    np.testing.assert_allclose(found.max_abs, 1.0, rtol=1e-6)


def test_conj_and_neg_bits_are_carried_out(folder):
    values = torch.randn(20, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    assert apart(folder, values.conj(), values.conj().resolve_conj()) is None
    assert apart(folder, values.conj(), values) is not None
    assert apart(folder, torch._neg_view(values.real.clone()), -values.real) is None


def test_rows_alone_can_be_compared(folder):
    before = torch.arange(12.0).view(4, 3)
    after = before.clone()
    after[3, 1] = 0
    first, second = raw_of(before, folder / "a"), raw_of(after, folder / "b")
    assert compare(rows_of(first, 0, 3), rows_of(second, 0, 3)) is None
    assert compare(rows_of(first, 3, 4), rows_of(second, 3, 4)).changed == 1


@pytest.mark.parametrize("one", [*NUMBERS, "complex64"])
@pytest.mark.parametrize("other", [*NUMBERS, "complex64"])
def test_values_of_two_dtypes_are_converted_exactly(one, other, folder):
    if one == other:
        return
    small = [torch.tensor([0, 1, 1, 0]).to(torch.float32).to(getattr(torch, name)) for name in (one, other)]
    raws = [raw_of(side, folder / name) for side, name in zip(small, "ab", strict=True)]
    if common(one, other) is None:
        assert incomparable(*raws) == f"is {one} and {other}, and no dtype holds the values of both"
        assert {"int64", "uint64"} & {one, other}
        return
    wide = [side.to(torch.complex128) for side in small]
    equal = bool((wide[0] == wide[1]).all())  # float8_e8m0fnu has no zero
    assert (compare(*raws) is None) is equal


def test_a_cast_and_back_is_known_by_its_rounding(folder):
    values = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    found = apart(folder, values, values.to(torch.bfloat16))
    assert found.max_rel < 2**-8 and found.max_ulp is None and found.changed > 900
    assert apart(folder, values.to(torch.bfloat16).float(), values.to(torch.bfloat16)) is None


def test_tolerances_are_those_of_torch_testing(folder):
    random = torch.Generator().manual_seed(0)
    before = torch.randn(1000, generator=random)
    after = before + 0.01 * torch.randn(1000, generator=random)
    for rtol, atol in ((0.01, 0.0), (0.0, 0.01), (0.01, 0.01)):
        close = torch.isclose(after.double(), before.double(), rtol=rtol, atol=atol)
        assert apart(folder, before, after, tolerance=Tolerance(rtol, atol)).beyond == int((~close).sum())
    assert apart(folder, before, after).beyond == 1000


def test_a_nan_that_comes_is_beyond_every_tolerance(folder):
    nan = float("nan")
    found = apart(folder, torch.tensor([1.0, nan, 3.0]), torch.tensor([nan, nan, 3.1]), tolerance=Tolerance(0.1))
    assert (found.changed, found.beyond) == (2, 1)


def test_scaling_is_told_from_training(folder):
    random = torch.Generator().manual_seed(0)
    before = torch.randn(5000, generator=random)
    np.testing.assert_allclose(apart(folder, before, before * 0.99).scale, 0.99, rtol=1e-6)
    assert apart(folder, before, before + 0.01 * torch.randn(5000, generator=random)).scale is None
    assert apart(folder, torch.ones(1), torch.ones(1) * 2).scale is None  # one value has no direction


def test_without_measuring_the_first_difference_ends_it(folder):
    before, after = torch.zeros(1_000_000), torch.zeros(1_000_000)
    after[-1] = 1
    found = apart(folder, before, after, measure=False)
    assert (found.changed, found.looked, found.max_abs) == (1, 0, None)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_large_tensors_are_compared_block_by_block(data, tmp_path_factory):
    """Any places of differences, over more blocks than one: the sums do not depend on where blocks end."""
    folder = tmp_path_factory.mktemp("blocks")
    values = torch.randn(300_000, generator=torch.Generator().manual_seed(0))
    after = values.clone()
    places = data.draw(st.lists(st.integers(0, 299_999), min_size=1, max_size=5, unique=True))
    for place in places:
        after[place] += 1
    found = apart(folder, values, after)
    a, b = values.double(), after.double()
    assert found.changed == len(places) and found.looked == 300_000
    np.testing.assert_allclose(1 - found.cosine, 1 - float(torch.cosine_similarity(a, b, dim=0)), rtol=1e-3)


def test_memory_does_not_depend_on_the_size(folder):
    values = torch.zeros(8 << 20)
    after = values + 1
    first, second = raw_of(values, folder / "a"), raw_of(after, folder / "b")
    compare(
        rows_of(raw_of(torch.zeros(2, 2), folder / "c"), 0, 1), rows_of(raw_of(torch.ones(2, 2), folder / "d"), 0, 1)
    )
    tracemalloc.start()
    compare(first, second)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20


def test_what_has_no_plain_values_is_said(folder):
    raw = raw_of(torch.zeros(2), folder / "a")
    sparse = RawTensor(TensorSpec((2,), "float32", layout="sparse_coo"), raw.source, 0, 8)
    assert incomparable(sparse, raw) == "is sparse_coo"
    assert incomparable(raw, raw) == ""
