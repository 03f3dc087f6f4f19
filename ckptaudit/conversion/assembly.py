"""From a plan to the files of a format: what each holds, and where its bytes come from."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence

from ..errors import UsageError
from ..formats.base import Checkpoint, Limits
from ..records import dataclass
from .content import Content, dense
from .outputs import Output
from .plan import Item, Plan, fault_of, refuse_items
from .target import Target

Maker = Callable[[Item], Content]


@dataclass(frozen=True)
class Assembled:
    """The files to write, the last of which makes the others visible; ``aliases`` and ``copied`` as in Conversion."""

    plan: Plan
    outputs: tuple[Output, ...]
    aliases: Mapping[str, str]
    copied: tuple[str, ...] = ()


def assemble(checkpoint: Checkpoint, plan: Plan, target: Target, limits: Limits) -> Assembled:
    """Lay the files of a result out. Raises UsageError that names what the format cannot hold."""
    faults = [(item.key, fault) for item in plan.items if (fault := fault_of(item))]
    make: Maker = _dense
    if any(item.recipe is not None for item in plan.items):
        from .operations import Workshop

        workshop = Workshop(checkpoint.path, checkpoint.raw[checkpoint.chosen.path])
        faults += [(item.key, fault) for item in plan.items if item.recipe and (fault := workshop.fault(item.recipe))]
        make = workshop.content_or(_dense)
    refuse_items(checkpoint.path, target.format, faults)
    if target.format == "torch-zip":
        return _torch(checkpoint, plan, target, make, limits)
    return _safetensors(checkpoint, plan, target, make)


def _dense(item: Item) -> Content:
    assert item.raw is not None
    return dense(item.raw)


def _torch(checkpoint: Checkpoint, plan: Plan, target: Target, make: Maker, limits: Limits) -> Assembled:
    from .torch_file import TorchFile, storage_content, torch_faults

    refuse_items(checkpoint.path, target.format, torch_faults(plan.items))

    def whole(item: Item) -> Content:
        return make(item) if item.recipe is not None else storage_content(item)

    return Assembled(plan, (TorchFile(target.path, plan, whole, limits),), {})


def _safetensors(checkpoint: Checkpoint, plan: Plan, target: Target, make: Maker) -> Assembled:
    from .aliases import share
    from .safetensors_file import SafetensorsFile, ShardIndex, metadata_of, notes_of, safetensors_fault

    faults = [(item.key, fault) for item in plan.items if (fault := safetensors_fault(item))]
    refuse_items(checkpoint.path, target.format, faults)
    sharing = share(plan.items)
    notes = notes_of(plan, sharing.aliases)
    aliases = {key: note["of"] for key, note in sharing.aliases.items()}
    tensors = [(item, make(item)) for item in sharing.kept]
    if not target.shard_size:
        file = SafetensorsFile(target.path, tensors, metadata_of(plan, notes))
        return Assembled(plan, (file,), aliases, sharing.copied)
    shards = _divided(tensors, target.shard_size)
    folder = os.path.dirname(target.path)
    names = target.shard_names(len(shards), _listed(folder))
    metadata = metadata_of(plan, None)
    files = [SafetensorsFile(os.path.join(folder, n), s, metadata) for n, s in zip(names, shards, strict=True)]
    home = {item.key: name for name, shard in zip(names, shards, strict=True) for item, _ in shard}
    places = {item.key: home[item.key] for item in sharing.kept}
    index = ShardIndex(target.path, places, sum(content.size for _, content in tensors), notes)
    return Assembled(plan, (*files, index), aliases, sharing.copied)


def _divided(tensors: Sequence[tuple[Item, Content]], most: int) -> list[list[tuple[Item, Content]]]:
    """Divide tensors, in their order, into shards of at most so many bytes; a larger tensor is alone in its shard."""
    shards: list[list[tuple[Item, Content]]] = []
    size = most
    for item, content in tensors:
        if not shards or (size + content.size > most and shards[-1]):
            shards.append([])
            size = 0
        shards[-1].append((item, content))
        size += content.size
    return shards


def _listed(folder: str) -> list[str]:
    try:
        return os.listdir(folder or ".")
    except OSError as error:
        raise UsageError(folder, f"cannot be read: {error.strerror}") from None
