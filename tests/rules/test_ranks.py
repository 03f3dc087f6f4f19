"""One rank's file of a tensor-parallel checkpoint; torch's own parallel layers say what such a file holds."""

import pytest
import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.testing._internal.distributed.fake_pg import FakeStore

from .support import codes, diff, found, manifest


class Block(nn.Module):
    def __init__(self, width=16, inner=32):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.up = nn.Linear(width, inner)
        self.down = nn.Linear(inner, width)


class Decoder(nn.Module):
    def __init__(self, width=16, inner=32, words=24):
        super().__init__()
        self.embed = nn.Embedding(words, width)
        self.blocks = nn.ModuleList(Block(width, inner) for _ in range(2))
        self.head = nn.Linear(width, words, bias=False)


PLAN = {"embed": RowwiseParallel(), "head": ColwiseParallel(), "blocks.*.qkv": ColwiseParallel(),
        "blocks.*.up": ColwiseParallel(), "blocks.*.out": RowwiseParallel(), "blocks.*.down": RowwiseParallel()}  # fmt: skip


@pytest.fixture(params=[2, 4])
def ranks(request):
    torch.distributed.init_process_group("fake", store=FakeStore(), rank=0, world_size=request.param)
    yield request.param
    torch.distributed.destroy_process_group()


@pytest.fixture
def part(ranks):
    """Return what rank 0 holds, as a plain state dict."""
    model = parallelize_module(Decoder(), init_device_mesh("cpu", (ranks,)), PLAN)
    return {key: value.to_local() if isinstance(value, DTensor) else value for key, value in model.state_dict().items()}


def test_what_one_of_torchs_ranks_holds_is_one_finding(ranks, part):
    report = diff(Decoder(), part)
    assert codes(report) == ["CKPT506"]
    finding = found(report, "CKPT506")
    assert finding.message == f"14 tensors are 1/{ranks} of the model's along one axis, as one rank of {ranks} saves"
    assert finding.rows[0] == ("embed.weight", f"({24 // ranks}, 16)", "(24, 16)", "0")
    assert ("blocks.1.down.weight", f"(16, {32 // ranks})", "(16, 32)", "1") in finding.rows
    assert not report.ok


def test_a_prefix_does_not_hide_it(ranks, part):
    report = diff(Decoder(), {f"module.{key}": value for key, value in part.items()})
    assert {"CKPT103", "CKPT506"} <= set(codes(report))


def test_a_padded_vocabulary_remains_a_mismatch(part):
    part["head.weight"] = torch.zeros(11, 16)
    report = diff(Decoder(), part)
    assert codes(report) == ["CKPT201", "CKPT506"]
    assert found(report, "CKPT201").keys == ("head.weight",)


SHAPES = {key: tuple(value.shape) for key, value in Decoder().state_dict().items()}


def adapters(rank):
    return {f"{i}.lora_{side}": shape for i in range(4) for side, shape in (("A", (rank, 16)), ("B", (16, rank)))}


def bottlenecks(groups):
    """Grouped convolutions, as dla102x and dla102x2 of timm differ: the one confusion among 800 pairs of its models."""
    kernels = [(groups * n, 8 * n) for n in (4, 8)]
    return {
        f"{i}.{name}": shape
        for i, (inner, outer) in enumerate(kernels)
        for name, shape in (("in", (inner, outer, 1, 1)), ("mid", (inner, 4, 3, 3)), ("out", (outer, inner, 1, 1)))
    }


OTHERS = {
    "half as wide": (SHAPES, Decoder(width=8, inner=16)),
    "half the inner width": (SHAPES, Decoder(inner=16)),
    "half the words": (SHAPES, Decoder(words=12)),
    "adapters of half the rank": (adapters(8), adapters(4)),
    "half the groups": (bottlenecks(64), bottlenecks(32)),
    "twice as wide": (SHAPES, Decoder(width=32, inner=64)),
}


@pytest.mark.parametrize(("wanted", "saved"), OTHERS.values(), ids=OTHERS)
def test_a_model_of_another_size_is_no_rank(wanted, saved):
    shapes = saved if isinstance(saved, dict) else {k: tuple(v.shape) for k, v in saved.state_dict().items()}
    assert codes(diff(manifest(wanted), manifest(shapes))) == ["CKPT201"]
