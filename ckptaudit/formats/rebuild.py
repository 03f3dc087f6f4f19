"""The calls that rebuild tensors in a pickle, read as descriptions. No format is known here.

A reader hands over ``resolve``, which says what storage a persistent id stands for. All numbers come from the
file, so every one is checked: sizes, strides and offsets are exact integers, and what a tensor looks at lies
inside its storage.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import NoReturn, TypedDict

from ..dtypes import DTYPES
from ..errors import FormatError
from ..manifest import TensorSpec
from ..records import dataclass, replace
from .base import Limits
from .globals import DENSE_CLASSES, DTYPE_NAMES, STORAGES, TENSOR_CLASSES, classify
from .nodes import Call, GlobalRef, PDict, PersistentId, pairs_of, type_name

_MAX = 1 << 63  # torch counts in int64
_DEPTH = 8  # rebuild calls inside rebuild calls; torch writes at most three
_PACKED_BITS = {"quint4x2": 4, "quint2x4": 2}  # elements of quantized dtypes that share bytes
_HINT = "get the file again from its source; torch.save writes no such tensor"


@dataclass(frozen=True)
class Storage:
    """The memory behind tensors. Sizes are bytes.

    ``key`` names the memory and ``nbytes`` is its size; ``dtype`` is None where the file counts bytes. The
    storage views of torch before 1.6 show ``length`` bytes from ``start`` on; others show all of it.
    """

    key: str
    dtype: str | None
    nbytes: int
    location: str
    start: int = 0
    length: int | None = None

    @property
    def visible(self) -> int:
        """Bytes that tensors may look at."""
        return self.nbytes - self.start if self.length is None else self.length


class _Flags(TypedDict, total=False):
    requires_grad: bool
    conj: bool
    neg: bool


Resolve = Callable[[PersistentId], "Storage | TensorSpec"]


def storage_of_id(pid: PersistentId, subject: str, *, fields: int = 5) -> Storage:
    """Read ``('storage', class, key, location, numel)``, the persistent id that torch writes.

    The older stream format has a sixth field, which is left to its reader. Raises FormatError CKPT002.
    """
    parts = pid.id

    def fail(what: str) -> NoReturn:
        raise FormatError(subject, f"has a persistent id that is no storage: {what}", _HINT, code="CKPT002")

    if not isinstance(parts, tuple) or len(parts) != fields or parts[0] != "storage":
        fail(f"it is no tuple of 'storage' and {fields - 1} more fields")
    cls, key, location, numel = parts[1:5]
    if not isinstance(cls, GlobalRef) or cls.name not in STORAGES or cls.name.endswith(".TypedStorage"):
        fail(f"its class is {type_name(cls)}")
    if not (isinstance(key, str) and key.isascii() and key.isdigit() and len(key) <= 20):
        fail("its key is no number")
    if not isinstance(location, str) or type(numel) is not int or numel < 0:
        fail("its location is no text, or its size no number")
    dtype = STORAGES[cls.name]
    nbytes = numel * (DTYPES[dtype].itemsize if dtype else 1)
    if nbytes >= _MAX:
        fail("its size does not fit 64 bits")
    return Storage(key, dtype, nbytes, location)


class Rebuilder:
    """Turns the nodes that rebuild tensors into TensorSpecs, each node once.

    ``resolve`` maps a persistent id to its storage (or, in the tar format, to a whole tensor) and may raise
    FormatError. Every fault of the geometry is a FormatError CKPT002 that names the tensor.
    """

    def __init__(self, subject: str, resolve: Resolve, limits: Limits) -> None:
        self._subject = subject
        self._resolve = resolve
        self._limits = limits
        self._known: dict[int, TensorSpec | None] = {}
        self._where = ""
        self._depth = 0

    def tensor(self, node: object, where: str) -> TensorSpec | None:
        """Return the description of the tensor that ``node`` rebuilds, or None where it rebuilds none.

        ``where`` names the tensor in errors.
        """
        if not isinstance(node, Call | PersistentId):
            return None
        if id(node) not in self._known:
            self._where = where
            self._depth = 0
            self._known[id(node)] = self._read(node)
        return self._known[id(node)]

    def _read(self, node: object) -> TensorSpec | None:
        if isinstance(node, PersistentId):
            resolved = self._resolve(node)
            return resolved if isinstance(resolved, TensorSpec) else None
        if not isinstance(node, Call):
            return None
        self._depth += 1
        if self._depth > _DEPTH:
            self._fail("is wrapped in itself too often")
        spec = self._read_call(node)
        self._depth -= 1
        return spec

    def _read_call(self, call: Call) -> TensorSpec | None:
        if call.name in TENSOR_CLASSES:
            return self._of_class(call)
        reader = _READERS.get(call.name)
        if reader is None:
            return None
        counts, read = reader
        if len(call.args) not in counts or call.kwargs is not None or call.state is not None:
            self._fail(f"is rebuilt by {call.name} with {len(call.args)} arguments")
        return read(self, call.args)

    def _fail(self, what: str) -> NoReturn:
        raise FormatError(self._subject, f"tensor {self._where!r} {what}", _HINT, code="CKPT002")

    # -- strided tensors --------------------------------------------------------------------------------

    def _v1(self, args: tuple[object, ...], flags: _Flags | None = None) -> TensorSpec:
        memory = self._storage(args[0])
        return self._strided(memory, memory.dtype or "uint8", args[1:4], flags or {})

    def _v2(self, args: tuple[object, ...]) -> TensorSpec:
        return self._v1(args[:4], self._flags(args[4], args[5], args[6] if len(args) == 7 else None))

    def _v3(self, args: tuple[object, ...]) -> TensorSpec:
        flags = self._flags(args[4], args[5], args[7] if len(args) == 8 else None)
        return self._strided(self._storage(args[0]), self._dtype(args[6]), args[1:4], flags)

    def _quantized(self, args: tuple[object, ...]) -> TensorSpec:
        quantizer = args[4]
        if not isinstance(quantizer, tuple) or not quantizer or not isinstance(quantizer[0], GlobalRef):
            self._fail("is quantized by no known scheme")
        for part in quantizer[1:]:
            self._read(part)
        spec = self._v1(args[:4], self._flags(args[5], args[6]))
        if DTYPES[spec.dtype].kind != "quantized":
            self._fail(f"is quantized but holds {spec.dtype}")
        return spec

    def _of_class(self, call: Call) -> TensorSpec:
        """Tensors of torch before 0.4 are objects of their class whose state is the view."""
        state = call.state
        if call.args or not isinstance(state, tuple) or len(state) != 4:
            self._fail(f"is made by {call.name} itself and holds no storage")
        spec = self._v1(state)
        if call.name != "torch.Tensor" and DENSE_CLASSES.get(call.name) != spec.dtype:
            self._fail(f"is a {call.name} on a storage of {spec.dtype}")
        return spec

    def _storage(self, node: object) -> Storage:
        resolved = self._resolve(node) if isinstance(node, PersistentId) else None
        if not isinstance(resolved, Storage):
            self._fail("is rebuilt from something that is no storage")
        return resolved

    def _strided(self, storage: Storage, dtype: str, view: tuple[object, ...], flags: _Flags) -> TensorSpec:
        (first,) = self._sizes(view[:1], "storage offset")
        shape, stride = self._shape(view[1], dtype), self._stride(view[1], view[2])
        bits = _PACKED_BITS.get(dtype, 8 * DTYPES[dtype].itemsize)
        last = first + sum([(size - 1) * step for size, step in zip(shape, stride, strict=True)])
        needed = 0 if 0 in shape else -(-(last + 1) * bits // 8)
        if needed > storage.visible:
            self._fail(f"needs {needed:,} bytes of storage {storage.key!r}, which holds {storage.visible:,}")
        skipped, rest = divmod(storage.start * 8, bits)
        if rest:
            self._fail(f"begins inside an element of storage {storage.key!r}")
        return TensorSpec(
            shape=shape,
            dtype=dtype,
            stride=stride,
            storage_offset=first + skipped,
            storage=storage.key,
            storage_nbytes=storage.nbytes,
            location=storage.location,
            **flags,
        )

    def _flags(self, requires_grad: object, hooks: object = None, metadata: object = None) -> _Flags:
        """Check what comes after a tensor's sizes, and return the TensorSpec fields it sets."""
        if type(requires_grad) is not bool:
            self._fail("has a requires_grad that is no bool")
        if hooks is not None and pairs_of(hooks) != []:
            self._fail("carries backward hooks")
        flags: _Flags = {"requires_grad": requires_grad}
        if metadata is None:
            return flags
        pairs = pairs_of(metadata)
        for name, bit in [(None, None)] if pairs is None else pairs:
            if name not in ("conj", "neg") or type(bit) is not bool:
                self._fail("has metadata other than its conj and neg bits")
            flags["conj" if name == "conj" else "neg"] = bit
        return flags

    def _shape(self, node: object, dtype: str) -> tuple[int, ...]:
        shape = self._sizes(node, "shape")
        if prod(shape) * DTYPES[dtype].itemsize >= _MAX:
            self._fail("has more elements than 64 bits can count")
        return shape

    def _stride(self, shape: object, node: object) -> tuple[int, ...]:
        stride, sizes = self._sizes(node, "stride"), self._sizes(shape, "shape")
        if len(stride) != len(sizes):
            self._fail(f"has {len(sizes)} dimensions and {len(stride)} strides")
        return stride

    def _sizes(self, node: object, what: str) -> tuple[int, ...]:
        if isinstance(node, Call) and node.name == "torch.Size" and len(node.args) == 1:
            node = node.args[0]
        if not isinstance(node, tuple | list) or len(node) > self._limits.dimensions:
            self._fail(f"has a {what} that is no short tuple of numbers")
        for number in node:
            if type(number) is not int or not 0 <= number < _MAX:
                self._fail(f"has a {what} with something other than a number from 0 to 2^63 in it")
        return tuple(node)

    def _dtype(self, node: object) -> str:
        if not isinstance(node, GlobalRef) or node.name not in DTYPE_NAMES:
            self._fail(f"has {type_name(node)} for a dtype")
        return node.name.removeprefix("torch.")

    # -- parameters and subclasses ----------------------------------------------------------------------

    def _inner(self, node: object) -> TensorSpec:
        spec = self._read(node)
        if spec is None:
            self._fail(f"wraps {type_name(node)}, which is no tensor")
        return spec

    def _parameter(self, args: tuple[object, ...]) -> TensorSpec:
        flags = self._flags(args[1] if len(args) > 1 else True, args[2] if len(args) > 2 else None)
        if len(args) == 4:
            self._attributes(args[3])
        return replace(self._inner(args[0]), kind="parameter", **flags)

    def _uninitialized(self, args: tuple[object, ...]) -> TensorSpec:
        flags = self._flags(args[0] if args else True)
        return TensorSpec((), "float32", kind="parameter", layout="uninitialized", **flags)

    def _uninitialized_buffer(self, args: tuple[object, ...]) -> TensorSpec:
        return replace(self._uninitialized(args), kind="buffer")

    def _from_type(self, args: tuple[object, ...]) -> TensorSpec | None:
        """``_rebuild_from_type_v2(function, class, arguments, attributes)``: a tensor of another class."""
        function, cls, arguments, state = args
        if not (isinstance(function, GlobalRef) and isinstance(cls, GlobalRef) and isinstance(arguments, tuple)):
            self._fail("is rebuilt from something that is no function, class and arguments")
        if function.name not in _READERS:
            if classify(function.name) == "allowed":
                self._fail(f"is rebuilt by {function.name}, which makes no tensor")
            return None
        spec = self._read(Call(function, arguments))
        attributes = self._attributes(state)
        if spec is None:
            return None
        if cls.name == "torch.nn.parameter.Parameter":
            return replace(spec, kind="parameter")
        if cls.name == "torch.nn.parameter.Buffer" or attributes.get("_is_buffer") is True:
            return replace(spec, kind="buffer")
        return spec

    def _attributes(self, state: object) -> dict[object, object]:
        """Return the attributes a tensor carries; refuse those that would change what the tensor is."""
        parts = state if isinstance(state, tuple) else (state,)
        pairs = [pair for part in parts if isinstance(part, PDict) for pair in part.pairs]
        for name, _ in pairs:
            if not isinstance(name, str) or name.startswith("__") or name in _SHADOWING:
                self._fail(f"sets its attribute {name!r}" if isinstance(name, str) else "has odd attributes")
        return dict(pairs)

    def _wrapper(self, args: tuple[object, ...]) -> TensorSpec:
        """``_rebuild_wrapper_subclass``: sizes without memory of its own (DTensor and its like)."""
        _, dtype, size, stride, offset, _, _, requires_grad = args
        name = self._dtype(dtype)
        steps = None if stride is None else self._stride(size, stride)
        (first,) = self._sizes((offset or 0,), "storage offset")
        flags = self._flags(requires_grad)
        return TensorSpec(self._shape(size, name), name, stride=steps, storage_offset=first, **flags)

    # -- other layouts and devices ----------------------------------------------------------------------

    def _meta(self, args: tuple[object, ...]) -> TensorSpec:
        dtype, size, stride, requires_grad = args
        name, flags = self._dtype(dtype), self._flags(requires_grad)
        return TensorSpec(self._shape(size, name), name, stride=self._stride(size, stride), location="meta", **flags)

    def _sparse(self, args: tuple[object, ...]) -> TensorSpec:
        """COO: (indices, values, size[, coalesced]); the compressed layouts have two index tensors."""
        layout, data = args
        name = layout.args[0] if isinstance(layout, Call) and len(layout.args) == 1 else None
        if not isinstance(name, str) or name not in _SPARSE_LAYOUTS:
            self._fail("has an unknown sparse layout")
        indices = 1 if name == "torch.sparse_coo" else 2
        if not isinstance(data, tuple) or len(data) < indices + 2:
            self._fail("is sparse and has no indices, values and size")
        parts = [self._inner(part) for part in data[: indices + 1]]
        values = parts[-1]
        storages = {part.storage: part.storage_nbytes or 0 for part in parts if part.storage is not None}
        return TensorSpec(
            self._shape(data[indices + 1], values.dtype),
            values.dtype,
            storage="+".join(storages),
            storage_nbytes=sum(storages.values()),
            requires_grad=False,
            layout=name.removeprefix("torch."),
            location=values.location,
        )

    def _from_cpu(self, args: tuple[object, ...]) -> TensorSpec:
        """``_rebuild_device_tensor_from_cpu_tensor(tensor, dtype, device, requires_grad)``: XLA, HPU, ..."""
        spec, dtype = self._inner(args[0]), self._dtype(args[1])
        if dtype != spec.dtype:  # the bytes in the file are of another dtype than the tensor
            spec = TensorSpec(spec.shape, dtype, stride=spec.stride)
        return replace(spec, location=_device(args[2]), **self._flags(args[3]))

    def _from_numpy(self, args: tuple[object, ...]) -> TensorSpec:
        """``_rebuild_device_tensor_from_numpy(array, dtype, device, requires_grad)``."""
        array, dtype = args[0], self._dtype(args[1])
        state = array.state if isinstance(array, Call) else None
        if type_name(array) != "numpy.ndarray" or not isinstance(state, tuple) or len(state) != 5:
            self._fail("is rebuilt from something that is no array")
        return TensorSpec(self._shape(state[1], dtype), dtype, location=_device(args[2]), **self._flags(args[3]))


def _device(node: object) -> str | None:
    if isinstance(node, Call) and node.name == "torch.device":
        return ":".join(str(part) for part in node.args)
    return node if isinstance(node, str) else None


# Attributes that would change what the tensor itself is or says.
_SHADOWING = frozenset(
    {
        "_backward_hooks", "_base", "_grad", "_version", "data", "device", "dim", "dtype", "element_size",
        "grad", "grad_fn", "is_leaf", "is_meta", "itemsize", "layout", "nbytes", "ndim", "numel",
        "requires_grad", "shape", "size", "storage", "storage_offset", "stride", "to", "untyped_storage",
    }
)  # fmt: skip
_SPARSE_LAYOUTS = frozenset(f"torch.sparse_{kind}" for kind in ("bsc", "bsr", "coo", "csc", "csr"))

_Reader = Callable[[Rebuilder, "tuple[object, ...]"], "TensorSpec | None"]
_READERS: dict[str, tuple[tuple[int, ...], _Reader]] = {  # name: possible numbers of arguments, reader
    "torch._tensor._rebuild_from_type_v2": ((4,), Rebuilder._from_type),
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": ((4,), Rebuilder._from_cpu),
    "torch._utils._rebuild_device_tensor_from_numpy": ((4,), Rebuilder._from_numpy),
    "torch._utils._rebuild_meta_tensor_no_storage": ((4,), Rebuilder._meta),
    "torch._utils._rebuild_parameter": ((3,), Rebuilder._parameter),
    "torch._utils._rebuild_parameter_with_state": ((4,), Rebuilder._parameter),
    "torch._utils._rebuild_qtensor": ((7,), Rebuilder._quantized),
    "torch._utils._rebuild_sparse_tensor": ((2,), Rebuilder._sparse),
    "torch._utils._rebuild_tensor": ((4,), Rebuilder._v1),
    "torch._utils._rebuild_tensor_v2": ((6, 7), Rebuilder._v2),
    "torch._utils._rebuild_tensor_v3": ((7, 8), Rebuilder._v3),
    "torch._utils._rebuild_wrapper_subclass": ((8,), Rebuilder._wrapper),
    "torch.nn.parameter.Parameter": ((1, 2), Rebuilder._parameter),
    "torch.nn.parameter.UninitializedBuffer": ((0, 1), Rebuilder._uninitialized_buffer),
    "torch.nn.parameter.UninitializedParameter": ((0, 1), Rebuilder._uninitialized),
}
