"""What torch.save wrote before 1.6: five pickles one after another, then the bytes of the storages.

Magic number, protocol version, system facts, the object, and the list of storage keys; then, in the order
of that list, an int64 count of elements and the elements themselves. Everything is little-endian: torch
swaps on other machines. Where a storage lies is known only after the counts of those before it: one read of
8 bytes for each.
"""

from __future__ import annotations

from ...dtypes import DTYPES
from ...errors import FormatError
from ..base import ByteSource, Checkpoint, Limits
from ..oddities import byteorder_remarks, embedded_pickles
from ..pickles.globals import broken_with, refuse_globals
from ..pickles.machine import PickleResult
from ..pickles.nodes import PersistentId, shown
from ..pickles.rebuild import Storage, storage_of_id
from .pickled import Pickled, describe
from .stream import PickleStream, system_facts

_MAGIC = 0x1950A86A20F9469CFC6C  # torch.serialization.MAGIC_NUMBER
_PROTOCOL = 1001  # torch.serialization.PROTOCOL_VERSION
_KEY_BYTES = 40  # of the pickle of the keys, for each: twenty digits and what is around them
_MAX = 1 << 63  # torch counts in int64
_FIELDS = 6  # 'storage', class, key, location, numel, view


def read_torch_legacy(source: ByteSource, *, wanted: str, limits: Limits, allow_refused: bool) -> Checkpoint:
    """Describe a file of the stream format; ``wanted`` is what follows ``#`` in its name, or empty.

    Raises FormatError: CKPT701 or CKPT702 where the object names globals that are not plain data, unless
    ``allow_refused``, and where any other of the five pickles names one at all; CKPT001 where the file ends
    early, CKPT704 where it goes on, CKPT002 and CKPT703 as the parts do.
    """
    stream = PickleStream(source, limits, 0, source.size)
    facts = _read_prologue(stream)
    pickled = stream.saved_object(module_ids=True)
    if not allow_refused:
        refuse_globals(source.path, pickled.globals)
    try:
        return _described(stream, pickled, facts, wanted)
    except FormatError as error:
        raise broken_with(error, pickled.globals) from None


def _described(stream: PickleStream, pickled: PickleResult, facts: dict[str, str], wanted: str) -> Checkpoint:
    storages = _Storages(stream)
    for pid in pickled.persistent_ids:
        storages.declare(pid)
    storages.locate()
    content = Pickled(
        "torch-legacy",
        pickled.value,
        pickled.globals,
        storages.resolve,
        storages.offsets,
        facts,
        remarks=(*byteorder_remarks(facts), *embedded_pickles("the object", pickled.embedded, stream.limits)),
        result=pickled,
        rebuilt=pickled.rebuilt,
    )
    return describe(stream.source, content, wanted=wanted, limits=stream.limits)


def _read_prologue(stream: PickleStream) -> dict[str, str]:
    """Read the three pickles before the object and return the facts they hold."""
    if stream.literal("the magic number") != _MAGIC:
        stream.fail("does not begin with the magic number of torch.save")
    version = stream.literal("the protocol version")
    if version != _PROTOCOL:
        stream.fail(f"has the protocol version {shown(version)}, torch.save writes {_PROTOCOL}")
    return system_facts(stream)


class _Storages:
    """The storages that the object's persistent ids declare, and later where their bytes lie."""

    def __init__(self, stream: PickleStream) -> None:
        self._stream = stream
        self._views: dict[str, tuple[str, int, int]] = {}
        self.roots: dict[str, Storage] = {}  # as declared first
        self.offsets: dict[str, int] = {}

    def declare(self, pid: PersistentId) -> None:
        """Read one persistent id and check it against those before it."""
        storage = storage_of_id(pid, self._stream.source.path, fields=_FIELDS)
        first = self.roots.setdefault(storage.key, storage)
        if first.nbytes != storage.nbytes:
            sizes = f"{first.nbytes:,} and {storage.nbytes:,} bytes"
            self._stream.fail(f"declares the storage {storage.key!r} twice, with {sizes}")
        if first.dtype != storage.dtype:  # the bytes mean the one or the other, by the version of torch
            dtypes = f"{first.dtype or 'bytes'} and {storage.dtype or 'bytes'}"
            self._stream.fail(f"declares the storage {storage.key!r} twice, as {dtypes}")
        assert isinstance(pid.id, tuple)
        view = pid.id[_FIELDS - 1]
        pid.meant = storage if view is None else self._view(storage, view)

    def _view(self, root: Storage, view: object) -> Storage:
        """Read ``(view_key, offset, size)``, counted in elements: torch before 0.4 shared memory so."""
        if not (isinstance(view, tuple) and len(view) == 3 and isinstance(view[0], str)):
            self._stream.fail(f"has a view of the storage {root.key!r} without a key, an offset and a size")
        key, offset, size = view
        itemsize = DTYPES[root.dtype].itemsize if root.dtype else 1
        if not all(type(number) is int and 0 <= number < _MAX for number in (offset, size)):
            self._stream.fail(f"has a view of the storage {root.key!r} whose offset and size are no counts")
        if (offset + size) * itemsize > root.nbytes:
            end = f"{(offset + size) * itemsize:,} of its {root.nbytes:,} bytes"
            self._stream.fail(f"has a view of the storage {root.key!r} that ends at byte {end}")
        if self._views.setdefault(key, (root.key, offset, size)) != (root.key, offset, size):
            self._stream.fail(f"declares the view {shown(key)} of storages twice, at different places")
        return Storage(root.key, root.dtype, root.nbytes, root.location, offset * itemsize, size * itemsize)

    def resolve(self, pid: PersistentId) -> Storage:
        """Return the storage of a persistent id that was declared."""
        assert isinstance(pid.meant, Storage)
        return pid.meant

    def locate(self) -> None:
        """Read the list of keys, then walk over the storages behind it to the end of the file."""
        stream = self._stream
        keys = stream.literal("the list of storage keys", window=_KEY_BYTES * (len(self.roots) + 1))
        if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
            stream.fail("has a list of storage keys that is no list of text")
        if set(keys) != set(self.roots) or len(keys) != len(self.roots):
            stream.fail(_key_fault(keys, self.roots))
        clash = next((key for key in self._views if key in self.roots), None)
        if clash is not None:
            stream.fail(f"uses {shown(clash)} for a storage and for a view of one")
        for key in keys:
            storage = self.roots[key]
            (count,) = stream.integers("q", f"the size of the storage {key!r}")
            nbytes = count * (DTYPES[storage.dtype].itemsize if storage.dtype else 1)
            if nbytes != storage.nbytes:
                sizes = f"{nbytes:,} bytes, where its tensors declare {storage.nbytes:,}"
                stream.fail(f"holds the storage {key!r} in {sizes}")
            self.offsets[key] = stream.skip(nbytes, f"the storage {key!r}")
        stream.finish("the last storage")


def _key_fault(keys: list[str], roots: dict[str, Storage]) -> str:
    """Say how the list of keys and the storages that tensors declare differ."""
    listed = set(keys)
    absent = [key for key in roots if key not in listed]
    if absent:
        count = f"{len(absent):,} of {len(roots):,} storages"
        return f"lists no bytes for {count}, {absent[0]!r} first: torch would load whatever lies in memory"
    unknown = [key for key in keys if key not in roots]
    if unknown:
        return f"lists the storage {shown(unknown[0])}, which no tensor declares"
    return "lists a storage twice"
