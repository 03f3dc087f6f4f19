"""The ``.metadata`` of a torch.distributed.checkpoint folder: what it says of keys, chunks and files.

torch reads it by a plain ``pickle.load``. Here its pickle is interpreted like any other, and everything it says
is checked against itself: each chunk has one place, each place one chunk, and the chunks tile their tensors.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import zip_longest
from math import prod
from typing import NoReturn

from ...dtypes import DTYPES
from ...errors import FormatError
from ...records import dataclass, replace
from ..base import ByteSource, Global, Limits, Remark, over_limit
from ..identify import identify
from ..oddities import embedded_pickles
from ..pickles.globals import DTYPE_NAMES, broken_with, refuse_globals
from ..pickles.machine import PickleResult, Spent, run
from ..pickles.nodes import Call, GlobalRef, PDict, PersistentId, PSet, shown, type_name
from .tiles import Box, Sizes, Tiling, TooManyCornersError

Path = tuple[str | int, ...]
Place = tuple[Sizes | None, str, int, int]  # offsets of the chunk, file, first byte, bytes

METADATA = ".metadata"
_HINT = "save the checkpoint again, or get it again from its source; torch writes no such folder"
_MAX = 1 << 63  # torch counts in int64
_FIELDS = 64  # attributes of one object; torch writes at most five, others add their own
_PATH_PARTS = 16  # parts of a key's path, on average


def _of_dcp(module: str, *names: str) -> frozenset[str]:
    """Return full names since torch 2.0, and in torch 1.13."""
    places = ("torch.distributed.checkpoint", "torch.distributed._shard.checkpoint")
    return frozenset(f"{place}.{module}.{name}" for place in places for name in names)


_SHARDED = "torch.distributed._shard.sharded_tensor.metadata"  # where properties came from before torch 2.3
_ROOT = _of_dcp("metadata", "Metadata")
_INDEX = _of_dcp("metadata", "MetadataIndex")
_TENSOR = _of_dcp("metadata", "TensorStorageMetadata")
_BYTES = _of_dcp("metadata", "BytesStorageMetadata")
_CHUNK = _of_dcp("metadata", "ChunkStorageMetadata")
_INFO = _of_dcp("filesystem", "_StorageInfo")
_PROPERTIES = _of_dcp("metadata", "TensorProperties") | {f"{_SHARDED}.TensorProperties"}
_ENCODING = _of_dcp("metadata", "_MEM_FORMAT_ENCODING") | {f"{_SHARDED}.MEM_FORMAT_ENCODING"}
CLASSES = frozenset().union(
    _ROOT, _INDEX, _TENSOR, _BYTES, _CHUNK, _INFO, _PROPERTIES, _ENCODING, _of_dcp("metadata", "StorageMeta")
)
_GETATTR = "builtins.getattr"  # how enumerations were pickled by the first releases of Python 3.11
_ENCODINGS = ("TORCH_CONTIGUOUS_FORMAT", "TORCH_CHANNELS_LAST", "TORCH_PRESERVE_FORMAT")


@dataclass(frozen=True)
class Tensor:
    """One tensor of the state dict; ``chunks`` counts those that have elements."""

    shape: Sizes
    dtype: str
    chunks: int


class Item:
    """One archive in a file: a chunk of a tensor (``sizes`` at ``offsets`` of it), or any value (both None).

    ``file`` is as .metadata writes it; ``start`` and ``length`` are bytes of it.
    """

    __slots__ = ("file", "key", "length", "offsets", "sizes", "start")

    def __init__(self, key: str, box: tuple[Sizes | None, Sizes | None], place: tuple[str, int, int]) -> None:
        self.key = key
        self.offsets, self.sizes = box
        self.file, self.start, self.length = place


@dataclass(frozen=True)
class Description:
    """What .metadata says. ``keys`` is in its order, None for values that are no tensors.

    ``paths`` says where the keys lie in the nested state dict that was saved; it is empty where it was not nested.
    """

    keys: dict[str, Tensor | None]
    items: list[Item]
    paths: dict[str, Path]
    version: str
    globals: tuple[Global, ...]
    remarks: tuple[Remark, ...]


def read_metadata(source: ByteSource, limits: Limits, spent: Spent, *, allow_refused: bool) -> Description:
    """Interpret ``.metadata`` and check that it agrees with itself; no other file is opened.

    Raises FormatError: CKPT701 and CKPT702 for globals that are not plain data, unless ``allow_refused``; CKPT502
    where chunks and places do not fit, CKPT505 where chunks do not tile their tensor; CKPT704 where bytes follow the
    pickle; CKPT002 for everything that torch does not write, CKPT703 beyond a limit.
    """
    result = _unpickle(source, limits, spent)
    found = _judged(result)
    if not allow_refused:
        refuse_globals(source.path, found)
    try:
        return _Reader(source.path, limits).read(result, found)
    except FormatError as error:
        raise broken_with(error, found) from None


def _unpickle(source: ByteSource, limits: Limits, spent: Spent) -> PickleResult:
    if source.size > limits.pickle_bytes:
        what = f"is not read: it has {source.size:,} bytes"
        raise over_limit(source.path, what, "pickle_bytes", limits, source.size)
    data = source.read(0, source.size)
    try:
        result = run(data, subject=source.path, member=METADATA, limits=limits, spent=spent)
    except FormatError as error:
        if error.code == "CKPT002" and data[:1] != b"\x80":
            identify(source, limits)  # names what it is instead: empty, a git-lfs pointer, a web page
        raise
    if result.end != len(data):
        reason = f"is broken: {len(data) - result.end:,} bytes follow the pickle in it"
        raise FormatError(source.path, reason, _HINT, code="CKPT704")
    return result


# -- globals -----------------------------------------------------------------------------------------------------


def _judged(result: PickleResult) -> tuple[Global, ...]:
    """Allow what torch itself writes into .metadata, and there alone: its classes, and the path it was saved to."""

    def own(found: Global) -> bool:
        if found.name == _GETATTR:
            return _names_encodings(result.value)
        return found.name in CLASSES or (found.verdict == "inert" and found.name.startswith("pathlib."))

    return tuple(replace(g, verdict="allowed", call="") if own(g) else g for g in result.globals)


def _names_encodings(root: object) -> bool:
    """Tell whether every use of getattr takes a member of the one enumeration that torch writes."""
    todo, seen = [root], set[int]()
    while todo:
        node = todo.pop()
        if isinstance(node, GlobalRef) and node.name == _GETATTR:
            return False  # as a value
        if isinstance(node, str | int | float | GlobalRef | None) or id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, Call) and node.name == _GETATTR and not _is_encoding(node):
            return False
        todo += _below(node)
    return True


def _below(node: object) -> Iterable[object]:
    if isinstance(node, list | tuple):
        return node
    if isinstance(node, PDict):
        return [part for pair in node.pairs for part in pair]
    if isinstance(node, PSet):
        return node.items
    if isinstance(node, PersistentId):
        return (node.id,)
    return (node.args, node.kwargs, node.state, node.pairs, node.items) if isinstance(node, Call) else ()


def _is_encoding(node: object) -> bool:
    """Tell whether a node is a member of the enumeration of memory formats, by value or by name."""
    if not isinstance(node, Call) or (node.kwargs, node.state, node.pairs, node.items) != (None,) * 4:
        return False
    if node.name in _ENCODING:
        return len(node.args) == 1 and type(node.args[0]) is int and node.args[0] in range(len(_ENCODINGS))
    owner, name = node.args if node.name == _GETATTR and len(node.args) == 2 else (None, None)
    return isinstance(owner, GlobalRef) and owner.name in _ENCODING and name in _ENCODINGS


# -- the description ---------------------------------------------------------------------------------------------


class _Reader:
    def __init__(self, subject: str, limits: Limits) -> None:
        self.subject = subject
        self.limits = limits
        self.tiling = Tiling()

    def read(self, result: PickleResult, found: tuple[Global, ...]) -> Description:
        root = self.fields(result.value, _ROOT, "its metadata")
        described = self.pairs(root, "state_dict_metadata")
        self.limited(len(described))
        stored = self.stored(root)
        keys: dict[str, Tensor | None] = {}
        items: list[Item] = []
        for key, node in described:
            if not isinstance(key, str):
                self.fail(f"it has {type_name(key)} for a key")
            places = stored.pop(key, [])
            if isinstance(node, Call) and node.name in _BYTES:
                keys[key] = None
                items.append(self.value_item(key, places))
            else:
                keys[key], boxes = self.tensor(key, node)
                items += self.chunk_items(key, boxes, places)
        if stored:
            key = next(iter(stored))
            self.disagree(f"gives a place to {shown(key)}, which is no key of its state dict")
        version = root.get("version")
        remarks = tuple(embedded_pickles(METADATA, result.embedded, self.limits))
        version = version if isinstance(version, str) else ""
        return Description(keys, items, self.paths(root, keys), version, found, remarks)

    def fail(self, what: str) -> NoReturn:
        reason = f"is no metadata of a distributed checkpoint: {what}"
        raise FormatError(self.subject, reason, _HINT, code="CKPT002")

    def disagree(self, what: str, code: str = "CKPT502") -> NoReturn:
        raise FormatError(self.subject, what, _HINT, code=code)

    def limited(self, number: int) -> None:
        if number > self.limits.dcp_items:
            raise self.exceeded(f"{number:,} items, more than {self.limits.dcp_items:,}", "dcp_items", number)

    def exceeded(self, what: str, name: str, needed: int = 0) -> FormatError:
        return over_limit(self.subject, f"is not read: it has {what}", name, self.limits, needed)

    # -- nodes ---------------------------------------------------------------------------------------------------

    def fields(self, node: object, names: frozenset[str], what: str) -> dict[str, object]:
        """Return the attributes of an object of one of the classes ``names``."""
        if not isinstance(node, Call) or node.name not in names:
            self.fail(f"it has {type_name(node)} for {what}")
        state = node.state
        if node.args or node.kwargs or node.items or node.pairs or not isinstance(state, PDict):
            self.fail(f"it has a {node.name} that is made by more than its attributes")
        if len(state.table) > _FIELDS:
            self.fail(f"it has a {node.name} with {len(state.table):,} attributes")
        return {name: value for name, value in state.pairs if isinstance(name, str)}

    def pairs(self, fields: dict[str, object], name: str) -> list[tuple[object, object]]:
        node = fields.get(name)
        if not isinstance(node, PDict):
            self.fail(f"it has {type_name(node)} for its {name}")
        return node.pairs

    def sizes(self, node: object, what: str) -> Sizes:
        if isinstance(node, Call) and node.name == "torch.Size" and len(node.args) == 1:
            node = node.args[0]
        if not isinstance(node, tuple | list) or len(node) > self.limits.dimensions:
            self.fail(f"{what} are no short tuple of numbers")
        for number in node:
            if type(number) is not int or not 0 <= number < _MAX:
                self.fail(f"{what} hold something other than a number from 0 to 2^63")
        return tuple(node)

    # -- tensors and their chunks --------------------------------------------------------------------------------

    def tensor(self, key: str, node: object) -> tuple[Tensor, list[Box]]:
        where = f"the key {shown(key)}"
        fields = self.fields(node, _TENSOR, where)
        dtype = self.dtype(fields.get("properties"), key)
        shape = self.sizes(fields.get("size"), f"the sizes of {where}")
        if prod(shape) * DTYPES[dtype].itemsize >= _MAX:
            self.fail(f"{where} has more elements than 64 bits can count")
        nodes = fields.get("chunks")
        if not isinstance(nodes, list):
            self.fail(f"{where} has {type_name(nodes)} for its chunks")
        self.limited(len(nodes))
        boxes = [self.box(chunk, where) for chunk in nodes]
        try:
            fault = self.tiling.fault(shape, boxes)
        except TooManyCornersError:
            what = "has chunks cut along so many dimensions that they are not compared"
            raise FormatError(self.subject, what, _HINT, code="CKPT703") from None
        if fault:
            self.disagree(f"does not hold the tensor {shown(key)} once: it {fault}", "CKPT505")
        return Tensor(shape, dtype, sum(1 for _, sizes in boxes if 0 not in sizes)), boxes

    def dtype(self, node: object, key: str) -> str:
        """Return the dtype that TensorProperties hold: (dtype, layout, requires_grad, memory format, pinned)."""
        state = node.state if isinstance(node, Call) and node.name in _PROPERTIES and not node.args else None
        if not isinstance(state, tuple) or len(state) != 5 or not _is_encoding(state[3]):
            self.fail(f"the key {shown(key)} has {type_name(node)} for properties")
        dtype, layout = state[:2]
        if not isinstance(dtype, GlobalRef) or dtype.name not in DTYPE_NAMES:
            self.fail(f"the key {shown(key)} has {type_name(dtype)} for a dtype")
        if not isinstance(layout, Call) or (layout.name, layout.args) != _STRIDED:
            self.disagree(f"has the tensor {shown(key)} in a layout that is not read", "CKPT703")
        return dtype.name.removeprefix("torch.")

    def box(self, node: object, where: str) -> Box:
        fields = self.fields(node, _CHUNK, f"a chunk of {where}")
        offsets = self.sizes(fields.get("offsets"), f"the offsets of a chunk of {where}")
        return offsets, self.sizes(fields.get("sizes"), f"the sizes of a chunk of {where}")

    # -- places in files -----------------------------------------------------------------------------------------

    def stored(self, root: dict[str, object]) -> dict[str, list[Place]]:
        """Return where the items of each key lie."""
        pairs = self.pairs(root, "storage_data")
        self.limited(len(pairs))
        stored: dict[str, list[Place]] = {}
        for index, info in pairs:
            fields = self.fields(index, _INDEX, "a key of its storage_data")
            key, offsets = fields.get("fqn"), fields.get("offset")
            if not isinstance(key, str):
                self.fail(f"it has {type_name(key)} for a key of its storage_data")
            where = f"the offsets of a place of {shown(key)}"
            place = self.place(key, info)
            stored.setdefault(key, []).append((None if offsets is None else self.sizes(offsets, where), *place))
        return stored

    def place(self, key: str, node: object) -> tuple[str, int, int]:
        fields = self.fields(node, _INFO, f"the place of {shown(key)}")
        file, start, length = fields.get("relative_path"), fields.get("offset"), fields.get("length")
        if not isinstance(file, str) or type(start) is not int or type(length) is not int:
            self.fail(f"the place of {shown(key)} is no name of a file and two numbers")
        if packed := fields.get("transform_descriptors"):
            what = f"has {shown(key)} packed by {shown(packed)}, which is not read"
            self.disagree(what, "CKPT703")
        return file, start, length

    def value_item(self, key: str, places: list[Place]) -> Item:
        if len(places) != 1 or places[0][0] is not None:
            self.disagree(f"gives {len(places)} places to the value {shown(key)}, which is in one piece")
        return Item(key, (None, None), places[0][1:])

    def chunk_items(self, key: str, boxes: list[Box], places: list[Place]) -> Iterator[Item]:
        """Bring chunks and places together by their offsets.

        Chunks without elements may share their offsets, with each other and with the chunk behind them.
        """
        if any(place[0] is None for place in places):
            self.disagree(f"gives the tensor {shown(key)} a place as if it were no tensor")
        placed = sorted(places, key=lambda place: place[0] or ())
        for box, place in zip_longest(_distinct(boxes), placed):
            if place is None or (box is not None and box[0] < (place[0] or ())):
                self.disagree(f"gives no place to the chunk of {shown(key)} at {box[0]}")
            if box is None or box[0] != place[0]:
                self.disagree(f"gives a place to a chunk of {shown(key)} at {place[0]}, which it does not have")
            yield Item(key, box, place[1:])

    # -- where the keys lay ----------------------------------------------------------------------------------------

    def paths(self, root: dict[str, object], keys: dict[str, Tensor | None]) -> dict[str, Path]:
        """Return the paths that the planner wrote down when it flattened a nested state dict."""
        node = root.get("planner_data")
        paths: dict[str, Path] = {}
        parts = 0
        for key, path in node.pairs if isinstance(node, PDict) else ():
            if not isinstance(key, str) or key not in keys:
                continue
            if not isinstance(path, tuple) or not path or not all(map(self.is_part, path)):
                self.fail(f"the path of {shown(key)} is no tuple of names and indices")
            parts += len(path)
            if len(path) > self.limits.nesting or parts > _PATH_PARTS * self.limits.dcp_items:
                raise self.exceeded("longer paths of keys than are read", "nesting")
            if not _joins_to(key, path):
                self.fail(f"the path of {shown(key)} leads to another key")
            paths[key] = path
        return paths

    def is_part(self, part: object) -> bool:
        return isinstance(part, str) or (type(part) is int and 0 <= part < self.limits.dcp_items)


def _joins_to(key: str, path: Path) -> bool:
    """Tell whether a key is its path, joined by dots; long parts that many paths share are not joined each time."""
    names = [part if isinstance(part, str) else str(part) for part in path]
    return sum(map(len, names)) + len(names) - 1 == len(key) and ".".join(names) == key


def _distinct(boxes: list[Box]) -> list[Box]:
    """Return the chunks in the order of their offsets; of several at one place, the one that has elements."""
    distinct: list[Box] = []
    for box in sorted(boxes, key=lambda box: (box[0], 0 not in box[1])):
        if distinct and distinct[-1][0] == box[0]:
            distinct.pop()
        distinct.append(box)
    return distinct


_STRIDED = ("torch.serialization._get_layout", ("torch.strided",))
