"""What a file holds beside the tensors of its state dict, as JSON: the epoch, the configuration, extra states.

JSON has fewer types than Python. What it lacks is an object with one name that begins with a dollar sign:
``{"$tuple": [...]}``, ``{"$dict": [[key, value], ...]}`` where keys are not plain text, ``{"$ordered": [[key, value],
...]}`` for an OrderedDict, ``{"$set": [...]}``, ``{"$bytes": "base64"}``, ``{"$float": "nan"}``, ``{"$size": [...]}``,
``{"$device": "cpu"}``, ``{"$dtype": "float32"}``, and ``{"$state_dict": true}`` where the state dict itself was.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from math import isfinite
from typing import Any

from .base import Candidate, Payload
from .candidates import Found, component, join, unique
from .pickles.globals import DTYPE_NAMES
from .pickles.nodes import Call, GlobalRef, PDict, PSet, pairs_of, type_name

_DEPTH = 100  # containers in containers
_VALUES = 200_000
_BITS = 1024  # of an int
STATE_DICT = {"$state_dict": True}
METADATA = "_safetensors_metadata"  # an attribute of the state dict, as _metadata is


class Unfit(Exception):  # noqa: N818  (it is caught where the value has a name)
    """A value has no form in JSON; the message is the name of its type."""


def payload_of(found: Found, candidate: Candidate) -> Payload:
    """Write down what lies in and around a candidate. Nothing is called or imported for it."""
    writer = _Writer()
    if candidate.kind == "module":  # attributes of an object are no values of a state dict
        return Payload()
    node = found.nodes[candidate.path]
    entries = writer.entries(node, candidate.manifest.tensors)
    around = writer.around(found, candidate)
    return Payload(entries, around, _texts(node), writer.unfit, writer.places)


def _texts(node: object) -> dict[str, str]:
    """Return the metadata of a safetensors file that a conversion has attached to its state dict."""
    attributes = node.attributes if isinstance(node, Call) else None
    pairs = pairs_of(attributes.get(METADATA)) if attributes is not None else None
    return {key: text for key, text in pairs or () if isinstance(key, str) and isinstance(text, str)}


class _Writer:
    """Writes nodes as JSON; what has no form there goes to ``unfit`` where it has a name, and else raises Unfit."""

    def __init__(self) -> None:
        self.unfit: dict[str, str] = {}
        self.places: dict[str, int] = {}
        self.left = _VALUES

    def entries(self, node: object, tensors: Mapping[str, object]) -> dict[str, Any]:
        """Write the values of a state dict that are no tensors, under the keys that its manifest has for them."""
        written: dict[str, Any] = {}
        names: dict[str, None] = {}
        for place, (key, value) in enumerate(pairs_of(node) or ()):
            if key not in tensors:
                name = unique(component(key), names)
                names[name], self.places[name] = None, place
                if name != key:
                    self.unfit[name] = f"{type_name(value)} under a key that is no plain text"
                else:
                    self.store(written, name, value, name)
        return written

    def around(self, found: Found, candidate: Candidate) -> Any:
        """Write the dicts that a state dict lies in, from the innermost one to the root of the file."""
        written: Any = STATE_DICT
        inside = found.nodes[candidate.path]
        for path, node, _ in reversed(found.levels(candidate)):
            if not (isinstance(node, PDict) or _is_ordered(node)):
                self.unfit[path or "the top level"] = type_name(node)
                break
            values: dict[Any, Any] = {}
            for key, value in pairs_of(node) or ():
                if value is inside:
                    values[key] = written
                elif not isinstance(key, str):
                    self.unfit[join(path, component(key))] = f"{type_name(value)} under a key that is no text"
                else:
                    self.store(values, key, value, join(path, component(key)))
            written, inside = _mapping(list(values.items()), ordered=_is_ordered(node)), node
        return None if written is STATE_DICT else written

    def store(self, target: dict[Any, Any], key: str, node: object, path: str) -> None:
        """Write one value that has a name."""
        try:
            target[key] = self.value(node)
        except Unfit as error:
            whole, part = type_name(node), str(error)
            self.unfit[path] = whole if whole == part else f"{whole} with {part}"

    def value(self, node: object, depth: int = 0) -> Any:
        """Write one value. Raises Unfit."""
        self.left -= 1
        if self.left < 0 or depth > _DEPTH:
            raise Unfit("more values than a header may hold" if self.left < 0 else "containers nested too deeply")
        if node is None or isinstance(node, bool | str):
            return node
        if isinstance(node, int) and node.bit_length() <= _BITS:
            return node
        if isinstance(node, float):
            return node if isfinite(node) else {"$float": repr(node)}
        if isinstance(node, list):
            return self.values(node, depth)
        if isinstance(node, PDict) or _is_ordered(node):
            pairs = [(self.value(key, depth + 1), self.value(item, depth + 1)) for key, item in pairs_of(node) or ()]
            return _mapping(pairs, ordered=_is_ordered(node))
        return self.tagged(node, depth)

    def values(self, items: list[object] | tuple[object, ...], depth: int) -> list[Any]:
        """Write the items of a container."""
        return [self.value(item, depth + 1) for item in items]

    def tagged(self, node: object, depth: int) -> Any:
        """Write what JSON has no type for. Raises Unfit."""
        if isinstance(node, tuple):
            return {"$tuple": self.values(node, depth)}
        if isinstance(node, PSet) and not node.frozen:
            return {"$set": self.values(node.items, depth)}
        if isinstance(node, bytes):
            from binascii import b2a_base64

            return {"$bytes": b2a_base64(node, newline=False).decode()}
        if isinstance(node, GlobalRef) and node.name in DTYPE_NAMES:
            return {"$dtype": node.name.removeprefix("torch.")}
        if isinstance(node, Call) and node.state is None and node.pairs is None and node.items is None:
            if node.name == "builtins.set" and len(node.args) == 1 and isinstance(node.args[0], list):
                return {"$set": self.values(node.args[0], depth)}
            if node.name == "torch.Size" and len(node.args) == 1 and isinstance(node.args[0], list | tuple):
                return {"$size": self.values(node.args[0], depth)}
            if node.name == "torch.device" and node.args and all(isinstance(part, str | int) for part in node.args):
                return {"$device": ":".join(map(str, node.args))}
        raise Unfit(type_name(node))


def _is_ordered(node: object) -> bool:
    return isinstance(node, Call) and node.name == "collections.OrderedDict" and node.state is None


def _mapping(pairs: list[tuple[Any, Any]], *, ordered: bool) -> Any:
    if ordered:
        return {"$ordered": [list(pair) for pair in pairs]}
    if all(isinstance(key, str) and not key.startswith("$") for key, _ in pairs):
        return dict(pairs)
    return {"$dict": [list(pair) for pair in pairs]}


_TAGGED = {
    "$bytes": "bytes",
    "$device": "torch.device",
    "$dict": "dict",
    "$dtype": "torch.dtype",
    "$float": "float",
    "$ordered": "collections.OrderedDict",
    "$set": "set",
    "$size": "torch.Size",
    "$tuple": "tuple",
}


def type_of(value: Any) -> str:
    """Return the name of the type that a written value had, as a manifest has it."""
    if isinstance(value, dict) and len(value) == 1:
        return _TAGGED.get(next(iter(value)), "dict")
    return type(value).__name__


def in_places(keys: Iterable[str], placed: Mapping[str, int]) -> list[str]:
    """Return keys with others among them, each of those at its place, or at the end where there are too few keys."""
    rest, result = iter(keys), list[str]()
    for key, place in sorted(placed.items(), key=lambda item: item[1]):
        result += islice(rest, max(0, place - len(result)))
        result.append(key)
    result += rest
    return result


def names_around(around: Any) -> dict[str, str]:
    """Return the path and type of what lies beside a state dict, in what ``Payload.around`` holds."""
    found: dict[str, str] = {}
    path = ""
    while isinstance(around, dict) and around != STATE_DICT:
        below: Any = None
        here = path
        for key, value in _pairs(around):
            name = join(here, component(key))
            if below is None and holds_state_dict(value):
                path, below = name, value
            else:
                found[name] = type_of(value)
        around = below
    return found


def _pairs(mapping: dict[str, Any]) -> Iterable[Any]:
    for name in ("$ordered", "$dict"):
        if name in mapping:
            pairs: list[Any] = mapping[name]
            return pairs
    return mapping.items()


def holds_state_dict(value: Any) -> int:
    """Return how many places for a state dict a written value has."""
    todo, found = [value], 0
    while todo:
        value = todo.pop()
        if value == STATE_DICT:
            found += 1
        elif isinstance(value, dict):
            todo += value.values()
        elif isinstance(value, list):
            todo += value
    return found
