"""Casts and operations on tensors in a conversion: the one place of it that needs torch, one result at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ..errors import UsageError
from ..formats.base import MIB, RawTensor
from ..mapping.ranges import out_of_range
from .content import Content, dense
from .plan import Item, fault_of

if TYPE_CHECKING:
    from torch import Tensor

    from ..mapping.effect import Recipe
    from ..mapping.ops import Cast


class Workshop:
    """Makes tensors by recipes; ``raw`` are those of the source. The results of the last operation are kept."""

    def __init__(self, subject: str, raw: Mapping[str, RawTensor]) -> None:
        self._subject = subject
        self._raw = raw
        self._last: tuple[Any, list[Tensor]] | None = None

    def fault(self, recipe: Recipe) -> str | None:
        """Return why a source of a recipe cannot be read, as ``fault_of`` does."""
        for key in recipe.sources:
            raw = self._raw.get(key)
            if raw is None:
                return f"is made of {key}, which does not lie in the file in one piece"
            if fault := fault_of(Item(key, raw.spec, raw)):
                return f"is made of {key}, which {fault}"
        return None

    def content_or(self, other: Callable[[Item], Content]) -> Callable[[Item], Content]:
        """Return what gives the content of every item: ``other`` that of those without a recipe."""
        return lambda item: other(item) if item.recipe is None else self.content(item)

    def content(self, item: Item) -> Content:
        """Return the bytes of an item with a recipe. Raises UsageError as they are made, where a value is lost."""

        def work() -> Iterator[bytearray]:
            import torch

            tensor = self._made(item)
            flat = memoryview(tensor.reshape(-1).view(torch.uint8).numpy()) if tensor.numel() else memoryview(b"")
            for start in range(0, len(flat), MIB):
                yield bytearray(flat[start : start + MIB])

        return Content(item.spec.nbytes, work=work)

    def _made(self, item: Item) -> Tensor:
        from ..mapping.execute import execute

        recipe = item.recipe
        assert recipe is not None
        made = (recipe.op, recipe.sources)
        if self._last is None or self._last[0] != made:
            self._last = None
            inputs = [self._tensor(self._raw[key]) for key in recipe.sources]
            outputs = execute(recipe.op, inputs)
            if recipe.op.word == "cast":
                self._check_range(item.key, inputs[0], outputs[0])
            self._last = made, outputs
        result = self._last[1][recipe.output]
        return result if recipe.cast is None else self._cast(item.key, result, recipe.cast)

    def _cast(self, key: str, tensor: Tensor, cast: Cast) -> Tensor:
        from ..mapping.execute import execute

        (result,) = execute(cast, [tensor])
        self._check_range(key, tensor, result)
        return result

    def _tensor(self, raw: RawTensor) -> Tensor:
        import torch

        dtype = getattr(torch, raw.spec.dtype)
        data = bytearray().join(dense(raw).pieces())
        if not data:
            return torch.empty(raw.spec.shape, dtype=dtype)
        return torch.frombuffer(data, dtype=torch.uint8).view(dtype).reshape(raw.spec.shape)

    def _check_range(self, key: str, before: Tensor, after: Tensor) -> None:
        """Raise UsageError where a value became infinite, or another integer: it was out of the new dtype's range."""
        name = str(after.dtype).removeprefix("torch.")
        lost = out_of_range(before, after)
        if lost.any():
            values = before.reshape(-1)[lost.reshape(-1)]
            reason = f"does not fit {name}: {len(values):,} of {before.numel():,} values, such as {values[0].item()!r}"
            raise UsageError(key, reason, f"keep its dtype, or drop it; {self._subject} is left as it is")
