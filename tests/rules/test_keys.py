"""Names: one finding per cause, and fixes that do what they promise."""

import pytest

import ckptaudit
from ckptaudit.rules import Contract

from .support import codes, diff, follow, found, manifest, net, spec

MODEL = manifest(net())


def test_a_lost_prefix_is_one_finding():
    before, after = follow(MODEL, manifest(net("module.")))
    assert codes(before) == ["CKPT103"]
    finding = found(before, "CKPT103")
    assert finding.message == 'checkpoint keys carry "module.", model keys do not (3 tensors)'
    assert finding.detail == (
        "The file was saved from DataParallel or DistributedDataParallel.\n"
        "strict=True raises; strict=False returns, and loads 0 of 3 tensors"
    )
    assert [fix.to_json() for fix in finding.fixes] == [
        {"safety": "safe", "do": "--map 'module.* -> *'", "then": "then 3 of 3 tensors match"}
    ]
    assert sorted(finding.keys) == sorted(net("module."))
    assert after.ok
    assert after.outcome.loaded == 3


def test_a_prefix_that_keeps_everything_out_breaks_more_than_strict():
    report = diff(MODEL, manifest(net("module.")), ["--contract", "partial"])
    assert found(report, "CKPT103").breaks is Contract.partial
    assert not report.ok
    some = manifest(net("module.") | {"conv.weight": (4, 3, 1, 1)})
    assert diff(manifest(net() | net("x.")), some, ["--contract", "partial"]).ok


@pytest.mark.parametrize(
    ("before", "after", "case", "message"),
    [
        ("_orig_mod.", "", "strip", 'checkpoint keys carry "_orig_mod.", model keys do not (3 tensors)'),
        ("", "backbone.", "add", 'model keys carry "backbone.", checkpoint keys do not (3 tensors)'),
        ("encoder.", "backbone.", "replace", '"encoder." in the checkpoint is "backbone." in the model (3 tensors)'),
        ("bmodel.", "model.", "replace", '"bmodel." in the checkpoint is "model." in the model (3 tensors)'),
        ("a*{.", "", "strip", 'checkpoint keys carry "a*{.", model keys do not (3 tensors)'),
        ("it's.", "", "strip", 'checkpoint keys carry "it\'s.", model keys do not (3 tensors)'),
    ],
)
def test_prefixes_are_named_as_they_are_and_their_fix_works(before, after, case, message):
    report, fixed = follow(manifest(net(after)), manifest(net(before)))
    assert codes(report) == ["CKPT103"]
    finding = found(report, "CKPT103")
    assert (finding.case, finding.message) == (case, message)
    assert fixed.ok


def test_wrappers_inside_the_keys_are_one_finding():
    saved = {"conv.weight": (4, 3, 1, 1), "a.module.fc.weight": (2, 4), "b.module.fc.weight": (2, 4)}
    model = {key.replace(".module", ""): shape for key, shape in saved.items()}
    report, fixed = follow(manifest(model), manifest(saved))
    finding = found(report, "CKPT103")
    assert finding.message == 'checkpoint keys carry "module" inside, model keys do not (2 tensors)'
    assert finding.fixes[0].do == "--map 'strip_wrappers module'"
    assert codes(report) == ["CKPT103"]
    assert fixed.ok


def test_a_changed_head_under_a_lost_prefix_is_a_second_finding_with_the_fix():
    shapes = net("module.", fc__weight=(5, 4), fc__bias=(5,)) | {"module.stem.weight": (8, 3)}
    report, fixed = follow(manifest(net() | {"stem.weight": (8, 3)}), manifest(shapes))
    assert codes(report) == ["CKPT103", "CKPT201"]
    assert [graded.finding.mapped for graded in report.findings] == [False, True]
    assert found(report, "CKPT201").keys == ("fc.weight", "fc.bias")
    assert found(report, "CKPT103").fixes[0].then == "then 2 of 4 tensors match"
    assert fixed.ok


def test_a_load_that_raises_as_it_is_is_not_said_to_return():
    saved = manifest(net("module.") | {"conv.weight": (9,)})
    finding = found(diff(MODEL, saved, ["--drop", "module.conv.*"]), "CKPT103")
    assert finding.detail.endswith("strict=True raises; strict=False raises too")


def test_a_renamed_module_is_one_finding_and_no_prefix():
    saved = manifest({key.replace("fc.", "classifier."): shape for key, shape in net().items()})
    report, fixed = follow(MODEL, saved)
    assert codes(report) == ["CKPT104"]
    finding = found(report, "CKPT104")
    assert finding.message == "2 tensors have another name in the model, with the same shapes"
    assert finding.fixes[0].do == "--map 'classifier.* -> fc.*'"
    assert fixed.ok


BLOCKS = {f"layer{n}.{m}.{leaf}": (n + 2, m + 3) for n in range(3) for m in range(2) for leaf in ("weight", "bias")}


def test_several_causes_are_fixed_together():
    wanted = manifest(BLOCKS | net())
    renamed = {f"module.{key}".replace("fc.", "classifier."): shape for key, shape in (BLOCKS | net()).items()}
    report, fixed = follow(wanted, manifest(renamed))
    assert set(codes(report)) == {"CKPT103", "CKPT104"}
    thens = {graded.finding.fixes[0].then for graded in report.findings}
    assert thens == {f"with every such --map here {len(wanted)} of {len(wanted)} tensors match"}
    assert fixed.ok
    assert fixed.mapping.proposed == ()


def test_the_fixes_come_on_top_of_the_mapping_that_was_given():
    saved = manifest(net("module.") | {"junk.weight": (7,)})
    report, fixed = follow(MODEL, saved, given=["drop junk.*"])
    assert codes(report) == ["CKPT103"]
    assert fixed.ok


def test_nothing_loaded_comes_without_a_fix_that_would_not_help():
    report = diff(MODEL, manifest(other=(9, 9)))
    assert codes(report) == ["CKPT101", "CKPT102", "CKPT105"]
    assert not any(graded.finding.fixes for graded in report.findings)
    assert found(report, "CKPT105").message == "no tensor of the checkpoint reaches the model (3 in the model)"
    assert not diff(MODEL, manifest(other=(9, 9)), ["--contract", "partial"]).ok


def test_nothing_loaded_is_said_of_returning_loads_alone():
    assert "CKPT105" not in codes(diff(MODEL, manifest(dict.fromkeys(net(), (9, 9)))))
    assert codes(diff(manifest(), manifest(other=(9,)))) == ["CKPT102"]


def test_missing_keys_with_their_shapes():
    report, fixed = follow(MODEL, manifest(net(fc__weight=None, fc__bias=None)))
    finding = found(report, "CKPT101")
    assert finding.rows == (("fc.weight", "(2, 4)"), ("fc.bias", "(2,)"))
    assert finding.fixes[0].then == "if these 10 values are meant to be new"
    assert fixed.ok


def test_unexpected_keys_with_what_they_hold():
    saved = manifest(net() | {"aux.weight": (3, 3), "aux.bias": (3,)}, {"epoch": "int"})
    report, fixed = follow(MODEL, saved)
    finding = found(report, "CKPT102")
    assert finding.message == "3 keys of the checkpoint have no place in the model"
    assert finding.rows == (("aux.weight", "(3, 3)"), ("aux.bias", "(3,)"), ("epoch", "int"))
    assert finding.fixes[0].do == "--drop 'aux.*' --drop epoch"
    assert fixed.ok


@pytest.mark.parametrize(
    "key", ["it's", "a b", "a*", "{x}", "back\\slash", "$HOME", "new\nline", "é", "a -> b", " edge "]
)
def test_keys_that_a_shell_or_a_pattern_would_misread_are_dropped_all_the_same(key):
    _, fixed = follow(MODEL, manifest(net() | {key: (7, 7), f"m.{key}": (7, 7), f"m.{key}x": (7, 7)}))
    assert fixed.ok


def test_a_collision_is_an_error_whatever_the_contract():
    saved = manifest(net("module.") | {"fc.weight": (2, 4)})
    report = diff(MODEL, saved, ["--map", "module.* -> *", "--contract", "open"])
    assert [(graded.level, graded.finding.rule.code) for graded in report.findings] == [("error", "CKPT107")]
    finding = found(report, "CKPT107")
    assert finding.message == "1 key would receive several checkpoint keys under the mapping"
    assert finding.rows == (("fc.weight", "module.fc.weight, fc.weight"),)


def test_a_nested_state_dict_is_noted_with_its_place(tmp_path):
    torch = pytest.importorskip("torch")
    state = {key: torch.zeros(shape) for key, shape in net().items()}
    torch.save({"run": {"weights": state}, "epoch": 1}, tmp_path / "nested.pth")
    report = ckptaudit.diff(MODEL, tmp_path / "nested.pth")
    assert report.ok
    assert found(report, "CKPT106").message == (
        'the state dict lies at ["run"]["weights"]; the file as a whole is not one'
    )


def test_an_unexplained_rest_stays_beside_a_cause():
    saved = manifest(net("module.", fc__bias=None) | {"module.gone": (8, 8)})
    report, fixed = follow(MODEL, saved)
    assert codes(report) == ["CKPT103", "CKPT101", "CKPT102"]
    assert found(report, "CKPT102").keys == ("gone",)
    assert found(report, "CKPT102").mapped
    assert found(report, "CKPT101").keys == ("fc.bias",)
    assert fixed.ok


def test_a_scalar_of_its_own_is_no_renaming():
    report = diff(manifest(net() | {"a": spec()}), manifest(net() | {"b": spec()}))
    assert codes(report) == ["CKPT101", "CKPT102"]
