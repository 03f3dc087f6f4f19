"""Seeds that take torch seconds to make: exported programs, and folders of torch.distributed.checkpoint."""

from __future__ import annotations

import io
import sys
import tempfile
import zipfile
from pathlib import Path

import torch
from torch import nn

Files = dict[str, bytes]


class _Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)
        self.tied = self.linear.weight
        self.register_buffer("hidden", torch.ones(2), persistent=False)
        self.register_buffer("part", torch.arange(6.0).reshape(2, 3)[:, 1:].to(torch.bfloat16))
        self.constant = torch.full((2,), 3.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x) + self.hidden + self.constant


def _zipped(records: dict[str, bytes]) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name, data in records.items():
            archive.writestr(name, data)
    return target.getvalue()


def exported() -> list[Files]:
    """Return an archive of today, one with a pickled weight, and the layout of torch 2.1 to 2.7."""
    from torch._export.serde.serialize import serialize

    program = torch.export.export(_Net(), (torch.ones(2, 2),))
    target = io.BytesIO()
    torch.export.save(program, target)
    found = [target.getvalue()]
    with zipfile.ZipFile(io.BytesIO(found[0])) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    saved = io.BytesIO()
    torch.save(nn.Parameter(torch.arange(4.0).view(2, 2)), saved)
    config = next(name for name in records if name.endswith("model_weights_config.json"))
    weight = next(name for name in records if name.endswith("weights/weight_0"))
    pickled = records[config].replace(b'"use_pickle": false', b'"use_pickle": true', 1)
    found.append(_zipped({**records, config: pickled, weight: saved.getvalue()}))
    artifact = serialize(program)
    old = {
        "serialized_exported_program.json": artifact.exported_program,
        "serialized_state_dict.pt": artifact.state_dict,
        "serialized_constants.pt": artifact.constants,
        "serialized_example_inputs.pt": artifact.example_inputs,
        "version": b"8.20",
    }
    found.append(_zipped(old))
    return [{"x.pt2": data} for data in found]


def distributed() -> list[Files]:
    """Return folders: of one process, of two that share a tensor, and one with safetensors inside."""
    sys.path.append(str(Path(__file__).parents[1] / "formats"))
    from dcp_folders import save, save_ranks, sharded
    from torch.distributed.checkpoint.filesystem import SerializationFormat
    from torch.distributed.tensor import Shard

    def of_rank(rank: int) -> dict[str, object]:
        return {"model": {"w": sharded(torch.arange(12.0).view(4, 3), (2,), [Shard(0)])}, "epoch": 3}

    nested = {
        "model": {"w": torch.arange(6.0).view(2, 3), "b": torch.ones(3, dtype=torch.bfloat16)},
        "list": [1, torch.ones(1)],
    }
    found = []
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, str(number)) for number in range(4)]
        save({"w": torch.ones(2)}, paths[0])
        save(nested, paths[1])
        save_ranks(of_rank, 2, paths[2])
        save({"a": torch.ones(2), "b": torch.zeros(3)}, paths[3], serialization_format=SerializationFormat.SAFETENSORS)
        found += [{file.name: file.read_bytes() for file in sorted(path.iterdir())} for path in paths]
    return found
