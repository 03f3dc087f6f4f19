from __future__ import annotations

import re

import pytest
import torch

from ckptaudit.mapping.inference.forms import Forms, form
from ckptaudit.mapping.inference.units import gather

from .helpers import said


def perform(op, tensor):
    """Carry an operation out, as the vocabulary says."""
    for step in op.split("|"):
        name, numbers = re.fullmatch(r"(\w+)(?:\(([\d,]*)\))?", step).groups()
        sizes = [int(n) for n in numbers.split(",")] if numbers else []
        tensor = tensor.transpose(*(sizes or (0, 1))) if name == "transpose" else getattr(tensor, name)(sizes)
    return tensor


@pytest.mark.parametrize(
    ("stored", "wanted"),
    [
        ((8, 4), (4, 8)),
        ((10, 6, 1, 1), (10, 6)),
        ((10, 6), (10, 6, 1, 1)),
        ((1, 5, 6), (5, 6)),
        ((12, 5), (4, 5, 3)),
        ((5, 12), (4, 3, 5)),
        ((3, 5), (1, 5, 3)),
        ((4, 5, 3), (12, 5)),
        ((4, 3, 5), (5, 12)),
        ((12,), (4, 3)),
        ((4, 3), (12,)),
        ((1, 16, 6), (1, 4, 4, 6)),
    ],
)
def test_a_form_makes_the_shape(stored, wanted):
    assert perform(form(stored, wanted), torch.zeros(stored)).shape == wanted


@pytest.mark.parametrize(
    ("stored", "wanted"), [((4, 4), (4, 4)), ((4, 3), (5, 3)), ((2, 6), (3, 4)), ((6, 1, 7, 7), (6, 49, 2))]
)
def test_there_is_no_form_where_elements_would_have_to_be_guessed(stored, wanted):
    assert form(stored, wanted) is None


def test_heads_compute_what_the_linear_layer_computes():
    """A projection per head is the linear layer, row by row of a head; torch's own arithmetic is the oracle."""
    heads, size, width = 4, 3, 10
    x, weight, out = torch.randn(2, width), torch.randn(heads * size, width), torch.randn(width, heads * size)
    per_head = perform(form((heads * size, width), (heads, width, size)), weight)
    inner = torch.einsum("bw,hws->bhs", x, per_head)
    assert torch.allclose(inner.flatten(1), x @ weight.T, atol=1e-5)
    back = perform(form((width, heads * size), (heads, size, width)), out)
    assert torch.allclose(torch.einsum("bhs,hsw->bw", inner, back), inner.flatten(1) @ out.T, atol=1e-4)


@pytest.mark.parametrize("axes", [(2, 3, 1, 0), (0, 2, 3, 1)])
@pytest.mark.parametrize("size", [(6, 4, 3, 2), (6, 1, 3, 3), (5, 4, 1, 1), (5, 5, 3, 3)])
def test_kernels_whose_channels_lie_elsewhere_are_turned_back(axes, size):
    kernel = torch.randn(size)
    stored = kernel.permute(axes)
    assert torch.equal(perform(form(tuple(stored.shape), size), stored), kernel)
    assert torch.equal(perform(form(size, tuple(stored.shape)), kernel), stored)


def test_square_kernels_of_one_place_are_turned_like_all_others():
    kernel = torch.randn(5, 5, 1, 1)
    assert torch.equal(perform(form((1, 1, 5, 5), (5, 5, 1, 1)), kernel.permute(2, 3, 1, 0)), kernel)


def test_kernels_of_sequences_are_turned_too():
    kernel = torch.randn(6, 4, 3)
    assert torch.equal(perform(form((3, 4, 6), (6, 4, 3)), kernel.permute(2, 1, 0)), kernel)


def forms_of(source, target):
    return Forms(gather(source.items()), gather(target.items()))


def test_what_fits_as_it_is_is_copied():
    forms = forms_of({"a.weight": (4, 8)}, {"b.weight": (4, 8)})
    assert forms.op("weight", (4, 8), (4, 8)) == ("copy", 0.0)
    assert forms.op("weight", (8, 4), (4, 8)) is None


def test_a_square_table_is_no_matrix_of_a_layer():
    layers = {"fc1.weight": (32, 8), "fc1.bias": (32,), "fc2.weight": (8, 32), "fc2.bias": (8,)}
    turned = {key: shape[::-1] for key, shape in layers.items()}
    found = said({**layers, "o.weight": (8, 8), "table": (9, 9)}, {**turned, "o.weight": (8, 8), "table": (9, 9)})
    assert found["o.weight"][1] == "transpose" and found["table"][1] == "copy"


def test_biases_tell_that_all_matrices_lie_the_other_way():
    source = {"fc1.weight": (32, 8), "fc1.bias": (32,), "fc2.weight": (8, 32), "fc2.bias": (8,), "o.weight": (8, 8)}
    target = {"a.weight": (8, 32), "a.bias": (32,), "b.weight": (32, 8), "b.bias": (8,), "c.weight": (8, 8)}
    forms = forms_of(source, target)
    assert forms.op("weight", (32, 8), (8, 32)) == ("transpose", 0.0)
    assert forms.op("weight", (8, 8), (8, 8))[0] == "transpose"
    assert forms.op("weight", (8, 32), (8, 32))[1] > 0
    assert forms_of(source, source).op("weight", (8, 8), (8, 8)) == ("copy", 0.0)
