"""Tensor rules: their syntax, which tensors go together, and every way in which they do not."""

import pytest

from ckptaudit.errors import UsageError
from ckptaudit.manifest import Manifest, TensorSpec
from ckptaudit.mapping.mapping import KeyMapping
from ckptaudit.mapping.ops.joins import Concat, Split, Stack, Unstack
from ckptaudit.mapping.ops.layout import Permute, Reshape, RopePermute, Transpose
from ckptaudit.mapping.ops.values import AdaptInputConv, Cast, Pad, ResamplePosEmbed, Slice
from ckptaudit.mapping.rules import parse_rule
from ckptaudit.mapping.tensors import TensorRule


def manifest(**shapes):
    return Manifest({key.replace("__", "."): TensorSpec(shape, "float32") for key, shape in shapes.items()})


def mapped(line, **shapes):
    result = KeyMapping.parse([line]).apply(manifest(**shapes))
    return {key: spec.shape for key, spec in result.manifest.tensors.items()}


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        ("split a -> b, c", TensorRule(Split(0), ("a",), ("b", "c"))),
        ("split *.a->*.b,*.c dim=1 sizes=2,3", TensorRule(Split(1, (2, 3)), ("*.a",), ("*.b", "*.c"))),
        ("chunk a -> p.{s} parts=4", TensorRule(Split(0, (), 4), ("a",), ("p.{s}",))),
        ("concat a, b -> c dim=-1", TensorRule(Concat(-1), ("a", "b"), ("c",))),
        ("stack e.{e}.w -> e.w", TensorRule(Stack(), ("e.{e}.w",), ("e.w",))),
        ("unstack e.w -> e.{e}.w dim=1", TensorRule(Unstack(1), ("e.w",), ("e.{e}.w",))),
        ("transpose h.{i}.w", TensorRule(Transpose(), ("h.{i}.w",))),
        ("transpose a -> b dims=1,2", TensorRule(Transpose((1, 2)), ("a",), ("b",))),
        ("permute a dims=2,0,1", TensorRule(Permute((2, 0, 1)), ("a",))),
        ("reshape a shape=2x-1", TensorRule(Reshape((2, -1)), ("a",))),
        ("reshape a shape=2,-1", TensorRule(Reshape((2, -1)), ("a",))),
        ("reshape a shape=()", TensorRule(Reshape(()), ("a",))),
        ("rope_permute *.q heads=4 inverse=true", TensorRule(RopePermute(4, True), ("*.q",))),
        ("cast * dtype=float16", TensorRule(Cast("float16"), ("*",))),
        ("slice a start=1 stop=3 when=4x2", TensorRule(Slice(0, 1, 3), ("a",), (), (4, 2))),
        ("pad a after=2", TensorRule(Pad(after=2), ("a",))),
        ("adapt_input_conv a in_chans=1", TensorRule(AdaptInputConv(1), ("a",))),
        (
            "resample_pos_embed a size=2x3 prefix_tokens=0 old_size=4x4 mode=bilinear",
            TensorRule(ResamplePosEmbed((2, 3), 0, (4, 4), "bilinear"), ("a",)),
        ),
    ],
)
def test_a_line_is_read(line, rule):
    assert parse_rule(line) == rule
    assert parse_rule(str(rule)) == rule


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("split a -> b", "makes several tensors: list them, or write {e} for all"),
        ("split a, b -> c, d", "takes one tensor"),
        ("split a -> {e}, {f}", "makes several tensors: list them, or write {e} for all"),
        ("concat a -> b", "takes several tensors: list them, or write {e} for all"),
        ("concat a, b", "makes one tensor"),
        ("concat a, b -> c, d", "makes one tensor"),
        ("concat a.{e}, b.{e} -> c", "takes several tensors: list them, or write {e} for all"),
        ("concat a.{e}.{f} -> c", "takes several tensors: list them, or write {e} for all"),
        ("concat *.a, b -> *.c", "has sources that do not use the same * and {i}"),
        ("transpose a, b", "takes one tensor"),
        ("transpose *.a -> b", "has 1 stars on the left and 0 on the right"),
        ("transpose a -> b.{i}", "makes one tensor"),
        ("transpose a.{x,y}", "has a brace that is no {i} at 2"),
        ("transpose a b", "has 'a b' for a name; escape blanks, commas and = in it"),
        ("transpose a -> b -> c", "has more than one arrow"),
        ("transpose a,", "has '' for a name; escape blanks, commas and = in it"),
        ("cast a -> b dtype=float16", "renames, and a cast does not"),
        ("cast a", "needs dtype="),
        ("cast a dtype=float99", "has dtype=float99; the name of a dtype is needed, as in dtype=float16"),
        ("permute a", "needs dims="),
        ("transpose a dim=0,1", "has no option 'dim'; did you mean 'dims'?"),
        ("transpose a zebra=1", "has no option 'zebra'"),
        ("transpose a dims=0,1 dims=0,1", "says dims= twice"),
        ("transpose a dims=0,x", "has dims=0,x; a whole number is needed"),
        ("slice a start=1.5", "has start=1.5; a whole number is needed"),
        ("rope_permute a heads=2 inverse=yes", "has inverse=yes; true or false is needed"),
    ],
)
def test_a_fault_of_a_line_is_named(line, reason):
    with pytest.raises(UsageError) as caught:
        parse_rule(line)
    assert (caught.value.subject, caught.value.reason) == (line, reason)


@pytest.mark.parametrize(
    ("line", "shapes", "result"),
    [
        ("split a -> q, k dim=1", {"a": (2, 4), "z": (1,)}, {"q": (2, 2), "k": (2, 2), "z": (1,)}),
        ("split a -> p.{s} sizes=1,2,1", {"a": (4,)}, {"p.0": (1,), "p.1": (2,), "p.2": (1,)}),
        ("split a -> p.{s+1} parts=2", {"a": (4,)}, {"p.1": (2,), "p.2": (2,)}),
        ("concat p.{s} -> a", {"p__1": (2, 3), "p__0": (1, 3)}, {"a": (3, 3)}),
        ("concat p.{s+1} -> a", {"p__1": (2, 3), "p__2": (1, 3)}, {"a": (3, 3)}),
        ("concat a, a -> b", {"a": (2,)}, {"b": (4,)}),
        ("stack l.{i}.{e} -> l.{i}", {"l__0__0": (2,), "l__1__0": (3,)}, {"l.0": (1, 2), "l.1": (1, 3)}),
        ("unstack a -> b, c", {"a": (2, 3)}, {"b": (3,), "c": (3,)}),
        ("unstack a -> x.{e}", {"a": (0, 3)}, {}),
        ("transpose * when=2x3", {"a": (2, 3), "b": (2, 2)}, {"a": (3, 2), "b": (2, 2)}),
        ("transpose a.{i} -> b.{i+1}", {"a__0": (2, 3)}, {"b.1": (3, 2)}),
        ("cast * dtype=float16 when=2", {"a": (2,), "b": (3,)}, {"a": (2,), "b": (3,)}),
    ],
)
def test_what_goes_together(line, shapes, result):
    assert mapped(line, **shapes) == result


def test_what_is_made_stands_where_its_first_source_stood():
    state = dict.fromkeys(["x", "b", "y", "a", "z"], (2,))
    assert list(mapped("concat a, b -> c", **state)) == ["x", "c", "y", "z"]
    assert list(mapped("split y -> y2, y1", **state)) == ["x", "b", "y2", "y1", "a", "z"]


def test_parts_come_in_the_order_of_their_numbers():
    state = Manifest({f"e.{n}": TensorSpec((n + 1, 2), "float32") for n in (10, 2, 0, 1, *range(3, 10))})
    recipe = KeyMapping.parse(["concat e.{e} -> e"]).apply(state).recipes["e"]
    assert recipe.sources == tuple(f"e.{n}" for n in range(11))


@pytest.mark.parametrize(
    ("line", "shapes", "reason"),
    [
        ("split a -> q, k", {"a": (3, 2)}, "a (3, 2) cannot be split: 3 is not divisible by 2"),
        ("transpose a.{i} dims=0,2", {"a__7": (3, 2)}, "a.7 (3, 2) has 2 dimensions and no dimension 2"),
        ("unstack a -> b, c", {"a": (3, 2)}, "a (3, 2) would become 3 tensors, not 2"),
        ("concat a, b -> c", {"a": (3, 2)}, "finds a and no b"),
        ("concat a, b -> c", {"b": (3, 2)}, "finds b without the others that it goes together with"),
        ("concat a.{i}, b.{i-1} -> c.{i}", {"a__0": (3, 2)}, "finds a.0 and no b.{i-1}"),
        ("concat *.a, *.b -> *.c", {"y__b": (3, 2)}, "finds y.b without the others that it goes together with"),
        ("stack e.{e} -> e", {"e__0": (2,), "e__2": (2,)}, "finds e.0 and no e.1"),
        ("stack e.{e} -> e", {"e__1": (2,)}, "finds e.1 and no e.0"),
        ("transpose a.{i} -> b.{i-1}", {"a__0": (2, 3)}, "a.0 would get an index below 0"),
        ("split a -> p.{s}", {"a": (3, 2)}, "a (3, 2) cannot be split without sizes= or parts="),
    ],
)
def test_what_does_not_fit_names_rule_key_and_shape(line, shapes, reason):
    with pytest.raises(UsageError) as caught:
        mapped(line, **shapes)
    assert (caught.value.subject, caught.value.reason) == (str(parse_rule(line)), reason)


def test_a_second_operation_on_a_tensor_is_an_error():
    mapping = KeyMapping.parse(["transpose a", "slice * stop=1"])
    with pytest.raises(UsageError) as caught:
        mapping.apply(manifest(a=(2, 2), b=(2,)))
    assert caught.value.reason == "also takes a, which 'transpose a' takes"
    assert caught.value.hint.startswith("a tensor goes through one operation, and a cast; or ")
    unfit = KeyMapping.parse(["transpose a", "split a -> q, k, v"])
    with pytest.raises(UsageError, match="also takes a, which 'transpose a' takes"):
        unfit.apply(manifest(a=(2, 6)))  # and not that 2 is not divisible by 3
    with pytest.raises(UsageError, match=r"cast a dtype=float64: also casts a, which 'cast \* dtype=float16' casts"):
        KeyMapping.parse(["cast * dtype=float16", "cast a dtype=float64"]).apply(manifest(a=(2, 2)))


def test_a_cast_leaves_other_kinds_alone():
    state = Manifest({"w": TensorSpec((2,), "float32"), "steps": TensorSpec((), "int64")})
    result = KeyMapping.parse(["cast * dtype=bfloat16"]).apply(state)
    assert [spec.dtype for spec in result.manifest.tensors.values()] == ["bfloat16", "int64"]
    assert result.origin == {"steps": "steps"}


def test_what_is_no_plain_tensor_is_named():
    state = Manifest({"w": TensorSpec((2, 2), "float32", layout="sparse_coo")})
    with pytest.raises(UsageError, match=r"transpose w: w \(2, 2\) is sparse coo; operations take dense tensors"):
        KeyMapping.parse(["transpose w"]).apply(state)


def test_several_operations_take_a_tensor_where_each_names_its_result():
    mapping = KeyMapping.parse(["copy wte -> E", "transpose wte -> U", "slice wte -> first dim=0 stop=1"])
    source = Manifest({"wte": TensorSpec((10, 4), "float32")})
    mapped = mapping.apply(source)
    assert {key: spec.shape for key, spec in mapped.manifest.tensors.items()} == {
        "E": (10, 4),
        "U": (4, 10),
        "first": (1, 4),
    }
    with pytest.raises(UsageError, match="takes wte too"):
        mapping.invert(source)
    with pytest.raises(UsageError, match="also takes wte") as caught:
        KeyMapping.parse(["copy wte -> E", "transpose wte"]).apply(source)
    assert caught.value.hint.endswith("name the result of each: FROM -> TO")
