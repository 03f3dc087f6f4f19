"""Files as ``torch.save`` writes them, without torch: whole storages, and tensors that are views of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..formats import open_checkpoint
from ..formats.base import Checkpoint, Limits
from ..formats.elements import part_of
from ..manifest import TensorSpec
from ..newfile import NewFile
from ..records import replace
from .archive import Archive
from .content import Content, whole_storage
from .outputs import Output, Seen, differs, same_bytes
from .pickler import StateDict, Storage, pickled, storage_dtype
from .plan import Item, Plan

Maker = Callable[[Item], Content]


class TorchFile(Output):
    """One zip archive. Every storage is written once, so that what shared memory shares it again."""

    def __init__(self, path: str, plan: Plan, make: Maker, limits: Limits) -> None:
        self.path = path
        self._limits = limits
        groups: dict[str, list[Item]] = {}
        for item in plan.items:
            groups.setdefault(item.spec.storage or f"alone: {item.key}", []).append(item)
        contents = [make(group[0]) for group in groups.values()]
        storages = {
            item.key: Storage(str(number), storage_dtype({one.spec.dtype for one in group}), content.size)
            for number, (group, content) in enumerate(zip(groups.values(), contents, strict=True))
            for item in group
        }
        self._state = StateDict(
            plan.order,
            {item.key: _spec_of(item) for item in plan.items},
            storages,
            plan.entries,
            plan.versions,
            _own_metadata(plan),
            plan.around,
        )
        self._archive = Archive(pickled(self._state, path), contents)
        self._contents = contents
        self.size = self._archive.size
        self.work = sum(content.size for content in contents)

    def write(self, file: NewFile, seen: Seen) -> None:
        """Write the archive."""
        self._archive.write(file, seen)

    def verify(self, path: str, seen: Seen) -> None:
        """Read the archive as any other, and compare what it describes, and the bytes of every storage."""
        back = open_checkpoint(path, limits=self._limits, with_payload=True)
        assert back.source is not None
        tensors = _chosen(back)
        if list(tensors) != list(self._state.tensors):
            raise differs(self.path, "its keys")
        for key, spec in self._state.tensors.items():
            if tensors[key] != _as_read(spec, self._state.storages[key]):
                raise differs(self.path, key)
        for number, content in enumerate(self._contents):
            record = back.records[f"data/{number}"]
            same_bytes(f"data/{number}", content, back.source, record.offset, seen)


def _chosen(back: Checkpoint) -> dict[str, TensorSpec]:
    """Return the tensors of the state dict, which is the first one however many others a payload seems to hold."""
    return dict(back.candidates[0].manifest.tensors)


def _own_metadata(plan: Plan) -> dict[str, str]:
    """Return the metadata of safetensors without the word that every file has."""
    return {name: text for name, text in plan.metadata.items() if (name, text) != ("format", "pt")}


def _spec_of(item: Item) -> TensorSpec:
    """Return the view as the pickle describes it; what an operation makes is dense."""
    spec = item.spec
    if item.recipe is None:
        return spec
    step, stride = 1, []
    for size in reversed(spec.shape):
        stride.append(step)
        step *= size or 1
    return replace(spec, stride=tuple(reversed(stride)), storage_offset=0, conj=False, neg=False)


def _as_read(spec: TensorSpec, storage: Storage) -> TensorSpec:
    grad = bool(spec.requires_grad)
    return replace(
        spec, storage=storage.key, storage_nbytes=storage.nbytes, requires_grad=grad, location="cpu", layout="strided"
    )


def storage_content(item: Item) -> Content:
    """Return the whole storage of an item that the source holds."""
    assert item.raw is not None
    return whole_storage(item.raw)


def torch_faults(items: Sequence[Item]) -> list[tuple[str, str]]:
    """Return the tensors of a big-endian file whose storage has numbers of two widths: it cannot be swapped."""
    widths: dict[str, int] = {}
    faults = []
    for item in items:
        if item.raw is not None and item.raw.byteorder == "big" and item.spec.storage is not None:
            width = part_of(item.spec.dtype)
            if widths.setdefault(item.spec.storage, width) != width:
                faults.append((item.key, "shares big-endian memory with numbers of another width"))
    return faults
