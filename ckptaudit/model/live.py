"""A live ``nn.Module`` as a witness, for callers who have one."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ..manifest import Manifest
from ..outcome import LoadOutcome
from ..place import Place
from .describe import device_of, manifest_of
from .trial import try_load
from .witness import Lines, ModelFacts, Testimony

if TYPE_CHECKING:
    from torch import nn

    from ..formats import Limits


class LiveModel:
    """Asks a module in this process; the module is never changed."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module

    @cached_property
    def manifest(self) -> Manifest:
        """The description of the module's state dict, as it was when first asked for."""
        return manifest_of(self._module)

    @cached_property
    def facts(self) -> ModelFacts:
        """The name of the module's class, and its device."""
        return ModelFacts(type(self._module).__name__, device=device_of(self._module))

    def try_load(self, checkpoint: Manifest) -> LoadOutcome | str:
        """Return what torch says to such a load, or why it cannot say: see ``trial.try_load``."""
        return try_load(self._module, checkpoint)

    def really_load(self, given: Any, limits: Limits, mappings: Sequence[Lines]) -> Testimony | str:
        """Return what real loads do, or why there can be none: see ``real_load.really_load``."""
        from .real_load import really_load  # and with it the code of mappings

        return really_load(self._module, given, limits, mappings)

    def places(self, keys: Sequence[str]) -> dict[str, Place]:
        """Return the lines of the code of the module's own classes that define these keys, as far as known."""
        from .places import SourcePlaces

        return SourcePlaces(self._module).of(keys)

    def close(self) -> None:
        """Nothing is held that needs closing."""
