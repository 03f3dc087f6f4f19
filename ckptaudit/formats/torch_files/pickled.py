"""From the value tree of a torch file to its Checkpoint: what the zip, the stream and the tar format share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial

from ...errors import FormatError
from ...manifest import TensorSpec
from ...records import dataclass, field
from ..base import ByteSource, Candidate, Checkpoint, Global, Limits, Payload, RawTensor, Record, Remark, over_limit
from ..candidates import Found, find_candidates
from ..choice import choose
from ..pickles.globals import broken_with
from ..pickles.machine import PickleResult
from ..pickles.nodes import Call
from ..pickles.rebuild import Rebuilder, Resolve

_RECORD, _REFERENCE, _TENSOR = 13, 10, 45  # opcodes that take as long as to read one, and to write a tensor out


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
        _check_work(source.path, pickled, limits)
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
        raw={c.path: _RawTensors(source, c.manifest.tensors, pickled) for c in found.candidates},
        globals=pickled.globals,
        siblings=found.siblings(None if isinstance(choice, FormatError) else choice, source.path),
        details=pickled.details,
        remarks=(*pickled.remarks, *found.remarks),
        source=source,
        records=pickled.records,
        read_payload=None if isinstance(choice, FormatError) else partial(_payload, found, choice),
    )


def _payload(found: Found, choice: Candidate) -> Payload:
    from ..payload import payload_of

    return payload_of(found, choice)


def _check_work(subject: str, pickled: Pickled, limits: Limits) -> None:
    """Refuse what is near several limits at once: opcodes were counted, and all that is read takes longer than one."""
    result = pickled.result
    opcodes, references = (result.opcodes, len(result.persistent_ids)) if result is not None else (0, 0)
    work = opcodes + _RECORD * len(pickled.records) + _REFERENCE * references + _TENSOR * len(pickled.rebuilt)
    if work > limits.work:
        reason = f"holds {len(pickled.rebuilt):,} tensors in {len(pickled.records):,} records among {opcodes:,} opcodes"
        raise over_limit(subject, reason, "work", limits, work)


class _RawTensors(Mapping[str, RawTensor]):
    """Where the bytes of those tensors lie that are views of one storage; each is looked up when it is asked for."""

    def __init__(self, source: ByteSource, tensors: Mapping[str, TensorSpec], pickled: Pickled) -> None:
        self._source = source
        self._tensors = tensors
        self._offsets = pickled.offsets
        self._byteorder = pickled.byteorder

    def __getitem__(self, key: str) -> RawTensor:
        spec = self._tensors[key]
        start = self._offsets.get(spec.storage) if spec.storage is not None else None
        if start is None or spec.layout != "strided":
            raise KeyError(key)
        return RawTensor(spec, self._source, start, spec.storage_nbytes or 0, self._byteorder)

    def __iter__(self) -> Iterator[str]:
        return (key for key in self._tensors if key in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)
