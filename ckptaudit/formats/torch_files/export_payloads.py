"""The JSON of torch.export's archives that says which record holds which tensor, and how the tensor looks at it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import NoReturn

from ...records import dataclass
from ..strict_json import RepeatedKey, strict_object
from .zip_archive import Archive

# torch._export.serde.schema.ScalarType -> our name of the dtype
SCALAR_TYPES: dict[int, str] = {
    1: "uint8",
    2: "int8",
    3: "int16",
    4: "int32",
    5: "int64",
    6: "float16",
    7: "float32",
    8: "float64",
    9: "complex32",
    10: "complex64",
    11: "complex128",
    12: "bool",
    13: "bfloat16",
    28: "uint16",
    29: "float8_e4m3fn",
    30: "float8_e5m2",
    31: "float8_e4m3fnuz",
    32: "float8_e5m2fnuz",
    33: "float8_e8m0fnu",
    34: "uint32",
    35: "uint64",
}
_OBJECT, _VALUE = 232, 72  # bytes that a JSON object and another value take at most, its text apart
_STRIDED = 7  # torch._export.serde.schema.Layout.Strided


@dataclass(frozen=True)
class TensorMeta:
    """How a tensor looks at its record. The numbers are as the file has them; ``strided`` tells its layout."""

    dtype: str
    shape: tuple[object, ...]
    stride: tuple[object, ...]
    offset: object
    device: str
    requires_grad: bool
    strided: bool


@dataclass(frozen=True)
class Payload:
    """One tensor or object of a program. ``record`` is the name of its record inside its folder."""

    key: str
    record: str
    is_param: bool
    pickled: bool
    meta: TensorMeta | None


def read_json(archive: Archive, name: str) -> Mapping[str, object]:
    """Return the JSON object in a record. Numbers as ``{"as_int": 3}`` come as tuples of one number.

    Raises FormatError: CKPT703 beyond a limit, CKPT002 for anything that is no object or names a key twice.
    """
    archive.stored(name)
    return parse_object(archive, name, archive.content(name, "index_bytes"))


def parse_object(archive: Archive, name: str, data: bytes) -> Mapping[str, object]:
    """Parse the JSON of a record, as ``read_json`` does."""
    containers = data.count(b"{") - data.count(b'"as_int"')
    memory = _OBJECT * containers + _VALUE * (data.count(b"[") + data.count(b","))
    if memory > archive.limits.pickle_memory:
        archive.exceeded(f"its {name} would take {memory:,} bytes of memory", "pickle_memory", memory)
    try:
        value = json.loads(data.decode(), object_pairs_hook=_object)
    except ValueError as error:
        archive.broken(f"its {name} is not JSON: {error}")
    except RecursionError:
        archive.broken(f"its {name} is nested too deeply")
    if not isinstance(value, dict):
        archive.broken(f"its {name} is no JSON object" if not isinstance(value, RepeatedKey) else _twice(name, value))
    return value


def _object(pairs: list[tuple[str, object]]) -> object:
    """Build a JSON object; that of a number is a tuple, which takes a fifth of the memory."""
    return (pairs[0][1],) if len(pairs) == 1 and pairs[0][0] == "as_int" else strict_object(pairs)


def _twice(name: str, repeated: RepeatedKey) -> str:
    return f"its {name} names {repeated.key!r} twice"


def payloads(archive: Archive, name: str) -> Iterator[Payload]:
    """Yield what a config lists, in its order. Raises FormatError CKPT002 where it does not follow the schema."""
    config = read_json(archive, name).get("config")
    if isinstance(config, RepeatedKey):
        archive.broken(_twice(name, config))
    if not isinstance(config, dict):
        archive.broken(f"its {name} has no config")
    for key, value in config.items():
        yield _Entry(archive, name, key).payload(value)


class _Entry:
    """Reads one entry of a config; every fault names it."""

    def __init__(self, archive: Archive, name: str, key: str) -> None:
        self.archive = archive
        self.name = name
        self.key = key

    def fault(self, what: str) -> NoReturn:
        self.archive.broken(f"its {self.name} gives {self.key[:80]!a} {what}")

    def payload(self, value: object) -> Payload:
        length = len(self.key.encode("utf-8", "surrogatepass"))
        if length > self.archive.limits.key_bytes:
            self.archive.exceeded(f"its {self.name} has a key of {length:,} bytes", "key_bytes", length)
        if any("\ud800" <= letter <= "\udfff" for letter in self.key):
            self.fault("a name that is no valid text")
        fields = self.fields(value, "no description")
        record, is_param, pickled = (fields.get(name) for name in ("path_name", "is_param", "use_pickle"))
        if not isinstance(record, str) or not _is_file_name(record):
            self.fault(f"the record {str(record)[:80]!a}, which is no name of a file")
        if type(is_param) is not bool or type(pickled) is not bool:
            self.fault("an is_param or use_pickle that is neither true nor false")
        meta = fields.get("tensor_meta")
        return Payload(self.key, record, is_param, pickled, None if meta is None else self.meta(meta))

    def meta(self, value: object) -> TensorMeta:
        fields = self.fields(value, "a tensor_meta that is no object")
        dtype = fields.get("dtype")
        if type(dtype) is not int or dtype not in SCALAR_TYPES:
            self.fault(f"the dtype {str(dtype)[:20]!a}, which is unknown")
        requires_grad, layout = fields.get("requires_grad"), fields.get("layout")
        if type(requires_grad) is not bool or type(layout) is not int:
            self.fault("a requires_grad or layout of the wrong type")
        return TensorMeta(
            SCALAR_TYPES[dtype],
            self.numbers(fields.get("sizes"), "sizes"),
            self.numbers(fields.get("strides"), "strides"),
            self.number(fields.get("storage_offset"), "storage_offset"),
            self.device(fields.get("device")),
            requires_grad,
            layout == _STRIDED,
        )

    def fields(self, value: object, fault: str) -> dict[str, object]:
        if isinstance(value, RepeatedKey):
            self.fault(f"the field {value.key!a} twice")
        if not isinstance(value, dict):
            self.fault(fault)
        return value

    def numbers(self, value: object, what: str) -> tuple[object, ...]:
        if not isinstance(value, list):
            self.fault(f"{what} that are no list")
        return tuple(self.number(item, what) for item in value)

    def number(self, value: object, what: str) -> object:
        """Return the number in ``{"as_int": 3}``; its range is checked with the geometry."""
        if isinstance(value, dict) and "as_expr" in value:
            self.fault(f"symbolic {what}, where a stored tensor has numbers")
        if not isinstance(value, tuple) or type(value[0]) is not int:
            self.fault(f"{what} that are no numbers")
        return value[0]

    def device(self, value: object) -> str:
        fields = self.fields(value, "no device")
        kind, index = fields.get("type"), fields.get("index")
        if not isinstance(kind, str) or not kind.isidentifier() or not (index is None or type(index) is int):
            self.fault("a device that is none")
        return kind if index is None else f"{kind}:{index}"


def _is_file_name(text: str) -> bool:
    return bool(text) and text.isprintable() and ".." not in text and not set(text) & set("/\\:")
