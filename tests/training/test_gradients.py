"""What kind of gradient a tensor got. The oracle is a look at every value."""

from __future__ import annotations

import pytest
import torch

from ckptaudit.training.gradients import gradients


def kind(gradient, **options):
    return gradients({"g": gradient}, **options)["g"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.complex64])
@pytest.mark.parametrize("shape", [(), (3, 4), (100, 100)])
def test_kinds(dtype, shape):
    zero = torch.zeros(shape, dtype=dtype)
    assert kind(zero) == kind(-zero) == "zero"
    assert kind(torch.ones(shape, dtype=dtype)) == "finite"
    for value in (float("nan"), float("inf")):
        assert kind(torch.full(shape, value, dtype=dtype)) == "non-finite"


@pytest.mark.parametrize("at", [0, 1, 5001, 9999])
def test_one_value_anywhere_is_seen(at):
    gradient = torch.zeros(10_000)
    gradient[at] = 1e-30
    assert kind(gradient) == "finite"
    gradient[at] = float("nan")
    assert kind(gradient) == "non-finite"


def test_a_nan_among_finite_values_is_seen_where_it_is_looked_for():
    gradient = torch.ones(10_000)
    gradient[5001] = float("nan")
    assert kind(gradient, thorough={"g"}) == "non-finite"


def test_tiny_and_sparse_and_empty_ones():
    assert kind(torch.tensor([1e-300], dtype=torch.float64)) == "finite"
    embedding = torch.nn.Embedding(10, 4, sparse=True)
    embedding(torch.tensor([1, 1])).sum().backward()
    assert kind(embedding.weight.grad) == "finite"
    assert kind(torch.zeros(0)) == "zero"
    assert kind(torch.ones(4, 3).t()) == "finite"


def test_devices_are_asked_once(monkeypatch):
    asked = []
    real = torch.Tensor.tolist
    monkeypatch.setattr(torch.Tensor, "tolist", lambda self: asked.append(1) or real(self))
    gradients({str(index): torch.ones(5) for index in range(50)})
    assert len(asked) == 1
