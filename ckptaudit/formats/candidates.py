"""Which state dicts a value tree holds: mappings of names to tensors, optimizer states, whole modules."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping
from typing import NoReturn

from ..errors import FormatError
from ..manifest import Manifest, TensorSpec
from ..records import dataclass, field
from .base import Candidate, Limits, Remark
from .modules import PathBudget, assemble, is_module
from .oddities import about
from .pickles.nodes import MAPPING_CLASSES, SEQUENCE_CLASSES, Call, PDict, PSet, is_mapping, pairs_of, type_name
from .pickles.rebuild import Rebuilder

_SCALARS = frozenset({str, int, float, bool, bytes, bytearray, type(None)})
_MAX_VERSION = 1 << 31
_PLAIN_CLASSES = MAPPING_CLASSES | SEQUENCE_CLASSES


@dataclass(frozen=True)
class Found:
    """What ``find_candidates`` saw: the candidates in file order, and what lies around each of them."""

    candidates: tuple[Candidate, ...]
    root: object
    _around: dict[str, _Level | None]
    _limits: Limits
    remarks: tuple[Remark, ...] = ()
    nodes: Mapping[str, object] = field(default_factory=dict)  # of the candidates, by path

    def siblings(self, candidate: Candidate | None, subject: str = "") -> dict[str, str]:
        """Return path -> type of what lies beside a candidate, on every level above it.

        Without a candidate: the contents of the top level. Raises FormatError CKPT703 where that is too much.
        """
        budget = PathBudget(subject, self._limits)
        beside: dict[str, str] = {}
        for path, node, below in self.levels(candidate):
            for key, value in pairs_of(node) or ():
                beyond = join(path, component(key))
                budget.spend(1, len(beyond))
                if beyond != below:
                    beside[beyond] = type_name(value)
        return beside

    def levels(self, candidate: Candidate | None) -> list[tuple[str, object, str | None]]:
        """Return the containers above a candidate, outermost first: path, node, and the path on to the candidate."""
        if candidate is None:
            return [("", self.root, None)]
        levels: list[tuple[str, object, str | None]] = []
        below = candidate.path
        level = self._around[candidate.path]
        while level is not None:
            levels.append((level.path, level.node, below))
            below = level.path
            level = level.above
        return levels[::-1]


class _Level:
    """One container on the way from the root to where the walk is.

    ``held`` is what its children lie in. ``paths`` counts those to it and to what was found in it so far,
    ``objects`` the instances of other than plain containers among it and the levels above.
    """

    __slots__ = ("above", "children", "depth", "held", "node", "objects", "path", "paths", "sink")

    def __init__(self, path: str, node: object, above: _Level | None, sink: _Draft) -> None:
        self.path = path
        self.node = node
        self.held = holder(node)
        self.above = above
        self.sink = sink
        self.children: Iterator[tuple[object, object]] = iter(())
        self.paths = 1
        self.depth: int = above.depth + 1 if above else 1
        self.objects: int = (above.objects if above else 0) + (not _is_plain(node))


@dataclass
class _Draft:
    """A candidate in the making."""

    path: str
    kind: str
    tensors: dict[str, TensorSpec] = field(default_factory=dict)
    entries: dict[str, str] = field(default_factory=dict)
    versions: dict[str, int | None] | None = None
    repeats: dict[str, int] = field(default_factory=dict)


def find_candidates(root: object, rebuilder: Rebuilder, *, subject: str, limits: Limits) -> Found:
    """Walk the tree once, container by container, and describe what could be loaded.

    A container that is reached again is reported at its first path only, but all paths to it count, and one in itself
    is refused, other than objects. Paths join the keys by dots; where
    two candidates would have one path, the later is marked ``~2``. Every tensor is checked, whether it is
    part of a candidate or not. Raises FormatError: CKPT703 beyond a limit, CKPT002 for broken tensors.
    """
    return _Walk(rebuilder, subject, limits).find(root)


class _Walk:
    def __init__(self, rebuilder: Rebuilder, subject: str, limits: Limits) -> None:
        self.rebuilder = rebuilder
        self.subject = subject
        self.limits = limits
        self.budget = PathBudget(subject, limits)
        self.level: _Level | None = None
        self.seen: dict[int, int | _Level] = {}  # containers: the paths to them and in them, or where they are open
        self.loose = _Draft("", "tensors")
        self.drafts: list[_Draft] = []
        self.nameless: list[str] = []
        self.around: dict[str, _Level | None] = {}
        self.nodes: dict[str, object] = {}
        self.repeats: dict[str, int] = {}

    def find(self, root: object) -> Found:
        self.reach(root, "", self.loose)
        while (level := self.level) is not None:
            step = next(level.children, None)
            if step is None:
                self.leave(level)
            else:
                path = join(level.path, component(step[0]))
                self.budget.step(path, level.depth + 1)
                self.reach(step[1], path, level.sink)
        if self.loose.tensors and all(draft.kind == "optimizer" for draft in self.drafts):
            self.register(self.loose, root)
        reason = "holds tensors under keys that are neither text nor numbers, in {}"
        remarks = [about("CKPT706", reason, "mapping", self.nameless)]
        return Found(
            tuple(self.candidate(draft) for draft in self.drafts),
            root,
            self.around,
            self.limits,
            tuple(remarks if self.nameless else ()),
            self.nodes,
        )

    # -- containers, each walked once, and the paths to them ------------------------------------------------

    def reach(self, node: object, path: str, sink: _Draft) -> None:
        """Look at what a path leads to."""
        spec = self.rebuilder.tensor(node, path or "tensor")
        if spec is not None:
            relative = path[len(sink.path) :].removeprefix(".") if sink.path else path
            sink.tensors[unique(relative or "tensor", sink.tensors, sink.repeats)] = spec
            self.count(1)
            return
        level = _Level(path, node, self.level, sink)
        known = self.seen.get(id(level.held))
        if known is None:
            self.enter(level)
        elif not isinstance(known, _Level):
            self.count(known if _is_plain(node) else 1)
        elif level.objects == (known.above.objects if known.above else 0):
            self.fail(f"holds a {type_name(node)} that holds itself")
        else:
            self.count(1)

    def count(self, paths: int) -> None:
        """Count paths in the container at hand; those of a container that is there twice count twice."""
        if self.level is not None:
            self.level.paths += paths
            if self.level.paths > self.limits.paths:
                self.budget.spend(self.level.paths)

    def leave(self, level: _Level) -> None:
        self.seen[id(level.held)] = level.paths
        self.level = level.above
        self.count(level.paths)

    def enter(self, level: _Level) -> None:
        node, path, sink = level.node, level.path, level.sink
        if not is_mapping(node) and is_module(node):
            assert isinstance(node, Call)
            self.seen[id(level.held)] = 1
            self.register(_Draft(path, "module", tensors=assemble(node, self.rebuilder, budget=self.budget)), node)
            self.count(1)
            return
        below: Iterable[tuple[object, object]] = children(node)
        if is_mapping(node) and sink is self.loose:
            pairs = list(below)
            if is_optimizer(pairs):
                level.sink = _Draft(path, "optimizer")
                self.register(level.sink, node)
            elif (draft := self.state_dict(node, pairs, path)) is not None:
                self.register(draft, node)
                level.paths += len(draft.tensors)
                pairs = [(key, value) for key, value in pairs if key not in draft.tensors]
            below = pairs
        level.children = ((key, value) for key, value in below if type(value) not in _SCALARS)
        self.seen[id(level.held)] = level
        self.level = level

    # -- candidates -------------------------------------------------------------------------------------------

    def register(self, draft: _Draft, node: object) -> None:
        draft.path = unique(draft.path, self.around, self.repeats)
        self.around[draft.path] = self.level
        self.nodes[draft.path] = node
        self.drafts.append(draft)
        if len(self.drafts) > self.limits.candidates:
            self.budget.exceeded(f"more than {self.limits.candidates:,} state dicts", "candidates")

    def state_dict(self, node: object, pairs: list[tuple[object, object]], path: str) -> _Draft | None:
        """Return a mapping as a candidate if it holds at least one tensor, and every tensor under a name."""
        draft = _Draft(path, "state_dict")
        nameless, odd = False, False
        for key, value in pairs:
            if type(value) not in _SCALARS:
                name = component(key)
                spec = self.rebuilder.tensor(value, name)
                if spec is not None:
                    nameless = nameless or not isinstance(key, str)
                    odd = odd or not isinstance(key, str | int)  # tensors are often numbered
                    if name != key and not nameless:
                        self.fail(f"has a tensor under a key that is no printable text: {name}")
                    draft.tensors[name] = spec
        if not draft.tensors or nameless:
            self.nameless += [path or "the top level"] if odd else []
            return None
        self.budget.spend(len(pairs), sum(map(len, draft.tensors)))
        for key, value in pairs:
            if key not in draft.tensors:
                draft.entries[unique(component(key), draft.entries, draft.repeats)] = type_name(value)
        draft.versions = self.versions(node)
        return draft

    def versions(self, node: object) -> dict[str, int | None] | None:
        """Read the module versions that ``state_dict()`` attaches as ``_metadata``."""
        attributes = node.attributes if isinstance(node, Call) else None
        if attributes is None:
            return None
        modules = pairs_of(attributes.get("_metadata"))
        if modules is None:
            return None
        versions: dict[str, int | None] = {}
        for module, facts in modules:
            version = facts.get("version") if isinstance(facts, PDict) else None
            versions[component(module)] = version if type(version) is int and abs(version) < _MAX_VERSION else None
        return versions

    def candidate(self, draft: _Draft) -> Candidate:
        source = f"{self.subject}#{draft.path}" if draft.path else self.subject
        manifest = Manifest(draft.tensors, draft.entries, draft.versions, source=source)
        return Candidate(draft.path, draft.kind, manifest)

    def fail(self, what: str) -> NoReturn:
        hint = "get the file again from its source; torch.save writes no such state dict"
        raise FormatError(self.subject, what, hint, code="CKPT002")


def is_optimizer(pairs: list[tuple[object, object]]) -> bool:
    """Tell the state of a ``torch.optim.Optimizer`` from other mappings."""
    parts = {key: value for key, value in pairs if key in ("state", "param_groups")}
    return is_mapping(parts.get("state")) and isinstance(parts.get("param_groups"), list)


def _is_plain(node: object) -> bool:
    """Tell containers of Python itself from objects, which may well refer to those that hold them."""
    return not isinstance(node, Call) or node.name in _PLAIN_CLASSES


def holder(node: object) -> object:
    """Return what the children of a container lie in: two objects may be made of one list."""
    if isinstance(node, PSet):
        return node.items
    if not isinstance(node, Call):
        return node
    if node.pairs is not None:
        return node.pairs
    if node.name in MAPPING_CLASSES or node.name.startswith("torch."):
        return node
    return node.attributes or (node.args if node.items is None else node.items)


def children(node: object) -> Iterable[tuple[object, object]]:
    """Return what a container holds, under its keys, indices or attribute names."""
    pairs = pairs_of(node)
    if pairs is not None:
        return pairs
    if isinstance(node, list | tuple):
        return enumerate(node)
    if isinstance(node, PSet):
        return enumerate(node.items)
    if not isinstance(node, Call) or node.name.startswith("torch."):
        return ()  # what torch rebuilds is one value, whatever its arguments are
    if node.attributes is not None:
        return node.attributes.pairs
    return enumerate(node.args if node.items is None else node.items)


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


def unique(name: str, taken: Container[str], repeats: dict[str, int] | None = None) -> str:
    """Return ``name``, or ``name~2`` and so on where it is taken. ``repeats`` remembers where to go on."""
    if name not in taken:
        return name
    number, free = (repeats or {}).get(name, 1), name
    while free in taken:
        number += 1
        free = f"{name}~{number}"
    if repeats is not None:
        repeats[name] = number
    return free
