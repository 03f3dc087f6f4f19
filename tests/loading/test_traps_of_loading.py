"""What torch does without a word when it loads, and what ckptaudit.load does instead."""

import pytest
import torch
from torch import nn

import ckptaudit
from ckptaudit import LoadError


def saved(tmp_path, state):
    torch.save(state, tmp_path / "c.pth")
    return tmp_path / "c.pth"


def test_torch_copies_before_it_raises_and_this_does_not(tmp_path):
    path = saved(tmp_path, {"0.weight": torch.ones(2, 2), "0.bias": torch.ones(2), "1.weight": torch.ones(3, 3)})
    theirs, ours = (nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)) for _ in range(2))
    before = {key: value.clone() for key, value in ours.state_dict().items()}
    with pytest.raises(RuntimeError, match="size mismatch"):
        theirs.load_state_dict(torch.load(path))
    assert torch.equal(theirs[0].weight, torch.ones(2, 2))
    with pytest.raises(LoadError):
        ckptaudit.load(ours, path)
    assert all(torch.equal(value, before[key]) for key, value in ours.state_dict().items())


def tied():
    model = nn.ModuleDict({"e": nn.Embedding(5, 3), "h": nn.Linear(3, 5, bias=False)})
    model["h"].weight = model["e"].weight
    return model


def test_ties_are_those_of_the_model_and_not_of_a_copy(tmp_path):
    path = saved(tmp_path, {"e.weight": torch.ones(5, 3), "h.weight": torch.ones(5, 3)})
    model = tied()
    result = ckptaudit.load(model, path)
    assert model["h"].weight is model["e"].weight
    assert (result.elements, result.loaded_elements) == (15, 15)


def test_what_torch_calls_not_strict(tmp_path):
    nested = saved(tmp_path, {"epoch": 3, "model": nn.Linear(2, 2).state_dict()})
    theirs, ours = nn.Linear(2, 2), nn.Linear(2, 2)
    before = theirs.weight.clone()
    theirs.load_state_dict(torch.load(nested), strict=False)
    assert torch.equal(theirs.weight, before)
    assert ckptaudit.load(ours, nested).share == 1.0
    assert torch.equal(ours.weight, torch.load(nested)["model"]["weight"])
    with pytest.raises(RuntimeError, match="size mismatch"):
        nn.Linear(2, 3).load_state_dict(nn.Linear(2, 2).state_dict(), strict=False)
    with pytest.raises(LoadError, match=r"would load 0\.0%|loads nothing"):
        ckptaudit.load(nn.Linear(3, 3), nested, contract="partial", min_share=0.5)


def test_assign_as_torch_does_it_and_as_this_does(tmp_path):
    state = {"e.weight": torch.ones(5, 3).half(), "h.weight": torch.ones(5, 3).half()}
    theirs, ours = tied(), tied()
    theirs.load_state_dict(state, assign=True)
    assert theirs["h"].weight is not theirs["e"].weight
    assert theirs["e"].weight.dtype == torch.float16
    assert theirs["e"].weight.data_ptr() == state["e.weight"].data_ptr()
    ckptaudit.load(ours, state, assign=True)
    assert ours["h"].weight is ours["e"].weight
    assert ours["e"].weight.dtype == torch.float32
    assert ours["e"].weight.data_ptr() != state["e.weight"].data_ptr()


def test_versions_are_those_of_the_file(tmp_path):
    """A version-2 batch norm misses its counter; the same keys in a bare dict do not."""
    state = nn.BatchNorm1d(2).state_dict()
    del state["num_batches_tracked"]
    with pytest.raises(LoadError, match=r"1 missing \(num_batches_tracked\)"):
        ckptaudit.load(nn.BatchNorm1d(2), saved(tmp_path, state))
    bare = saved(tmp_path, dict(state))
    result = ckptaudit.load(nn.BatchNorm1d(2), bare)
    assert (result.missing_keys, "num_batches_tracked" in result.loaded_keys) == ((), False)


@pytest.mark.parametrize("assign", [False, True])
def test_the_file_may_be_overwritten_afterwards(tmp_path, assign):
    path = saved(tmp_path, {"weight": torch.ones(400, 400), "bias": torch.ones(400)})
    model = nn.Linear(400, 400)
    ckptaudit.load(model, path, assign=assign)
    torch.save({"weight": torch.zeros(1)}, path)
    assert torch.equal(model.weight, torch.ones(400, 400))


@pytest.mark.parametrize("assign", [False, True])
def test_requires_grad_is_the_models(tmp_path, assign):
    path = saved(tmp_path, {"weight": torch.ones(2, 2), "bias": nn.Parameter(torch.ones(2))})
    model = nn.Linear(2, 2)
    model.weight.requires_grad_(False)
    model.bias.requires_grad_(False)
    ckptaudit.load(model, path, assign=assign)
    assert (model.weight.requires_grad, model.bias.requires_grad) == (False, False)
