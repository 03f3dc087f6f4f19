"""How picklers call the classes of plain data; any other call of them asks for more than data.

``list(range(2**40))`` and ``bytes(2**40)`` name nothing but builtins, and take all memory when they are unpickled.
The forms are those of ``__reduce_ex__`` in CPython and numpy, for the protocols 2 to 5.
"""

from __future__ import annotations

from collections.abc import Callable

from .nodes import Call, GlobalRef, PDict, PSet

_LONGEST_NUMBER = 4300  # digits of text that Python itself turns into an integer
_CONTAINERS = (list, tuple, PDict, PSet)
_PLAIN = (bool, int, float, type(None))


def odd_call(name: str, args: tuple[object, ...]) -> bool:
    """Tell whether no pickler calls ``name`` so; False for names that this module knows nothing about."""
    known = FORMS.get(name)
    return known is not None and not known(args)


def _no_arguments(args: tuple[object, ...]) -> bool:
    return not args


def _never(_args: tuple[object, ...]) -> bool:
    return False


def _text(args: tuple[object, ...]) -> bool:
    return all(isinstance(arg, str | bytes) for arg in args)


def _one_container(args: tuple[object, ...]) -> bool:
    return not args or (len(args) == 1 and isinstance(args[0], _CONTAINERS))


def _one_value(args: tuple[object, ...]) -> bool:
    value = args[0] if args else None
    short = isinstance(value, str | bytes) and len(value) <= _LONGEST_NUMBER
    return len(args) < 2 and (short or isinstance(value, _PLAIN))


def _numbers(args: tuple[object, ...]) -> bool:
    return all(isinstance(arg, _PLAIN) for arg in args)


def _deque(args: tuple[object, ...]) -> bool:
    return _one_container(args[:1]) and len(args) < 3 and _numbers(args[1:])


def _moment(args: tuple[object, ...]) -> bool:
    return all(isinstance(arg, (*_PLAIN, str, bytes, Call)) for arg in args)


def _dtype(args: tuple[object, ...]) -> bool:
    return bool(args) and isinstance(args[0], str) and len(args[0]) < 100 and _numbers(args[1:])


def _empty_array(args: tuple[object, ...]) -> bool:
    """``_reconstruct(ndarray, (0,), b'b')``: the shape and the bytes come later, as its state."""
    named = len(args) == 3 and isinstance(args[0], GlobalRef) and args[0].name == "numpy.ndarray"
    return named and args[1] == (0,) and args[2] in (b"b", "b")


def _scalar(args: tuple[object, ...]) -> bool:
    return len(args) == 2 and _is_dtype(args[0]) and isinstance(args[1], str | bytes)


def _from_buffer(args: tuple[object, ...]) -> bool:
    return len(args) == 4 and isinstance(args[0], bytes | bytearray) and _is_dtype(args[1])


def _is_dtype(node: object) -> bool:
    return isinstance(node, Call) and node.name == "numpy.dtype"


FORMS: dict[str, Callable[[tuple[object, ...]], bool]] = {
    "argparse.Namespace": _no_arguments,
    "builtins.bool": _one_value,
    "builtins.bytes": _text,
    "builtins.complex": _numbers,
    "builtins.dict": _one_container,
    "builtins.float": _one_value,
    "builtins.frozenset": _one_container,
    "builtins.int": _one_value,
    "builtins.list": _one_container,
    "builtins.object": _no_arguments,
    "builtins.range": _numbers,
    "builtins.set": _one_container,
    "builtins.slice": _numbers,
    "builtins.str": _one_value,
    "builtins.tuple": _one_container,
    "collections.deque": _deque,
    "datetime.date": _moment,
    "datetime.datetime": _moment,
    "datetime.time": _moment,
    "datetime.timedelta": _numbers,
    "datetime.timezone": _moment,
    "numpy.dtype": _dtype,
    "numpy.ndarray": _never,
    "types.SimpleNamespace": _no_arguments,
    **{f"pathlib.{name}": _text for name in ("Path", "PosixPath", "PurePath", "PurePosixPath", "WindowsPath")},
    **{f"numpy.{core}.multiarray._reconstruct": _empty_array for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray.scalar": _scalar for core in ("core", "_core")},
    **{f"numpy.{core}.numeric._frombuffer": _from_buffer for core in ("core", "_core")},
}
