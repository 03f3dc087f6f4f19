"""The calls of torch's own list that make plain values, and which arguments of theirs torch takes.

What torch would raise for is refused here too: a file that torch cannot load is no checkpoint. Calls that rebuild
tensors are not judged here.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from .globals import DTYPE_NAMES, STORAGES, TENSOR_CLASSES
from .inert_calls import FORMS, odd_call

TEXT_CODECS = ("latin1", "latin-1", "utf-8", "ascii")
_LAYOUTS = frozenset(
    f"torch.{name}"
    for name in ("_mkldnn", "jagged", "sparse_bsc", "sparse_bsr", "sparse_coo", "sparse_csc", "sparse_csr", "strided")
)
_QSCHEMES = frozenset(
    f"torch.per_{name}"
    for name in (
        "channel_affine",
        "channel_affine_float_qparams",
        "channel_symmetric",
        "tensor_affine",
        "tensor_symmetric",
    )
)
_DEVICE = re.compile(r"[a-z_][a-z_0-9]*(?::(?:0|[1-9][0-9]{0,2}))?")
_LONGEST_FLOAT = 1023  # bits of an int that a float can hold
_NO_FUNCTIONS = DTYPE_NAMES | _QSCHEMES
_ALLOCATING = TENSOR_CLASSES | frozenset(STORAGES)


def call_fault(name: str, args: tuple[object, ...]) -> str | None:
    """Return what is wrong with a call, as the end of a sentence, or None."""
    if name in _NO_FUNCTIONS:
        return f"calls {name}, which is no function"
    if name in _ALLOCATING:
        return f"allocates memory: it calls {name}" if args or name in STORAGES else None
    if name == "builtins.bytearray" and args and isinstance(args[0], int):
        return f"allocates memory: it calls {name}"
    if odd_call(name, args):
        return f"calls {name} as no pickler does"
    takes = _TAKES.get(name)
    return None if takes is None or takes(args) else f"calls {name} with arguments that it does not take"


def _is_size(args: tuple[object, ...]) -> bool:
    if not args:
        return True
    sizes = args[0] if len(args) == 1 else None
    return isinstance(sizes, list | tuple) and all(
        isinstance(size, int) and -(1 << 63) <= size < 1 << 63 for size in sizes
    )


def _is_device(args: tuple[object, ...]) -> bool:
    if not args or not isinstance(args[0], str) or not _DEVICE.fullmatch(args[0]):
        return False
    return len(args) == 1 or (len(args) == 2 and ":" not in args[0] and type(args[1]) is int and 0 <= args[1] < 1000)


def _is_complex(args: tuple[object, ...]) -> bool:
    return len(args) <= 2 and all(
        isinstance(part, float) or (isinstance(part, int) and part.bit_length() <= _LONGEST_FLOAT) for part in args
    )


def _is_bytes(args: tuple[object, ...]) -> bool:
    if len(args) == 2:
        return isinstance(args[0], str) and args[1] in TEXT_CODECS
    return not args or (len(args) == 1 and isinstance(args[0], bytes | bytearray))


def _is_layout(args: tuple[object, ...]) -> bool:
    return len(args) == 1 and isinstance(args[0], str) and args[0] in _LAYOUTS


_TAKES: dict[str, Callable[[tuple[object, ...]], bool]] = {
    "builtins.bytearray": _is_bytes,
    "builtins.complex": _is_complex,
    "torch.Size": _is_size,
    "torch.device": _is_device,
    "torch.serialization._get_layout": _is_layout,
}
JUDGED_CALLS = frozenset({*_TAKES, *_NO_FUNCTIONS, *_ALLOCATING, *FORMS})
