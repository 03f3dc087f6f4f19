"""Value classes as plain dicts, lists and texts, and back: what a process tells another, without a pickle."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from .errors import CkptauditError
from .rules import RULES, Contract, Rule

_PLAIN = (str, int, float, bool, bytes, type(None))


def pack(value: Any) -> Any:
    """Return the same in builtin types that any channel takes. Raises TypeError for what is no value of ours."""
    if type(value) in _PLAIN:
        return value
    if isinstance(value, Rule):
        return {"rule": value.code}
    if isinstance(value, Contract):
        return {"contract": value.name}
    if isinstance(value, CkptauditError):
        return {"error": [value.subject, value.reason, value.hint]}
    if isinstance(value, Mapping):
        return {"mapping": [[pack(key), pack(item)] for key, item in value.items()]}
    for name, kind in _GROUPS.items():
        if isinstance(value, kind):
            return {name: [pack(item) for item in value]}
    home = type(value).__module__
    if home.partition(".")[0] != __package__:
        raise TypeError(f"{type(value).__qualname__} is no value of {__package__}")
    fields = [pack(getattr(value, name)) for name in type(value).__match_args__]
    return {"record": [home, type(value).__qualname__, fields]}


def unpack(data: Any) -> Any:
    """Return what was packed."""
    if not isinstance(data, dict):
        return data
    ((kind, content),) = data.items()
    if kind in _GROUPS:
        return _GROUPS[kind](map(unpack, content))
    return _UNPACK[kind](content)


def _record(content: Any) -> Any:
    home, name, fields = content
    assert home.partition(".")[0] == __package__
    return getattr(import_module(home), name)(*map(unpack, fields))


_GROUPS: dict[str, type[Any]] = {"tuple": tuple, "list": list, "frozenset": frozenset, "set": set}
_UNPACK: dict[str, Callable[[Any], Any]] = {
    "rule": RULES.__getitem__,
    "contract": Contract.__getitem__,
    "error": lambda parts: CkptauditError(*parts),
    "mapping": lambda pairs: {unpack(key): unpack(item) for key, item in pairs},
    "record": _record,
}
