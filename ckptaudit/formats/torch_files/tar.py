"""What torch.save wrote before 0.2: a tar of four members, read in place.

``storages`` holds a count, then for each storage a pickle (key, location, class), an int64 count of elements
and the elements; then a pickle of views, (key, key of the storage, offset, size). ``tensors`` holds a count,
then for each tensor a pickle (key, storage key, class), its dimensions as int32 padded to 8 bytes, and
sizes, strides and storage offset as int64. ``pickle`` is the object, which names tensors and storages by
their key; ``sys_info`` describes the machine.
"""

from __future__ import annotations

from ...dtypes import DTYPES
from ...errors import FormatError
from ...manifest import TensorSpec
from ...records import replace
from ..base import ByteSource, Checkpoint, Global, Limits
from ..oddities import byteorder_remarks
from ..pickles.globals import STORAGES, TENSOR_CLASSES, broken_with, refuse_globals
from ..pickles.machine import PickleResult, Spent
from ..pickles.nodes import Call, GlobalRef, PersistentId, shown
from ..pickles.rebuild import Rebuilder, Storage
from .pickled import Pickled, describe
from .stream import PickleStream, system_facts
from .tar_members import Member, tar_members

_FACTS = "sys_info"
_MEMBERS = ("storages", "tensors", "pickle")
_HINT = "get the file again from its source; torch.save writes no such tar"
_MAX_KEY = 1 << 64  # keys are addresses


def read_torch_tar(source: ByteSource, *, wanted: str, limits: Limits, allow_refused: bool) -> Checkpoint:
    """Describe a file of the tar format; ``wanted`` is what follows ``#`` in its name, or empty.

    Raises FormatError: CKPT001 for other tar files and where this one ends early, CKPT701 or CKPT702 where
    the object names globals that are not plain data, unless ``allow_refused``, and CKPT002, CKPT703 and
    CKPT704 as the parts do.
    """
    members = tar_members(source, limits)
    if not set(_MEMBERS) <= set(members):
        from shlex import quote

        reason = "is a tar archive that torch.save did not write, not a checkpoint"
        raise FormatError(source.path, reason, f"unpack it first: tar -xf {quote(source.path)}")
    extra = next((name for name in members if name not in (*_MEMBERS, _FACTS)), None)
    if extra is not None:
        reason = f"has the member {extra!r}, which torch.save does not write"
        raise FormatError(source.path, reason, _HINT, code="CKPT002")
    objects = _Objects(source, limits)
    details = objects.read_facts(members[_FACTS]) if _FACTS in members else {"byteorder": "little"}
    pickled = objects.read_object(members["pickle"])
    found = tuple(objects.globals.values())
    if not allow_refused:
        refuse_globals(source.path, found)
    try:
        return _described(objects, members, pickled, details, wanted)
    except FormatError as error:
        raise broken_with(error, objects.globals.values()) from None


def _described(
    objects: _Objects, members: dict[str, Member], pickled: PickleResult, details: dict[str, str], wanted: str
) -> Checkpoint:
    objects.read_storages(members["storages"])
    objects.read_tensors(members["tensors"])
    for pid in pickled.persistent_ids:
        objects.resolve(pid)
    content = Pickled(
        "torch-tar",
        pickled.value,
        tuple(objects.globals.values()),
        objects.resolve,
        objects.offsets,
        details,
        remarks=tuple(byteorder_remarks(details)),
        rebuilt=pickled.rebuilt,
    )
    return describe(objects.source, content, wanted=wanted, limits=objects.limits)


class _Objects:
    """What the keys of the file stand for: storages, their offsets in the file, and tensors."""

    def __init__(self, source: ByteSource, limits: Limits) -> None:
        self.source = source
        self.limits = limits
        self.spent = Spent()
        self.storages: dict[int, Storage] = {}
        self.tensors: dict[int, TensorSpec] = {}
        self.offsets: dict[str, int] = {}
        self.globals: dict[str, Global] = {}

    def read_facts(self, member: Member) -> dict[str, str]:
        """Read ``sys_info``."""
        stream = self._stream(member)
        facts = system_facts(stream)
        stream.finish("the system facts of its tar")
        return facts

    def read_object(self, member: Member) -> PickleResult:
        """Read ``pickle``, whose persistent ids are keys."""
        stream = self._stream(member)
        result = stream.saved_object()
        self._note(result.globals)
        stream.finish("the object of its tar")
        return result

    def read_storages(self, member: Member) -> None:
        """Read ``storages``: what lies where, and the views."""
        stream = self._stream(member)
        for number in range(self._count(stream, "storages")):
            what = f"storage {number} of the tar"
            key, location, cls = self._record(stream, what)
            if cls not in STORAGES or STORAGES[cls] is None or not isinstance(location, str):
                stream.fail(f"has a {what} without a known class and a location")
            (count,) = stream.integers("q", what)
            dtype = STORAGES[cls]
            nbytes = count * DTYPES[dtype or ""].itemsize
            if count < 0 or key in self.storages:
                stream.fail(f"has a {what} of negative size, or under a key that another one has")
            self.storages[key] = Storage(str(key), dtype, nbytes, location)
            self.offsets[str(key)] = stream.skip(nbytes, what)
        views = stream.literal("the storage views of the tar")
        if not isinstance(views, list):
            stream.fail("has storage views that are no list")
        for view in views:
            self._read_view(stream, view)
        stream.finish("the storage views of its tar")

    def _read_view(self, stream: PickleStream, view: object) -> None:
        numbers = view if isinstance(view, tuple) else ()
        if len(numbers) != 4 or any(type(number) is not int or not 0 <= number < _MAX_KEY for number in numbers):
            stream.fail("has a storage view that is not four counts")
        key, root_key, offset, size = numbers
        root = self.storages.get(root_key)
        if root is None or root.length is not None or key in self.storages:
            stream.fail(f"has a storage view {key} of no storage, or under a key that another one has")
        itemsize = DTYPES[root.dtype or ""].itemsize
        if (offset + size) * itemsize > root.nbytes:
            end = f"{(offset + size) * itemsize:,} of its {root.nbytes:,} bytes"
            stream.fail(f"has a view of the storage {root.key!r} that ends at byte {end}")
        self.storages[key] = replace(root, start=offset * itemsize, length=size * itemsize)

    def read_tensors(self, member: Member) -> None:
        """Read ``tensors``: the views of storages that the object's keys stand for."""
        stream = self._stream(member)
        for number in range(self._count(stream, "tensors")):
            what = f"tensor {number} of the tar"
            key, storage_key, cls = self._record(stream, what)
            if type(storage_key) is not int or storage_key not in self.storages:
                stream.fail(f"has a {what} on a storage that the tar does not hold")
            if cls not in TENSOR_CLASSES or key in self.tensors or key in self.storages:
                stream.fail(f"has a {what} without a known class, or under a key that another one has")
            ndim, _ = stream.integers("ii", what)  # the second four bytes are padding
            if not 0 <= ndim <= self.limits.dimensions:
                stream.fail(f"has a {what} of {ndim:,} dimensions, the limit is {self.limits.dimensions}")
            numbers = stream.integers(f"{2 * ndim + 1}q", what)
            node = Call(GlobalRef(cls), ())
            node.state = (PersistentId(storage_key), numbers[-1], numbers[:ndim], numbers[ndim:-1])
            spec = Rebuilder(self.source.path, self._storage, self.limits).tensor(node, f"{number} of the tar")
            assert spec is not None
            self.tensors[key] = spec
        stream.finish("the last tensor of its tar")

    def resolve(self, pid: PersistentId) -> Storage | TensorSpec:
        """Return what a key in the object stands for; keys are text there."""
        key = int(pid.id) if isinstance(pid.id, str) and pid.id.isdecimal() and len(pid.id) <= 20 else None
        if key in self.tensors:
            return self.tensors[key]
        if key in self.storages:
            return self.storages[key]
        raise FormatError(self.source.path, f"refers to {shown(pid.id)}, which it does not hold", _HINT, code="CKPT002")

    def _storage(self, pid: PersistentId) -> Storage:
        assert isinstance(pid.id, int)
        return self.storages[pid.id]

    def _stream(self, member: Member) -> PickleStream:
        return PickleStream(self.source, self.limits, member.start, member.end, spent=self.spent)

    def _count(self, stream: PickleStream, what: str) -> int:
        count = stream.literal(f"the number of {what} of the tar")
        if type(count) is not int or count < 0:
            stream.fail(f"has a number of {what} that is no count")
        return count

    def _record(self, stream: PickleStream, what: str) -> tuple[int, object, str]:
        """Read a pickle of three fields: the key, one more, and the name of a class of torch."""
        result = stream.pickle(what)
        self._note(result.globals)
        value = result.value
        if not (isinstance(value, tuple) and len(value) == 3 and isinstance(value[2], GlobalRef)):
            stream.fail(f"has a {what} that is no key, storage or location, and class")
        if type(value[0]) is not int or not 0 <= value[0] < _MAX_KEY:
            stream.fail(f"has a {what} whose key is no address")
        return value[0], value[1], value[2].name

    def _note(self, found: tuple[Global, ...]) -> None:
        for one in found:
            self.globals.setdefault(one.name, one)
