"""FLOPs of operations that torch's FlopCounterMode passes over, and which others it may miss."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import prod
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, flop_registry, sdpa_backward_flop_count, sdpa_flop_count

# Words in the names of operations that are more than element by element.
_HEAVY = (
    *("rnn", "lstm", "gru", "attention", "attn", "conv", "transformer", "fft", "linalg", "cholesky", "svd", "cdist"),
    *("grid_sampler", "ctc", "sort", "embedding_bag", "scaled", "gemm", "bmm", "matmul"),
)
_LIGHT = ("embedding_bag.padding", "_scaled_dot_product_attention_math")
_KNOWN = ("aten", "prim", "prims", "profiler", "_c10d_functional", "inductor")


def counter() -> FlopCounterMode:
    """Return torch's counter, with rules for recurrent layers and fused attention on top."""
    return FlopCounterMode(display=False, custom_mapping=_rules())


def is_uncounted(func: Any) -> bool:
    """Tell whether an operation may be heavy and has no rule: heavy by its name, or not torch's own."""
    packet = func._overloadpacket
    if packet in flop_registry or packet in _rules():
        return False
    namespace, _, name = func._schema.name.partition("::")
    if namespace not in _KNOWN:
        return True
    return namespace == "aten" and any(word in name for word in _HEAVY) and name not in _LIGHT


def _rules() -> dict[Any, Callable[..., int]]:
    """Return the rules by operation; builds of torch differ in which of them there are."""
    rules: dict[str, Callable[..., int]] = {
        "_native_multi_head_attention": _fused_attention,
        "_transformer_encoder_layer_fwd": _fused_layer,
        "mkldnn_rnn_layer": _recurrent_layer,
        "mkldnn_rnn_layer_backward": lambda *shapes, **_: 2 * _recurrent_layer(*shapes),
        "_scaled_dot_product_flash_attention_for_cpu": _attention,
        "_scaled_dot_product_flash_attention_for_cpu_backward": _attention_backward,
        "_cudnn_rnn": _recurrent_stack,
        "_cudnn_rnn_backward": lambda *shapes, **_: 2 * _recurrent_stack(*shapes),
    }
    return {getattr(torch.ops.aten, name): rule for name, rule in rules.items() if hasattr(torch.ops.aten, name)}


def _attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return int(sdpa_flop_count(query, key, value))


def _attention_backward(gradient: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return int(sdpa_backward_flop_count(gradient, query, key, value))


def _fused_attention(query: Any, key: Any, _value: Any, width: int, *_: Any, **__: Any) -> int:
    """Count self-attention in eval mode: four projections and two products with the attention matrix."""
    batch, length = int(query[0]), int(query[1])
    return 2 * batch * length * width * (4 * width) + 2 * 2 * batch * length * int(key[1]) * width


def _fused_layer(source: Any, width: int, _heads: int, *rest: Any, **_named: Any) -> int:
    """Count a whole encoder layer in eval mode: its attention, and its two linear layers."""
    shapes = [shape for shape in rest if isinstance(shape, (tuple, list, torch.Size)) and len(shape) == 2]
    linear = sum(2 * int(source[0]) * int(source[1]) * prod(shape) for shape in shapes[-2:])
    return _fused_attention(source, source, source, width) + linear


def _recurrent_layer(inputs: Any, input_weight: Any, hidden_weight: Any, *_: Any, **__: Any) -> int:
    """Count one layer over all its steps: each has a product with the input's and one with the state's weights."""
    per_step: int = 2 * (prod(input_weight) + prod(hidden_weight))
    return int(inputs[0]) * int(inputs[1]) * per_step


def _recurrent_stack(inputs: Any, weights: Iterable[Any], *_: Any, **__: Any) -> int:
    """Count all layers and directions: every matrix is applied at every step."""
    per_step: int = 2 * sum(prod(weight) for weight in weights if weight and len(weight) == 2)
    return int(inputs[0]) * int(inputs[1]) * per_step
