"""Which state dicts a value tree holds: mappings of names to tensors, optimizer states, whole modules."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Container, Iterator
from typing import NoReturn

from ..errors import FormatError
from ..manifest import Manifest, TensorSpec
from ..records import dataclass, field
from .base import Candidate, Limits
from .modules import assemble, is_module
from .nodes import Call, PDict, PSet, pairs_of, type_name
from .rebuild import Rebuilder

_ORDERED_DICT_NAMES = frozenset(dir(OrderedDict))
_SCALARS = (str, int, float, bytes, bytearray, type(None))


@dataclass(frozen=True)
class Found:
    """What ``find_candidates`` saw: the candidates in file order, and what lies around each of them."""

    candidates: tuple[Candidate, ...]
    root: object
    _around: dict[str, tuple[_Level, ...]]

    def siblings(self, candidate: Candidate | None) -> dict[str, str]:
        """Return path -> type of what lies beside a candidate, on every level above it.

        Without a candidate: the contents of the top level.
        """
        if candidate is None:
            return {component(key): type_name(value) for key, value in pairs_of(self.root) or ()}
        levels = self._around[candidate.path]
        inner = [*(level.path for level in levels[1:]), candidate.path]
        beside: dict[str, str] = {}
        for level, below in zip(levels, inner, strict=False):
            for key, value in pairs_of(level.node) or ():
                path = join(level.path, component(key))
                if path != below:
                    beside[path] = type_name(value)
        return beside


@dataclass(frozen=True)
class _Level:
    """One container on the way from the root to where the walk is."""

    path: str
    node: object
    children: Iterator[tuple[object, object]]
    sink: _Draft


@dataclass
class _Draft:
    """A candidate in the making."""

    path: str
    kind: str
    tensors: dict[str, TensorSpec] = field(default_factory=dict)
    entries: dict[str, str] = field(default_factory=dict)
    versions: dict[str, int | None] | None = None


def find_candidates(root: object, rebuilder: Rebuilder, *, subject: str, limits: Limits) -> Found:
    """Walk the tree once, container by container, and describe what could be loaded.

    A container that is reached again is reported at its first path only. Paths join the keys by dots; where
    two candidates would have one path, the later is marked ``~2``. Every tensor is checked, whether it is
    part of a candidate or not. Raises FormatError: CKPT703 beyond a limit, CKPT002 for broken tensors.
    """
    return _Walk(rebuilder, subject, limits).find(root)


class _Walk:
    def __init__(self, rebuilder: Rebuilder, subject: str, limits: Limits) -> None:
        self.rebuilder = rebuilder
        self.subject = subject
        self.limits = limits
        self.levels: list[_Level] = []
        self.seen: set[int] = set()
        self.loose = _Draft("", "tensors")
        self.drafts: list[_Draft] = []
        self.around: dict[str, tuple[_Level, ...]] = {}
        self.spent = 0

    def find(self, root: object) -> Found:
        self.visit(root, "", self.loose)
        while self.levels:
            level = self.levels[-1]
            step = next(level.children, None)
            if step is None:
                self.levels.pop()
            else:
                self.visit(step[1], self.below(level.path, step[0]), level.sink)
        if self.loose.tensors and all(draft.kind == "optimizer" for draft in self.drafts):
            self.register(self.loose)
        return Found(tuple(self.candidate(draft) for draft in self.drafts), root, self.around)

    def below(self, path: str, key: object) -> str:
        path = join(path, component(key))
        self.spent += len(path)
        if len(path) > self.limits.key_bytes or self.spent > self.limits.pickle_bytes:
            self.exceeded("longer paths than are read")
        return path

    def visit(self, node: object, path: str, sink: _Draft) -> None:
        if isinstance(node, _SCALARS):
            return
        spec = self.rebuilder.tensor(node, path or "tensor")
        if spec is not None:
            relative = path[len(sink.path) :].removeprefix(".") if sink.path else path
            sink.tensors[unique(relative or "tensor", sink.tensors)] = spec
        elif id(node) not in self.seen:
            self.seen.add(id(node))
            self.enter(node, path, sink)

    def enter(self, node: object, path: str, sink: _Draft) -> None:
        if len(self.levels) >= self.limits.nesting:
            self.exceeded(f"containers nested deeper than {self.limits.nesting}")
        pairs = pairs_of(node)
        if pairs is None and isinstance(node, Call) and is_module(node):
            tensors = assemble(node, self.rebuilder, subject=self.subject, limits=self.limits)
            self.register(_Draft(path, "module", tensors=tensors))
            return
        children = iter(positional(node)) if pairs is None else iter(pairs)
        if pairs is not None and sink is self.loose:
            if is_optimizer(pairs):
                sink = _Draft(path, "optimizer")
                self.register(sink)
            elif self.is_state_dict(pairs):
                draft = self.state_dict(node, pairs, path)
                self.register(draft)
                children = iter([(key, value) for key, value in pairs if key not in draft.tensors])
        self.levels.append(_Level(path, node, children, sink))

    def register(self, draft: _Draft) -> None:
        draft.path = unique(draft.path, self.around)
        self.around[draft.path] = tuple(self.levels)
        self.drafts.append(draft)

    def is_state_dict(self, pairs: list[tuple[object, object]]) -> bool:
        """At least one tensor, and every tensor under a name."""
        named = [
            isinstance(key, str) for key, value in pairs if self.rebuilder.tensor(value, component(key)) is not None
        ]
        return bool(named) and all(named)

    def state_dict(self, node: object, pairs: list[tuple[object, object]], path: str) -> _Draft:
        draft = _Draft(path, "state_dict", versions=self.versions(node))
        for key, value in pairs:
            name = component(key)
            spec = self.rebuilder.tensor(value, name)
            if spec is None:
                draft.entries[unique(name, draft.entries)] = type_name(value)
            elif name != key:
                self.fail(f"has a tensor under a key that is no printable text: {name}")
            else:
                draft.tensors[name] = spec
        return draft

    def versions(self, node: object) -> dict[str, int | None] | None:
        """Read the module versions that ``state_dict()`` attaches as ``_metadata``."""
        attributes = node.attributes if isinstance(node, Call) else None
        if attributes is None:
            return None
        for name, _ in attributes.pairs:
            if name in _ORDERED_DICT_NAMES:
                self.fail(f"has a state dict whose attribute {name!r} hides a method")
        modules = pairs_of(attributes.get("_metadata"))
        if modules is None:
            return None
        versions: dict[str, int | None] = {}
        for module, facts in modules:
            version = facts.get("version") if isinstance(facts, PDict) else None
            versions[component(module)] = version if type(version) is int else None
        return versions

    def candidate(self, draft: _Draft) -> Candidate:
        source = f"{self.subject}#{draft.path}" if draft.path else self.subject
        manifest = Manifest(draft.tensors, draft.entries, draft.versions, source=source)
        return Candidate(draft.path, draft.kind, manifest)

    def fail(self, what: str) -> NoReturn:
        hint = "get the file again from its source; torch.save writes no such state dict"
        raise FormatError(self.subject, what, hint, code="CKPT002")

    def exceeded(self, what: str) -> NoReturn:
        hint = "check where the file comes from; no known checkpoint needs as much"
        raise FormatError(self.subject, f"holds {what}", hint, code="CKPT703")


def is_optimizer(pairs: list[tuple[object, object]]) -> bool:
    """Tell the state of a ``torch.optim.Optimizer`` from other mappings."""
    parts = {key: value for key, value in pairs if key in ("state", "param_groups")}
    return pairs_of(parts.get("state")) is not None and isinstance(parts.get("param_groups"), list)


def positional(node: object) -> list[tuple[object, object]]:
    """Return what a node other than a mapping holds, under indices or attribute names."""
    if isinstance(node, list | tuple):
        return list(enumerate(node))
    if isinstance(node, PSet):
        return list(enumerate(node.items))
    if not isinstance(node, Call) or node.name.startswith("torch."):
        return []  # what torch rebuilds is one value, whatever its arguments are
    if node.attributes is not None:
        return node.attributes.pairs
    return list(enumerate(node.args if node.items is None else node.items))


def component(key: object) -> str:
    """Write one key as a part of a path: printable text as it is, the rest as Python shows it."""
    if isinstance(key, str):
        return key if key.isprintable() else key.encode("unicode_escape").decode()
    if isinstance(key, bytes):
        return key.decode("utf-8", "backslashreplace")
    if isinstance(key, int) and key.bit_length() <= 64:
        return str(key)
    if isinstance(key, tuple) and all(isinstance(part, str | int | float) for part in key):
        return f"({', '.join(map(component, key))})"
    return repr(key) if isinstance(key, float) or key is None else type_name(key)


def join(path: str, name: str) -> str:
    """Join a path and one more component."""
    return f"{path}.{name}" if path else name


def unique(name: str, taken: Container[str]) -> str:
    """Return ``name``, or ``name~2`` and so on where it is taken."""
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name}~{number}"
    return free
