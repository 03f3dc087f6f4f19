"""A live module answers as the functions do, and is a witness like the process."""

from __future__ import annotations

import torch
from torch import nn

from ckptaudit.formats import DEFAULT_LIMITS
from ckptaudit.model.describe import manifest_of
from ckptaudit.model.live import LiveModel
from ckptaudit.model.trial import try_load
from ckptaudit.model.witness import LoadWitness, ModelFacts


def test_a_live_model():
    module = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    live: LoadWitness = LiveModel(module)
    assert live.manifest == manifest_of(module)
    assert live.facts == ModelFacts("Sequential", device="cpu")
    state = manifest_of({"0.weight": torch.zeros(3, 2)})
    assert live.try_load(state) == try_load(module, state)
    (load,) = live.really_load({"0.weight": torch.zeros(3, 2)}, DEFAULT_LIMITS, []).loads
    assert load.outcome.missing_keys == live.try_load(state).missing_keys
    live.close()
    live.close()


def test_the_device_is_that_of_the_tensors():
    assert LiveModel(nn.Linear(1, 1, device="meta")).facts.device == "meta"
    assert LiveModel(nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1, device="meta"))).facts.device == "cpu and meta"
    assert LiveModel(nn.ReLU()).facts.device == "cpu"
