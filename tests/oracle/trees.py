"""Random module trees, and the changes people make to them. Everything follows from a seed."""

from __future__ import annotations

import random
from collections import OrderedDict

import torch
from torch import nn
from torch.nn.utils import parametrizations


class Block(nn.Module):
    """A module of one's own: parameters, buffers of both kinds, and children."""

    def __init__(self, width, children):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.register_buffer("window", torch.ones(width), persistent=False)
        for index, child in enumerate(children):
            self.add_module(f"part{index}", child)


class Stateful(nn.Module):
    """A module with extra state."""

    def __init__(self):
        super().__init__()
        self.level = 1

    def get_extra_state(self):
        return {"level": self.level}

    def set_extra_state(self, state):
        self.level = state["level"]


class Tied(nn.Module):
    """Embedding and output projection share one weight."""

    def __init__(self, width):
        super().__init__()
        self.embed = nn.Embedding(7, width)
        self.out = nn.Linear(width, 7, bias=False)
        self.out.weight = self.embed.weight


LEAVES = [
    lambda n: nn.Linear(n, n + 1),
    lambda n: nn.Linear(n, n, bias=False),
    lambda n: nn.Conv2d(n, 2, 3),
    lambda n: nn.BatchNorm2d(n),
    lambda n: nn.BatchNorm1d(n, track_running_stats=False),
    lambda n: nn.LayerNorm(n),
    lambda n: nn.Embedding(5, n),
    lambda n: nn.LSTM(n, 2, bidirectional=True),
    lambda n: nn.MultiheadAttention(2 * n, 2),
    lambda n: nn.InstanceNorm2d(n, affine=True),
    lambda n: parametrizations.weight_norm(nn.Linear(n, 2)),
    lambda n: nn.ReLU(),
    lambda n: Stateful(),
    Tied,
]


def random_tree(seed, depth=3):
    """Return a random module; equal seeds give equal structures."""
    rng = random.Random(seed)
    torch.manual_seed(seed)
    return _tree(rng, depth)


def _tree(rng, depth):
    width = rng.randint(1, 4)
    if depth == 0 or rng.random() < 0.15:
        return rng.choice(LEAVES)(width)
    children = [_tree(rng, depth - 1) for _ in range(rng.randint(1, 4))]
    kind = rng.randrange(4)
    if kind == 0:
        return nn.Sequential(*children)
    if kind == 1:
        return nn.ModuleList(children)
    if kind == 2:
        return nn.ModuleDict({f"branch{index}": child for index, child in enumerate(children)})
    return Block(width, children)


def _parents(model):
    return [module for module in model.modules() if module._modules]


def _pick(rng, model):
    """Return a parent module and the name of one of its children."""
    parents = _parents(model)
    if not parents:
        return None
    parent = rng.choice(parents)
    return parent, rng.choice(list(parent._modules))


def add_layer(rng, model):
    rng.choice(list(model.modules())).add_module("added", nn.Linear(3, 3))
    return model


def delete_layer(rng, model):
    if (picked := _pick(rng, model)) is not None:
        del picked[0]._modules[picked[1]]
    return model


def replace_by_sequential(rng, model):
    if (picked := _pick(rng, model)) is not None:
        parent, name = picked
        parent._modules[name] = nn.Sequential(parent._modules[name], nn.Linear(2, 2))
    return model


def replace_in_modules(rng, model):
    if (picked := _pick(rng, model)) is not None:
        picked[0]._modules[picked[1]] = nn.Linear(2, 5)
    return model


def change_shapes(rng, model):
    parameters = [(m, n) for m in model.modules() for n, p in m._parameters.items() if p is not None]
    if parameters:
        module, name = rng.choice(parameters)
        setattr(module, name, nn.Parameter(torch.zeros(*module._parameters[name].shape, 2)))
    return model


def extract_sequential(rng, model):
    children = list(model.children())
    return nn.Sequential(*children[: max(1, len(children) - 1)]) if children else model


def extract_module_list(rng, model):
    children = list(model.children())
    return nn.ModuleDict({"features": nn.ModuleList(children[1:])}) if children else model


def wrap_in_class(rng, model):
    return nn.ModuleDict(OrderedDict(backbone=model, head=nn.Linear(2, 2)))


def wrap_in_data_parallel(rng, model):
    return nn.ModuleDict({"module": model})


def change_dtype(rng, model):
    return model.to(rng.choice([torch.float64, torch.float16, torch.bfloat16]))


def buffer_left(rng, model):
    for module in model.modules():
        for name in list(module._buffers):
            if module._buffers[name] is not None and rng.random() < 0.5:
                module._non_persistent_buffers_set.add(name)
    return model


def buffer_entered(rng, model):
    rng.choice(list(model.modules())).register_buffer("position_ids", torch.arange(4))
    return model


def untie(rng, model):
    for module in model.modules():
        if isinstance(module, Tied):
            module.out.weight = nn.Parameter(module.out.weight.detach().clone())
    return model


def parametrize(rng, model):
    linears = [m for m in model.modules() if isinstance(m, nn.Linear) and "parametrizations" not in m._modules]
    if linears:
        parametrizations.weight_norm(rng.choice(linears))
    return model


def rename_child(rng, model):
    if (picked := _pick(rng, model)) is not None:
        parent, name = picked
        parent._modules = type(parent._modules)(
            (f"{key}x" if key == name else key, child) for key, child in parent._modules.items()
        )
    return model


def leave_alone(rng, model):
    return model


MODEL_CHANGES = [
    leave_alone,
    add_layer,
    delete_layer,
    replace_by_sequential,
    replace_in_modules,
    change_shapes,
    extract_sequential,
    extract_module_list,
    wrap_in_class,
    wrap_in_data_parallel,
    change_dtype,
    buffer_left,
    buffer_entered,
    untie,
    parametrize,
    rename_child,
]


def same(rng, state):
    return state


def lose_metadata(rng, state):
    return dict(state)


def lose_some(rng, state):
    for key in list(state):
        if rng.random() < 0.2:
            del state[key]
    return state


def lose_counters(rng, state):
    return {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}


def lose_counters_keep_metadata(rng, state):
    for key in [key for key in state if key.endswith("num_batches_tracked")]:
        del state[key]
    return state


def add_prefix(rng, state):
    return {f"module.{key}": value for key, value in state.items()}


def to_float64(rng, state):
    for key, value in state.items():
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            state[key] = value.double()
    return state


def to_lists(rng, state):
    for key in list(state):
        if isinstance(state[key], torch.Tensor) and rng.random() < 0.1:
            state[key] = state[key].tolist()
    return state


def scalars_to_ones(rng, state):
    for key, value in state.items():
        if isinstance(value, torch.Tensor) and value.ndim == 0:
            state[key] = value.reshape(1)
    return state


STATE_CHANGES = [
    same,
    lose_metadata,
    lose_some,
    lose_counters,
    lose_counters_keep_metadata,
    add_prefix,
    to_float64,
    to_lists,
    scalars_to_ones,
]
