"""TorchScript archives: the weights, a tree of attributes, are read without running the code beside them.

Beside data.pkl lie more pickles, which torch.jit.load (constants.pkl; traced_inputs.pkl on request), the lite
interpreter (bytecode.pkl and those of its debugger) or an error message (code/**.debug_pkl) unpickle. All of them
are interpreted here, so that none names what is not plain data.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from ...manifest import Manifest, TensorSpec
from ...records import replace
from ..base import Candidate, Global, Limits, Remark
from ..candidates import Found
from ..modules import PathBudget, assemble
from ..oddities import embedded_pickles
from ..pickles.machine import PickleResult
from ..pickles.nodes import Call, shown
from ..pickles.rebuild import Rebuilder
from .zip_archive import Archive, Storages, merged

_CLASS = r"(?m)^class (\w+)\(Module\):\n  __parameters__ = \[(.*)\]\n  __buffers__ = \[(.*)\]\n"
_RUNS_ON_LOAD = r"(?m)^  def __setstate__\("
_SUFFIX = ".storage"  # of the constants' records where the lite interpreter shares them with the bytecode
_PICKLES = {  # record: folder of its tensors
    "constants.pkl": "constants",
    "bytecode.pkl": "constants",
    "mobile_debug_handles.pkl": "mobile_debug_handles",
    "traced_inputs.pkl": "traced_inputs",
}
_DEBUG = ("callstack_debug_map.pkl", "delegated_backends.debug_pkl")
_SCRIPT_GLOBALS = frozenset(
    f"torch.jit._pickle.{name}"
    for name in (
        "build_boollist",
        "build_doublelist",
        "build_intlist",
        "build_tensorlist",
        "restore_type_tag",
    )
)


class Script:
    """What a TorchScript archive keeps beside its data.pkl. All pickles are interpreted at once; see ``globals``."""

    def __init__(self, archive: Archive, data: PickleResult) -> None:
        self.archive = archive
        if any(name.casefold() == "model.json" for name in archive.records):
            archive.broken("it has the layouts of TorchScript before and since torch 1.4 at once")
        names = sorted(filter(is_script_pickle, archive.records))
        self.pickles = {name: archive.unpickle(name, packed=True) for name in names}
        everything = (data, *self.pickles.values())
        self.globals = merged(in_script(found) for result in everything for found in result.globals)
        self.classes: dict[str, frozenset[str]] = {}
        self.runs_on_load = False
        self._read_code()

    def _read_code(self) -> None:
        """Learn the parameters and buffers of the archive's own classes, as its code records list them."""
        modules = {g.name.rpartition(".")[0] for g in self.globals if g.name.startswith("__torch__")}
        length = 0
        for module in sorted(modules):
            name = f"code/{module.replace('.', '/')}.py"
            if name in self.archive.records:
                code = self.archive.text(name)
                length += len(code)
                most = self.archive.limits.string_bytes
                if length > most:  # a few bytes may unpack to many
                    self.archive.exceeded(f"its code takes more than {most:,} bytes", "string_bytes")
                self.classes |= declared_state(code, module)
                self.runs_on_load = self.runs_on_load or re.search(_RUNS_ON_LOAD, code) is not None

    def check(self) -> set[str]:
        """Return the records that are part of such an archive, apart from data.pkl and its storages.

        Raises FormatError CKPT002 where the tensors of the other pickles are not what their records hold.
        """
        archive = self.archive
        known = set(filter(is_script_record, archive.records))
        for name, folder in _PICKLES.items():
            if name in self.pickles:
                result, traced = self.pickles[name], name == "traced_inputs.pkl"
                storages = Storages(archive, folder, result.persistent_ids, suffix=_SUFFIX, hollow=traced)
                known |= storages.names
                if name == "constants.pkl":
                    self._check_constants(result.value, storages)
        return known

    def _check_constants(self, constants: object, storages: Storages) -> None:
        rebuilder = Rebuilder(self.archive.source.path, storages.resolve, self.archive.limits)
        for index, node in enumerate(constants if isinstance(constants, tuple) else ()):
            rebuilder.tensor(node, f"constants.{index}")

    def remarks(self) -> Iterator[Remark]:
        """Remark that there is a program, and on pickles inside of its pickles."""
        for name, result in self.pickles.items():
            yield from embedded_pickles(name, result.embedded, self.archive.limits)
        code = [name for name in self.archive.records if _is_code(name) or name == "bytecode.pkl"]
        if code:
            records = f"{len(code):,} record" + ("" if len(code) == 1 else "s")
            when = "when the loaded module is called"
            if self.runs_on_load:
                when = f"as the file is loaded (__setstate__) and {when}"
            reason = f"holds TorchScript code in {records}, which runs {when}; only its weights were judged"
            yield Remark("CKPT709", reason)

    def find(self, root: object, rebuilder: Rebuilder, *, subject: str, limits: Limits) -> Found:
        """Find the state dict in the tree of data.pkl."""
        return find_in_script(root, rebuilder, subject=subject, limits=limits, declared=self.classes)


def is_script_pickle(name: str) -> bool:
    """Tell whether torch unpickles a record of a TorchScript archive, apart from data.pkl."""
    return name in _PICKLES or name in _DEBUG or (name.startswith("code/") and name.casefold().endswith(".debug_pkl"))


def is_script_record(name: str) -> bool:
    """Tell whether torch.jit.save writes a record of this name beside data.pkl, tensors apart."""
    return is_script_pickle(name) or _is_code(name) or name.startswith("extra/")


def _is_code(name: str) -> bool:
    return name.startswith("code/") and name.endswith(".py")


def in_script(found: Global) -> Global:
    """TorchScript names its own classes; they exist in the archive's code alone, which is never run."""
    plain = found.name.startswith("__torch__.") or found.name in _SCRIPT_GLOBALS
    return replace(found, verdict="inert") if plain and found.verdict == "refused" else found


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
            declared_tensor = names is not None and name in names
            below = isinstance(node, Call) and node.name.startswith("__torch__.") and not declared_tensor
            wanted = below or names is None or declared_tensor
            yield name if isinstance(name, str) else shown(name), node if wanted else None, below

    tensors: dict[str, TensorSpec] = {}
    if isinstance(root, Call):
        tensors = assemble(root, rebuilder, budget=PathBudget(subject, limits), lister=attributes)
    return Found((Candidate("", "module", Manifest(tensors, source=subject)),), root, {"": None}, limits)
