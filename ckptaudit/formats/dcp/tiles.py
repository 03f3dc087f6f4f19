"""Whether the chunks of a tensor tile it: every element in exactly one of them, by exact integers."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

Sizes = tuple[int, ...]
Box = tuple[Sizes, Sizes]  # offsets, sizes

MAX_CORNERS = 1 << 20  # of all chunks of one folder that are cut along more than one dimension


class TooManyCornersError(Exception):
    """The chunks are cut along so many dimensions that comparing their corners would take too long."""


class Tiling:
    """Checks the tensors of one folder, one after the other, within one budget of work."""

    def __init__(self) -> None:
        self.corners = 0

    def fault(self, shape: Sizes, chunks: Sequence[Box]) -> str:
        """Say what is wrong with the chunks of one tensor, or return the empty string.

        Chunks without elements may lie anywhere inside: ranks that got nothing write them. Raises TooManyCornersError.
        """
        for offsets, sizes in chunks:
            if not len(offsets) == len(sizes) == len(shape):
                return f"has {len(shape)} dimensions and a chunk of {max(len(offsets), len(sizes))}"
            if any(first + size > whole for first, size, whole in zip(offsets, sizes, shape, strict=True)):
                return f"has the shape {shape} and a chunk of {sizes} at {offsets}, outside of it"
        boxes = [box for box in chunks if 0 not in box[1]]
        held, elements = sum(prod(sizes) for _, sizes in boxes), prod(shape)
        if held < elements:
            return f"has chunks with a gap between them: they hold {held:,} of its {elements:,} elements"
        if held > elements:
            return f"has chunks that overlap: they hold {held:,} elements, it has {elements:,}"
        return "" if self._disjoint(shape, boxes) else "has chunks that overlap, and a gap between them"

    def _disjoint(self, shape: Sizes, boxes: list[Box]) -> bool:
        """Tell whether boxes that together have as many elements as the tensor fill it."""
        cut = [d for d, whole in enumerate(shape) if any(sizes[d] != whole for _, sizes in boxes)]
        if len(cut) > 1:
            return self._corners_cancel(shape, boxes, cut)
        end = 0
        for first, size in sorted((offsets[d], sizes[d]) for d in cut for offsets, sizes in boxes):
            if first != end:
                return False
            end += size
        return True

    def _corners_cancel(self, shape: Sizes, boxes: list[Box], cut: list[int]) -> bool:
        """Add up the corners of all boxes, with signs: boxes tile the tensor exactly where its own corners are left.

        A sum of boxes is known by its corners alone, as a function is by its derivative, so this needs no pairs.
        """
        self.corners += len(boxes) << min(len(cut), 64)
        if self.corners > MAX_CORNERS:
            raise TooManyCornersError
        plus: list[int] = []
        minus: list[int] = []
        for offsets, sizes in boxes:
            _add_corners(plus, minus, shape, cut, (offsets, sizes))
        _add_corners(minus, plus, shape, cut, ((0,) * len(shape), shape))
        return sorted(plus) == sorted(minus)


def _add_corners(plus: list[int], minus: list[int], shape: Sizes, cut: list[int], box: Box) -> None:
    """Append the corners of a box as numbers of points in a grid one larger than the tensor, by their sign."""
    offsets, sizes = box
    even, odd, step = [0], list[int](), 1
    for d in cut:
        low, high = offsets[d] * step, (offsets[d] + sizes[d]) * step
        even, odd = (
            [low + corner for corner in even] + [high + corner for corner in odd],
            [low + corner for corner in odd] + [high + corner for corner in even],
        )
        step *= shape[d] + 1
    plus += even
    minus += odd
