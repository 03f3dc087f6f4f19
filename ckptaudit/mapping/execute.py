"""A mapping carried out on real tensors; the only part of the mapping code that imports torch, when it is called."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..manifest import Manifest, TensorSpec
from .mapping import KeyMapping, Mapped
from .ops import Cast, Misfit, Op, check_usable
from .ops.chain import Chain
from .ops.joins import Concat, Deinterleave, Interleave, Split, Stack, Unstack
from .ops.layout import Copy, Permute, Reshape, RopePermute, Transpose
from .ops.values import AdaptInputConv, Pad, Part, ResamplePosEmbed, Slice

if TYPE_CHECKING:
    from torch import Tensor

    from .effect import Recipe


def map_state(mapping: KeyMapping, state: Mapping[str, Any]) -> OrderedDict[str, Any]:
    """Return a state dict under a mapping, with its ``_metadata``; the input is not changed.

    What is only renamed is the same object; what an operation makes has memory of its own. Raises UsageError where
    keys collide, a rule matches nothing, or an operation does not fit.
    """
    mapped = mapping.apply(Manifest.of(state))
    mapped.check()
    outputs: dict[tuple[Op, tuple[str, ...]], list[Tensor]] = {}
    made: dict[Recipe, Tensor] = {}
    result: OrderedDict[str, Any] = OrderedDict()
    for name in _in_order(mapped, state):
        recipe = mapped.recipes.get(name)
        if recipe is None:
            result[name] = state[mapped.origin[name]]
            continue
        if recipe not in made:
            work = (recipe.op, recipe.sources)
            if work not in outputs:
                outputs[work] = execute(recipe.op, [state[key] for key in recipe.sources])
            output = outputs[work][recipe.output]
            made[recipe] = output if recipe.cast is None else execute(recipe.cast, [output])[0]
        result[name] = made[recipe]
    _add_metadata(result, mapped, state)
    return result


def _in_order(mapped: Mapped, state: Mapping[str, Any]) -> list[str]:
    """Put entries that are no tensors back among the tensors, where the whole state dict had them."""
    if not mapped.manifest.entries:
        return list(mapped.manifest.tensors)
    place = {key: index for index, key in enumerate(state)}

    def first(name: str) -> int:
        recipe = mapped.recipes.get(name)
        return place[mapped.origin[name]] if recipe is None else min(place[key] for key in recipe.sources)

    return sorted(mapped.manifest.all_keys, key=first)


def _add_metadata(result: Any, mapped: Mapped, state: Any) -> None:
    if mapped.manifest.versions is not None and hasattr(state, "_metadata"):
        versions = mapped.manifest.versions.items()
        result._metadata = OrderedDict((name, {} if v is None else {"version": v}) for name, v in versions)


def execute(op: Op, tensors: Sequence[Tensor]) -> list[Tensor]:
    """Carry one operation out; the outputs are dense and share no memory with the inputs. Raises Misfit."""
    import torch

    specs = [_spec(tensor) for tensor in tensors]
    for spec in specs:
        check_usable(spec)
    promised = op.shapes(specs)
    plain = [tensor.detach().resolve_conj().resolve_neg() for tensor in tensors]
    with torch.no_grad():
        outputs = _DO[type(op)](op, plain)
    results = [output.clone(memory_format=torch.contiguous_format) for output in outputs]
    if [(tuple(result.shape), _dtype(result)) for result in results] != [(s.shape, s.dtype) for s in promised]:
        raise Misfit("does not come out as foretold")  # pragma: no cover  (a fault of this package)
    return results


def _spec(tensor: Tensor) -> TensorSpec:
    layout = str(tensor.layout).removeprefix("torch.")
    return TensorSpec(tuple(tensor.shape), _dtype(tensor), layout=layout)


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _moved(move: Callable[[Any, list[Tensor]], Sequence[Tensor]]) -> Callable[[Any, list[Tensor]], Sequence[Tensor]]:
    """Run an operation that only moves values on their bits: no kernel can change a NaN, or lack the dtype."""

    def on_bits(op: Any, tensors: list[Tensor]) -> Sequence[Tensor]:
        import torch

        dtype = tensors[0].dtype
        bits = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}.get(dtype.itemsize)
        if bits is None:
            return move(op, tensors)
        return [output.view(dtype) for output in move(op, [tensor.view(bits) for tensor in tensors])]

    return on_bits


def _concat(op: Concat, tensors: list[Tensor]) -> list[Tensor]:
    import torch

    return [torch.cat(tensors, op.dim)]


def _stack(op: Stack, tensors: list[Tensor]) -> list[Tensor]:
    import torch

    return [torch.stack(tensors, op.dim)]


def _split(op: Split, tensors: list[Tensor]) -> Sequence[Tensor]:
    (tensor,) = tensors
    sizes = op.sizes or (tensor.shape[op.dim] // op.parts,) * op.parts
    parts: Sequence[Tensor] = tensor.split(list(sizes), op.dim)
    return parts


def _unstack(op: Unstack, tensors: list[Tensor]) -> Sequence[Tensor]:
    parts: Sequence[Tensor] = tensors[0].unbind(op.dim)
    return parts


def _interleave(op: Interleave, tensors: list[Tensor]) -> list[Tensor]:
    import torch

    at = op.dim % tensors[0].dim()
    return [torch.stack(tensors, at + 1).flatten(at, at + 1)]


def _deinterleave(op: Deinterleave, tensors: list[Tensor]) -> Sequence[Tensor]:
    (tensor,) = tensors
    at = op.dim % tensor.dim()
    slices: Sequence[Tensor] = tensor.unflatten(at, (tensor.shape[at] // op.parts, op.parts)).unbind(at + 1)
    return slices


def _rope_permute(op: RopePermute, tensors: list[Tensor]) -> list[Tensor]:
    (tensor,) = tensors
    half = tensor.shape[0] // op.heads // 2
    groups = (op.heads, 2, half) if op.inverse else (op.heads, half, 2)
    return [tensor.reshape(*groups, *tensor.shape[1:]).transpose(1, 2).reshape(tensor.shape)]


def _slice(op: Slice, tensors: list[Tensor]) -> list[Tensor]:
    (tensor,) = tensors
    stop = tensor.shape[op.dim] if op.stop is None else op.stop
    return [tensor.narrow(op.dim, op.start, stop - op.start)]


def _part(op: Part, tensors: list[Tensor]) -> list[Tensor]:
    return _slice(op.cut(tuple(tensors[0].shape)), tensors)


def _chain(op: Chain, tensors: list[Tensor]) -> Sequence[Tensor]:
    for step in op.ops:
        do = _DO[type(step)]
        together = step.joins or step.splits
        tensors = list(do(step, tensors)) if together else [do(step, [tensor])[0] for tensor in tensors]
    return tensors


def _pad(op: Pad, tensors: list[Tensor]) -> list[Tensor]:
    (tensor,) = tensors
    shape = list(tensor.shape)
    shape[op.dim] += op.before + op.after
    padded = tensor.new_zeros(shape)
    padded.narrow(op.dim, op.before, tensor.shape[op.dim]).copy_(tensor)
    return [padded]


def _cast(op: Cast, tensors: list[Tensor]) -> list[Tensor]:
    import torch

    return [tensors[0].to(getattr(torch, op.dtype))]


def _adapt_input_conv(op: AdaptInputConv, tensors: list[Tensor]) -> list[Tensor]:
    """As timm's ``adapt_input_conv``: sum, or repeat and scale, in float32."""
    (weight,) = tensors
    channels = weight.shape[1]
    if op.in_chans == _RGB:
        return [weight]
    values = weight.float()
    if op.in_chans == 1 and channels > _RGB:
        outputs, _, *kernel = weight.shape
        values = values.reshape(outputs, channels // _RGB, _RGB, *kernel).sum(dim=2)
    elif op.in_chans == 1:
        values = values.sum(dim=1, keepdim=True)
    else:
        values = values.repeat(1, -(-op.in_chans // _RGB), 1, 1)[:, : op.in_chans] * (_RGB / float(op.in_chans))
    return [values.to(weight.dtype)]


_RGB = 3


def _resample_pos_embed(op: ResamplePosEmbed, tensors: list[Tensor]) -> list[Tensor]:
    """As timm's ``resample_abs_pos_embed``: interpolate in float32 with antialiasing; prefix tokens stay."""
    import torch
    from torch.nn.functional import interpolate

    (tokens,) = tensors
    grid = op.grid(tokens.shape[1])
    if grid == op.size:
        return [tokens]
    prefix, rest = tokens[:, : op.prefix_tokens], tokens[:, op.prefix_tokens :]
    image = rest.float().reshape(1, *grid, -1).permute(0, 3, 1, 2)
    image = interpolate(image, size=op.size, mode=op.mode, antialias=True)
    rest = image.permute(0, 2, 3, 1).reshape(1, -1, tokens.shape[-1]).to(tokens.dtype)
    return [torch.cat([prefix, rest], dim=1)]


_DO: dict[type[Op], Callable[[Any, list[Tensor]], Sequence[Tensor]]] = {
    Concat: _moved(_concat),
    Stack: _moved(_stack),
    Split: _moved(_split),
    Unstack: _moved(_unstack),
    Interleave: _moved(_interleave),
    Deinterleave: _moved(_deinterleave),
    Copy: _moved(lambda _op, tensors: tensors),
    Transpose: _moved(lambda op, tensors: [tensors[0].transpose(*op.dims)]),
    Permute: _moved(lambda op, tensors: [tensors[0].permute(op.dims)]),
    Reshape: _moved(lambda op, tensors: [tensors[0].reshape(op.shape)]),
    RopePermute: _moved(_rope_permute),
    Slice: _moved(_slice),
    Part: _moved(_part),
    Chain: _chain,
    Pad: _moved(_pad),
    Cast: _cast,
    AdaptInputConv: _adapt_input_conv,
    ResamplePosEmbed: _resample_pos_embed,
}
