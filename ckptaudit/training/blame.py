"""Who wrote a frozen tensor: the operation and the lines of code, from torch's own dispatcher."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ..rules.verdicts import Blame

_FRAMES = 8
# Operations that write running statistics without their schema saying so (measured: torch 2.14).
_STATISTICS = ("running_mean", "running_var")


class BlameMode(TorchDispatchMode):  # type: ignore[misc]
    """Looks at the arguments that each operation writes, and asks ``changed`` about those that are watched.

    ``watched`` gives the frozen tensors by name; ``changed`` tells which of some names have other bits than they had.
    Code that writes memory without an operation of torch (NumPy views, ``p.data = other``) is not seen.
    """

    def __init__(
        self, watched: Callable[[], Mapping[str, Tensor]], changed: Callable[[Iterable[str]], Iterable[str]]
    ) -> None:
        super().__init__()
        self.found: dict[str, Blame] = {}
        self._watched = watched
        self._changed = changed

    def __torch_dispatch__(
        self, operation: Any, _types: Any, arguments: tuple[Any, ...] = (), keywords: dict[str, Any] | None = None
    ) -> Any:
        """Run the operation, and note it where it changed a watched tensor for the first time."""
        keywords = keywords or {}
        written = {_memory(tensor) for tensor in _written(operation, arguments, keywords)}
        result = operation(*arguments, **keywords)
        if written:
            with torch.utils._python_dispatch._disable_current_modes():
                self._note(str(operation), written)
        return result

    def _note(self, operation: str, written: set[int]) -> None:
        names = [n for n, tensor in self._watched().items() if n not in self.found and _memory(tensor) in written]
        for name in self._changed(names) if names else ():
            self.found[name] = Blame(operation, tuple(_stack(sys._getframe(2))))


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr() if tensor.layout == torch.strided else 0


def _written(operation: Any, arguments: tuple[Any, ...], keywords: Mapping[str, Any]) -> Iterator[Tensor]:
    declared = operation._schema.arguments
    given = {argument.name: value for argument, value in zip(declared, arguments, strict=False)} | dict(keywords)
    for argument in declared:
        writes = argument.alias_info is not None and argument.alias_info.is_write
        if writes or ("batch_norm" in operation.__name__ and argument.name in _STATISTICS):
            value = given.get(argument.name)
            yield from (one for one in (value if isinstance(value, (list, tuple)) else [value]) if _is_dense(one))


def _is_dense(value: Any) -> bool:
    return isinstance(value, Tensor) and value.layout == torch.strided


def _stack(frame: FrameType | None) -> Iterator[str]:
    """Yield the callers outside torch and this package, innermost first."""
    shown = 0
    while frame is not None and shown < _FRAMES:
        module = frame.f_globals.get("__name__", "").partition(".")[0]
        if module not in ("torch", "ckptaudit", "contextlib"):
            yield f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}"
            shown += 1
        frame = frame.f_back
