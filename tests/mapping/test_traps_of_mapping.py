"""Traps of loading that a mapping meets, with torch's own load as the judge; tests/test_traps.py is their index."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.nn.utils.parametrizations import weight_norm
from torch.optim.swa_utils import AveragedModel

import ckptaudit
from ckptaudit import KeyMapping, UsageError
from ckptaudit.mapping.execute import map_state


def net():
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Sequential(nn.Linear(2, 2, bias=False)))


def load(model, state, *rules):
    """Map and load strictly with torch; ckptaudit's verdict has to be the same."""
    report = ckptaudit.diff(model, state, mapping=rules)
    try:
        model.load_state_dict(map_state(KeyMapping.parse(rules), state))
    except RuntimeError:
        assert not report.outcome.strict
        return report
    assert report.outcome.strict
    return report


def same(one, other):
    return all(torch.equal(value, other[key]) for key, value in one.items())


# Wrappers (17) ---------------------------------------------------------------------------------------------


def inner_compiled():
    model = net()
    model[2] = torch.compile(model[2])
    return model


WRAPPED = {
    "compile": (lambda: torch.compile(net()), "_orig_mod.0.weight"),
    "compile inside": (inner_compiled, "2._orig_mod.0.weight"),
    "DataParallel": (lambda: nn.DataParallel(net()), "module.0.weight"),
    "DataParallel of compile": (lambda: nn.DataParallel(torch.compile(net())), "module._orig_mod.0.weight"),
    "compile of DataParallel": (lambda: torch.compile(nn.DataParallel(net())), "_orig_mod.module.0.weight"),
    "AveragedModel": (lambda: AveragedModel(net()), "module.0.weight"),
}


@pytest.mark.parametrize("case", WRAPPED)
def test_wrappers_are_stripped_at_any_depth(case):
    make, key = WRAPPED[case]
    state = make().state_dict()
    assert key in state
    plain = net()
    assert not ckptaudit.diff(plain, state).ok
    extra = ["drop n_averaged"] if case == "AveragedModel" else []
    load(plain, state, "strip_wrappers", *extra)
    assert same(plain.state_dict(), map_state(KeyMapping.parse(["strip_wrappers", *extra]), state))


def test_a_checkpoint_wrapper_leaves_no_trace_in_the_keys():
    wrapped = checkpoint_wrapper(net())
    assert load(net(), wrapped.state_dict()).ok
    with pytest.raises(UsageError, match="strip_wrappers: matches nothing"):
        map_state(KeyMapping.parse(["strip_wrappers"]), wrapped.state_dict())


def test_plain_weights_go_into_a_wrapper():
    assert load(torch.compile(net()), net().state_dict(), "add_prefix _orig_mod.").ok
    assert load(inner_compiled(), net().state_dict(), "2.* -> 2._orig_mod.*").ok


def test_a_submodule_called_module_beside_its_own_name_is_a_collision():
    state = {"module.w": torch.zeros(2), "w": torch.ones(2)}
    with pytest.raises(UsageError, match=r"w: would receive module\.w and w under the mapping"):
        map_state(KeyMapping.parse(["strip_wrappers"]), state)
    found = ckptaudit.diff(state, state, mapping="strip_wrappers").findings
    assert "CKPT107" in [graded.finding.rule.code for graded in found]


# What keys do not tell (7, 9, 18, 21) ----------------------------------------------------------------------


def test_a_cast_keeps_to_the_kind_of_the_values():
    """Floats never become integers, nor complex numbers real; what overflows is infinite, as in torch."""
    state = {"w": torch.tensor([1e6]), "steps": torch.tensor([7]), "z": torch.tensor([1 + 2j])}
    result = map_state(KeyMapping.parse(["cast * dtype=float16"]), state)
    assert result["w"].dtype == torch.float16
    assert result["w"].isinf().all()
    assert result["steps"] is state["steps"]
    assert result["z"] is state["z"]
    for line in ("cast w dtype=int32", "cast z dtype=float32"):
        with pytest.raises(UsageError, match="matches nothing"):
            map_state(KeyMapping.parse([line]), state)


def test_a_bias_that_the_model_registers_as_none_is_unexpected_and_dropped():
    model, state = nn.Linear(2, 2, bias=False), nn.Linear(2, 2).state_dict()
    assert not load(model, state).ok
    assert load(model, state, "drop bias").ok
    assert torch.equal(model.weight, state["weight"])


def test_tensors_of_equal_shape_are_not_paired_by_their_order():
    class Two(nn.Module):
        def __init__(self, first, second):
            super().__init__()
            self.add_module(first, nn.Linear(3, 3))
            self.add_module(second, nn.Linear(3, 3))

    report = ckptaudit.diff(Two("alpha", "beta"), Two("left", "right").state_dict())
    assert not report.ok
    assert not report.outcome.strict
    assert report.outcome.loaded == 0


def test_a_mapping_does_not_depend_on_the_order_of_the_file(tmp_path):
    """safetensors sorts its keys by dtype and name, and has no ``_metadata``."""
    source = net()
    renamed = {f"net.{key}": value for key, value in source.state_dict().items()}
    save_file(renamed, tmp_path / "model.safetensors")
    model = net()
    assert ckptaudit.diff(model, tmp_path / "model.safetensors", mapping="net.* -> *").ok
    shuffled = {key: renamed[key] for key in ckptaudit.open_checkpoint(tmp_path / "model.safetensors").manifest}
    assert list(shuffled) != list(renamed)
    load(model, shuffled, "net.* -> *")
    assert same(model.state_dict(), source.state_dict())


# Scalars, lazy parameters, extra state (8, 10, 11) -----------------------------------------------------------


class Scale(nn.Module):
    def __init__(self, *shape):
        super().__init__()
        self.scale = nn.Parameter(torch.full(shape, 2.0))


def test_a_scalar_goes_into_one_element_by_a_reshape():
    assert load(Scale(), Scale(1).state_dict()).ok  # torch forgives this way round alone
    assert not load(Scale(1), Scale().state_dict()).ok
    assert load(Scale(1), Scale().state_dict(), "reshape scale shape=1").ok
    back = KeyMapping.parse(["reshape scale shape=1"]).invert(ckptaudit.Manifest.of(Scale()))
    assert back.to_json() == ["reshape scale shape=()"]


def test_a_lazy_model_takes_what_a_mapping_makes():
    model, state = nn.LazyLinear(3), nn.Linear(5, 3).state_dict()
    state["weight"] = state["weight"].T.contiguous()
    assert load(model, state, "transpose weight").ok
    assert model.weight.shape == (3, 5)


def test_an_operation_takes_no_parameter_without_a_shape():
    with pytest.raises(UsageError, match=r"transpose weight: weight \(\) is uninitialized"):
        map_state(KeyMapping.parse(["transpose weight"]), nn.LazyLinear(3).state_dict())


class Extra(nn.Linear):
    def get_extra_state(self):
        return {"level": 3}

    def set_extra_state(self, state):
        self.level = state["level"]


def test_extra_state_moves_with_its_module_and_no_operation_takes_it():
    model, state = nn.Sequential(Extra(2, 2)), nn.ModuleDict({"net": Extra(2, 2)}).state_dict()
    assert load(model, state, "net.* -> 0.*").ok
    assert model[0].level == 3
    with pytest.raises(UsageError, match="matches nothing"):
        map_state(KeyMapping.parse(["cast net._extra_state dtype=float16"]), state)
    assert "net._extra_state" not in map_state(KeyMapping.parse(["drop *._extra_state"]), state)


# Hooks and ties (13, 14) --------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated:FutureWarning")
def test_load_hooks_see_the_names_that_a_mapping_makes():
    """``weight_g`` and ``weight_v`` load into the parametrization, which has none of these keys."""
    old = nn.Sequential(torch.nn.utils.weight_norm(nn.Linear(2, 3)))
    model = nn.Sequential(weight_norm(nn.Linear(2, 3)))
    wrapped = nn.DataParallel(old).state_dict()
    assert not set(model.state_dict()) & {"0.weight_g", "0.weight_v"}
    report = load(model, wrapped, "module.* -> *")
    assert report.ok
    assert torch.equal(model[0].parametrizations.weight.original0, wrapped["module.0.weight_g"])
    assert torch.equal(model(x := torch.randn(4, 2)), old(x))


def test_a_tie_gives_the_alias_that_a_strict_load_asks_for():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.head = nn.Embedding(5, 2), nn.Linear(2, 5, bias=False)
            self.head.weight = self.embed.weight

    model, state = Tied(), {"embed.weight": torch.randn(5, 2)}
    assert not load(model, state).outcome.strict
    assert load(model, state, "tie head.weight = embed.weight").ok
    assert model.head.weight is model.embed.weight
    assert torch.equal(model.head.weight, state["embed.weight"])
    both = {**state, "head.weight": torch.randn(5, 2)}
    with pytest.raises(UsageError, match=r"head\.weight: would receive"):  # and not: the last one wins
        map_state(KeyMapping.parse(["tie head.weight = embed.weight"]), both)
