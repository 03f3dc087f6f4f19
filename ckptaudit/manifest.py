"""Manifest: the value-free description of a state dict, and the one type everything else compares."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from math import prod
from operator import attrgetter
from typing import Any, Literal, cast

from .dtypes import DTYPES
from .errors import UsageError
from .json_text import to_lines
from .records import dataclass, field, replace
from .textfile import write_text

SCHEMA = "ckptaudit.manifest/1"

Kind = Literal["parameter", "buffer", "extra_state", "tensor"]
KINDS: tuple[Kind, ...] = ("parameter", "buffer", "extra_state", "tensor")


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One tensor without its values.

    ``shape`` and ``stride`` count elements, ``storage_offset`` too; ``stride`` is None where the layout has
    none. ``kind`` is ``tensor`` where the source does not say whether it is a parameter or a buffer (files).
    ``storage`` names the memory the tensor is a view of: equal names share memory within one manifest.
    ``layout`` is torch's name (``strided``, ``sparse_coo``, ...) or ``uninitialized`` for a lazy parameter,
    whose shape means nothing yet. ``location`` is the device recorded in the file.
    """

    shape: tuple[int, ...]
    dtype: str
    kind: Kind = "tensor"
    stride: tuple[int, ...] | None = None
    storage_offset: int = 0
    storage: str | None = None
    storage_nbytes: int | None = None
    requires_grad: bool | None = None
    layout: str = "strided"
    location: str | None = None
    conj: bool = False
    neg: bool = False

    @property
    def numel(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes its elements take when stored densely."""
        return self.numel * DTYPES[self.dtype].itemsize

    @property
    def contiguous(self) -> bool:
        """True when the elements lie in row-major order without gaps, as torch's ``is_contiguous``."""
        return self.stride is None or self.stride_matches_shape()

    def stride_matches_shape(self) -> bool:
        """Compare the stride with the row-major one; dimensions of size 1 may have any stride."""
        if self.stride is None:
            return False
        expected = 1
        for size, step in zip(reversed(self.shape), reversed(self.stride), strict=True):
            if size != 1 and step != expected:
                return 0 in self.shape
            expected *= size
        return True

    def same_view(self, other: TensorSpec) -> bool:
        """Tell whether both name the same elements of the same memory: tied weights."""
        return (
            self.storage is not None
            and self.storage == other.storage
            and (self.shape, self.stride, self.storage_offset, self.dtype)
            == (other.shape, other.stride, other.storage_offset, other.dtype)
        )

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form, without the fields that have their default."""
        data: dict[str, Any] = {"shape": list(self.shape), "dtype": self.dtype}
        for name, default, value in zip(_OPTIONAL_FIELDS, _DEFAULTS, _OPTIONAL_VALUES(self), strict=True):
            if value != default:
                data[name] = list(value) if isinstance(value, tuple) else value
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TensorSpec:
        """Rebuild a spec from ``to_json``'s result. The input must have passed ``_check_tensor``."""
        optional = {name: data[name] for name in _OPTIONAL_FIELDS if name in data}
        if optional.get("stride") is not None:
            optional["stride"] = tuple(optional["stride"])
        return cls(shape=tuple(data["shape"]), dtype=data["dtype"], **optional)


_OPTIONAL_FIELDS: dict[str, Any] = {
    "kind": "tensor",
    "stride": None,
    "storage_offset": 0,
    "storage": None,
    "storage_nbytes": None,
    "requires_grad": None,
    "layout": "strided",
    "location": None,
    "conj": False,
    "neg": False,
}
_DEFAULTS = tuple(_OPTIONAL_FIELDS.values())
_OPTIONAL_VALUES = attrgetter(*_OPTIONAL_FIELDS)


@dataclass(frozen=True)
class Manifest:
    """The description of one state dict: ordered keys, each with a TensorSpec.

    ``entries`` maps the keys whose values are no tensors to the name of their type (``int``, ``dict``).
    ``versions`` maps module paths to the version recorded in ``_metadata`` (None where a module has none);
    it is None where the state dict carries no ``_metadata``, as in safetensors files and rebuilt dicts.
    ``non_persistent`` holds the buffers a model registers with ``persistent=False``; files have none.
    ``source`` says where it came from, for people.
    """

    tensors: Mapping[str, TensorSpec]
    entries: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, int | None] | None = None
    non_persistent: Mapping[str, TensorSpec] = field(default_factory=dict)
    source: str = ""

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)

    def __contains__(self, key: object) -> bool:
        return key in self.tensors

    def __getitem__(self, key: str) -> TensorSpec:
        return self.tensors[key]

    @property
    def all_keys(self) -> tuple[str, ...]:
        """Every key of the state dict: those of tensors, then those of the other entries."""
        return (*self.tensors, *self.entries)

    def ties(self) -> list[tuple[str, ...]]:
        """Return the groups of two or more keys that name the same elements of the same memory."""
        storages = [spec.storage for spec in self.tensors.values() if spec.storage is not None]
        if len(set(storages)) == len(storages):
            return []
        groups: dict[Any, list[str]] = {}
        for key, spec in self.tensors.items():
            if spec.storage is not None:
                view = (spec.storage, spec.storage_offset, spec.shape, spec.stride, spec.dtype)
                groups.setdefault(view, []).append(key)
        return [tuple(keys) for keys in groups.values() if len(keys) > 1]

    def shared_storages(self) -> list[tuple[str, ...]]:
        """Return the groups of two or more keys whose tensors live in one storage (ties and views)."""
        groups: dict[str, list[str]] = {}
        for key, spec in self.tensors.items():
            if spec.storage is not None:
                groups.setdefault(spec.storage, []).append(key)
        return [tuple(keys) for keys in groups.values() if len(keys) > 1]

    @property
    def numel(self) -> int:
        """Elements of all tensors, tied ones counted once; running statistics and counters included."""
        repeated = {key for group in self.ties() for key in group[1:]}
        return sum(spec.numel for key, spec in self.tensors.items() if key not in repeated)

    @property
    def nbytes(self) -> int:
        """Bytes of all storages, each counted once; densely stored bytes where no storage is known."""
        storages: dict[str, int] = {}
        loose = 0
        for spec in self.tensors.values():
            if spec.storage is None or spec.storage_nbytes is None:
                loose += spec.nbytes
            else:
                storages[spec.storage] = spec.storage_nbytes
        return loose + sum(storages.values())

    def module_of(self, key: str) -> str:
        """Return the path of the module that owns ``key``: everything before its last dot."""
        return key.rpartition(".")[0]

    def select(self, keys: Iterable[str]) -> Manifest:
        """Return the manifest of these keys alone, in this manifest's order."""
        wanted = set(keys)
        return replace(
            self,
            tensors={key: spec for key, spec in self.tensors.items() if key in wanted},
            entries={key: kind for key, kind in self.entries.items() if key in wanted},
        )

    def to_json(self, rows: Callable[[Iterator[Any]], Any] = list) -> dict[str, Any]:
        """Return the JSON form (schema ``ckptaudit.manifest/1``); ``rows`` makes what holds the rows of the tensors."""
        data: dict[str, Any] = {
            "schema": SCHEMA,
            "source": self.source,
            "tensors": rows({"key": key, **spec.to_json()} for key, spec in self.tensors.items()),
        }
        if self.entries:
            data["entries"] = [{"key": key, "type": kind} for key, kind in self.entries.items()]
        if self.versions is not None:
            data["versions"] = dict(self.versions)
        if self.non_persistent:
            data["non_persistent"] = [{"key": k, **spec.to_json()} for k, spec in self.non_persistent.items()]
        return data

    @classmethod
    def from_json(cls, data: Any, source: str = "manifest") -> Manifest:
        """Rebuild a manifest from its JSON form.

        Raises UsageError, with the path of the fault, where the data do not follow the schema.
        """
        _check_manifest(data, source)
        return cls(
            tensors={row["key"]: TensorSpec.from_json(row) for row in data["tensors"]},
            entries={row["key"]: row["type"] for row in data.get("entries", [])},
            versions=data.get("versions"),
            non_persistent={row["key"]: TensorSpec.from_json(row) for row in data.get("non_persistent", [])},
            source=data.get("source", source),
        )

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Manifest:
        """Read a manifest file. Raises UsageError where it is unreadable or no manifest."""
        name = os.fspath(path)
        try:
            with open(path, encoding="utf-8-sig") as file:
                text = file.read()
        except OSError as error:
            raise UsageError(name, f"cannot be read: {error.strerror}") from None
        except ValueError as error:  # no UTF-8
            raise UsageError(name, f"is not valid JSON: {error}", _HINT) from None
        return cls.parse(text, name)

    @classmethod
    def parse(cls, text: str, name: str) -> Manifest:
        """Read the text of a manifest; ``name`` is the subject of a fault. Raises UsageError."""
        try:
            data = json.loads(text, object_pairs_hook=_no_duplicates)
        except (ValueError, RecursionError) as error:
            raise UsageError(name, f"is not valid JSON: {error}", _HINT) from None
        return cls.from_json(data, name)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the manifest as JSON, one tensor a line; a failure leaves an older file. Raises UsageError."""
        write_text(path, self.dumps())

    def dumps(self) -> str:
        """Return the JSON text: valid JSON, one tensor a line, so that diffs of it can be read."""
        return to_lines(self.to_json(), ascii_only=False)

    @classmethod
    def of(cls, model: Any) -> Manifest:
        """Describe a live ``nn.Module``, or a mapping of names to tensors. Needs torch."""
        from .model import manifest_of

        return manifest_of(model)


_HINT = "write one with: ckptaudit manifest write model.py -o model.manifest.json"


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for name, value in pairs:
        if name in result:
            raise ValueError(f"an object names {name!r} twice")
        result[name] = value
    return result


def _check_manifest(data: Any, source: str) -> None:
    def fail(path: str, what: str) -> None:
        raise UsageError(source, f"is not a manifest: {path} {what}", _HINT)

    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        fail("schema", f"is not {SCHEMA!r}")
    if unknown := sorted(set(data) - _SECTIONS):
        fail(unknown[0], "is no field of one")
    if not isinstance(data.get("source", ""), str):
        fail("source", "is not a text")
    seen: dict[str, set[str]] = {"tensors": set(), "non_persistent": set()}
    seen["entries"] = seen["tensors"]  # together they are the keys of one state dict
    for section, keys in seen.items():
        rows = data.get(section, None if section == "tensors" else [])
        if not isinstance(rows, list):
            fail(section, "is not a list")
        for index, row in enumerate(rows):
            where = f"{section}[{index}]"
            if not isinstance(row, dict) or not isinstance(row.get("key"), str):
                fail(where, "has no key")
            if row["key"] in keys:
                fail(where, f"repeats the key {row['key']!r}")
            keys.add(row["key"])
            if fault := _entry_fault(row) if section == "entries" else _tensor_fault(row):
                fail(where, fault)
    if "versions" in data and not _is_versions(data["versions"]):
        fail("versions", "is not an object of integers")


_SECTIONS = {"schema", "source", "tensors", "entries", "versions", "non_persistent"}


def _entry_fault(row: Mapping[str, Any]) -> str | None:
    if not isinstance(row.get("type"), str):
        return "has no type"
    return _unknown_field(row, {"key", "type"})


def _tensor_fault(row: Mapping[str, Any]) -> str | None:
    """Return what is wrong with one tensor's JSON, or None."""
    if not _is_sizes(row.get("shape")):
        return "has no shape of non-negative integers"
    if len(row["shape"]) > _MAX_DIMENSIONS:
        return f"has more than {_MAX_DIMENSIONS} dimensions"
    dtype = row.get("dtype")
    if not isinstance(dtype, str) or dtype not in DTYPES:
        return f"has the unknown dtype {dtype!r}"
    if unknown := _unknown_field(row, {"key", "shape", "dtype", *_OPTIONAL_FIELDS}):
        return unknown
    for name, kind in _FIELD_TYPES.items():
        if name in row and type(row[name]) is not kind:
            return f"has a {name} of the wrong type"
    if row.get("kind", "tensor") not in KINDS:
        return f"has the unknown kind {row['kind']!r}"
    if "stride" in row and not (_is_sizes(row["stride"]) and len(row["stride"]) == len(row["shape"])):
        return "has a stride that does not fit its shape"
    if prod(row["shape"]) > _MAX or not _is_sizes([row.get("storage_offset", 0), row.get("storage_nbytes", 0)]):
        return "has a size below 0 or above 2^63"
    return None


def _unknown_field(row: Mapping[str, Any], known: set[str]) -> str | None:
    unknown = sorted(set(row) - known)
    return f"has the unknown field {unknown[0]!r}" if unknown else None


_MAX = 2**63 - 1  # torch counts elements, bytes and strides in signed 64-bit integers
_MAX_DIMENSIONS = 64  # as the files that are read; the product of many sizes takes its time
_FIELD_TYPES: dict[str, type] = {
    "kind": str,
    "storage": str,
    "layout": str,
    "location": str,
    "storage_offset": int,
    "storage_nbytes": int,
    "requires_grad": bool,
    "conj": bool,
    "neg": bool,
}


def _is_sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(size) is int and 0 <= size <= _MAX for size in value)


def _is_versions(value: Any) -> bool:
    return isinstance(value, dict) and all(v is None or type(v) is int for v in cast("Any", value).values())
