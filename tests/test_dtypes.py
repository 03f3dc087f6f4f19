"""Every row of the dtype table against torch itself."""

import math

import pytest
import torch

from ckptaudit.dtypes import DTYPES, cast_effect

TORCH_DTYPES = {
    name: value
    for name, value in vars(torch).items()
    if isinstance(value, torch.dtype) and str(value) == f"torch.{name}"
}


def test_the_table_names_every_dtype_torch_has():
    assert set(TORCH_DTYPES) - set(DTYPES) == set()


@pytest.mark.parametrize("name", sorted(set(TORCH_DTYPES) & set(DTYPES)))
def test_item_sizes_are_torchs(name):
    assert DTYPES[name].itemsize == TORCH_DTYPES[name].itemsize


def _finfo_names():
    for name, dtype in TORCH_DTYPES.items():
        if dtype.is_floating_point and "x2" not in name:
            yield name


@pytest.mark.parametrize("name", sorted(_finfo_names()))
def test_float_ranges_are_torchs(name):
    info, row = torch.finfo(TORCH_DTYPES[name]), DTYPES[name]
    if name != "float8_e5m2fnuz":  # before torch 2.15 its eps is half of what it is
        assert row.precision == 1 - round(math.log2(info.eps))
    assert row.max_exponent == math.frexp(info.max)[1] - 1
    if name != "float8_e8m0fnu":  # torch.finfo names no subnormals for it; it has none
        assert row.min_exponent == round(math.log2(info.tiny)) - (row.precision - 1)


@pytest.mark.parametrize("name", [name for name in sorted(_finfo_names()) if name.startswith("float8")])
def test_the_precision_of_eight_bits_is_that_of_the_values(name):
    values = torch.arange(256, dtype=torch.uint8).view(TORCH_DTYPES[name]).float()
    assert ((values >= 1) & (values < 2)).sum() == 2 ** (DTYPES[name].precision - 1)


@pytest.mark.parametrize("name", [f"{u}int{n}" for u in ("", "u") for n in (8, 16, 32, 64)])
def test_integer_ranges_are_torchs(name):
    assert 2 ** DTYPES[name].precision - 1 == torch.iinfo(TORCH_DTYPES[name]).max


VALUES = {
    "float": [0.0, 1.0, 1.0 + 2**-7, 1.0 + 2**-10, 1.0 + 2**-23, 1.0 + 2**-52, 2.0**-133, 2.0**-24, 3e38, 6e4, 448.0],
    "int": [0, 1, 127, 255, 2**11 + 1, 2**24 + 1, 2**31 - 1, 2**53 + 1],
}
CASTABLE = [
    "float64",
    "float32",
    "float16",
    "bfloat16",
    "int64",
    "int32",
    "int16",
    "int8",
    "uint8",
    "bool",
    "complex64",
]


@pytest.mark.parametrize("target", CASTABLE)
@pytest.mark.parametrize("source", CASTABLE)
@pytest.mark.filterwarnings("ignore:Casting complex values to real")
def test_an_exact_cast_keeps_every_value_in_torch(source, target):
    effect = cast_effect(source, target)
    kind = "float" if TORCH_DTYPES[source].is_floating_point or source == "complex64" else "int"
    values = torch.tensor(VALUES[kind], dtype=torch.float64 if kind == "float" else torch.int64)
    if source == "complex64":
        values = torch.complex(values.float(), torch.ones_like(values).float())
    saved = values.to(TORCH_DTYPES[source])
    cast = saved.to(TORCH_DTYPES[target])
    same_value = torch.equal(saved.to(torch.complex128), cast.to(torch.complex128))
    kept = same_value and torch.equal(saved, cast.to(TORCH_DTYPES[source]))
    if effect in ("same", "exact"):
        assert kept
    elif source != "float16" or target != "bfloat16":  # precision lost there needs a value with 11 bits
        assert not kept or effect == "kind-changed"


@pytest.mark.parametrize(
    ("source", "target", "effect"),
    [
        ("float32", "bfloat16", "narrowed"),
        ("bfloat16", "float16", "narrowed"),
        ("float16", "float32", "exact"),
        ("bfloat16", "float32", "exact"),
        ("float64", "float32", "narrowed"),
        ("int64", "float32", "narrowed"),
        ("int8", "float16", "exact"),
        ("uint8", "int8", "narrowed"),
        ("int8", "uint8", "narrowed"),
        ("uint8", "int16", "exact"),
        ("bool", "float8_e4m3fn", "exact"),
        ("float32", "int64", "kind-changed"),
        ("complex64", "float32", "kind-changed"),
        ("float32", "complex64", "exact"),
        ("float32", "qint8", "kind-changed"),
        ("float32", "bool", "kind-changed"),
    ],
)
def test_what_a_cast_does(source, target, effect):
    assert cast_effect(source, target) == effect
