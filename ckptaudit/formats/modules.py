"""State dicts of pickled ``nn.Module`` objects, put together from their attributes alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ..errors import FormatError
from ..manifest import TensorSpec
from .base import Limits
from .nodes import Call, PSet, pairs_of
from .rebuild import Rebuilder

Lister = Callable[[Call], "Iterator[tuple[str, object, bool]]"]  # name, node, is it a submodule


def is_module(node: object) -> bool:
    """Tell whether a node has the attributes that every ``nn.Module`` keeps its parts in."""
    attributes = node.attributes if isinstance(node, Call) else None
    return attributes is not None and all(
        pairs_of(attributes.get(name)) is not None for name in ("_parameters", "_buffers", "_modules")
    )


def list_module(module: Call) -> Iterator[tuple[str, object, bool]]:
    """Yield a module's own parameters, persistent buffers and submodules, in the order of ``state_dict``."""
    attributes = module.attributes
    if attributes is None:
        return
    hidden = attributes.get("_non_persistent_buffers_set")
    skipped = set(map(str, hidden.items)) if isinstance(hidden, PSet) else set()
    for place in ("_parameters", "_buffers", "_modules"):
        for name, node in pairs_of(attributes.get(place)) or ():
            if node is not None and not (place == "_buffers" and name in skipped):
                yield str(name), node, place == "_modules"


def assemble(
    module: Call, rebuilder: Rebuilder, *, subject: str, limits: Limits, lister: Lister = list_module
) -> dict[str, TensorSpec]:
    """Return the tensors of ``module.state_dict()``, which no code of the module takes part in.

    What a class adds by overriding ``state_dict`` or by hooks is not in the pickle and not in the result.
    Raises FormatError CKPT703 where modules nest deeper, or names grow longer, than the limits allow.
    """
    tensors: dict[str, TensorSpec] = {}
    levels = [("", lister(module))]
    spent = 0
    while levels:
        prefix, parts = levels[-1]
        part = next(parts, None)
        if part is None:
            levels.pop()
            continue
        name, node, below = part
        key = prefix + name
        spent += len(key)
        # One module in two places counts twice, as in torch: forty doublings would never end.
        if len(levels) > limits.nesting or len(key) > limits.key_bytes or spent > limits.pickle_bytes:
            raise FormatError(
                subject,
                "holds a module with more submodules than are read",
                "check where the file comes from; no known model is as deep",
                code="CKPT703",
            )
        if below and isinstance(node, Call):
            levels.append((f"{key}.", lister(node)))
        elif not below:
            spec = rebuilder.tensor(node, key)
            if spec is not None:
                tensors[key] = spec
    return tensors
