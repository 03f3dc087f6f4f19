"""The calls that rebuild tensors in a pickle, read as descriptions. No format is known here.

A reader hands over ``resolve``, which says what storage a persistent id stands for. All numbers come from the
file, so every one is checked: sizes, strides and offsets are exact integers, and what a tensor looks at lies
inside its storage.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import NoReturn

from ...dtypes import DTYPES
from ...errors import FormatError
from ...manifest import TensorSpec
from ...records import dataclass, replace
from ..base import Limits, over_limit
from .globals import DENSE_CLASSES, DTYPE_NAMES, STORAGES, TENSOR_CLASSES, classify
from .nodes import Call, GlobalRef, PDict, PersistentId, is_empty_mapping, pairs_of, shown, type_name
from .quantizers import quantizer_fault
from .sparse_layouts import SPARSE_LAYOUTS, sparse_fault

_MAX = 1 << 63  # torch counts in int64
_READS = 2  # rebuild calls for each tensor, on average
_DEPTH = 8  # rebuild calls inside rebuild calls; torch writes at most three
_LOCATION = 256  # characters of the name of a device
_ELEMENTS = {  # class of a storage: dtype and bytes of what it counts
    name: (dtype, DTYPES[dtype].itemsize if dtype else 1)
    for name, dtype in STORAGES.items()
    if not name.endswith(".TypedStorage")
}
_WIDTHS = {name: 8 * dtype.itemsize for name, dtype in DTYPES.items()}  # bits
_WIDTHS |= {"quint4x2": 4, "quint2x4": 2}  # their elements share bytes
_HINT = "get the file again from its source; torch.save writes no such tensor"


@dataclass(frozen=True, slots=True)
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


Resolve = Callable[[PersistentId], "Storage | TensorSpec"]


def storage_of_id(pid: PersistentId, subject: str, *, fields: int = 5, suffix: str = "") -> Storage:
    """Read ``('storage', class, key, location, numel)``, the persistent id that torch writes.

    The older stream format has a sixth field, which is left to its reader; ``suffix`` may follow the number that
    is the key. Raises FormatError CKPT002.
    """
    parts = pid.id

    def fail(what: str) -> NoReturn:
        raise FormatError(subject, f"has a persistent id that is no storage: {what}", _HINT, code="CKPT002")

    if not isinstance(parts, tuple) or len(parts) != fields or parts[0] != "storage":
        fail(f"it is no tuple of 'storage' and {fields - 1} more fields")
    cls, key, location, numel = parts[1:5]
    if not isinstance(cls, GlobalRef) or cls.name not in _ELEMENTS:
        fail(f"its class is {type_name(cls)}")
    number = key.removesuffix(suffix) if isinstance(key, str) else ""
    if not isinstance(key, str) or not (number.isascii() and number.isdigit() and len(number) <= 20):
        fail("its key is no number")
    if not isinstance(location, str) or type(numel) is not int or numel < 0:
        fail("its location is no text, or its size no number")
    if len(location) > _LOCATION:
        fail(f"its location has {len(location):,} characters")
    dtype, itemsize = _ELEMENTS[cls.name]
    nbytes = numel * itemsize
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
        self._known: dict[int, TensorSpec] = {}
        self._inside: set[int] = set()  # calls that were read as parts of others
        self._reads = 0
        self._dimensions = 0
        self._checked: dict[int, bool] = {}  # states of tensors, and whether they make it a buffer
        self._where = ""
        self._depth = 0

    def tensor(self, node: object, where: str) -> TensorSpec | None:
        """Return the description of the tensor that ``node`` rebuilds, or None where it rebuilds none.

        ``where`` names the tensor in errors.
        """
        if not isinstance(node, Call | PersistentId):
            return None
        spec = self._known.get(id(node))
        if spec is None:
            self._where = where
            self._depth = 0
            spec = self._read(node)
            if spec is not None:
                self._known[id(node)] = spec
                if len(self._known) > self._limits.tensors:
                    self._exceeded("tensors", self._limits.tensors)
        return spec

    def check(self, call: Call, where: str) -> None:
        """Read a call unless it was read before, as a tensor or as a part of one."""
        if id(call) not in self._inside:
            self.tensor(call, where)

    def _exceeded(self, name: str, limit: int) -> NoReturn:
        what = {"tensors": "tensors", "sizes": "dimensions of tensors together"}[name]
        raise over_limit(self._subject, f"holds more than {limit:,} {what}", name, self._limits)

    def view(self, storage: Storage, dtype: str, view: tuple[object, object, object], where: str) -> TensorSpec:
        """Return the description of a tensor that no pickle describes: ``view`` is its offset, shape and stride."""
        self._where = where
        return self._strided(storage, dtype, view)

    def _read(self, node: object) -> TensorSpec | None:
        if isinstance(node, PersistentId):
            resolved = self._resolve(node)
            return resolved if isinstance(resolved, TensorSpec) else None
        if not isinstance(node, Call):
            return None
        self._depth += 1
        if self._depth > _DEPTH:
            self._fail("is wrapped in itself too often")
        if self._depth > 1:
            self._inside.add(id(node))
        spec = self._read_call(node)
        self._depth -= 1
        if spec is not None and spec.requires_grad and not _differentiable(spec.dtype):
            self._fail(f"requires a gradient, which {spec.dtype} cannot have")
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
        self._reads += 1
        if self._reads > _READS * self._limits.tensors:  # tensors inside of tensors, over and over
            self._exceeded("tensors", self._limits.tensors)
        return read(self, call.args)

    def _fail(self, what: str) -> NoReturn:
        raise FormatError(self._subject, f"tensor {self._where!r} {what}", _HINT, code="CKPT002")

    # -- strided tensors --------------------------------------------------------------------------------

    def _v1(
        self, args: tuple[object, ...], requires_grad: bool | None = None, bits: tuple[bool, bool] = (False, False)
    ) -> TensorSpec:
        memory = self._storage(args[0])
        return self._strided(memory, memory.dtype or "uint8", args[1:4], requires_grad, bits)

    def _v2(self, args: tuple[object, ...]) -> TensorSpec:
        requires_grad = self._requires_grad(args[4], args[5])
        return self._v1(args, requires_grad, self._bits(args[6]) if len(args) == 7 else (False, False))

    def _v3(self, args: tuple[object, ...]) -> TensorSpec:
        requires_grad = self._requires_grad(args[4], args[5])
        bits = self._bits(args[7]) if len(args) == 8 else (False, False)
        return self._strided(self._storage(args[0]), self._dtype(args[6]), args[1:4], requires_grad, bits)

    def _quantized(self, args: tuple[object, ...]) -> TensorSpec:
        spec = self._v1(args, self._requires_grad(args[5], args[6]))
        if fault := quantizer_fault(args[4], spec.shape, self._read):
            self._fail(fault)
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

    def _strided(
        self,
        storage: Storage,
        dtype: str,
        view: tuple[object, ...],
        requires_grad: bool | None = None,
        bits: tuple[bool, bool] = (False, False),
    ) -> TensorSpec:
        first = self._number(view[0], "storage offset")
        shape = self._shape(view[1], dtype)
        stride = self._stride(shape, view[2])
        width, last = _WIDTHS[dtype], first
        for size, step in zip(shape, stride, strict=True):
            last += (size - 1) * step
        needed = 0 if 0 in shape else -(-(last + 1) * width // 8)
        if needed > storage.visible:
            self._fail(f"needs {needed:,} bytes of storage {storage.key!r}, which holds {storage.visible:,}")
        if bits[0] and DTYPES[dtype].kind != "complex":
            self._fail(f"is conjugated, though it holds {dtype}")
        if storage.start:
            skipped, rest = divmod(storage.start * 8, width)
            if rest:
                self._fail(f"begins inside an element of storage {storage.key!r}")
            first += skipped
        return TensorSpec(
            shape,
            dtype,
            stride=stride,
            storage_offset=first,
            storage=storage.key,
            storage_nbytes=storage.nbytes,
            requires_grad=requires_grad,
            location=storage.location,
            conj=bits[0],
            neg=bits[1],
        )

    def _requires_grad(self, value: object, hooks: object = None) -> bool:
        """Check the two values that follow a tensor's sizes, and return the first."""
        if type(value) is not bool:
            self._fail("has a requires_grad that is no bool")
        if hooks is not None and not is_empty_mapping(hooks):
            self._fail("carries backward hooks")
        return value

    def _bits(self, metadata: object) -> tuple[bool, bool]:
        """Read the conj and neg bits, which may follow them."""
        if metadata is None:
            return False, False
        pairs = pairs_of(metadata)
        bits = dict.fromkeys(("conj", "neg"), False)
        for name, bit in [(None, None)] if pairs is None or len(pairs) > 2 else pairs:
            if not isinstance(name, str) or name not in bits or bit is not True:  # torch sets the bit for False, too
                self._fail("has metadata other than its conj and neg bits")
            bits[name] = True
        return bits["conj"], bits["neg"]

    def _shape(self, node: object, dtype: str) -> tuple[int, ...]:
        shape = self._sizes(node, "shape")
        self._dimensions += len(shape)
        if self._dimensions > self._limits.sizes:
            self._exceeded("sizes", self._limits.sizes)
        if prod(shape) * DTYPES[dtype].itemsize >= _MAX:
            self._fail("has more elements than 64 bits can count")
        return shape

    def _stride(self, shape: tuple[int, ...], node: object) -> tuple[int, ...]:
        stride = self._sizes(node, "stride")
        if len(stride) != len(shape):
            self._fail(f"has {len(shape)} dimensions and {len(stride)} strides")
        return stride

    def _sizes(self, node: object, what: str) -> tuple[int, ...]:
        if isinstance(node, Call) and node.name == "torch.Size" and len(node.args) == 1:
            node = node.args[0]
        if not isinstance(node, tuple | list):
            self._fail(f"has a {what} that is no short tuple of numbers")
        if len(node) > self._limits.dimensions:
            reason = f"tensor {self._where!r} has a {what} of {len(node):,} dimensions"
            raise over_limit(self._subject, reason, "dimensions", self._limits, len(node))
        for number in node:
            if type(number) is not int or not 0 <= number < _MAX:
                self._number(number, what)
        return tuple(node)

    def _number(self, node: object, what: str) -> int:
        if type(node) is not int or not 0 <= node < _MAX:
            self._fail(f"has a {what} with something other than a number from 0 to 2^63 in it")
        return node

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
        requires_grad = self._requires_grad(args[1] if len(args) > 1 else True, args[2] if len(args) > 2 else None)
        if len(args) == 4:
            self._attributes(args[3])
        return replace(self._inner(args[0]), kind="parameter", requires_grad=requires_grad)

    def _uninitialized(self, args: tuple[object, ...]) -> TensorSpec:
        requires_grad = self._requires_grad(args[0] if args else True)
        return TensorSpec((), "float32", kind="parameter", layout="uninitialized", requires_grad=requires_grad)

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
        if cls.name not in _SUBCLASSES and classify(cls.name) == "allowed":
            self._fail(f"is made one {cls.name}, which is no tensor")
        spec = self._read(Call(function, arguments))
        is_buffer = self._attributes(state)
        if spec is None:
            return None
        if cls.name == "torch.nn.parameter.Parameter":
            return replace(spec, kind="parameter")
        if cls.name == "torch.nn.parameter.Buffer" or is_buffer:
            return replace(spec, kind="buffer")
        return spec

    def _attributes(self, state: object) -> bool:
        """Refuse attributes of a tensor that would change what it is, and tell whether they make it a buffer."""
        if id(state) not in self._checked:
            parts = state if isinstance(state, tuple) and len(state) == 2 else (state,)
            if not all(part is None or isinstance(part, PDict) for part in parts):
                self._fail("has attributes that are no dict")
            attributes: dict[object, object] = {}
            for part in parts:
                attributes.update(part.pairs if isinstance(part, PDict) else ())
            for name in attributes:
                if not isinstance(name, str) or name.startswith("__") or name in _SHADOWING:
                    self._fail(f"sets its attribute {name!r}" if isinstance(name, str) else "has odd attributes")
            is_buffer = attributes.get("_is_buffer", False)
            if not isinstance(is_buffer, bool):
                self._fail("has an attribute _is_buffer that is no bool")
            self._checked[id(state)] = is_buffer
        return self._checked[id(state)]

    def _wrapper(self, args: tuple[object, ...]) -> TensorSpec:
        """``_rebuild_wrapper_subclass``: sizes without memory of its own (DTensor and its like)."""
        _, dtype, size, stride, offset, layout, _, requires_grad = args
        name = self._dtype(dtype)
        if not isinstance(layout, Call) or layout.name != "torch.serialization._get_layout":
            self._fail("has no layout")
        shape = self._shape(size, name)
        steps = None if stride is None else self._stride(shape, stride)
        first = self._number(offset or 0, "storage offset")
        grad = self._requires_grad(requires_grad)
        return TensorSpec(shape, name, stride=steps, storage_offset=first, requires_grad=grad)

    # -- other layouts and devices ----------------------------------------------------------------------

    def _meta(self, args: tuple[object, ...]) -> TensorSpec:
        dtype, size, stride, requires_grad = args
        name, grad = self._dtype(dtype), self._requires_grad(requires_grad)
        if DTYPES[name].kind == "quantized":
            self._fail(f"is on the meta device, which has no {name}")
        shape = self._shape(size, name)
        return TensorSpec(shape, name, stride=self._stride(shape, stride), requires_grad=grad, location="meta")

    def _sparse(self, args: tuple[object, ...]) -> TensorSpec:
        """COO: (indices, values, size[, coalesced]); the compressed layouts have two index tensors."""
        layout, data = args
        name = layout.args[0] if isinstance(layout, Call) and len(layout.args) == 1 else None
        if not isinstance(name, str) or name not in SPARSE_LAYOUTS:
            self._fail("has an unknown sparse layout")
        indices = 1 if name == "torch.sparse_coo" else 2
        most = indices + 3 if indices == 1 else indices + 2
        if not isinstance(data, tuple) or not indices + 2 <= len(data) <= most:
            self._fail("is sparse and has no indices, values and size")
        if len(data) > indices + 2 and not isinstance(data[-1], bool | None):
            self._fail("is sparse and coalesced in neither way")
        parts = [self._inner(part) for part in data[: indices + 1]]
        values = parts[-1]
        shape = self._shape(data[indices + 1], values.dtype)
        fault = sparse_fault(name, parts, shape)
        if fault:
            self._fail(fault)
        storages = {part.storage: part.storage_nbytes or 0 for part in parts if part.storage is not None}
        return TensorSpec(
            shape,
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
        return replace(spec, location=self._device(args[2]), requires_grad=self._requires_grad(args[3]))

    def _from_numpy(self, args: tuple[object, ...]) -> TensorSpec:
        """``_rebuild_device_tensor_from_numpy(array, dtype, device, requires_grad)``."""
        array, dtype = args[0], self._dtype(args[1])
        state = array.state if isinstance(array, Call) else None
        if type_name(array) != "numpy.ndarray" or not isinstance(state, tuple) or len(state) != 5:
            self._fail("is rebuilt from something that is no array")
        shape, grad = self._shape(state[1], dtype), self._requires_grad(args[3])
        return TensorSpec(shape, dtype, requires_grad=grad, location=self._device(args[2]))

    def _device(self, node: object) -> str:
        if isinstance(node, Call) and node.name == "torch.device":
            node = ":".join(part if isinstance(part, str) else shown(part) for part in node.args[:3])
        if not isinstance(node, str) or len(node) > _LOCATION:
            self._fail(f"has {type_name(node)} for a device")
        if node.partition(":")[0] in _DEVICES_OF_STORAGES:
            self._fail(f"moves itself to {node} as it is unpickled, whatever map_location says")
        return node


# torch writes the device of these beside the storage; only devices without storages are rebuilt by a call.
_DEVICES_OF_STORAGES = frozenset({"cuda", "hip", "mps", "xpu"})


def _differentiable(dtype: str) -> bool:
    """Tell whether torch lets a tensor of the dtype require a gradient."""
    return DTYPES[dtype].kind in ("float", "complex") or dtype.startswith("float")


_SUBCLASSES = ("torch.Tensor", "torch.nn.parameter.Parameter")

# Attributes that would change what the tensor itself is or says.
_SHADOWING = frozenset(
    {
        "_backward_hooks", "_base", "_grad", "_version", "data", "device", "dim", "dtype", "element_size",
        "grad", "grad_fn", "is_leaf", "is_meta", "itemsize", "layout", "nbytes", "ndim", "numel",
        "requires_grad", "shape", "size", "storage", "storage_offset", "stride", "to", "untyped_storage",
    }
)  # fmt: skip

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
