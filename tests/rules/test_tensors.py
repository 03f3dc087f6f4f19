"""Shapes, layouts and dtypes; where a live model is at hand, as torch itself has it."""

import warnings

import pytest
import torch
from torch import nn

from ckptaudit.rules import Contract

from .support import codes, diff, follow, found, manifest, net, spec

MODEL = manifest(net())


def messages(report):
    return {graded.finding.rule.code: graded.finding.message for graded in report.findings}


def test_a_changed_head_is_one_finding_with_its_shapes():
    report, fixed = follow(MODEL, manifest(net(fc__weight=(5, 4), fc__bias=(5,))))
    finding = found(report, "CKPT201")
    assert codes(report) == ["CKPT201"]
    assert finding.rows == (("fc.weight", "(5, 4)", "(2, 4)"), ("fc.bias", "(5,)", "(2,)"))
    [fix] = finding.fixes
    assert fix.do == "--drop 'fc.*' --contract partial"
    assert fix.then == "the model keeps its own 10 initial values"
    assert fixed.ok
    assert codes(fixed) == ["CKPT101"]


def test_dropping_everything_is_no_fix():
    report = diff(manifest(w=(2, 3)), manifest(w=(4, 3)))
    assert found(report, "CKPT201").fixes == ()


def test_the_same_number_of_values_in_another_shape_is_a_rule_of_its_own():
    report, fixed = follow(MODEL, manifest(net(fc__weight=(4, 2), fc__bias=(5,))))
    assert messages(report) == {
        "CKPT201": "1 tensor with another shape in the model",
        "CKPT202": "1 tensor with another shape and the same number of values in the model",
    }
    assert fixed.ok


def gpt(*, linear):
    """Shapes of blocks whose weights lie as in Conv1D, inputs first, or as in nn.Linear."""
    sides = {"attn.c_attn": (16, 48), "attn.c_proj": (16, 16), "mlp.c_fc": (16, 64), "mlp.c_proj": (64, 16)}
    shapes = {"wte.weight": (100, 16)}
    for i in range(3):
        for name, (inputs, outputs) in sides.items():
            shapes[f"h.{i}.{name}.weight"] = (outputs, inputs) if linear else (inputs, outputs)
            shapes[f"h.{i}.{name}.bias"] = (outputs,)
    return manifest(shapes)


@pytest.mark.parametrize("linear", [False, True])
def test_transposes_are_proposed_and_square_ones_with_them(linear):
    report, fixed = follow(gpt(linear=linear), gpt(linear=not linear))
    assert messages(report) == {"CKPT202": "12 tensors laid out otherwise than in the model"}
    finding = found(report, "CKPT202")
    assert "3 of them have the same shape either way, and would load wrong" in finding.detail
    assert (
        "h.0.attn.c_attn.weight",
        *(("(16, 48)", "(48, 16)") if linear else ("(48, 16)", "(16, 48)")),
    ) in finding.rows
    assert [fix.safety for fix in finding.fixes] == ["safe"]
    assert fixed.ok
    assert fixed.outcome.loaded == 25


def test_a_convolution_of_one_pixel_is_reshaped_to_a_layer():
    report, fixed = follow(manifest(net(conv__weight=(4, 30))), manifest(net(conv__weight=(4, 30, 1, 1))))
    assert codes(report) == ["CKPT202"]
    assert found(report, "CKPT202").fixes[0].do == "--map 'reshape conv.weight shape=4x30'"
    assert fixed.ok


def test_reordering_is_proposed_beside_a_new_head():
    """The keys that are only missing do not hide it."""
    report = diff(manifest({**net(conv__weight=(4, 30)), "head.weight": (5, 7)}), manifest(net(conv__weight=(30, 4))))
    assert set(codes(report)) == {"CKPT101", "CKPT202"}
    assert found(report, "CKPT202").fixes[0].do == "--map 'transpose conv.weight'"


def test_a_handful_of_values_is_not_known_by_its_shape():
    report = diff(MODEL, manifest(net(fc__weight=(4, 2))))
    assert [fix.safety for fix in found(report, "CKPT202").fixes] == ["unsafe"]


@pytest.mark.parametrize(("saved", "wanted", "code"), [((1,), (), "CKPT203"), ((), (1,), "CKPT201")])
def test_one_element_goes_into_a_scalar_and_not_back(saved, wanted, code):
    report = diff(manifest(net() | {"n": wanted}), manifest(net() | {"n": saved}))
    assert codes(report) == [code]


# Lazy modules ----------------------------------------------------------------------------------------------


def test_a_lazy_model_takes_any_shape_and_says_so():
    report = diff(nn.LazyLinear(2), nn.Linear(3, 2).state_dict())
    assert messages(report) == {"CKPT204": "2 lazy tensors of the model will take whatever shape the checkpoint has"}
    assert found(report, "CKPT204").rows[0] == ("weight", "(2, 3)", "no shape yet")
    assert report.ok


def test_two_lazy_sides():
    report = diff(nn.LazyLinear(2), nn.LazyLinear(2).state_dict())
    assert messages(report) == {"CKPT204": "2 lazy tensors without a shape on both sides"}
    assert report.ok


def test_a_model_with_shapes_refuses_a_checkpoint_without():
    lazy = nn.LazyLinear(2).state_dict()
    with pytest.raises(RuntimeError, match="uninitialized parameter"):
        nn.Linear(3, 2).load_state_dict(lazy, strict=False)
    saved = manifest(weight=spec(layout="uninitialized"), bias=(2,))
    finding = found(diff(manifest(weight=(2, 3), bias=(2,)), saved), "CKPT204")
    assert finding.message == "1 tensor of the checkpoint saved by a lazy module before it had shapes"
    assert finding.breaks is Contract.partial


# Layouts ---------------------------------------------------------------------------------------------------


class Holder(nn.Module):
    def __init__(self, value):
        super().__init__()
        self.register_buffer("value", value)


def quantized():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.quantize_per_tensor(torch.eye(2), 0.1, 0, torch.quint8)


LAYOUTS = [
    (torch.eye(2).to_sparse(), torch.eye(2)),
    (torch.eye(2), torch.eye(2).to_sparse()),
    (quantized(), torch.eye(2)),
]


@pytest.mark.parametrize(("saved", "wanted"), LAYOUTS, ids=["sparse", "to sparse", "quantized"])
def test_layouts_that_torch_refuses(saved, wanted):
    with pytest.raises(RuntimeError, match="While copying"):
        Holder(wanted.clone()).load_state_dict({"value": saved}, strict=False)
    report = diff(Holder(wanted), {"value": saved}, ["--contract", "partial"])
    assert messages(report) == {"CKPT205": "1 tensor stored in another layout than the model's"}
    assert not report.ok


def test_without_a_model_the_layout_is_predicted():
    sparse = manifest(net(fc__weight=spec(2, 4, layout="sparse_coo")))
    assert not diff(MODEL, sparse, ["--contract", "partial"]).ok
    floats, scaled = manifest(w=(2,)), manifest(w=spec(2, dtype="qint8"))
    Holder(quantized()).load_state_dict({"value": torch.eye(2)})
    report = diff(scaled, floats)
    assert messages(report) == {"CKPT205": "1 tensor quantized on the way into the model"}
    assert report.ok
    assert not diff(scaled, floats, ["--contract", "exact"]).ok
    assert not diff(floats, scaled).ok


# Dtypes ----------------------------------------------------------------------------------------------------

CASTS = [
    ("float32", "bfloat16", "CKPT301"),
    ("bfloat16", "float16", "CKPT301"),
    ("int64", "int32", "CKPT301"),
    ("complex64", "float32", "CKPT303"),
    ("float32", "int64", "CKPT303"),
    ("float32", "bool", "CKPT303"),
    ("float16", "float32", None),
    ("bool", "float32", None),
    ("float32", "complex64", None),
]


@pytest.mark.parametrize(("saved", "wanted", "code"), CASTS)
def test_casts_that_lose_something(saved, wanted, code):
    report = diff(manifest(w=spec(2, dtype=wanted)), manifest(w=spec(2, dtype=saved)))
    assert codes(report) == ([code] if code else [])
    assert report.ok
    assert diff(manifest(w=spec(2, dtype=wanted)), manifest(w=spec(2, dtype=saved)), ["--contract", "exact"]).ok is (
        code is None
    )
    if code:
        assert found(report, code).rows == (("w", saved, wanted),)


@pytest.mark.parametrize(("saved", "wanted", "code"), CASTS)
def test_a_cast_is_named_where_values_do_not_survive_it(saved, wanted, code):
    """Values at the edge of the saved dtype come back from the model's dtype, or the rule fires."""
    source, target = getattr(torch, saved), getattr(torch, wanted)
    if source is torch.bool:
        values = torch.tensor([True, False])
    elif source.is_complex:
        values = torch.tensor([1 + 2j])
    elif source.is_floating_point:
        values = torch.tensor([torch.finfo(source).max, 1 + torch.finfo(source).eps, 0.5], dtype=source)
    else:
        values = torch.tensor([torch.iinfo(source).max])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        survives = torch.equal(torch.empty(values.shape, dtype=target).copy_(values).to(source), values)
    assert survives is (code is None)


def test_extra_state_is_handed_over_and_not_cast():
    """set_extra_state takes any tensor: its shape, dtype and layout are the module's own affair."""

    class Quantizer(nn.Linear):
        def get_extra_state(self):
            return torch.zeros(())

        def set_extra_state(self, state):
            pass

    state = nn.Linear(4, 2).state_dict()
    for extra in (torch.zeros(1), torch.zeros(3, dtype=torch.float64), torch.eye(2).to_sparse()):
        report = diff(Quantizer(4, 2), {**state, "_extra_state": extra})
        assert codes(report) == []
