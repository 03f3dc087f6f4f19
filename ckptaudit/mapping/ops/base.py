"""What an operation on tensors is: it foretells shapes and dtypes without torch; mapping/execute.py carries it out."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from ...dtypes import DTYPES
from ...manifest import TensorSpec

MAX_VALUES = 2**63 - 1  # torch counts elements in signed 64-bit integers
MAX_TENSORS = 1_000_000  # that one operation may make
Specs = Sequence[TensorSpec]
Shape = tuple[int, ...]


class Misfit(Exception):  # noqa: N818  (it is turned into a UsageError that names the rule and the key)
    """An operation does not fit its inputs; the message says why."""


class Op:
    """One operation, as a value: its fields are its options.

    ``joins`` several tensors into one, or ``splits`` one into several; the others take one and make one.
    """

    word = ""
    joins = False
    splits = False

    def shapes(self, inputs: Specs) -> tuple[TensorSpec, ...]:
        """Describe the outputs. Raises Misfit."""
        raise NotImplementedError

    def bound(self, _inputs: Specs, _count: int) -> Op:
        """Return the operation with all that it leaves to its inputs and to the number of its outputs."""
        return self

    def exact(self, _inputs: Specs) -> bool:
        """Tell whether every value of the inputs is in the outputs, bit for bit."""
        return True

    def undo(self, _inputs: Specs) -> Op | None:
        """Return the operation that makes these inputs of the outputs, bit for bit, or None."""
        return None


def made(inputs: Specs, shape: Shape, dtype: str | None = None) -> TensorSpec:
    """Describe a new, densely stored tensor that takes the place of the inputs."""
    first = inputs[0]
    if prod(shape) > MAX_VALUES or len(shape) > 64:
        raise Misfit(f"would make a tensor of {shape_text(shape)}, which torch cannot hold")
    return TensorSpec(
        shape,
        dtype or first.dtype,
        first.kind if all(spec.kind == first.kind for spec in inputs) else "tensor",
        requires_grad=first.requires_grad if all(s.requires_grad == first.requires_grad for s in inputs) else None,
        location=first.location,
    )


def check_usable(spec: TensorSpec) -> None:
    """Raise Misfit for tensors that are not plain numbers in memory."""
    if spec.layout != "strided":
        raise Misfit(f"is {spec.layout.replace('_', ' ')}; operations take dense tensors")
    if DTYPES[spec.dtype].kind == "quantized":
        raise Misfit(f"is {spec.dtype}; operations take no quantized tensors")


def check_float(spec: TensorSpec) -> None:
    """Raise Misfit where there is nothing to interpolate or to sum."""
    if DTYPES[spec.dtype].kind != "float":
        raise Misfit(f"is {spec.dtype}; this takes floating-point values")


def axis(dim: int, rank: int) -> int:
    """Return the index of a dimension that may be counted from the end. Raises Misfit."""
    if not -rank <= dim < rank:
        raise Misfit(f"has {rank} dimensions and no dimension {dim}")
    return dim % rank


def shape_text(shape: Shape) -> str:
    """Write a shape as Python writes a tuple."""
    return str(tuple(shape))
