"""How a stored tensor can be made into one of another shape: the operations that keep every element.

A shape tells what is possible, never what is meant: square matrices may be transposed, rows permuted, and no shape
says so.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from math import prod

from .units import Leaf, Shape, Unit

FORMED = ("weight", "bias")


def form(stored: Shape, wanted: Shape) -> str | None:
    """Return the operation that makes ``wanted`` of ``stored``, other than a copy, or None."""
    if prod(stored) != prod(wanted) or stored == wanted:
        return None
    if len(stored) == len(wanted) > 2 and len(_squeezed(stored)) > 1 and (axes := _kernel_axes(stored, wanted)):
        return f"permute({','.join(map(str, axes))})"
    if _squeezed(stored) == _squeezed(wanted) and (len(stored) > 1 or len(wanted) > 1):
        return f"reshape({','.join(map(str, wanted))})"
    if len(stored) == len(wanted) == 2 and stored == wanted[::-1]:
        return "transpose"
    return _by_heads(stored, wanted) or _grid(stored, wanted)


def _squeezed(shape: Shape) -> Shape:
    return tuple(size for size in shape if size != 1)


def _kernel_axes(stored: Shape, wanted: Shape) -> Shape | None:
    """Return how the axes of a convolution's kernel change places between libraries, or None.

    Here it lies (out, in, *places); elsewhere (*places, in, out), or (out, *places, in). Where the shapes leave
    that open, the places are the shorter ones.
    """
    n = len(stored)
    first, last = (n - 1, n - 2, *range(n - 2)), (*range(2, n), 1, 0)
    ends = (first, last) if max(stored[: n - 2]) <= max(stored[2:]) else (last, first)
    orders = (*ends, (0, n - 1, *range(1, n - 1)), (0, *range(2, n), 1))
    return next((axes for axes in orders if tuple(stored[axis] for axis in axes) == wanted), None)


def _by_heads(stored: Shape, wanted: Shape) -> str | None:
    """Return how a linear layer of all heads becomes one matrix per head, and back."""
    if len(stored) == 2 and len(wanted) == 3:
        heads, rows, columns = wanted
        if stored == (heads * columns, rows):
            if heads == 1:
                return f"transpose|reshape(1,{rows},{columns})"
            return f"reshape({heads},{columns},{rows})|permute(0,2,1)|reshape({heads},{rows},{columns})"
        if stored == (columns, heads * rows):
            return f"transpose|reshape({heads},{rows},{columns})"
    if len(stored) == 3 and len(wanted) == 2:
        heads, rows, columns = stored
        if wanted == (heads * columns, rows):
            return f"permute(0,2,1)|reshape({heads * columns},{rows})"
        if wanted == (columns, heads * rows):
            return f"reshape({heads * rows},{columns})|transpose"
    return None


def _grid(stored: Shape, wanted: Shape) -> str | None:
    """Return how a vector becomes heads by size, a sequence a grid, and back: the order of the elements stays."""
    short, long = sorted((stored, wanted), key=len)
    if len(short) == 1 and len(long) == 2:
        return f"reshape({','.join(map(str, wanted))})"
    if len(short) == 3 and len(long) == 4 and short[0] == long[0] and short[-1] == long[-1]:
        return f"reshape({','.join(map(str, wanted))})"
    return None


class Forms:
    """Which operation a pair of tensors takes, given what both sides have of each shape."""

    def __init__(self, source: Iterable[Unit], target: Iterable[Unit]) -> None:
        source, target = list(source), list(target)
        self._have = _shapes(source)
        self._want = _shapes(target)
        self.flipped = _lies(source) * _lies(target) < 0
        self.common = {shape for _, shape in self._have} & {shape for _, shape in self._want}
        self._known: dict[tuple[str, Shape, Shape], tuple[str, float] | None] = {}
        self.turned = self._orientation()

    def _orientation(self) -> set[tuple[str, Shape]]:
        """Return the shapes of matrices that fit better the other way round: more of them find a partner so."""
        turned: set[tuple[str, Shape]] = set()
        for role, shape in self._want:
            flipped = shape[::-1]
            if len(shape) != 2 or shape == flipped:
                continue
            a, b = self._have[role, shape], self._have[role, flipped]
            x, y = self._want[role, shape], self._want[role, flipped]
            straight, crossed = min(a, x) + min(b, y), min(a, y) + min(b, x)
            if crossed > straight or (crossed and crossed == straight and self.flipped):
                turned.add((role, shape))
        return turned

    def between(self, role: str, a: Unit, b: Unit) -> tuple[str, float] | None:
        """Return the operation from ``a`` to ``b`` and its cost. Lone parameters do not lie as the layers do."""
        stored, wanted = a.leaves[role].shape, b.leaves[role].shape
        if a.bare and b.bare and stored == wanted:
            return "copy", 0.0
        return self.op(role, stored, wanted)

    def op(self, role: str, stored: Shape, wanted: Shape) -> tuple[str, float] | None:
        """Return the operation and what it costs, or None where there is none."""
        key = role, stored, wanted
        if key not in self._known:
            self._known[key] = self._find(*key)
        return self._known[key]

    def _find(self, role: str, stored: Shape, wanted: Shape) -> tuple[str, float] | None:
        if stored == wanted and self.flipped and len(wanted) == 2 and wanted[0] == wanted[1] and role == "weight":
            return "transpose", 0.0
        if stored == wanted:
            return "copy", 0.6 if (role, wanted) in self.turned else 0.0
        if role not in FORMED:
            return None
        lacks = self._have[role, wanted] < self._want[role, wanted]
        if not lacks and (role, wanted) not in self.turned:
            return None
        op = form(stored, wanted)
        return (op, 0.0 if (role, wanted) in self.turned else 0.3) if op else None

    def partners(self, role: str, wanted: Shape) -> list[Shape]:
        """Return the stored shapes that can become ``wanted``."""
        found = [wanted] if self._have[role, wanted] else []
        if role in FORMED:
            close = self._by_size().get((role, prod(wanted)), ())
            found += [shape for shape in close if shape != wanted and self.op(role, shape, wanted)]
        return found

    def _by_size(self) -> dict[tuple[str, int], list[Shape]]:
        if not hasattr(self, "_sizes"):
            self._sizes: defaultdict[tuple[str, int], list[Shape]] = defaultdict(list)
            for role, shape in self._have:
                if role in FORMED:
                    self._sizes[role, prod(shape)].append(shape)
        return self._sizes


def _lies(units: Iterable[Unit]) -> int:
    """Tell by the biases how matrices lie: above 0 rows are outputs, below 0 columns are."""
    score = 0
    for unit in units:
        weight, bias = unit.leaves.get("weight"), unit.leaves.get("bias")
        if weight and bias and len(weight.shape) == 2 and len(bias.shape) == 1 and weight.shape[0] != weight.shape[1]:
            score += (weight.shape[0] == bias.shape[0]) - (weight.shape[1] == bias.shape[0])
    return score


def _shapes(units: Iterable[Unit]) -> Counter[tuple[str, Shape]]:
    return Counter((role, leaf.shape) for unit in units for role, leaf in unit.leaves.items())


def combined(leaf: Leaf, op: str) -> str:
    """Return the operation on the stored tensor: first what makes the part, then the form."""
    if leaf.op == "copy":
        return op
    return leaf.op if op == "copy" else f"{leaf.op}|{op}"
