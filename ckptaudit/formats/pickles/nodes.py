"""What a pickle builds when nothing it names is imported or called: inert nodes.

``None``, ``bool``, ``int``, ``float``, ``str``, ``bytes``, ``bytearray``, ``list`` and ``tuple`` stand for
themselves. Everything else is one of the nodes below. Nodes may be shared and may form cycles, as in any
pickle: walk them with a list of your own, never by recursion, and compare them by identity.
"""

from __future__ import annotations

from collections.abc import Iterable


class GlobalRef:
    """A class or function the pickle names. ``name`` is ``module.attribute``; nothing stands behind it.

    ``simple`` tells that a call of it is a plain node, whatever its arguments, ``bare`` that one without arguments is;
    ``tensor`` that it makes a tensor.
    """

    __slots__ = ("bare", "name", "simple", "tensor")

    def __init__(self, name: str, simple: bool = False, tensor: bool = False) -> None:
        self.name = name
        self.simple = simple
        self.bare = False
        self.tensor = tensor

    def __repr__(self) -> str:
        return f"GlobalRef({self.name!r})"


class PersistentId:
    """A reference out of the pickle; torch writes its storages so. ``id`` is what the pickle hands over.

    ``meant`` is for the reader: what it stands for.
    """

    __slots__ = ("id", "meant")

    def __init__(self, pid: object) -> None:
        self.id = pid
        self.meant: object = None


class PDict:
    """A dict in the file's order. No key occurs twice (str, number, bytes and flat tuple keys).

    ``table`` holds the values by what tells their keys apart: a str or a small number is its own identity. ``odd``
    holds the other keys themselves, by their identity.
    """

    __slots__ = ("odd", "table")

    def __init__(self, pairs: Iterable[tuple[object, object]] = ()) -> None:
        self.table: dict[object, object] = {}
        self.odd: dict[object, object] | None = None
        for key, value in pairs:
            self.add(key, key if type(key) is str else identity_of(key, len(str(key)))[0], value)

    def add(self, key: object, identity: object, value: object) -> None:
        """Store an item that is not there yet; ``identity`` is what ``identity_of`` says of a key that is no str."""
        self.table[identity] = value
        if identity is not key:
            self.odd = self.odd or {}
            self.odd[identity] = key

    @property
    def pairs(self) -> list[tuple[object, object]]:
        """The keys with their values."""
        odd = self.odd
        if odd is None:
            return list(self.table.items())
        return [(odd.get(identity, identity), value) for identity, value in self.table.items()]

    def copy(self) -> PDict:
        """Return a dict of its own with the same items."""
        other = PDict()
        other.table = dict(self.table)
        other.odd = dict(self.odd) if self.odd else None
        return other

    def get(self, key: str) -> object:
        """Return the value of a str key, or None."""
        return self.table.get(key)


class PSet:
    """A set or, where it is ``frozen``, a frozenset, as the list of its ``items``, which may repeat themselves."""

    __slots__ = ("frozen", "items")

    def __init__(self, items: list[object], frozen: bool = False) -> None:
        self.items = items
        self.frozen = frozen


class Call:
    """A call that is not made: REDUCE, NEWOBJ and NEWOBJ_EX, with what is done to its result afterwards.

    ``state`` is what BUILD hands to the object (None: no BUILD), ``pairs`` what SETITEM stores in it,
    ``items`` what APPEND or ADDITEMS add to it.
    """

    __slots__ = ("args", "fn", "items", "kwargs", "pairs", "state")

    def __init__(self, fn: GlobalRef, args: tuple[object, ...], kwargs: PDict | None = None) -> None:
        self.fn = fn
        self.args = args
        self.kwargs = kwargs
        self.state: object = None
        self.pairs: PDict | None = None
        self.items: list[object] | None = None

    @property
    def name(self) -> str:
        """The full name of what would be called."""
        return self.fn.name

    @property
    def attributes(self) -> PDict | None:
        """The instance ``__dict__`` that BUILD restores, where the state has the usual form."""
        state = self.state
        if isinstance(state, tuple) and len(state) == 2:
            state = state[0]
        return state if isinstance(state, PDict) else None


def identity_of(key: object, limit: int) -> tuple[object, int]:
    """Return what tells a dict key from the others (None: it is no possible key), and what it cost to find out.

    Larger numbers go in as text, so that no file chooses the hashes. A key of more than ``limit`` parts or bytes is
    no possible key. The cost is about that of as many opcodes.
    """
    if isinstance(key, float) and key.is_integer():
        key = int(key)  # as Python has it, 1, 1.0 and True are one key
    if isinstance(key, int) and 0 <= key < _SMALL:
        return int(key), 1
    parts: list[object] = []
    todo, size = [key], 0
    while todo:
        part = todo.pop()
        if isinstance(part, tuple):
            parts.append(len(part))
            size += len(part)
            todo.extend(part if size <= limit else ())
        elif isinstance(part, Call | GlobalRef | PSet | PersistentId):
            parts.append(id(part) if _is_hashable(part) else None)
        elif isinstance(part, int):
            size += part.bit_length() // 8
            parts.append(hex(part) if size <= limit else None)
        elif isinstance(part, str | bytes):
            size += len(part)
            parts.append(repr(part) if size <= limit else None)
        elif isinstance(part, float):
            parts.append(hex(int(part)) if part.is_integer() else repr(part))
        else:
            parts.append(repr(part) if part is None else None)
        if parts[-1] is None or size > limit or len(parts) > limit:
            return None, limit
    return tuple(parts), 4 * len(parts) + size // 16


_SMALL = 1 << 32  # such numbers do not collide in a dict, whoever chooses them
# Results of calls that Python cannot hash, or that may equal another key though they are not the same object.
_NO_KEYS = frozenset(
    {
        "builtins.bytearray",
        "builtins.complex",
        "collections.Counter",
        "collections.OrderedDict",
        "torch.Size",
        "torch.device",
    }
)


def _is_hashable(node: Call | GlobalRef | PSet | PersistentId) -> bool:
    return node.name not in _NO_KEYS if isinstance(node, Call) else not isinstance(node, PSet) or node.frozen


# Classes whose instances are mappings, filled by SETITEM(S) or by one argument.
MAPPING_CLASSES = frozenset(
    {
        "builtins.dict",
        "collections.Counter",
        "collections.OrderedDict",
        "collections.defaultdict",
        "lightning.fabric.utilities.data.AttributeDict",
        "lightning.pytorch.utilities.parsing.AttributeDict",
        "lightning_fabric.utilities.data.AttributeDict",
        "pytorch_lightning.utilities.parsing.AttributeDict",
    }
)
# Classes whose instances are filled by APPEND(S) or ADDITEMS.
SEQUENCE_CLASSES = frozenset({"builtins.list", "builtins.set", "builtins.frozenset", "collections.deque"})


def pairs_of(node: object) -> list[tuple[object, object]] | None:
    """Return the key-value pairs of a dict or of an instance of a mapping class, or None for other nodes."""
    if isinstance(node, PDict):
        return node.pairs
    if isinstance(node, Call):
        if node.pairs is not None:
            return node.pairs.pairs
        if node.name in MAPPING_CLASSES:
            return []
    return None


def is_mapping(node: object) -> bool:
    """Tell whether ``pairs_of`` returns pairs, without making a list of them."""
    return isinstance(node, PDict) or (
        isinstance(node, Call) and (node.pairs is not None or node.name in MAPPING_CLASSES)
    )


def is_empty_mapping(node: object) -> bool:
    """Tell whether ``pairs_of`` returns no pairs and the node is a mapping."""
    if isinstance(node, Call):
        if node.pairs is None:
            return node.name in MAPPING_CLASSES
        node = node.pairs
    return isinstance(node, PDict) and not node.table


def items_of_list(given: object) -> tuple[list[object], list[object]] | None:
    """Return the keys and values of a list of pairs, as Python 2 hands an OrderedDict's items over, or None."""
    if isinstance(given, list) and all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in given):
        return [pair[0] for pair in given], [pair[1] for pair in given]
    return None


def settled(value: object, depth: int = 3) -> object:
    """Return an argument as it is now: what is done to a list or dict after the call is no part of the call.

    Only ``depth`` levels of tuples are looked into; torch's functions get no deeper ones.
    """
    if isinstance(value, list):
        return list(value)
    if isinstance(value, PDict):
        return value.copy()
    if depth and isinstance(value, tuple):
        return tuple(settled(item, depth - 1) for item in value)
    return value


def type_name(node: object) -> str:
    """Return the type a node's object would have: ``int``, ``dict``, ``numpy.ndarray``, ``my.Config``."""
    if isinstance(node, PDict):
        return "dict"
    if isinstance(node, PSet):
        return "set"
    if isinstance(node, PersistentId):
        return "torch storage"
    if isinstance(node, GlobalRef):
        return node.name
    if isinstance(node, Call):
        return _result_type(node)
    return type(node).__name__


def _result_type(call: Call) -> str:
    if call.name == "torch._tensor._rebuild_from_type_v2" and len(call.args) == 4:
        cls = call.args[1]
        return cls.name if isinstance(cls, GlobalRef) else call.name
    name = call.name.replace("numpy._core.", "numpy.core.")
    fallback = "torch.Tensor" if name.startswith("torch._utils._rebuild_") else call.name
    return _RESULT_TYPES.get(name, fallback).removeprefix("builtins.")


def shown(node: object, length: int = 80) -> str:
    """Write a node for people, in ASCII and in at most ``length`` characters: ``posix.system('id')``."""
    text = ""
    todo: list[object] = [node]
    while todo and len(text) <= length:
        part = todo.pop()
        if isinstance(part, _Text):
            text += part
        elif isinstance(part, str | bytes | bytearray):
            text += ascii(part[: length + 1])
        elif isinstance(part, int) and part.bit_length() > 64:
            text += f"an int of {part.bit_length():,} bits"
        else:
            todo += _pieces(part)
    return text if len(text) <= length else f"{text[: length - 3]}..."


class _Text(str):
    """Text that is shown as it is."""

    __slots__ = ()


def _pieces(node: object) -> list[object]:
    """Return what to write for a node, last part first."""
    if isinstance(node, Call):
        return [*_listed(node.args, "(", ")"), _Text(node.name)]
    if isinstance(node, list):
        return _listed(node, "[", "]")
    if isinstance(node, tuple):
        return _listed(node, "(", ",)" if len(node) == 1 else ")")
    plain = node is None or isinstance(node, bool | int | float)
    return [_Text(repr(node) if plain else type_name(node))]


def _listed(items: list[object] | tuple[object, ...], before: str, after: str) -> list[object]:
    parts: list[object] = [_Text(before)]
    for number, item in enumerate(items[:_SHOWN_ITEMS]):
        parts += [_Text(", "), item] if number else [item]
    parts += [_Text(", ...")] if len(items) > _SHOWN_ITEMS else []
    return [_Text(after), *reversed(parts)]


_SHOWN_ITEMS = 20
_RESULT_TYPES = {
    "numpy.core.multiarray._reconstruct": "numpy.ndarray",
    "numpy.core.numeric._frombuffer": "numpy.ndarray",
    "numpy.core.multiarray.scalar": "numpy scalar",
    "torch._utils._rebuild_nested_tensor": "nested tensor",
    "torch.serialization._get_layout": "torch.layout",
}
