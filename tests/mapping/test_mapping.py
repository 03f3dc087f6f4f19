from collections import OrderedDict

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
