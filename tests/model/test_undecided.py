"""Loads that are the user's own, and those that cannot be tried: what is said instead of a verdict."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ckptaudit.manifest import Manifest, TensorSpec
from ckptaudit.model.describe import manifest_of
from ckptaudit.model.trial import try_load


def test_a_load_state_dict_of_the_users_own():
    class Stripping(nn.Linear):
        def load_state_dict(self, state_dict, strict=True, assign=False):
            return super().load_state_dict(
                {k.removeprefix("module."): v for k, v in state_dict.items()}, strict, assign
            )

    assert try_load(
        Stripping(1, 1), manifest_of({f"module.{k}": v for k, v in nn.Linear(1, 1).state_dict().items()})
    ).strict


def test_a_load_state_dict_that_hands_over_to_an_inner_module():
    class Wrapper(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(1, 1)

        def state_dict(self, **kwargs):
            return self.inner.state_dict(**kwargs)

        def load_state_dict(self, state_dict, strict=True):
            return self.inner.load_state_dict(state_dict, strict)

    assert try_load(Wrapper(), manifest_of({"weight": torch.ones(1, 1)})).missing_keys == ("bias",)
    reason = try_load(Wrapper(), manifest_of({"weight": torch.ones(1, 2)}))
    assert reason.startswith("load_state_dict cannot be tried without the values: RuntimeError: Error(s) in loading")


def test_a_load_state_dict_that_says_nothing():
    class Silent(nn.Module):
        def load_state_dict(self, _state, strict=True):
            """Say nothing."""

    assert try_load(Silent(), manifest_of({})) == "load_state_dict of Silent does not say which keys are missing"


def test_a_hook_that_needs_values_cannot_be_tried():
    model = nn.Linear(1, 1)
    model.register_load_state_dict_pre_hook(lambda _module, state, *_: float(state["bias"]))
    reason = try_load(model, manifest_of(model))
    assert reason == (
        "load_state_dict cannot be tried without the values: "
        "RuntimeError: Tensor.item() cannot be called on meta tensors"
    )


def test_a_hook_that_needs_a_value_that_is_no_tensor():
    model = nn.Linear(1, 1)
    model.register_load_state_dict_pre_hook(lambda _module, state, *_: state.pop("epoch") + 1)
    reason = try_load(model, manifest_of({"epoch": 3}))
    assert reason.startswith("load_state_dict cannot be tried without the values: TypeError: ")


def test_a_module_that_copies_itself_with_its_values():
    class Singleton(nn.Linear):
        def __deepcopy__(self, memo):
            return self

    reason = try_load(Singleton(1, 1), manifest_of({}))
    assert reason == "Singleton copies itself in its own way, so no load can be tried on a copy"


def test_a_module_that_refuses_to_be_copied():
    class Unique(nn.Linear):
        def __deepcopy__(self, memo):
            raise TypeError("there is only one\nand more")

    assert try_load(Unique(1, 1), manifest_of({})) == "Unique cannot be copied: TypeError: there is only one"


def test_a_dtype_that_this_torch_does_not_have():
    manifest = Manifest({"weight": TensorSpec((1,), "float3")})
    assert try_load(nn.Linear(1, 1), manifest) == "this torch has no tensors of the dtype float3"


@pytest.mark.parametrize("layout", ["_mkldnn", "sparse_bsr"])
def test_a_layout_that_meta_does_not_have(layout):
    manifest = Manifest({"weight": TensorSpec((2, 2), "float32", layout=layout)})
    assert (
        try_load(nn.Linear(2, 2), manifest)
        == f"weight has the layout {layout}, of which there are no tensors without values"
    )


@pytest.mark.parametrize("shape", [(1 << 62, 1 << 62), (1 << 70,)])
def test_sizes_no_tensor_can_have(shape):
    outcome = try_load(nn.Linear(1, 1), Manifest({"weight": TensorSpec(shape, "float32")}))
    assert isinstance(outcome, str)
    assert outcome.startswith(f"weight has the shape {shape}: ")


def test_types_no_class_can_be_called():
    outcome = try_load(nn.Linear(1, 1), Manifest({}, {"weight": "nul\0.inside\0", "bias": "\ud800"}))
    assert len(outcome.errors) == 2
