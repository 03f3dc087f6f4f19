"""Tensors in memory as raw bytes: no copy, every layout, and a reason where there are none."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ckptaudit.compare.values import compare
from ckptaudit.errors import FormatError
from ckptaudit.model.memory import MemorySource, raw_tensors


def test_a_tensor_is_not_copied():
    tensor = torch.zeros(4)
    raw = raw_tensors({"w": tensor})["w"]
    tensor[2] = 1
    assert raw.source.read(8, 4) == b"\0\0\x80?"
    buffer = bytearray(4)
    raw.source.read_into(8, memoryview(buffer))
    assert bytes(buffer) == b"\0\0\x80?"


def test_views_of_one_storage_have_one_identity():
    base = torch.arange(12.0).view(3, 4)
    raws = raw_tensors({"all": base, "row": base[1], "turned": base.T, "other": base.clone()})
    assert len({raws[name].source.identity for name in ("all", "row", "turned")}) == 1
    assert raws["other"].source.identity != raws["all"].source.identity
    assert compare(raws["all"], raws["other"]) is None


def test_reading_past_the_end_is_an_error():
    source = MemorySource(torch.zeros(2).untyped_storage(), "state dict")
    for offset, length in ((0, 9), (-1, 2), (8, 1)):
        with pytest.raises(FormatError, match="has 8 bytes of memory"):
            source.read(offset, length)


@pytest.mark.parametrize(
    ("tensor", "reason"),
    [
        (torch.zeros(2, device="meta"), "is on the meta device and has no values"),
        (torch.eye(2).to_sparse(), "has the layout sparse_coo"),
        (nn.LazyLinear(2).weight, "is lazy and has no values yet"),
    ],
)
def test_what_has_no_bytes_says_why(tensor, reason):
    assert raw_tensors({"w": tensor}) == {"w": reason}


def test_an_empty_tensor_is_a_tensor():
    raw = raw_tensors({"w": torch.zeros(0, 3)})["w"]
    assert compare(raw, raw) is None
