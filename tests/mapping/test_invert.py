"""The way back: which rule is written, and which rule is blamed where there is none."""

import pytest

from ckptaudit.errors import UsageError
from ckptaudit.manifest import Manifest, TensorSpec
from ckptaudit.mapping.mapping import KeyMapping


def manifest(shapes, dtype="float32", **rest):
    return Manifest({key: TensorSpec(shape, dtype) for key, shape in shapes.items()}, **rest)


LAYERS = {f"b.{i}.{name}": shape for i in range(2) for name, shape in (("qkv", (6, 2)), ("o", (2, 2)))}


@pytest.mark.parametrize(
    ("lines", "shapes", "back"),
    [
        (["module.* -> *"], {"module.a": (1,)}, ["* -> module.*"]),
        (["a -> t", "b -> a", "t -> b"], {"a": (1,), "b": (2,)}, ["b -> t", "a -> b", "t -> a"]),
        (["b.{i}.* -> l.{i+1}.*"], LAYERS, ["l.{i+1}.* -> b.{i}.*"]),
        (["strip_prefix b.", "add_prefix c."], LAYERS, ["strip_prefix c.", "add_prefix b."]),
        (["split *.qkv -> *.q, *.k, *.v"], LAYERS, ["concat *.q, *.k, *.v -> *.qkv"]),
        (["concat b.{i}.qkv, b.{i}.o -> b.{i}.all"], LAYERS, ["split b.{i}.all -> b.{i}.qkv, b.{i}.o sizes=6,2"]),
        (["stack b.{e}.o -> o dim=1"], LAYERS, ["unstack o -> b.{e}.o dim=1"]),
        (["stack e.{e} -> e"], {"e.0": (2, 3)}, ["reshape e -> e.0 shape=2x3"]),
        (["split e -> e.{e} parts=1"], {"e": (2, 3)}, ["reshape e.0 -> e shape=2x3"]),
        (["transpose *.qkv"], LAYERS, ["transpose *.qkv"]),
        (["permute a dims=2,0,1"], {"a": (1, 2, 3)}, ["permute a dims=1,2,0"]),
        (["reshape * shape=-1"], {"a": (1, 2), "b": (3,)}, ["reshape a shape=1x2", "reshape b shape=3"]),
        (["pad a dim=-1 before=1 after=2"], {"a": (2, 3)}, ["slice a dim=-1 start=1 stop=4"]),
        (["rope_permute a heads=2"], {"a": (8, 3)}, ["rope_permute a heads=2 inverse=true"]),
        (["interleave a, b -> c"], {"a": (2,), "b": (2,)}, ["deinterleave c -> a, b parts=2"]),
        (["tie h = a"], {"a": (2,)}, ["drop h"]),
        (["m.* -> *", "split a -> q, k"], {"m.a": (2,)}, ["* -> m.*", "concat m.q, m.k -> m.a"]),
        (["expect_missing fc.*"], {"a": (2,)}, []),
    ],
)
def test_the_way_back_is_written_as_one_would(lines, shapes, back):
    mapping, source = KeyMapping.parse(lines), manifest(shapes)
    inverse = mapping.invert(source)
    assert inverse.to_json() == back
    there = mapping.apply(source).manifest
    again = inverse.apply(there).manifest
    assert {k: s.shape for k, s in again.tensors.items()} == {k: s.shape for k, s in source.tensors.items()}


def test_integers_are_cast_back():
    source = manifest({"a": (2,), "b": (2,)}, "int8")
    assert KeyMapping.parse(["cast a dtype=int32"]).invert(source).to_json() == ["cast a dtype=int8"]
    both = KeyMapping.parse(["cast * dtype=int32", "concat a, b -> c"]).invert(source)
    assert both.to_json() == ["split c -> a, b sizes=2,2", "cast a dtype=int8", "cast b dtype=int8"]


@pytest.mark.parametrize(
    ("lines", "shapes", "text"),
    [
        (["drop b"], {"a": (1,), "b": (1,)}, "drop b: cannot be inverted: it drops b"),
        (["init b"], {"a": (1,), "b": (1,)}, "init b: cannot be inverted: it drops b"),
        (["select_prefix a."], {"a.b": (1,), "b": (1,)}, "select_prefix a.: cannot be inverted: it drops b"),
        (
            ["m.* -> *"],
            {"m.a": (1,), "b": (1,)},
            "m.* -> *: cannot be inverted: '* -> m.*' would make m.b of b, which was b",
        ),
        (
            ["b.{i}.w -> w"],
            {"b.0.w": (1,)},
            "b.{i}.w -> w: cannot be inverted: the new keys do not tell the old ones",
        ),
        (
            ["strip_wrappers"],
            {"module.w": (1,)},
            "strip_wrappers: cannot be inverted: the new keys do not tell the old ones",
        ),
        (
            ["slice * stop=1"],
            {"a": (2,)},
            "slice * stop=1: cannot be inverted: the values of a do not come back",
        ),
        (
            ["cast * dtype=float64"],
            {"a": (2,)},
            "cast * dtype=float64: cannot be inverted: a was float32, and its bits do not come back",
        ),
        (["x -> y"], {"a": (2,)}, "x -> y: matches nothing"),
        (["a -> b"], {"a": (2,), "b": (2,)}, "b: would receive a and b under the mapping"),
    ],
)
def test_the_rule_without_a_way_back_is_named(lines, shapes, text):
    with pytest.raises(UsageError) as caught:
        KeyMapping.parse(lines).invert(manifest(shapes))
    assert str(caught.value) == text


def test_a_way_back_that_would_lose_its_way_is_refused():
    """The names that come back meet others on the way: what was taken apart cannot be told from what was there."""
    source = manifest({"a": (4,), "m.q": (2,)})
    with pytest.raises(UsageError, match=r"the mapping: cannot be inverted: m\.q does not come back"):
        KeyMapping.parse(["m.q -> z", "split a -> m.q, k"]).invert(source)
