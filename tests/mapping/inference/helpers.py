"""Manifests in a few words, and what an inference said of them."""

from __future__ import annotations

from collections import OrderedDict

from ckptaudit.manifest import Manifest, TensorSpec
from ckptaudit.mapping.inference import infer
from ckptaudit.mapping.inference.forms import Forms
from ckptaudit.mapping.inference.tree import Classes, Side
from ckptaudit.mapping.inference.units import gather


def manifest(tensors):
    """Return the manifest of ``{key: shape}`` or of pairs."""
    return Manifest(OrderedDict((key, TensorSpec(tuple(shape), "float32")) for key, shape in dict(tensors).items()))


def described(state):
    """Return the manifest of a state dict."""
    return manifest((key, value.shape) for key, value in state.items())


def renamed(tensors, change):
    """Return tensors with other names, and the truth: new name -> old name."""
    return {change(key): shape for key, shape in tensors.items()}, {change(key): key for key in tensors}


def said(source, target):
    """Return target -> (sources, op) of all assignments."""
    return {one.target: (one.sources, one.op) for one in infer(manifest(source), manifest(target)).assigned}


def copies(source, target):
    """Return target -> source of an inference that copies only."""
    found = said(source, target)
    assert {op for _, op in found.values()} <= {"copy"}
    return {key: sources[0] for key, (sources, _) in found.items()}


def sides(source, target):
    """Return both sides as units and nodes, and the classes they share."""
    units = [gather(dict(tensors).items()) for tensors in (source, target)]
    classes, common = Classes(), Forms(*units).common
    return Side(units[0], classes, common), Side(units[1], classes, common), classes


def block(prefix, width, names=("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"), norms=("norm1", "norm2")):
    """Return a pre-norm block of a transformer."""
    shapes = [(3 * width, width), (width, width), (4 * width, width), (width, 4 * width)]
    tensors = {}
    for name, shape in zip(names, shapes, strict=True):
        tensors[f"{prefix}{name}.weight"] = shape
        tensors[f"{prefix}{name}.bias"] = shape[:1]
    for name in norms:
        tensors[f"{prefix}{name}.weight"] = tensors[f"{prefix}{name}.bias"] = (width,)
    return tensors


def transformer(prefix="", blocks="blocks", depth=12, width=64, **names):
    """Return a small vision transformer."""
    tensors = {f"{prefix}patch_embed.proj.weight": (width, 3, 16, 16), f"{prefix}patch_embed.proj.bias": (width,)}
    for i in range(depth):
        tensors |= block(f"{prefix}{blocks}.{i}.", width, **names)
    return tensors | {f"{prefix}norm.weight": (width,), f"{prefix}norm.bias": (width,)}
