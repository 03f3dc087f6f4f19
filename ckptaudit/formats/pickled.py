"""From the value tree of a torch file to its Checkpoint: what the zip, the stream and the tar format share."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..errors import FormatError
from ..manifest import TensorSpec
from ..records import dataclass, field
from .base import ByteSource, Checkpoint, Global, Limits, RawTensor, Record, Remark
from .candidates import Found, find_candidates
from .choice import choose
from .globals import broken_with
from .nodes import Call
from .pickle_vm import PickleResult
from .rebuild import Rebuilder, Resolve


@dataclass(frozen=True)
class Pickled:
    """What a reader knows about the object of a file.

    ``offsets`` says at which byte of the file each storage begins; ``resolve`` what a persistent id of
    ``value`` stands for; ``find`` takes the arguments of ``find_candidates``. ``result`` is all that
    was in its pickle, where the reader hands it on.
    """

    format: str
    value: object
    globals: tuple[Global, ...]
    resolve: Resolve
    offsets: Mapping[str, int]
    details: Mapping[str, str]
    byteorder: str = "little"
    find: Callable[..., Found] = find_candidates
    remarks: tuple[Remark, ...] = ()
    records: Mapping[str, Record] = field(default_factory=dict)
    result: PickleResult | None = None
    rebuilt: tuple[Call, ...] = ()  # the calls that make tensors, wherever they are


def describe(source: ByteSource, pickled: Pickled, *, wanted: str, limits: Limits) -> Checkpoint:
    """Find the state dicts of an object and choose one.

    Raises FormatError as ``find_candidates`` does; CKPT702 where the object names code to run besides.
    """
    rebuilder = Rebuilder(source.path, pickled.resolve, limits)
    try:
        found = pickled.find(pickled.value, rebuilder, subject=source.path, limits=limits)
        for call in pickled.rebuilt:  # torch makes those, too, that nothing leads to
            rebuilder.check(call, "outside of the state dicts")
    except FormatError as error:
        raise broken_with(error, pickled.globals) from None
    choice = choose(found.candidates, wanted=wanted, subject=source.path)
    return Checkpoint(
        path=source.path,
        format=pickled.format,
        size=source.size,
        candidates=found.candidates,
        choice=choice,
        raw={c.path: _raw(source, c.manifest.tensors, pickled) for c in found.candidates},
        globals=pickled.globals,
        siblings=found.siblings(None if isinstance(choice, FormatError) else choice, source.path),
        details=pickled.details,
        remarks=(*pickled.remarks, *found.remarks),
        source=source,
        records=pickled.records,
    )


def _raw(source: ByteSource, tensors: Mapping[str, TensorSpec], pickled: Pickled) -> dict[str, RawTensor]:
    """Say where the bytes of the tensors lie that are views of one storage."""
    found: dict[str, RawTensor] = {}
    for key, spec in tensors.items():
        start = pickled.offsets.get(spec.storage) if spec.storage is not None else None
        if start is not None and spec.layout == "strided":
            found[key] = RawTensor(spec, source, start, spec.storage_nbytes or 0, pickled.byteorder)
    return found
