"""The predicted verdict of strict and non-strict loads is what load_state_dict does, over random module trees."""

from __future__ import annotations

import copy
import random
import warnings
from collections import OrderedDict

import pytest
import torch
from trees import MODEL_CHANGES, STATE_CHANGES, random_tree

import ckptaudit
from ckptaudit import Manifest

SEEDS = range(12)
CASES = [(seed, model, state) for seed in SEEDS for model in range(len(MODEL_CHANGES)) for state in (0, seed % 9)]
CASES += [(seed + 100, seed % len(MODEL_CHANGES), state) for seed in SEEDS for state in range(len(STATE_CHANGES))]


def make_case(seed, model_change, state_change):
    """Return the changed model and a state dict of the unchanged one."""
    rng = random.Random(seed * 1000 + model_change * 50 + state_change)
    state = STATE_CHANGES[state_change](rng, random_tree(seed).state_dict())
    return MODEL_CHANGES[model_change](rng, random_tree(seed)), state


def torchs_word(model, state, *, strict):
    """Load into a copy; return the key lists of a load that returns, or None for one that raises."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = copy.deepcopy(model).load_state_dict(copy.copy(state), strict=strict)
    except RuntimeError:
        return None
    return sorted(result.missing_keys), sorted(result.unexpected_keys)


@pytest.mark.parametrize(("seed", "model_change", "state_change"), CASES)
def test_the_verdict_is_torchs(seed, model_change, state_change):
    model, state = make_case(seed, model_change, state_change)
    strict, non_strict = (torchs_word(model, state, strict=flag) for flag in (True, False))
    before = copy.deepcopy(model.state_dict())

    report = ckptaudit.diff(model, state, witness=True)

    assert report.hearing.agrees, report.hearing.disagreements
    assert report.hearing.prediction
    loads = report.to_json()["loads"]
    assert loads["strict"]["as_is"] is (strict is not None)
    assert loads["non_strict"]["as_is"] is (non_strict is not None)
    assert report.ok is (strict is not None)
    assert ckptaudit.diff(model, state, contract="partial").ok is (non_strict is not None and _some(report))
    if non_strict is not None:
        outcome = report.outcome_as_is
        assert (sorted(outcome.missing_keys), sorted(outcome.unexpected_keys)) == non_strict
        assert loads["non_strict"]["loaded"] == received(model, state, non_strict[0])
    assert _same_values(before, model.state_dict())


def received(model, state, missing):
    """Count the entries of the model's state dict that a non-strict load really writes, each under its own name."""
    model, state = copy.deepcopy(model), copy.deepcopy(state)
    for tensors, value in ((model.state_dict(), 1), (state, 0)):
        for tensor in tensors.values():
            if isinstance(tensor, torch.Tensor):
                tensor.fill_(value)
    before = {key: value for key, value in model.state_dict().items() if not isinstance(value, torch.Tensor)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.load_state_dict(state, strict=False)
    after = model.state_dict()
    named = {key: value for key, value in after.items() if key not in missing}
    return sum(key in state if key in before else not value.any() for key, value in named.items())


def _some(report):
    """The contract "partial" asks that something is loaded, where there is anything to load."""
    return report.outcome_as_is.loaded > 0 or not report.alignment.model.all_keys


def _same_values(before, after):
    return before.keys() == after.keys() and all(
        (a.dtype == b.dtype and a.tolist() == b.tolist()) if hasattr(a, "tolist") else a == b
        for a, b in zip(before.values(), after.values(), strict=True)
    )


@pytest.mark.parametrize(("seed", "model_change", "state_change"), CASES)
def test_two_manifests_alone_predict_the_same(seed, model_change, state_change):
    model, state = make_case(seed, model_change, state_change)
    strict, non_strict = (torchs_word(model, state, strict=flag) for flag in (True, False))

    loads = ckptaudit.diff(Manifest.of(model), Manifest.of(state)).to_json()["loads"]

    assert loads["judge"] == "prediction"
    assert loads["strict"]["as_is"] is (strict is not None)
    assert loads["non_strict"]["as_is"] is (non_strict is not None)


@pytest.mark.parametrize(("seed", "model_change", "state_change"), CASES[::3])
def test_an_alignment_is_a_partition(seed, model_change, state_change):
    model, state = make_case(seed, model_change, state_change)
    alignment = ckptaudit.diff(model, state).alignment
    mine = [*alignment.matched_keys, *alignment.mismatched_keys, *alignment.non_tensor_keys]
    assert sorted([*mine, *alignment.missing_keys]) == sorted(model.state_dict())
    assert sorted([*mine, *alignment.unexpected_keys]) == sorted(state)


@pytest.mark.parametrize(("seed", "model_change", "state_change"), CASES[::3])
def test_what_is_said_of_the_proposed_mapping_holds(seed, model_change, state_change):
    model, state = make_case(seed, model_change, state_change)
    report = ckptaudit.diff(model, state)
    if report.mapping is None:
        return
    mapped = ckptaudit.KeyMapping.parse(report.mapping.proposed).apply(Manifest.of(state))
    renamed = {new: state[old] for new, old in mapped.origin.items()}
    renamed = OrderedDict(renamed)
    if mapped.manifest.versions is not None:
        renamed._metadata = {module: {"version": v} for module, v in mapped.manifest.versions.items()}
    assert not mapped.collisions
    strict = torchs_word(model, renamed, strict=True) is not None
    assert report.to_json()["loads"]["strict"]["with_mapping"] is strict
