"""try_load against a real load_state_dict on a real model: the same lists, messages and count."""

from __future__ import annotations

import copy
import functools
import random
import threading
import warnings
from collections import OrderedDict

import pytest
import torch
from torch import nn

from ckptaudit.model.describe import manifest_of
from ckptaudit.model.trial import try_load
from ckptaudit.outcome import LoadOutcome
from ckptaudit.records import replace


def really_load(model, state):
    """Load into a real copy whose tensors are all zero, from a state dict whose tensors are all one."""
    heard = []
    model.register_load_state_dict_pre_hook(lambda *given: heard.append(given[-3:]))
    before = {}
    with torch.no_grad():
        for key, tensor in _tensors(model.state_dict(keep_vars=True)).items():
            before[key] = tensor.zero_().clone()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            model.load_state_dict(state, strict=False)
        except RuntimeError as error:
            if not str(error).startswith("Error(s) in loading state_dict"):
                raise
    missing, unexpected, errors = heard[-1]
    after = _tensors(model.state_dict())
    # A tied name that the checkpoint lacks, or has no tensor for, changes with the other but gets nothing.
    given = {key for key in after if key not in state or torch.is_tensor(state[key])} - {*missing}
    changed = {key for key in given if key not in before or not torch.equal(before[key], after[key])}
    extra = {key for key in state if "_extra_state" in key} & {*model.state_dict()}
    loaded = len(changed | extra)
    return LoadOutcome(tuple(missing), tuple(unexpected), tuple(errors), loaded, "torch")


def _tensors(state):
    """Those with elements: the others cannot show whether they were written."""
    return {
        key: value
        for key, value in state.items()
        if isinstance(value, torch.Tensor) and not nn.parameter.is_lazy(value) and "_extra_state" not in key
    }


def ones(state, *, plain=False):
    """The same state dict with every value a one (as a plain dict: without ``_metadata``)."""
    filled = OrderedDict(
        (key, torch.ones_like(value) if isinstance(value, torch.Tensor) else value) for key, value in state.items()
    )
    if plain:
        return dict(filled)
    if hasattr(state, "_metadata"):
        filled._metadata = copy.deepcopy(state._metadata)
    return filled


def without(state, *keys):
    for key in keys:
        del state[key]
    return state


def prefixed(state, prefix):
    return {prefix + key: value for key, value in state.items()}


def _norms():
    return nn.Sequential(
        nn.Linear(3, 4), nn.BatchNorm1d(4), nn.InstanceNorm1d(4, affine=True, track_running_stats=True)
    )


def _old_weight_norm():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return nn.Sequential(nn.utils.weight_norm(nn.Linear(3, 4)))


def _new_weight_norm():
    return nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(3, 4)))


class Tied(nn.Module):
    def __init__(self, tied=True):
        super().__init__()
        self.embed = nn.Embedding(5, 3)
        self.head = nn.Linear(3, 5, bias=False)
        if tied:
            self.head.weight = self.embed.weight


class Extra(nn.Module):
    def __init__(self, extra=None):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2))
        self.extra = extra

    def get_extra_state(self):
        return self.extra

    def set_extra_state(self, state):
        self.extra = state


class Scalar(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(shape))
        self.register_buffer("steps", torch.zeros(shape, dtype=torch.int64))


class Buffered(nn.Module):
    def __init__(self, persistent):
        super().__init__()
        self.register_buffer("table", torch.zeros(3), persistent=persistent)
        self.weight = nn.Parameter(torch.zeros(2))


class Renaming(nn.Module):
    """Pre-hooks of both kinds, a post-hook that forgives, and an overridden ``_load_from_state_dict``."""

    def __init__(self):
        super().__init__()
        self.new = nn.Linear(2, 2)
        self.late = nn.Parameter(torch.zeros(2))
        self.doubled = nn.Parameter(torch.zeros(4))
        self._register_load_state_dict_pre_hook(self._rename)
        self.new.register_load_state_dict_pre_hook(lambda module, state, prefix, *_: state.pop(prefix + "junk", module))
        self.register_load_state_dict_post_hook(self._forgive)

    def _rename(self, state, prefix, *_):
        for name in ("weight", "bias"):
            if prefix + "old." + name in state:
                state[f"{prefix}new.{name}"] = state.pop(f"{prefix}old.{name}")

    @staticmethod
    def _forgive(_module, incompatible):
        incompatible.missing_keys[:] = [key for key in incompatible.missing_keys if not key.endswith("late")]

    def _load_from_state_dict(self, state, prefix, *rest):
        half = state.get(prefix + "doubled")
        if half is not None and half.shape == (2,):
            state[prefix + "doubled"] = torch.cat([half, half])
        super()._load_from_state_dict(state, prefix, *rest)


def _renaming_state():
    return {
        "old.weight": torch.ones(2, 2),
        "old.bias": torch.ones(2),
        "new.junk": torch.ones(1),
        "doubled": torch.ones(2),
    }


def _state(**values):
    return {key.replace("__", "."): value for key, value in values.items()}


MODULES = {
    "linear": lambda: nn.Linear(3, 4),
    "norms": _norms,
    "lstm": lambda: nn.LSTM(3, 4, num_layers=2, bidirectional=True),
    "gru projected": lambda: nn.LSTM(3, 4, proj_size=2),
    "attention": lambda: nn.MultiheadAttention(4, 2),
    "attention apart": lambda: nn.MultiheadAttention(4, 2, kdim=3, vdim=5, add_bias_kv=True),
    "transformer": lambda: nn.TransformerEncoderLayer(8, 2, 16),
    "old weight norm": _old_weight_norm,
    "new weight norm": _new_weight_norm,
    "spectral norm": lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(3, 4)),
    "orthogonal": lambda: nn.utils.parametrizations.orthogonal(nn.Linear(3, 3)),
    "shared module": lambda: nn.ModuleDict(dict.fromkeys("ab", nn.Linear(2, 2))),
    "extra": lambda: Extra({"epoch": 1}),
    "double": lambda: nn.Conv2d(3, 4, 3).double().to(memory_format=torch.channels_last),
    "containers": lambda: nn.ParameterDict(
        {"a": nn.Parameter(torch.zeros(2)), "b": nn.ParameterList([torch.zeros(1)])}
    ),
    "empty": nn.Sequential,
    "deep": lambda: functools.reduce(
        lambda inner, _: nn.Sequential(inner, nn.Linear(1, 1)), range(30), nn.Sequential()
    ),
    "renaming": Renaming,
}

CHANGES = {
    "nothing": lambda state: state,
    "no metadata": dict,
    "prefix": lambda state: prefixed(state, "module."),
    "first gone": lambda state: without(state, *list(state)[:1]),
    "last gone": lambda state: without(state, *list(state)[-1:]),
    "all gone": lambda state: without(state, *list(state)),
    "counters gone": lambda state: without(state, *[k for k in state if k.endswith("num_batches_tracked")]),
    "counters gone, no metadata": lambda state: {k: v for k, v in state.items() if not k.endswith("tracked")},
    "all wider": lambda state: OrderedDict(
        (k, torch.ones(*v.shape, 2) if torch.is_tensor(v) else v) for k, v in state.items()
    ),
    "one more": lambda state: state | {"extra.weight": torch.ones(3), "0.weight.deeper": torch.ones(1)},
    "half": lambda state: {k: v.half() if torch.is_tensor(v) else v for k, v in state.items()},
    "int": lambda state: {k: v.int() if torch.is_tensor(v) else v for k, v in state.items()},
    "a text": lambda state: state | dict.fromkeys(list(state)[-1:], "text"),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("module", MODULES)
@pytest.mark.filterwarnings("ignore:.*weight_norm")
def test_the_outcome_is_that_of_a_real_load(module, change):
    torch.manual_seed(0)
    make = MODULES[module]
    state = CHANGES[change](ones(make().state_dict()))
    assert try_load(make(), manifest_of(state)) == really_load(make(), state)


def _without_counter(**how):
    return lambda: without(ones(_norms().state_dict(), **how), "1.num_batches_tracked")


def _old_version():
    state = _without_counter()()
    state._metadata["1"]["version"] = 1
    return state


CASES = {
    "old weight_norm into new": (_new_weight_norm, lambda: ones(_old_weight_norm().state_dict())),
    "new weight_norm into old": (_old_weight_norm, lambda: ones(_new_weight_norm().state_dict())),
    "plain into new weight_norm": (
        _new_weight_norm,
        lambda: ones(nn.Sequential(nn.Linear(3, 4)).state_dict()),
    ),
    "counter gone, metadata kept": (_norms, _without_counter()),
    "counter gone, plain dict": (_norms, _without_counter(plain=True)),
    "counter gone, old version": (_norms, _old_version),
    "(1,) into ()": (lambda: Scalar(()), lambda: ones(Scalar(1).state_dict())),
    "() into (1,)": (lambda: Scalar(1), lambda: ones(Scalar(()).state_dict())),
    "(1, 1) into ()": (lambda: Scalar(()), lambda: ones(Scalar((1, 1)).state_dict())),
    "became non-persistent": (lambda: Buffered(False), lambda: ones(Buffered(True).state_dict())),
    "became persistent": (lambda: Buffered(True), lambda: ones(Buffered(False).state_dict())),
    "bias became None": (lambda: nn.Linear(2, 2, bias=False), lambda: ones(nn.Linear(2, 2).state_dict())),
    "extra state absent": (lambda: Extra({}), lambda: _state(weight=torch.ones(2))),
    "extra state unexpected": (
        lambda: nn.Linear(2, 2),
        lambda: _state(_extra_state=3, weight=torch.ones(2, 2)),
    ),
    "nested extra state": (lambda: nn.Sequential(Extra(1)), lambda: _state(**{"0.weight": torch.ones(2)})),
    "tied, both names": (Tied, lambda: ones(Tied().state_dict())),
    "untied into tied": (Tied, lambda: ones(Tied(tied=False).state_dict())),
    "tied into untied": (lambda: Tied(tied=False), lambda: ones(Tied().state_dict())),
    "lists and numbers": (lambda: nn.Linear(2, 2), lambda: _state(weight=[1, 2], bias=None)),
    "another's dict": (lambda: nn.Linear(2, 2), lambda: _state(weight=OrderedDict(), bias=torch.ones(2))),
    "nested state dict": (lambda: nn.Linear(2, 2), lambda: _state(epoch=3, state_dict={})),
    "hooks": (Renaming, _renaming_state),
    "hooks below": (lambda: nn.Sequential(Renaming()), lambda: prefixed(_renaming_state(), "0.")),
    "complex into real": (
        lambda: Scalar(2),
        lambda: _state(scale=torch.ones(2, dtype=torch.complex64), steps=torch.ones(2)),
    ),
    "float8": (
        lambda: Scalar(2),
        lambda: _state(scale=torch.ones(2).to(torch.float8_e5m2), steps=torch.ones(2)),
    ),
    "bits": (lambda: Scalar(2), lambda: _state(scale=torch.empty(2, dtype=torch.bits8), steps=torch.ones(2))),
    "uint3": (
        lambda: Scalar(2),
        lambda: _state(scale=torch.empty(2, dtype=torch.uint3), steps=torch.ones(2)),
    ),
    "sparse into dense": (
        lambda: Scalar(2),
        lambda: _state(scale=torch.ones(2).to_sparse(), steps=torch.ones(2)),
    ),
    "csr into dense": (
        lambda: Scalar((2, 2)),
        lambda: _state(scale=torch.eye(2).to_sparse_csr(), steps=torch.ones(2, 2)),
    ),
    "quantized into float": (
        lambda: Scalar(2),
        lambda: _state(scale=torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8), steps=torch.ones(2)),
    ),
    "not contiguous": (
        lambda: nn.Linear(2, 3),
        lambda: _state(weight=torch.ones(2, 3).t(), bias=torch.ones(1).expand(3)),
    ),
    "no elements": (lambda: nn.Linear(0, 3), lambda: _state(weight=torch.ones(3, 0), bias=torch.ones(3))),
    "lazy, full checkpoint": (lambda: nn.LazyLinear(4), lambda: ones(nn.Linear(3, 4).state_dict())),
    "lazy, other width": (
        lambda: nn.Sequential(nn.LazyConv2d(4, 3)),
        lambda: prefixed(ones(nn.Conv2d(9, 5, 1).state_dict()), "0."),
    ),
    "lazy, nothing": (lambda: nn.LazyLinear(4), dict),
    "lazy batch norm": (nn.LazyBatchNorm1d, lambda: ones(nn.BatchNorm1d(3).state_dict())),
    "lazy into lazy": (lambda: nn.LazyLinear(4), lambda: nn.LazyLinear(4).state_dict()),
}


# Copies of no elements leave no trace; here is how many entries there are.
INVISIBLE = {"no elements": 2, "lazy into lazy": 2}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.filterwarnings("ignore:.*weight_norm", "ignore:Sparse CSR", "ignore:.*quantiz", "ignore:.*zero-element")
def test_known_traps(case):
    make, state = CASES[case]
    expected = really_load(make(), state())
    if case in INVISIBLE:
        expected = replace(expected, loaded=INVISIBLE[case])
    assert try_load(make(), manifest_of(state())) == expected


def test_a_tie_counts_the_name_that_the_checkpoint_has():
    outcome = try_load(Tied(), manifest_of({"embed.weight": torch.ones(5, 3)}))
    assert (outcome.missing_keys, outcome.loaded, outcome.strict, outcome.non_strict) == (
        ("head.weight",),
        1,
        False,
        True,
    )


def test_extra_state_is_counted_and_not_set():
    model = Extra({"epoch": 1})
    outcome = try_load(model, manifest_of({"weight": torch.ones(2), "_extra_state": {"epoch": 2}}))
    assert (outcome.loaded, outcome.strict, model.extra) == (2, True, {"epoch": 1})
    assert try_load(Extra(), manifest_of({"weight": torch.ones(2), "_extra_state": torch.ones(3)})).loaded == 2


def test_an_expanded_buffer_cannot_be_written():
    def make():
        model = nn.Module()
        model.register_buffer("table", torch.zeros(1).expand(3))
        return model

    outcome = try_load(make(), manifest_of({"table": torch.ones(3)}))
    with pytest.raises(RuntimeError) as caught:
        make().load_state_dict({"table": torch.ones(3)})
    assert "more than one element of the written-to tensor" in outcome.errors[0]
    assert str(caught.value).endswith(outcome.errors[0])


def _snapshot(model):
    state = {key: value for key, value in model.state_dict().items() if torch.is_tensor(value)}
    return {
        "values": {key: (value.clone(), value.data_ptr(), value._version) for key, value in state.items()},
        "objects": [id(value) for value in (*model.parameters(), *model.buffers(), *model.modules())],
        "grads": [(p.requires_grad, p.grad) for p in model.parameters()],
        "training": [m.training for m in model.modules()],
        "hooks": [(list(m._load_state_dict_pre_hooks), list(m._load_state_dict_post_hooks)) for m in model.modules()],
        "attributes": [sorted(vars(m)) for m in model.modules()],
        "metadata": copy.deepcopy(getattr(model.state_dict(), "_metadata", None)),
        "rng": torch.get_rng_state(),
        "random": random.getstate(),
    }


def _same(a, b):
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(_same, a, b))
    return a == b


@pytest.mark.parametrize("module", [*MODULES, "tied"])
@pytest.mark.filterwarnings("ignore:.*weight_norm")
def test_the_live_model_stays_as_it_is(module):
    model = Tied() if module == "tied" else MODULES[module]()
    model.eval()
    model.register_forward_hook(lambda *_: None)
    before = _snapshot(model)
    try_load(model, manifest_of(ones(model.state_dict())))
    try_load(model, manifest_of({"nothing": torch.ones(1)}))
    assert _same(before, _snapshot(model))


def test_a_hook_that_closes_over_the_module_meets_the_twin():
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(2))
            self.loads = 0
            self._register_load_state_dict_pre_hook(lambda *_: self.count())
            self.register_load_state_dict_post_hook(lambda *_: self.count())

        def count(self):
            self.loads += 1

    model = Counting()
    assert try_load(model, manifest_of({"weight": torch.ones(2)})).strict
    assert model.loads == 0


def test_hooks_that_draw_random_numbers_leave_the_generator_alone():
    model = nn.Linear(1, 1)
    model.register_load_state_dict_pre_hook(lambda *_: torch.rand(3))
    before = torch.get_rng_state()
    assert isinstance(try_load(model, manifest_of(model)), LoadOutcome)
    assert torch.equal(before, torch.get_rng_state())


def test_no_values_are_copied():
    model = nn.Linear(1 << 14, 1 << 14, bias=False, device="meta")
    model.cache = torch.empty(1 << 40, device="meta")
    model.plain_list = [nn.Parameter(torch.empty(1 << 40, device="meta"))]
    assert try_load(model, manifest_of(model)).strict


def test_what_cannot_be_copied_is_shared():
    model = nn.Sequential(nn.Linear(1, 1))
    model[0].lock = threading.Lock()
    model.logger = {"lock": threading.RLock(), "layers": [model[0]]}
    assert try_load(model, manifest_of(model)).strict


@pytest.mark.filterwarnings("ignore:.*weight_norm")
def test_a_weight_computed_by_the_forward_pass():
    model = _old_weight_norm()
    model(torch.zeros(1, 3))
    assert try_load(model, manifest_of(model)).strict


def test_two_modules_that_name_each_other():
    model = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1))
    object.__setattr__(model[0], "parent", model)
    assert try_load(model, manifest_of(model)).strict


def test_a_compiled_module():
    model = torch.compile(nn.Linear(2, 2))
    assert try_load(model, manifest_of(model)).strict
    outcome = try_load(model, manifest_of(nn.Linear(2, 2)))
    assert outcome.missing_keys == ("_orig_mod.weight", "_orig_mod.bias")


def test_a_hook_may_copy_by_keyword_and_from_a_number():
    model = nn.Linear(1, 1)
    model.register_load_state_dict_pre_hook(lambda module, *_: module.weight.data.copy_(torch.ones(())))
    model.register_load_state_dict_pre_hook(lambda module, *_: module.bias.detach().fill_(1).copy_(3))
    assert try_load(model, manifest_of(model)).loaded == 2


def test_a_closure_over_a_variable_without_a_value():
    def hook(*_):
        if model is None:
            never.append(1)

    model = nn.Linear(1, 1)
    model.register_load_state_dict_pre_hook(hook)
    assert try_load(model, manifest_of(model)).strict
    if not model:
        never = []


def test_no_warning_about_meta_is_heard():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert try_load(_norms(), manifest_of(_without_counter(plain=True)())).strict


def test_swapped_parameters_are_counted_too():
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        assert try_load(nn.Linear(1, 1), manifest_of(nn.Linear(1, 1))).loaded == 2
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)
