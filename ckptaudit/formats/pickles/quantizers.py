"""What torch wants to know of a quantized tensor beside its values: one scale, or one for each channel."""

from __future__ import annotations

from collections.abc import Callable

from ...dtypes import DTYPES
from ...manifest import TensorSpec
from .nodes import GlobalRef

_SCALES, _ZERO_POINTS = ("float",), ("float", "int", "uint")  # kinds of dtypes


def quantizer_fault(
    quantizer: object, shape: tuple[int, ...], read: Callable[[object], TensorSpec | None]
) -> str | None:
    """Return what is wrong with ``(scheme, scale, zero point)`` or ``(scheme, scales, zero points, axis)``, or None.

    ``read`` returns the description of a tensor, or None for what is no tensor.
    """
    scheme, *parts = quantizer if isinstance(quantizer, tuple) and quantizer else (None,)
    name = scheme.name if isinstance(scheme, GlobalRef) else ""
    if name == "torch.per_tensor_affine" and len(parts) == 2:
        plain = all(map(_is_number, parts)) and type(parts[1]) is int
        return None if plain else "is quantized with a scale and a zero point that are no numbers"
    if name in ("torch.per_channel_affine", "torch.per_channel_affine_float_qparams") and len(parts) == 3:
        scales, zero_points, axis = parts
        if type(axis) is not int or not 0 <= axis < len(shape):
            return "is quantized along a dimension that it does not have"
        fits = _fits(scales, shape[axis], _SCALES, read) and _fits(zero_points, shape[axis], _ZERO_POINTS, read)
        if not fits or isinstance(scales, list) != isinstance(zero_points, list):
            return f"is quantized along {shape[axis]:,} channels, with other scales or zero points"
        return None
    return "is quantized by no known scheme"


def _is_number(value: object) -> bool:
    return type(value) is float or (type(value) is int and -(1 << 63) <= value < 1 << 63)


def _fits(part: object, count: int, kinds: tuple[str, ...], read: Callable[[object], TensorSpec | None]) -> bool:
    """Tell whether there is a number for each channel, in a list or a tensor."""
    if isinstance(part, list):
        return len(part) == count and all(map(_is_number, part))
    spec = read(part)
    return spec is not None and spec.shape == (count,) and DTYPES[spec.dtype].kind in kinds
