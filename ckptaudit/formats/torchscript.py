"""The weights of a TorchScript archive: a tree of attributes, read without running the code beside it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from ..manifest import Manifest, TensorSpec
from .base import Candidate, Limits
from .candidates import Found
from .modules import assemble
from .nodes import Call
from .rebuild import Rebuilder

_CLASS = r"(?m)^class (\w+)\(Module\):\n  __parameters__ = \[(.*)\]\n  __buffers__ = \[(.*)\]\n"


def declared_state(code: str, module: str) -> dict[str, frozenset[str]]:
    """Return the parameters and buffers of each class of a code record, which its first lines list.

    ``module`` is the record's name as classes of the pickle write it (``__torch__.torch.nn``).
    """
    return {
        f"{module}.{name}": frozenset(re.findall(r'"([^"]*)"', parameters + buffers))
        for name, parameters, buffers in re.findall(_CLASS, code)
    }


def find_in_script(
    root: object,
    rebuilder: Rebuilder,
    *,
    subject: str,
    limits: Limits,
    declared: Mapping[str, frozenset[str]],
) -> Found:
    """Return one candidate: the keys that ``torch.jit.load(...).state_dict()`` has, in the file's order.

    ``declared`` names the parameters and buffers of each class; of a class it lacks, every tensor counts.
    """

    def attributes(script: Call) -> Iterator[tuple[str, object, bool]]:
        names = declared.get(script.name)
        for name, node in script.attributes.pairs if script.attributes else ():
            below = isinstance(node, Call) and node.name.startswith("__torch__.")
            if below or names is None or name in names:
                yield str(name), node, below

    tensors: dict[str, TensorSpec] = {}
    if isinstance(root, Call):
        tensors = assemble(root, rebuilder, subject=subject, limits=limits, lister=attributes)
    return Found((Candidate("", "module", Manifest(tensors, source=subject)),), root, {"": ()})
