"""Folders of torch.distributed.checkpoint for the tests: written by torch, and altered through torch's own classes."""

from __future__ import annotations

import io
import pickle
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint import FileSystemWriter
from torch.distributed.checkpoint.default_planner import DefaultSavePlanner
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save
from torch.distributed.checkpoint.metadata import Metadata, MetadataIndex
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset
from torch.testing._internal.distributed.fake_pg import FakeStore

from ckptaudit.formats.base import RawTensor


@contextmanager
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def save(state: dict[str, object], folder: Path, **options: object) -> Path:
    """Save as one process does; ``options`` are those of FileSystemWriter, or a planner."""
    planner = options.pop("planner", None)
    with quiet():
        dcp.save(state, storage_writer=FileSystemWriter(folder, **options), planner=planner, no_dist=True)
    return folder


def save_ranks(make: Callable[[int], dict[str, object]], world: int, folder: Path) -> Path:
    """Save as ``world`` processes do, one after the other in this one: ``make`` returns the state dict of a rank.

    What gloo or NCCL would carry between them, the plans, is handed over here.
    """
    planners, plans = [], []
    for rank in range(world):
        with quiet():
            dist.init_process_group("fake", rank=rank, world_size=world, store=FakeStore())
        try:
            planner = DefaultSavePlanner()
            planner.set_up_planner(make(rank), None, rank == 0)
            plans.append(planner.create_local_plan())
            planners.append(planner)
        finally:
            dist.destroy_process_group()
    writer = FileSystemWriter(folder)
    writer.set_up_storage_writer(True)
    plans, metadata = planners[0].create_global_plan([writer.prepare_local_plan(plan) for plan in plans])
    plans = writer.prepare_global_plan(plans)
    results = [
        writer.write_data(planner.finish_plan(plan), planner).wait()
        for planner, plan in zip(planners, plans, strict=True)
    ]
    writer.finish(metadata, results)
    return folder


def sharded(full: torch.Tensor, mesh: tuple[int, ...], placements: list[object]) -> DTensor:
    """Return the share of the current rank in a tensor that everyone has."""
    devices = init_device_mesh("cpu", mesh)
    sizes, offsets = compute_local_shape_and_global_offset(full.shape, devices, placements)
    local = full[tuple(slice(first, first + size) for first, size in zip(offsets, sizes, strict=True))].clone()
    return DTensor.from_local(local, devices, placements, run_check=False, shape=full.shape, stride=full.stride())


def converted(folder: Path) -> Path:
    """Let torch load the folder and save what it got by torch.save."""
    path = folder.with_name(f"{folder.name}.pth")
    with quiet():
        dcp_to_torch_save(folder, path)
    return path


def metadata_of(folder: Path) -> Metadata:
    return pickle.loads((folder / ".metadata").read_bytes())


def write_metadata(folder: Path, metadata: object, protocol: int = 4) -> Path:
    (folder / ".metadata").write_bytes(pickle.dumps(metadata, protocol))
    return folder


def alter(folder: Path, change: Callable[[Metadata], object]) -> Path:
    """Change what .metadata says."""
    metadata = metadata_of(folder)
    change(metadata)
    return write_metadata(folder, metadata)


def place(metadata: Metadata, key: str) -> object:
    """Return the _StorageInfo of the first item of a key."""
    return next(info for index, info in metadata.storage_data.items() if index.fqn == key)


def put(folder: Path, key: str, data: bytes) -> Path:
    """Put other bytes at the place of an item, at the end of its file."""

    def change(metadata: Metadata) -> None:
        info = place(metadata, key)
        file = folder / info.relative_path
        info.offset, info.length = file.stat().st_size, len(data)
        file.write_bytes(file.read_bytes() + data)

    return alter(folder, change)


def archive(value: object, **options: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


def tensor_of(raw: RawTensor) -> torch.Tensor:
    """Build the tensor that a RawTensor describes."""
    data = b"".join(raw.storage_chunks())
    dtype = getattr(torch, raw.spec.dtype)
    flat = torch.frombuffer(bytearray(data), dtype=dtype) if data else torch.empty(0, dtype=dtype)
    tensor = flat.as_strided(raw.spec.shape, raw.spec.stride, raw.spec.storage_offset)
    return tensor.conj() if raw.spec.conj else tensor


def index_of(key: str, *offsets: int) -> MetadataIndex:
    return MetadataIndex(key, offsets)
