"""What a pickle builds when nothing it names is imported or called: inert nodes.

``None``, ``bool``, ``int``, ``float``, ``str``, ``bytes``, ``bytearray``, ``list`` and ``tuple`` stand for
themselves. Everything else is one of the nodes below. Nodes may be shared and may form cycles, as in any
pickle: walk them with a list of your own, never by recursion, and compare them by identity.
"""

from __future__ import annotations


class GlobalRef:
    """A class or function the pickle names. ``name`` is ``module.attribute``; nothing stands behind it."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"GlobalRef({self.name!r})"


class PersistentId:
    """A reference out of the pickle; torch writes its storages so. ``id`` is what the pickle hands over."""

    __slots__ = ("id",)

    def __init__(self, pid: object) -> None:
        self.id = pid


class PDict:
    """A dict: ``pairs`` in the file's order. No key occurs twice (str, number, bytes and flat tuple keys)."""

    __slots__ = ("pairs", "seen")

    def __init__(self) -> None:
        self.pairs: list[tuple[object, object]] = []
        self.seen: set[object] = set()

    def get(self, key: str) -> object:
        """Return the value of a str key, or None. Takes time in the number of pairs."""
        for name, value in self.pairs:
            if name == key:
                return value
        return None


class PSet:
    """A set or frozenset, as the list of its ``items``; elements are neither hashed nor compared."""

    __slots__ = ("items",)

    def __init__(self, items: list[object]) -> None:
        self.items = items


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


def identity_of(key: object, limit: int) -> object:
    """Return what tells a dict key from the others, or None where it is no possible key.

    Numbers go in as text, so that no file chooses the hashes. A key of more than ``limit`` parts or bytes is
    no possible key.
    """
    parts: list[object] = []
    todo = [key]
    while todo:
        part = todo.pop()
        if isinstance(part, tuple):
            parts.append(len(part))
            todo.extend(part)
        elif isinstance(part, Call | GlobalRef | PSet | PersistentId):
            parts.append(id(part))
        elif isinstance(part, int) and part.bit_length() <= 8 * limit:
            parts.append(hex(part))
        elif part is None or isinstance(part, str | bytes | float):
            parts.append(repr(part))
        else:
            return None
        if len(parts) + len(todo) > limit:
            return None
    return tuple(parts)


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
    """Return the key-value pairs of a dict or of an instance of a mapping class, or None for other nodes.

    Python 2 hands an OrderedDict's items over as one argument, a list of two-element lists.
    """
    if isinstance(node, PDict):
        return node.pairs
    if isinstance(node, Call):
        if node.pairs is not None:
            return node.pairs.pairs
        if node.name in MAPPING_CLASSES:
            return _pairs_of_argument(node.args[-1] if node.args else None)
    return None


def _pairs_of_argument(given: object) -> list[tuple[object, object]]:
    if isinstance(given, PDict):
        return given.pairs
    if isinstance(given, list) and all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in given):
        return [(pair[0], pair[1]) for pair in given]
    return []


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
        return type_name(call.args[1])
    name = call.name.replace("numpy._core.", "numpy.core.")
    fallback = "torch.Tensor" if name.startswith("torch._utils._rebuild_") else call.name
    return _RESULT_TYPES.get(name, fallback).removeprefix("builtins.")


_RESULT_TYPES = {
    "numpy.core.multiarray._reconstruct": "numpy.ndarray",
    "numpy.core.numeric._frombuffer": "numpy.ndarray",
    "numpy.core.multiarray.scalar": "numpy scalar",
    "torch._utils._rebuild_nested_tensor": "nested tensor",
    "torch.serialization._get_layout": "torch.layout",
}
