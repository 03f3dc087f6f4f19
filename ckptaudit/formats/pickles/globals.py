"""Which globals a checkpoint may name, judged by exact full name.

``allowed`` is the table of ``torch.load(weights_only=True)`` in torch 2.15; the tests compare it with torch's
own. ``inert`` is plain data outside that table which real checkpoints carry. ``dangerous`` is what is known
to run code; that list only words the finding, as everything in no list is ``refused`` anyway.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from ...errors import FormatError
from ..base import Global

Verdict = Literal["allowed", "inert", "refused", "dangerous"]

# Storage class (without module) -> dtype of its elements; None: untyped, counted in bytes.
STORAGE_DTYPES: dict[str, str] = {
    "BFloat16Storage": "bfloat16",
    "BoolStorage": "bool",
    "ByteStorage": "uint8",
    "CharStorage": "int8",
    "ComplexDoubleStorage": "complex128",
    "ComplexFloatStorage": "complex64",
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "IntStorage": "int32",
    "LongStorage": "int64",
    "QInt32Storage": "qint32",
    "QInt8Storage": "qint8",
    "QUInt2x4Storage": "quint2x4",
    "QUInt4x2Storage": "quint4x2",
    "QUInt8Storage": "quint8",
    "ShortStorage": "int16",
}
_QUANTIZED = {"QInt32Storage", "QInt8Storage", "QUInt2x4Storage", "QUInt4x2Storage", "QUInt8Storage"}

STORAGES: dict[str, str | None] = {
    "torch.storage.TypedStorage": None,
    "torch.storage.UntypedStorage": None,
    **{f"torch.{name}": dtype for name, dtype in STORAGE_DTYPES.items()},
    **{f"torch.cuda.{name}": dtype for name, dtype in STORAGE_DTYPES.items() if name not in _QUANTIZED},
}

# Tensor classes of torch before 0.4, by the dtype of their elements.
_DENSE = {
    "BFloat16Tensor": "bfloat16",
    "BoolTensor": "bool",
    "ByteTensor": "uint8",
    "CharTensor": "int8",
    "DoubleTensor": "float64",
    "FloatTensor": "float32",
    "HalfTensor": "float16",
    "IntTensor": "int32",
    "LongTensor": "int64",
    "ShortTensor": "int16",
}
DENSE_CLASSES: dict[str, str] = {
    f"{module}.{name}": dtype for module in ("torch", "torch.cuda") for name, dtype in _DENSE.items()
}
_SPARSE_CLASSES = {
    f"{module}.{name}" for module in ("torch.sparse", "torch.cuda.sparse") for name in _DENSE if name != "BoolTensor"
}
TENSOR_CLASSES = frozenset({*DENSE_CLASSES, *_SPARSE_CLASSES, "torch.Tensor"})

# dtype objects; the manifest's names are these without "torch.".
DTYPE_NAMES = frozenset(
    "torch." + name
    for name in (
        "bcomplex32", "bfloat16", "bits16", "bits1x8", "bits2x4", "bits4x2", "bits8", "bool", "complex128",
        "complex32", "complex64", "float16", "float32", "float4_e2m1fn_x2", "float64", "float8_e4m3fn",
        "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu", "int1", "int16", "int2",
        "int3", "int32", "int4", "int5", "int6", "int64", "int7", "int8", "qint32", "qint8", "quint2x4",
        "quint4x2", "quint8", "uint1", "uint16", "uint2", "uint3", "uint32", "uint4", "uint5", "uint6",
        "uint64", "uint7", "uint8",
    )
)  # fmt: skip

_REBUILDERS = {
    f"torch._utils._rebuild_{name}"
    for name in (
        "device_tensor_from_cpu_tensor", "device_tensor_from_numpy", "meta_tensor_no_storage", "parameter",
        "parameter_with_state", "qtensor", "sparse_tensor", "tensor", "tensor_v2", "tensor_v3",
        "wrapper_subclass",
    )
}  # fmt: skip

# Calls that make tensors.
TENSOR_CALLS = frozenset(
    {*_REBUILDERS, *TENSOR_CLASSES, "torch._tensor._rebuild_from_type_v2", "torch.nn.parameter.Parameter"}
)

ALLOWED: frozenset[str] = frozenset(
    {
        *STORAGES,
        *TENSOR_CLASSES,
        *DTYPE_NAMES,
        *_REBUILDERS,
        "_codecs.encode",
        "builtins.bytearray",
        "builtins.complex",
        "builtins.set",
        "collections.Counter",
        "collections.OrderedDict",
        "torch.Size",
        "torch._tensor._rebuild_from_type_v2",
        "torch.device",
        "torch.nn.parameter.Parameter",
        "torch.per_channel_affine",
        "torch.per_channel_affine_float_qparams",
        "torch.per_channel_symmetric",
        "torch.per_tensor_affine",
        "torch.per_tensor_symmetric",
        "torch.serialization._get_layout",
    }
)

_NUMPY = {
    f"numpy.{core}.{name}"
    for core in ("core", "_core")
    for name in ("multiarray._reconstruct", "multiarray.scalar", "numeric._frombuffer")
}
_PATHS = {
    f"{module}.{name}"
    for module in ("pathlib", "pathlib._local")
    for name in ("Path", "PosixPath", "PurePath", "PurePosixPath", "PureWindowsPath", "WindowsPath")
}
_BUILTINS = {
    f"builtins.{name}"
    for name in (
        "bool", "bytes", "dict", "float", "frozenset", "int", "list", "object", "range", "slice", "str",
        "tuple",
    )
}  # fmt: skip

INERT: frozenset[str] = frozenset(
    {
        *_NUMPY,
        *_PATHS,
        *_BUILTINS,
        "argparse.Namespace",
        "collections.defaultdict",
        "collections.deque",
        "datetime.date",
        "datetime.datetime",
        "datetime.time",
        "datetime.timedelta",
        "datetime.timezone",
        "lightning.fabric.utilities.data.AttributeDict",
        "lightning.pytorch.utilities.parsing.AttributeDict",
        "lightning_fabric.utilities.data.AttributeDict",
        "numpy.dtype",
        "numpy.ndarray",
        "pytorch_lightning.utilities.parsing.AttributeDict",
        "torch.nn.parameter.Buffer",
        "torch.nn.parameter.UninitializedBuffer",
        "torch.nn.parameter.UninitializedParameter",
        "types.SimpleNamespace",
    }
)

_DANGEROUS_PACKAGES = frozenset(
    {
        "_posixsubprocess", "_socket", "asyncio", "bdb", "cProfile", "code", "codeop", "commands",
        "concurrent", "ctypes", "distutils", "doctest", "ensurepip", "ftplib", "http", "idlelib", "imaplib",
        "imp", "importlib", "inspect", "lib2to3", "marshal", "multiprocessing", "nt", "os", "pdb", "pip",
        "pkgutil", "platform", "popen2", "posix", "profile", "pty", "pydoc", "runpy",
        "setuptools", "shutil", "signal", "site", "smtplib", "socket", "socketserver", "sqlite3", "ssl",
        "subprocess", "sys", "telnetlib", "tempfile", "threading", "timeit", "trace", "urllib",
        "venv", "webbrowser", "xmlrpc", "zipapp", "zipfile", "zipimport",
    }
)  # fmt: skip
_DANGEROUS_NAMES = frozenset(
    {
        "_io.FileIO", "_io.open", "_pickle.load", "_pickle.loads", "builtins.__import__", "builtins.apply",
        "builtins.breakpoint", "builtins.compile", "builtins.delattr", "builtins.eval", "builtins.exec",
        "builtins.execfile", "builtins.globals", "builtins.input", "builtins.locals",
        "builtins.open", "builtins.setattr", "builtins.vars", "codecs.open", "functools.reduce",
        "io.FileIO", "io.open", "numpy.load", "operator.attrgetter", "operator.itemgetter",
        "operator.methodcaller", "pickle.load", "pickle.loads", "torch.hub.load",
        "torch.hub.load_state_dict_from_url", "torch.jit.load", "torch.load", "torch.ops.load_library",
        "torch.serialization.load", "torch.storage._load_from_bytes", "types.CodeType",
        "types.FunctionType",
    }
)  # fmt: skip


def classify(name: str) -> Verdict:
    """Judge the full name of a global, as ``full_name`` writes it."""
    if name in ALLOWED:
        return "allowed"
    if name in INERT:
        return "inert"
    package = name.partition(":")[0].partition(".")[0]
    if package in _DANGEROUS_PACKAGES or name in _DANGEROUS_NAMES:
        return "dangerous"
    return "refused"


def full_name(module: str, attribute: str) -> str:
    """Join what GLOBAL names, in the words of Python 3 (``__builtin__.set`` is ``builtins.set``).

    A dotted attribute would be looked up step by step; it is joined by a colon, as in entry points, so that
    it equals no name in a list (``torch:os.system``).
    """
    if "." in attribute:
        return f"{module}:{attribute}"
    name = f"{module}.{attribute}"
    if name in ALLOWED or name in INERT:
        return name
    from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING

    if (module, attribute) in NAME_MAPPING:
        return ".".join(NAME_MAPPING[module, attribute])
    return f"{IMPORT_MAPPING.get(module, module)}.{attribute}"


def refuse_globals(subject: str, found: Iterable[Global]) -> None:
    """Refuse a pickle that names more than plain data.

    Raises FormatError: CKPT702 where a name is known to run code, CKPT701 where it is merely unknown.
    """
    verdicts = {g.name: g.verdict for g in found}
    for verdict, code, what in (
        ("dangerous", "CKPT702", "runs code when it is unpickled: it names"),
        ("refused", "CKPT701", "needs a full unpickling, which can run any code: it names"),
    ):
        names = sorted(name for name in verdicts if verdicts[name] == verdict)
        if names:
            more = f" and {len(names) - 5} more" if len(names) > 5 else ""
            hint = f"see what it holds, without running anything: ckptaudit inspect {_quoted(subject)}"
            raise FormatError(subject, f"{what} {', '.join(names[:5])}{more}", hint, code=code)


def broken_with(error: FormatError, found: Iterable[Global]) -> FormatError:
    """Return the error of a broken pickle; where it names code to run, that is the worse news (CKPT702)."""
    running = sorted((g for g in found if g.verdict == "dangerous"), key=lambda g: g.name)
    if not running or error.code in ("CKPT701", "CKPT702"):
        return error
    names = ", ".join(f"{g.name} ({g.member}, byte {g.offset:,})" for g in running[:5])
    reason = f"names {names}, which runs code, and is broken: {error.reason}"
    return FormatError(error.subject, reason, "do not load it", code="CKPT702")


def _quoted(path: str) -> str:
    from shlex import quote

    return quote(path)
