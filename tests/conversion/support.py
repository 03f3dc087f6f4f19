"""What the tests of conversions compare by."""

from __future__ import annotations

import torch


def bits(tensor):
    """Return the values of a tensor in row-major order, bit for bit, with its dtype and shape."""
    flat = tensor.detach().resolve_conj().resolve_neg().reshape(-1).clone(memory_format=torch.contiguous_format)
    flat = flat.as_strided(flat.shape, (1,))
    return str(tensor.dtype), tuple(tensor.shape), bytes(flat.view(torch.uint8).numpy()) if flat.numel() else b""


def same(one, other):
    """Tell whether two state dicts have the same keys in the same order, with the same bits."""
    return list(one) == list(other) and all(
        bits(one[key]) == bits(other[key]) if isinstance(one[key], torch.Tensor) else one[key] == other[key]
        for key in one
    )


def shared(state):
    """Return the groups of keys whose tensors are views of one memory, with their places in it."""
    groups: dict[int, list[object]] = {}
    for key, tensor in state.items():
        if isinstance(tensor, torch.Tensor) and tensor.numel():
            place = (key, tensor.storage_offset(), tuple(tensor.stride()))
            groups.setdefault(tensor.untyped_storage().data_ptr(), []).append(place)
    return sorted((group for group in groups.values() if len(group) > 1), key=str)


def ties(state):
    """Return the groups of keys that are one tensor."""
    groups: dict[object, list[str]] = {}
    for key, tensor in state.items():
        if isinstance(tensor, torch.Tensor) and tensor.numel():
            view = (tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype)
            groups.setdefault(view, []).append(key)
    return sorted(group for group in groups.values() if len(group) > 1)


def random(*shape, dtype=torch.float32):
    """Return a tensor of random bits; bools are 0 and 1."""
    if dtype == torch.bool:
        return torch.randint(0, 2, shape).bool()
    size = torch.tensor([], dtype=dtype).element_size()
    return torch.randint(0, 256, (*shape, size), dtype=torch.uint8).view(dtype).reshape(shape)
