"""Operations: what is foretold is what torch makes, and what has an inverse comes back bit for bit."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import any_op, bits_of, spec_of, tensor_of, tensors

from ckptaudit.dtypes import DTYPES
from ckptaudit.manifest import TensorSpec
from ckptaudit.mapping.execute import execute
from ckptaudit.mapping.ops import OPS, Misfit, check_usable
from ckptaudit.mapping.ops.chain import Chain, read_steps, write_steps
from ckptaudit.mapping.ops.joins import Concat, Deinterleave, Interleave, Split, Stack, Unstack
from ckptaudit.mapping.ops.layout import Copy, Permute, Reshape, RopePermute, Transpose
from ckptaudit.mapping.ops.values import CASTABLE, AdaptInputConv, Cast, Pad, Part, ResamplePosEmbed, Slice


def spec(*shape, dtype="float32", **rest):
    return TensorSpec(shape, dtype, **rest)


def inputs_for(op, first, data):
    """Draw as many inputs as the operation takes, mostly of one shape and dtype."""
    if not op.joins:
        return [first]
    dtype = str(first.dtype).removeprefix("torch.")
    same = st.builds(tensor_of, st.just(tuple(first.shape)), st.just(dtype), st.integers(0, 99))
    return [first, *data.draw(st.lists(st.one_of(same, same, same, tensors()), max_size=3))]


@settings(max_examples=400, deadline=None)
@given(any_op(), tensors(), st.data())
def test_the_foretold_spec_is_that_of_the_executed_tensor(op, first, data):
    inputs = inputs_for(op, first, data)
    before = [bits_of(tensor) for tensor in inputs]
    try:
        promised = op.shapes([spec_of(tensor) for tensor in inputs])
    except Misfit:
        with pytest.raises(Misfit):
            execute(op, inputs)
        return
    outputs = execute(op, inputs)
    assert [(s.shape, s.dtype) for s in promised] == [(tuple(t.shape), str(t.dtype)[6:]) for t in outputs]
    assert all(tensor.is_contiguous() for tensor in outputs)
    memory = {tensor.untyped_storage().data_ptr() for tensor in inputs} - {0}
    assert not any(tensor.untyped_storage().data_ptr() in memory for tensor in outputs)
    assert [bits_of(tensor) for tensor in inputs] == before


@settings(max_examples=400, deadline=None)
@given(any_op(), tensors(), st.data())
def test_what_has_an_inverse_comes_back_bit_for_bit(op, first, data):
    inputs = inputs_for(op, first, data)
    specs = [spec_of(tensor) for tensor in inputs]
    try:
        op.shapes(specs)
    except Misfit:
        return
    back = op.undo(specs)
    if back is None:
        return
    assert op.exact(specs)
    assert [bits_of(t) for t in execute(back, execute(op, inputs))] == [bits_of(t) for t in inputs]


def test_every_operation_says_whether_it_is_exact_and_has_an_inverse():
    fits = {
        Split(0, (1, 3)): [spec(4, 2)],
        Concat(): [spec(4, 2), spec(1, 2)],
        Stack(): [spec(4, 2)] * 2,
        Unstack(): [spec(4, 2)],
        Interleave(): [spec(4, 2)] * 2,
        Deinterleave(0, 2): [spec(4, 2)],
        Transpose(): [spec(4, 2)],
        Permute((1, 0)): [spec(4, 2)],
        Reshape((8,)): [spec(4, 2)],
        RopePermute(2): [spec(4, 2)],
        Pad(after=1): [spec(4, 2)],
        Copy(): [spec(4, 2)],
        Chain("transpose(0,1)|split(0,2)|reshape(4)|permute(0)"): [spec(4, 2)],
        Part(0, 1, 2): [spec(4, 2)],
        Cast("int64"): [spec(4, dtype="int8")],
        Cast("float64"): [spec(4)],
        Cast("float16"): [spec(4)],
        Slice(stop=1): [spec(4, 2)],
        AdaptInputConv(1): [spec(4, 3, 1, 1)],
        ResamplePosEmbed((2, 2)): [spec(1, 10, 8)],
    }
    said = {(op.word, op.exact(inputs), op.undo(inputs) is not None) for op, inputs in fits.items()}
    moves = {
        name for name in OPS if name not in ("chunk", "cast", "slice", "part", "adapt_input_conv", "resample_pos_embed")
    }
    lossy = {"cast", "slice", "part", "adapt_input_conv", "resample_pos_embed"}
    assert said == {
        *((name, True, True) for name in moves),
        *((name, False, False) for name in lossy),
        ("cast", True, True),
        ("cast", True, False),
    }


MISFITS = [
    (Split(), [spec(4)], "cannot be split without sizes= or parts="),
    (Split(0, (), 3), [spec(4)], "cannot be split: 4 is not divisible by 3"),
    (Split(0, (1, 2)), [spec(4)], "cannot be split: the sizes add up to 3 and not to 4"),
    (Split(0, (5, -1)), [spec(4)], "cannot be split: a size is below 0"),
    (Split(0, (), 2_000_000), [spec(2_000_000)], "would become 2,000,000 tensors"),
    (Split(2, (), 2), [spec(4)], "has 1 dimensions and no dimension 2"),
    (Concat(), [spec(4), spec(4, dtype="float16")], "is float32, and another input is float16"),
    (Concat(), [spec(4, 2), spec(4, 3)], "does not go together with (4, 3)"),
    (Stack(), [spec(4), spec(5)], "does not go together with (5,)"),
    (Unstack(), [spec(2_000_000)], "would become 2,000,000 tensors"),
    (Unstack(), [spec()], "has 0 dimensions and no dimension 0"),
    (Deinterleave(), [spec(4)], "cannot be taken apart without parts="),
    (Deinterleave(0, 3), [spec(4)], "cannot be taken apart: 4 is not divisible by 3"),
    (Transpose((0, 2)), [spec(4, 2)], "has 2 dimensions and no dimension 2"),
    (Transpose((0,)), [spec(4, 2)], "is transposed by two dims, as in dims=0,1"),
    (Permute((0, 0)), [spec(4, 2)], "has 2 dimensions, and dims=0,0 does not name each once"),
    (Reshape((3,)), [spec(4, 2)], "has 8 values and cannot become (3,)"),
    (Reshape((-1, -1)), [spec(4)], "cannot become (-1, -1): one size may be -1, and none lower"),
    (RopePermute(3), [spec(4, 2)], "does not hold 3 heads of an even number of rows"),
    (Cast("float16"), [spec(4, dtype="int8")], "is int8 and is not cast to float16"),
    (Slice(stop=5), [spec(4)], "has 4 entries along 0 and none from 0 to 5"),
    (Part(0, 3, 3), [spec(6)], "has 6 entries along 0: no part 3 of 3"),
    (Part(0, 0, 4), [spec(6)], "has 6 entries along 0: no part 0 of 4"),
    (Chain("split(0,2)|split(0,2)"), [spec(4)], "goes through split, which takes one tensor, as 2"),
    (Pad(after=-1), [spec(4)], "is padded by before= and after=, which are not below 0"),
    (Pad(after=2**63), [spec(4)], f"would make a tensor of ({2**63 + 4},), which torch cannot hold"),
    (AdaptInputConv(1), [spec(4)], "is no weight of a two-dimensional convolution for in_chans= of 1 or more"),
    (AdaptInputConv(4), [spec(4, 6, 1, 1)], "has 6 input channels, and not the 3 of RGB"),
    (AdaptInputConv(1), [spec(4, 3, 1, 1, dtype="int8")], "is int8; this takes floating-point values"),
    (ResamplePosEmbed((2, 2)), [spec(1, 7, 8)], "has 7 tokens, which are no square grid after 1 prefix tokens"),
    (ResamplePosEmbed((2, 2), 1, (2, 4)), [spec(1, 7, 8)], "has 7 tokens, which are no 2x4 grid after 1 prefix tokens"),
    (ResamplePosEmbed((2,)), [spec(1, 7, 8)], "is resampled to size=HEIGHTxWIDTH"),
    (ResamplePosEmbed((2, 2)), [spec(7, 8)], "is no position embedding of the shape (1, tokens, width)"),
    (ResamplePosEmbed((2, 2)), [spec(1, 5, 0)], "is no position embedding of the shape (1, tokens, width)"),
    (ResamplePosEmbed((2, 2), mode="area"), [spec(1, 5, 8)], "is resampled by mode=bicubic or bilinear, not area"),
]


@pytest.mark.parametrize(("op", "inputs", "reason"), MISFITS, ids=lambda value: value if isinstance(value, str) else "")
def test_a_misfit_says_why(op, inputs, reason):
    with pytest.raises(Misfit) as caught:
        op.shapes(inputs)
    assert str(caught.value) == reason


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (spec(4, layout="sparse_coo"), "is sparse coo; operations take dense tensors"),
        (spec(4, dtype="qint8"), "is qint8; operations take no quantized tensors"),
    ],
)
def test_what_is_no_plain_tensor_is_refused(given, reason):
    with pytest.raises(Misfit) as caught:
        check_usable(given)
    assert str(caught.value) == reason


def test_kind_and_device_stay_where_all_inputs_agree():
    weight = spec(2, kind="parameter", requires_grad=True, location="cpu", storage="0", stride=(1,))
    (joined,) = Concat().shapes([weight, weight])
    assert joined == spec(4, kind="parameter", requires_grad=True, location="cpu")
    (mixed,) = Concat().shapes([weight, spec(2, kind="buffer")])
    assert mixed == spec(4, location="cpu")


@pytest.mark.parametrize("dtype", sorted(CASTABLE))
def test_a_cast_is_torchs(dtype):
    family = DTYPES[dtype].kind.removeprefix("u")
    others = [name for name in CASTABLE if DTYPES[name].kind.removeprefix("u") == family]
    for other in others:
        value = torch.ones(2, dtype=torch.float32).to(getattr(torch, dtype))
        (done,) = execute(Cast(other), [value])
        assert done.dtype == getattr(torch, other)
        assert torch.equal(done.to(torch.complex64), torch.ones(2, dtype=torch.complex64))


def test_the_order_of_split_interleave_and_rope():
    rows = torch.arange(8)
    assert [t.tolist() for t in execute(Split(0, (3, 5)), [rows])] == [[0, 1, 2], [3, 4, 5, 6, 7]]
    assert [t.tolist() for t in execute(Deinterleave(0, 2), [rows])] == [[0, 2, 4, 6], [1, 3, 5, 7]]
    assert execute(Interleave(), [rows[:4], rows[4:]])[0].tolist() == [0, 4, 1, 5, 2, 6, 3, 7]
    assert execute(RopePermute(2), [rows])[0].tolist() == [0, 2, 1, 3, 4, 6, 5, 7]
    assert execute(RopePermute(1), [rows])[0].tolist() == [0, 2, 4, 6, 1, 3, 5, 7]


@pytest.mark.parametrize(("heads", "rows", "width"), [(1, 4, 3), (4, 32, 8), (2, 12, 5)])
def test_rope_permute_is_that_of_hugging_face(heads, rows, width):
    """convert_llama_weights_to_hf.py, ``permute``, and its inverse as in the GGUF converters."""
    weight = torch.randn(rows, width)
    theirs = weight.view(heads, rows // heads // 2, 2, width).transpose(1, 2).reshape(rows, width)
    assert torch.equal(execute(RopePermute(heads), [weight])[0], theirs)
    assert torch.equal(execute(RopePermute(heads, True), [theirs])[0], weight)


def test_interleave_is_a_fused_gate_up_weight():
    gate, up = torch.randn(4, 3), torch.randn(4, 3)
    fused = execute(Interleave(), [gate, up])[0]
    assert torch.equal(fused[::2], gate)
    assert torch.equal(fused[1::2], up)


class TestTimm:
    @pytest.fixture(autouse=True)
    def _timm(self):
        pytest.importorskip("timm")

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
    @pytest.mark.parametrize(
        ("channels", "in_chans"), [(3, 1), (3, 3), (3, 2), (3, 4), (3, 7), (6, 1), (12, 1), (2, 1)]
    )
    def test_adapt_input_conv(self, dtype, channels, in_chans):
        from timm.models import adapt_input_conv

        weight = torch.randn(4, channels, 3, 3).to(dtype)
        assert torch.equal(execute(AdaptInputConv(in_chans), [weight])[0], adapt_input_conv(in_chans, weight))

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
    @pytest.mark.parametrize("mode", ["bicubic", "bilinear"])
    @pytest.mark.parametrize(
        ("tokens", "size", "prefix", "old"),
        [(17, (6, 6), 1, ()), (16, (2, 3), 0, ()), (14, (3, 5), 2, (3, 4)), (17, (4, 4), 1, ()), (17, (2, 8), 1, ())],
    )
    def test_resample_pos_embed(self, dtype, mode, tokens, size, prefix, old):
        from timm.layers import resample_abs_pos_embed

        grid = torch.randn(1, tokens, 8).to(dtype)
        theirs = resample_abs_pos_embed(grid, list(size), list(old) or None, prefix, interpolation=mode)
        op = ResamplePosEmbed(size, prefix, old, mode)
        assert torch.equal(execute(op, [grid])[0], theirs)


def test_a_chain_does_its_steps_one_after_another():
    x = torch.arange(24).reshape(6, 4)
    (a, b) = execute(Chain("split(0,2)|transpose(0,1)|reshape(2,6)"), [x])
    assert torch.equal(a, x[:3].T.reshape(2, 6))
    assert torch.equal(b, x[3:].T.reshape(2, 6))
    (joined,) = execute(Chain("stack(0)|permute(1,0,2)|reshape(6,8)"), [x, x])
    assert torch.equal(joined, torch.stack([x, x]).permute(1, 0, 2).reshape(6, 8))
    (part,) = execute(Chain("part(0,1,3)|slice(1,0,2)"), [x])
    assert torch.equal(part, x[2:4, :2])


@pytest.mark.parametrize("text", ["transpose(0,1)|cut(0,1,3)", "rope_permute(2,1)", "split(0,3)|reshape(2,-1)", "copy"])
def test_steps_are_written_as_they_are_read(text):
    assert write_steps(read_steps(text)) == text


@pytest.mark.parametrize("text", ["flip(0)", "split(0", "slice(1)", "reshape(a)"])
def test_what_is_no_step(text):
    with pytest.raises(ValueError, match=r"is no step|does not have the numbers"):
        read_steps(text)
