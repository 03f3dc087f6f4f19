"""What is predicted without torch, where it is more than names and shapes."""

from __future__ import annotations

import pytest
from torch import nn

from ckptaudit import Manifest
from ckptaudit.compare.align import align
from ckptaudit.compare.predict import predict
from ckptaudit.records import replace


def norm(persistent=True):
    model = nn.Sequential(nn.BatchNorm1d(2))
    if not persistent:
        model[0]._non_persistent_buffers_set.add("num_batches_tracked")
    return model


@pytest.mark.parametrize("persistent", [True, False])
@pytest.mark.parametrize("version", ["none", 1, 2])
@pytest.mark.parametrize("kept", [True, False])
def test_counters_of_normalisation_layers(persistent, version, kept):
    """Their layers put one into an old state dict, where it is unexpected if the buffer is not persistent."""
    state = norm().state_dict()
    if not kept:
        del state["0.num_batches_tracked"]
    if version == "none":
        state = dict(state)
    else:
        state._metadata["0"]["version"] = version
    model = norm(persistent)
    predicted = predict(align(Manifest.of(state), Manifest.of(model)))
    result = model.load_state_dict(state, strict=False)
    assert list(predicted.missing_keys) == result.missing_keys
    assert list(predicted.unexpected_keys) == result.unexpected_keys


def test_the_counter_of_a_manifest_without_versions_is_not_put_in():
    model = replace(Manifest.of(norm(persistent=False)), versions=None)
    state = Manifest({key: spec for key, spec in Manifest.of(norm()).tensors.items() if "num" not in key})
    assert predict(align(state, model)).strict
