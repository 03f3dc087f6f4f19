"""Every tensor of a model by its canonical name: tied ones by each of theirs, wrappers not named; found in one walk."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from itertools import islice
from typing import Any, Literal

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from ..records import dataclass

# Attributes under which a wrapper keeps the module it wraps: torch.compile, FSDP, checkpoint_wrapper.
_PRIVATE = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
# Wrappers that call it ``module``, a name that other modules may have for something of their own.
_PUBLIC = (nn.DataParallel, nn.parallel.DistributedDataParallel, AveragedModel)
# What every module has; an attribute beside these is its author's, or a mistake.
_FIRST = tuple(vars(nn.Module()))
_STANDARD = {*_FIRST, "_forward_module", "_is_hf_initialized"}
_TELLING = frozenset({bool, list, tuple, dict, partial})
_PLAIN = frozenset({int, float, str, bool, type(None)})
_NO_TENSORS = _TELLING | _PLAIN | {type(value) for value in vars(nn.Module()).values()}


class NamedTensor:
    """One tensor of a model under one name.

    ``name`` leaves out what wrappers add, ``path`` is what ``named_parameters`` says. ``modules`` leads from the
    model to the module that owns the tensor; ``persistent`` is False for what no state dict has. An ``attribute``
    is a tensor that a module keeps without registering it.
    """

    __slots__ = ("kind", "modules", "name", "path", "persistent", "tensor")

    def __init__(
        self,
        name: str,
        path: str,
        tensor: Tensor,
        kind: Literal["parameter", "buffer", "attribute"],
        modules: tuple[nn.Module, ...],
        persistent: bool = True,
    ) -> None:
        self.name, self.path, self.tensor, self.kind = name, path, tensor, kind
        self.modules, self.persistent = modules, persistent

    @property
    def module(self) -> nn.Module:
        """The module that owns the tensor."""
        return self.modules[-1]

    @property
    def place(self) -> Mapping[str, Any]:
        """The dict of the module that holds the tensor under ``attribute``."""
        held = {"parameter": "_parameters", "buffer": "_buffers"}.get(self.kind)
        own = vars(self.modules[-1])
        place: Mapping[str, Any] = own[held] if held else own
        return place

    @property
    def attribute(self) -> str:
        """The name of the tensor in its module."""
        return self.path.rpartition(".")[2]


@dataclass(frozen=True, eq=False)
class Own:
    """An attribute of a module that not every module has, and that may mean something: a flag, a collection, a call."""

    path: str
    module: nn.Module
    name: str
    value: Any


class Walk:
    """What one walk over a model finds.

    ``tensors`` are its parameters, buffers and plain tensor attributes by canonical name, in the model's order. A
    tensor with several names is there under each of them. Where leaving out wrappers would give two tensors one name,
    the later one keeps its full path. ``modules`` are all modules once, by the first of their paths, as
    ``named_modules`` has them, and ``own`` what these have of their own.
    """

    def __init__(self, model: nn.Module) -> None:
        self.tensors: dict[str, NamedTensor] = {}
        self.modules: list[tuple[str, nn.Module]] = []
        self.own: list[Own] = []
        self._seen: set[int] = set()
        self._visit(model, (), "", "")

    def _visit(self, module: nn.Module, above: tuple[nn.Module, ...], name: str, path: str) -> None:
        """Take in a module and all below it; ``name`` and ``path`` end with a dot, or are empty."""
        for other in above:
            if module is other:
                return  # a module inside itself has no names to end with
        modules, held = (*above, module), vars(module)
        for key, parameter in held["_parameters"].items():
            if parameter is not None:
                self._add(NamedTensor(name + key, path + key, parameter, "parameter", modules))
        for key, buffer in held["_buffers"].items():
            if buffer is not None:
                persistent = key not in held["_non_persistent_buffers_set"]
                self._add(NamedTensor(name + key, path + key, buffer, "buffer", modules, persistent))
        self._look(held, modules, name, path)
        for key, child in held["_modules"].items():
            if child is not None:
                self._visit(child, modules, name if _wraps(module, key) else f"{name}{key}.", f"{path}{key}.")

    def _add(self, named: NamedTensor) -> None:
        if named.name in self.tensors:
            named.name = named.path
        self.tensors[named.name] = named

    def _look(self, held: Mapping[str, Any], modules: tuple[nn.Module, ...], name: str, path: str) -> None:
        """Look at the other attributes of a module: for tensors each time, for what else may tell something once."""
        module, known = modules[-1], id(modules[-1]) in self._seen
        if not known:
            self._seen.add(id(module))
            self.modules.append((path[:-1], module))
        usual = tuple(islice(held, len(_FIRST))) == _FIRST  # not where somebody deleted one, or an old pickle lacked it
        for key, value in islice(held.items(), len(_FIRST) if usual else 0, None):
            kind = type(value)
            if kind in _NO_TENSORS:
                if kind in _TELLING and not known and key not in _STANDARD and not _is_plain(value):
                    self.own.append(Own(path[:-1], module, key, value))
            elif isinstance(value, Tensor):
                self._add(NamedTensor(name + key, path + key, value, "attribute", modules, persistent=False))


def named_tensors(model: nn.Module) -> dict[str, NamedTensor]:
    """Return parameters, buffers and plain tensor attributes of ``model`` by canonical name (see ``Walk``)."""
    return Walk(model).tensors


def _wraps(module: nn.Module, key: str) -> bool:
    return key in _PRIVATE or (key == "module" and isinstance(module, _PUBLIC))


def _is_plain(value: Any) -> bool:
    """Tell a collection that holds numbers or texts by its first entry, as for the sizes of a kernel."""
    if isinstance(value, (tuple, list)):
        return not value or type(value[0]) in _PLAIN
    return isinstance(value, dict) and not value
