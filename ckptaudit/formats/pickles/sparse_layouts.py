"""Which indices, values and sizes of a sparse tensor fit together, as torch checks it when it loads one.

Only shapes and dtypes are known here: whether an index itself lies inside the tensor, its values tell.
"""

from __future__ import annotations

from ...dtypes import DTYPES
from ...manifest import TensorSpec

SPARSE_LAYOUTS = frozenset(f"torch.sparse_{kind}" for kind in ("bsc", "bsr", "coo", "csc", "csr"))


def sparse_fault(layout: str, parts: list[TensorSpec], shape: tuple[int, ...]) -> str | None:
    """Return what does not fit, as the end of a sentence, or None. The last of ``parts`` are the values."""
    indices = parts[:-1]
    if not all(map(_is_plain, parts)):
        return "is made of other than plain strided tensors"
    if layout == "torch.sparse_coo":
        fits = _coo_fits(indices[0], parts[-1], shape)
    else:
        fits = _compressed_fits(layout, indices[0], indices[1], parts[-1], shape)
    return None if fits else "has indices, values and a size that do not fit together"


def _is_plain(part: TensorSpec) -> bool:
    return part.layout == "strided" and not part.requires_grad and DTYPES[part.dtype].kind != "quantized"


def _coo_fits(indices: TensorSpec, values: TensorSpec, shape: tuple[int, ...]) -> bool:
    if indices.dtype != "int64" or len(indices.shape) != 2 or not values.shape:
        return False
    sparse, count = indices.shape
    return values.shape[0] == count and len(shape) >= sparse and shape[sparse:] == values.shape[1:]


def _compressed_fits(
    layout: str, compressed: TensorSpec, plain: TensorSpec, values: TensorSpec, shape: tuple[int, ...]
) -> bool:
    """Compare as torch does; in front of the two sparse dimensions may be batches, behind them dense ones."""
    blocked = layout in ("torch.sparse_bsr", "torch.sparse_bsc")
    batches, block = len(compressed.shape) - 1, 2 * blocked
    dense = len(values.shape) - batches - block - 1
    if batches < 0 or dense < 0 or len(plain.shape) != batches + 1 or len(shape) != batches + 2 + dense:
        return False
    if compressed.dtype != plain.dtype or plain.dtype not in ("int32", "int64"):
        return False
    if any(part.stride is None or (part.shape[-1] > 1 and part.stride[-1] != 1) for part in (compressed, plain)):
        return False
    batch, count = shape[:batches], plain.shape[-1]
    sizes = values.shape[batches + 1 : batches + 1 + block] or (1, 1)
    if 0 in sizes or any(size % part for size, part in zip(shape[batches : batches + 2], sizes, strict=True)):
        return False
    rows, columns = (size // part for size, part in zip(shape[batches : batches + 2], sizes, strict=True))
    lines = rows if layout in ("torch.sparse_csr", "torch.sparse_bsr") else columns
    return (
        compressed.shape == (*batch, lines + 1)
        and plain.shape == (*batch, count)
        and values.shape[: batches + 1] == (*batch, count)
        and values.shape[batches + 1 + block :] == shape[batches + 2 :]
    )
