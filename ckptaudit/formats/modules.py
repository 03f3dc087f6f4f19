"""State dicts of pickled ``nn.Module`` objects, put together from their attributes alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NoReturn

from ..manifest import TensorSpec
from .base import Limits, over_limit
from .pickles.nodes import Call, PSet, is_mapping, pairs_of, shown
from .pickles.rebuild import Rebuilder

Lister = Callable[[Call], "Iterator[tuple[str, object, bool]]"]  # name, node (None: no part), is it a submodule


class PathBudget:
    """Counts the paths in the tree of one file, and the text of their names.

    What is there twice counts twice: forty lists, each with the next one twice, have more paths than anybody can
    walk.
    """

    def __init__(self, subject: str, limits: Limits) -> None:
        self.subject = subject
        self.limits = limits
        self._paths = 0
        self._text = 0

    def spend(self, paths: int, text: int = 0) -> None:
        """Count; raises FormatError CKPT703 beyond a limit."""
        self._paths += paths
        self._text += text
        if self._paths > self.limits.paths:
            self.exceeded(f"more than {self.limits.paths:,} paths to containers and tensors", "paths")
        if self._text > self.limits.path_text:
            self.exceeded(f"paths of more than {self.limits.path_text:,} characters together", "path_text")

    def step(self, path: str, depth: int) -> None:
        """Count one path; raises FormatError CKPT703 where it is too long or too deep."""
        self.spend(1, len(path))
        if len(path) > self.limits.key_bytes:
            self.exceeded(f"a path of more than {self.limits.key_bytes:,} characters", "key_bytes")
        if depth > self.limits.nesting:
            self.exceeded(f"containers nested deeper than {self.limits.nesting}", "nesting")

    def exceeded(self, what: str, limit: str) -> NoReturn:
        """Refuse the file."""
        raise over_limit(self.subject, f"holds {what}", limit, self.limits)


def is_module(node: object) -> bool:
    """Tell whether a node has the attributes that every ``nn.Module`` keeps its parts in."""
    attributes = node.attributes if isinstance(node, Call) else None
    return attributes is not None and all(
        is_mapping(attributes.get(name)) for name in ("_parameters", "_buffers", "_modules")
    )


def list_module(module: Call) -> Iterator[tuple[str, object, bool]]:
    """Yield a module's own parameters, buffers and submodules, in the order of ``state_dict``.

    Those that a state dict leaves out are yielded as None.
    """
    attributes = module.attributes
    if attributes is None:
        return
    hidden = attributes.get("_non_persistent_buffers_set")
    skipped = {name for name in hidden.items if isinstance(name, str)} if isinstance(hidden, PSet) else set()
    for place in ("_parameters", "_buffers", "_modules"):
        for name, node in pairs_of(attributes.get(place)) or ():
            left_out = place == "_buffers" and name in skipped
            yield name if isinstance(name, str) else shown(name), None if left_out else node, place == "_modules"


def assemble(
    module: Call, rebuilder: Rebuilder, *, budget: PathBudget, lister: Lister = list_module
) -> dict[str, TensorSpec]:
    """Return the tensors of ``module.state_dict()``, which no code of the module takes part in.

    What a class adds by overriding ``state_dict`` or by hooks is not in the pickle and not in the result. One module
    in two places counts twice, as in torch. Raises FormatError as ``budget`` does.
    """
    tensors: dict[str, TensorSpec] = {}
    levels = [("", lister(module))]
    while levels:
        prefix, parts = levels[-1]
        part = next(parts, None)
        if part is None:
            levels.pop()
            continue
        name, node, below = part
        key = prefix + name
        budget.step(key, len(levels))
        if below and isinstance(node, Call):
            levels.append((f"{key}.", lister(node)))
        elif not below:
            spec = rebuilder.tensor(node, key)
            if spec is not None:
                tensors[key] = spec
    return tensors
