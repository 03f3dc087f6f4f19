"""Every tensor of a model by its canonical name: tied tensors by each of theirs, wrappers not named."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from ..records import dataclass, replace

# Attributes under which a wrapper keeps the module it wraps: torch.compile, FSDP, checkpoint_wrapper.
_PRIVATE = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
# Wrappers that call it ``module``, a name that other modules may have for something of their own.
_PUBLIC = (nn.DataParallel, nn.parallel.DistributedDataParallel, AveragedModel)


@dataclass(frozen=True, eq=False)
class NamedTensor:
    """One tensor of a model under one name.

    ``name`` leaves out what wrappers add, ``path`` is what ``named_parameters`` says. ``modules`` leads from the
    model to the module that owns the tensor; ``persistent`` is False for what no state dict has. An ``attribute``
    is a tensor that a module keeps without registering it.
    """

    name: str
    path: str
    tensor: Tensor
    kind: Literal["parameter", "buffer", "attribute"]
    modules: tuple[nn.Module, ...]
    persistent: bool = True

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


def named_tensors(model: nn.Module) -> dict[str, NamedTensor]:
    """Return parameters, buffers and plain tensor attributes of ``model`` by canonical name, in the model's order.

    A tensor with several names is there under each of them. Where leaving out wrappers would give two tensors
    one name, the later one keeps its full path.
    """
    walked: list[NamedTensor] = []
    _walk(model, (), "", "", walked)
    found: dict[str, NamedTensor] = {}
    for named in walked:
        found_as = replace(named, name=named.path) if named.name in found else named
        found[found_as.name] = found_as
    return found


def _walk(module: nn.Module, above: tuple[nn.Module, ...], name: str, path: str, found: list[NamedTensor]) -> None:
    """Append the tensors of a module and of all below it; ``name`` and ``path`` end with a dot, or are empty."""
    for other in above:
        if module is other:
            return  # a module inside itself has no names to end with
    modules, own = (*above, module), vars(module)
    for key, parameter in own["_parameters"].items():
        if parameter is not None:
            found.append(NamedTensor(name + key, path + key, parameter, "parameter", modules))
    for key, buffer in own["_buffers"].items():
        if buffer is not None:
            persistent = key not in own["_non_persistent_buffers_set"]
            found.append(NamedTensor(name + key, path + key, buffer, "buffer", modules, persistent))
    for key, value in own.items():
        if isinstance(value, Tensor):
            found.append(NamedTensor(name + key, path + key, value, "attribute", modules, persistent=False))
    for key, child in own["_modules"].items():
        if child is not None:
            _walk(child, modules, name if _wraps(module, key) else f"{name}{key}.", f"{path}{key}.", found)


def _wraps(module: nn.Module, key: str) -> bool:
    return key in _PRIVATE or (key == "module" and isinstance(module, _PUBLIC))
