"""A pickler for state dicts alone, without torch: the opcodes and calls that ``torch.save`` writes, protocol 2.

All of it is on the list of ``torch.load(weights_only=True)``.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

from ..dtypes import DTYPES
from ..errors import UsageError, first_line
from ..formats.payload import METADATA
from ..formats.pickles.globals import DTYPE_NAMES, STORAGE_DTYPES
from ..manifest import TensorSpec
from ..records import dataclass

_STORAGE_CLASSES = {dtype: name for name, dtype in STORAGE_DTYPES.items()}


@dataclass(frozen=True)
class Storage:
    """The memory behind tensors: its record is ``data/KEY``. ``dtype`` is None where its bytes have no one type."""

    key: str
    dtype: str | None
    nbytes: int


def storage_dtype(dtypes: set[str]) -> str | None:
    """Return the type of a storage by those of its tensors; torch has classes for the older types only."""
    only = next(iter(dtypes)) if len(dtypes) == 1 else ""
    return only if only in _STORAGE_CLASSES else None


@dataclass(frozen=True)
class StateDict:
    """What is pickled. ``order`` has the keys of tensors and entries; ``storages`` one for each tensor."""

    order: tuple[str, ...]
    tensors: Mapping[str, TensorSpec]
    storages: Mapping[str, Storage]
    entries: Mapping[str, Any]
    versions: Mapping[str, int | None] | None
    metadata: Mapping[str, str]
    around: Any = None


def pickled(state: StateDict, subject: str) -> bytes:
    """Return the bytes of data.pkl. Raises UsageError where a value of ``subject`` is not as payload.py writes it."""
    pickler = _Pickler(state)
    try:
        if state.around is None:
            pickler.state_dict()
        else:
            pickler.value(state.around)
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        reason = f"has notes with a value that is none ({first_line(error)})"
        raise UsageError(subject, reason, "write the file again with: ckptaudit convert") from None
    return bytes(pickler.out) + b"."


class _Pickler:
    def __init__(self, state: StateDict) -> None:
        self.state = state
        self.out = bytearray(b"\x80\x02")
        self.memo: dict[tuple[str, str], int] = {}

    # -- opcodes ----------------------------------------------------------------------------------------------

    def remembered(self, kind: str, text: str, code: bytes) -> None:
        """Write something that is likely to come again, or refer back to it."""
        number = self.memo.get((kind, text))
        if number is not None:
            self.out += b"h%c" % number if number < 256 else b"j" + number.to_bytes(4, "little")
            return
        number = self.memo[kind, text] = len(self.memo)
        self.out += code + (b"q%c" % number if number < 256 else b"r" + number.to_bytes(4, "little"))

    def named(self, module: str, name: str) -> None:
        self.remembered(module, name, f"c{module}\n{name}\n".encode())

    def text(self, text: str) -> None:
        data = text.encode("utf-8", "surrogatepass")
        self.remembered("", text, b"X" + len(data).to_bytes(4, "little") + data)

    def number(self, number: int) -> None:
        if 0 <= number < 256:
            self.out += b"K%c" % number
        elif -(1 << 31) <= number < 1 << 31:
            self.out += b"J" + number.to_bytes(4, "little", signed=True)
        else:
            length = number.bit_length() // 8 + 1
            self.out += b"\x8a%c" % length + number.to_bytes(length, "little", signed=True)

    def tuple_of(self, numbers: tuple[int, ...]) -> None:
        self.out += b"("
        for number in numbers:
            self.number(number)
        self.out += b"t"

    def ordered(self) -> None:
        """Write an empty OrderedDict."""
        self.named("collections", "OrderedDict")
        self.out += b")R"

    # -- the state dict ---------------------------------------------------------------------------------------

    def state_dict(self) -> None:
        """Write an OrderedDict with its attributes where it has any, as modules return it, else a dict."""
        state = self.state
        attributes = {"_metadata": state.versions, METADATA: state.metadata or None}
        given = {name: value for name, value in attributes.items() if value is not None}
        if given:
            self.ordered()
        else:
            self.out += b"}"
        self.out += b"("
        for key in state.order:
            self.text(key)
            if key in state.tensors:
                self.tensor(state.tensors[key], state.storages[key])
            else:
                self.value(state.entries[key])
        self.out += b"u"
        if given:
            self.out += b"}"
            for name, value in given.items():
                self.text(name)
                if name == METADATA:
                    self.value({"$dict": list(value.items())})
                else:
                    self.versions(state.versions or {})
                self.out += b"s"
            self.out += b"b"

    def versions(self, versions: Mapping[str, int | None]) -> None:
        self.ordered()
        self.out += b"("
        for module, version in versions.items():
            self.text(module)
            self.out += b"}"
            if version is not None:
                self.text("version")
                self.number(version)
                self.out += b"s"
        self.out += b"u"

    def tensor(self, spec: TensorSpec, storage: Storage) -> None:
        if spec.kind == "parameter":
            self.named("torch._utils", "_rebuild_parameter")
            self.plain(spec, storage)
            self.flag(bool(spec.requires_grad))
            self.ordered()
            self.out += b"\x87R"
        elif spec.kind == "buffer":
            self.named("torch._tensor", "_rebuild_from_type_v2")
            self.out += b"("
            self.function(storage)
            self.named("torch", "Tensor")
            self.view(spec, storage)
            self.out += b"}"
            for name in ("persistent", "_is_buffer"):
                self.text(name)
                self.out += b"\x88s"
            self.out += b"tR"
        else:
            self.plain(spec, storage)

    def plain(self, spec: TensorSpec, storage: Storage) -> None:
        self.function(storage)
        self.view(spec, storage)
        self.out += b"R"

    def function(self, storage: Storage) -> None:
        self.named("torch._utils", "_rebuild_tensor_v3" if storage.dtype is None else "_rebuild_tensor_v2")

    def view(self, spec: TensorSpec, storage: Storage) -> None:
        """Write storage, offset, size, stride, requires_grad, hooks, the dtype of bytes, and the conj and neg bits."""
        self.out += b"("
        self.persistent_id(storage)
        self.number(spec.storage_offset)
        self.tuple_of(spec.shape)
        self.tuple_of(spec.stride or ())
        self.flag(bool(spec.requires_grad) and spec.kind != "parameter")
        self.ordered()
        if storage.dtype is None:
            self.named("torch", spec.dtype)
        if spec.conj or spec.neg:
            self.out += b"}"
            for name, bit in (("conj", spec.conj), ("neg", spec.neg)):
                if bit:
                    self.text(name)
                    self.out += b"\x88s"
        self.out += b"t"

    def persistent_id(self, storage: Storage) -> None:
        self.out += b"("
        self.text("storage")
        if storage.dtype is None:
            self.named("torch.storage", "UntypedStorage")
        else:
            self.named("torch", _STORAGE_CLASSES[storage.dtype])
        self.text(storage.key)
        self.text("cpu")
        self.number(storage.nbytes // (DTYPES[storage.dtype].itemsize if storage.dtype else 1))
        self.out += b"tQ"

    def flag(self, value: bool) -> None:
        self.out += b"\x88" if value else b"\x89"

    # -- what is no tensor ------------------------------------------------------------------------------------

    def value(self, value: Any) -> None:
        """Write a value that formats/payload.py has written as JSON; what is none raises one of several errors."""
        if value is None:
            self.out += b"N"
        elif isinstance(value, bool):
            self.flag(value)
        elif isinstance(value, int):
            self.number(value)
        elif isinstance(value, float):
            self.out += b"G" + struct.pack(">d", value)
        elif isinstance(value, str):
            self.text(value)
        elif isinstance(value, list):
            self.items(value)
        elif len(value) == 1 and next(iter(value)).startswith("$"):
            ((name, inner),) = value.items()
            _TAGS[name](self, inner)
        else:
            self.mapping(list(value.items()))

    def items(self, values: list[Any]) -> None:
        self.out += b"]("
        for item in values:
            self.value(item)
        self.out += b"e"

    def mapping(self, pairs: list[Any], empty: bytes = b"}") -> None:
        self.out += empty + b"("
        for key, item in pairs:
            self.value(key)
            self.value(item)
        self.out += b"u"

    def ordered_mapping(self, pairs: list[Any]) -> None:
        self.ordered()
        self.mapping(pairs, empty=b"")

    def tuple_value(self, values: list[Any]) -> None:
        self.out += b"("
        for item in values:
            self.value(item)
        self.out += b"t"

    def call(self, module: str, name: str, *arguments: Any) -> None:
        self.named(module, name)
        self.tuple_value(list(arguments))
        self.out += b"R"

    def dtype_value(self, name: str) -> None:
        if f"torch.{name}" not in DTYPE_NAMES:  # a pickle would run what another text names
            raise ValueError("no dtype")
        self.named("torch", name)

    def bytes_value(self, text: str) -> None:
        from binascii import a2b_base64

        self.call("_codecs", "encode", a2b_base64(text).decode("latin1"), "latin1")


_TAGS = {
    "$bytes": _Pickler.bytes_value,
    "$device": lambda self, text: self.call("torch", "device", text),
    "$dict": _Pickler.mapping,
    "$dtype": _Pickler.dtype_value,
    "$float": lambda self, text: self.value(float(text)),
    "$ordered": _Pickler.ordered_mapping,
    "$set": lambda self, values: self.call("__builtin__", "set", values),
    "$size": lambda self, values: self.call("torch", "Size", {"$tuple": values}),
    "$state_dict": lambda self, _: self.state_dict(),
    "$tuple": _Pickler.tuple_value,
}
