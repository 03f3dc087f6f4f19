import time
from collections import OrderedDict

import pytest

from ckptaudit.errors import UsageError
from ckptaudit.manifest import Manifest, TensorSpec
from ckptaudit.mapping.mapping import KeyMapping

SPEC = TensorSpec((2,), "float32")


def manifest(*keys, versions=None, entries=()):
    return Manifest(OrderedDict((key, SPEC) for key in keys), dict(entries), versions)


def test_keys_go_through_all_rules_in_order():
    mapped = KeyMapping.parse(["module.* -> *", "fc.* -> head.*", "drop *.bias"]).apply(
        manifest("module.conv.weight", "module.fc.weight", "module.fc.bias", "fc.extra")
    )
    assert list(mapped.manifest) == ["conv.weight", "head.weight", "head.extra"]
    assert mapped.origin == {
        "conv.weight": "module.conv.weight",
        "head.weight": "module.fc.weight",
        "head.extra": "fc.extra",
    }
    assert mapped.dropped == ("module.fc.bias",)
    assert mapped.unused == ()
    assert mapped.collisions == ()


def test_two_keys_on_one_are_reported_and_the_first_stays():
    mapped = KeyMapping.parse(["module.* -> *"]).apply(manifest("module.fc", "fc"))
    assert mapped.collisions == (("fc", ("module.fc", "fc")),)
    assert mapped.origin == {"fc": "module.fc"}


def test_a_rule_that_matches_nothing_is_reported():
    mapping = KeyMapping.parse(["modul.* -> *"])
    assert mapping.apply(manifest("module.fc")).unused == mapping.rules


def test_versions_and_entries_move_with_their_modules():
    source = manifest(
        "module.bn.weight", versions={"": 1, "module": 1, "module.bn": 2}, entries={"module.x._extra_state": "dict"}
    )
    mapped = KeyMapping.parse(["module.* -> *"]).apply(source).manifest
    assert mapped.versions == {"": 1, "bn": 2}
    assert mapped.entries == {"x._extra_state": "dict"}
    added = KeyMapping.parse(["* -> net.*"]).apply(manifest("bn.weight", versions={"": 1, "bn": 2})).manifest
    assert added.versions == {"net": 1, "net.bn": 2}


def test_a_renamed_leaf_keeps_its_modules_version():
    mapped = KeyMapping.parse(["bn.weight -> norm.weight"]).apply(manifest("bn.weight", versions={"bn": 2})).manifest
    assert mapped.versions["norm"] == 2


def test_the_input_is_not_changed_and_no_metadata_stays_none():
    source = manifest("module.fc")
    assert KeyMapping.parse(["module.* -> *"]).apply(source).manifest.versions is None
    assert list(source) == ["module.fc"]


def specs(result):
    return {key: spec.shape for key, spec in result.manifest.tensors.items()}


def test_keys_come_first_then_tensors_then_casts_then_ties():
    lines = ["tie head = q", "cast q dtype=float16", "split qkv -> q, k", "m.* -> *"]
    mapped = KeyMapping.parse(lines).apply(manifest("m.qkv", "m.o", versions={"m": 2}))
    assert specs(mapped) == {"q": (1,), "k": (1,), "o": (2,), "head": (1,)}
    assert [spec.dtype for spec in mapped.manifest.tensors.values()] == ["float16", "float32", "float32", "float16"]
    assert mapped.origin == {"o": "m.o"}
    assert {key: (str(recipe.op), recipe.sources, recipe.output) for key, recipe in mapped.recipes.items()} == {
        "q": ("Split(dim=0, sizes=(1, 1), parts=0)", ("m.qkv",), 0),
        "k": ("Split(dim=0, sizes=(1, 1), parts=0)", ("m.qkv",), 1),
        "head": ("Split(dim=0, sizes=(1, 1), parts=0)", ("m.qkv",), 0),
    }
    assert mapped.recipes["q"].cast.dtype == mapped.recipes["head"].cast.dtype == "float16"
    assert mapped.ties == (("head", "q"),)
    assert mapped.manifest.ties() == [("q", "head")]
    assert mapped.manifest.versions == {"": 2}
    assert (mapped.unused, mapped.collisions) == ((), ())


def test_a_cast_alone_is_a_recipe_and_one_to_the_same_dtype_is_none():
    mapped = KeyMapping.parse(["cast a dtype=float16", "cast b dtype=float32"]).apply(manifest("a", "b"))
    assert (mapped.origin, list(mapped.recipes), mapped.unused) == ({"b": "b"}, ["a"], ())


def test_what_is_made_and_what_is_renamed_may_collide():
    mapped = KeyMapping.parse(["split a -> b, c"]).apply(manifest("a", "b", entries={"c": "int"}))
    assert mapped.collisions == (("b", ("a", "b")), ("c", ("a", "c")))
    assert (dict(mapped.origin), mapped.manifest.entries, list(mapped.recipes)) == ({}, {}, ["b", "c"])
    both = KeyMapping.parse(["m.* -> *", "transpose w when=2x2"]).apply(manifest("m.a", "a"))
    assert both.collisions == (("a", ("m.a", "a")),)


def test_a_tie_keeps_the_memory_of_the_file():
    source = Manifest({"e": TensorSpec((2,), "float32", storage="0", stride=(1,))})
    assert KeyMapping.parse(["tie h = e"]).apply(source).manifest["h"] == source["e"]


def test_a_prefix_can_be_selected():
    mapped = KeyMapping.parse(["select_prefix enc."]).apply(
        manifest("enc.a", "dec.a", versions={"": 1, "enc": 2, "dec": 3})
    )
    assert (dict(mapped.origin), mapped.dropped) == ({"a": "enc.a"}, ("dec.a",))
    assert mapped.manifest.versions == {"": 2}
    assert KeyMapping.parse(["select_prefix x."]).apply(manifest("a")).unused


def test_expectations_are_settled_with_the_models_missing_keys():
    mapping = KeyMapping.parse(["expect_missing fc.*", "init head.*", "drop x", "expect_missing gone"])
    mapped = mapping.apply(manifest("head.w"))
    assert [str(rule) for rule in mapped.unused] == ["drop x"]
    assert mapped.expects("fc.w")
    assert mapped.expects("head.w")
    assert not mapped.expects("conv.w")
    assert [str(rule) for rule in mapped.settled(["fc.w", "head.w"]).unused] == ["drop x", "expect_missing gone"]
    fresh = mapping.apply(manifest("a"))
    assert [str(rule) for rule in fresh.unused] == ["init head.*", "drop x"]
    assert [str(rule) for rule in fresh.settled(["head.w"]).unused] == [
        "drop x",
        "expect_missing fc.*",
        "expect_missing gone",
    ]


def test_a_million_tensors_are_not_made_of_one():
    source = Manifest({"e": TensorSpec((10**12,), "float32")})
    with pytest.raises(UsageError, match=r"unstack e -> e\.\{e\}: e \(1000000000000,\) would become 1,000,000,000,000"):
        KeyMapping.parse(["unstack e -> e.{e}"]).apply(source)


def test_many_layers_take_little_time():
    keys = [f"layers.{i}.experts.{e}.{n}.w" for i in range(40) for e in range(100) for n in ("up", "down")]
    lines = [
        "layers.* -> blocks.*",
        "stack blocks.{i}.experts.{e}.up.w -> blocks.{i}.up",
        "transpose *.down.w dims=0,0",
    ]
    start = time.perf_counter()
    mapped = KeyMapping.parse(lines).apply(manifest(*keys))
    assert len(mapped.manifest) == 40 + 4000
    assert time.perf_counter() - start < 10


def test_the_way_back_of_many_layers_takes_little_time():
    keys = [f"l.{i}.{n}" for i in range(2000) for n in ("q", "k", "o")]
    source = Manifest({key: TensorSpec((4 + int(key.split(".")[1]) % 3, 2), "int8") for key in keys})
    mapping = KeyMapping.parse(["concat l.{i}.q, l.{i}.k -> b.{i}.qk", "cast *.o dtype=int32"])
    start = time.perf_counter()
    assert len(mapping.invert(source).rules) == 4000  # the sizes differ, so that no one rule says it
    assert time.perf_counter() - start < 20


def test_an_empty_name_is_a_name():
    assert specs(KeyMapping.parse(["transpose * dims=0,0"]).apply(manifest("", "a"))) == {"": (2,), "a": (2,)}
