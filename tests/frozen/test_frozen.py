"""What a run changed, told from two checkpoints: names, patterns, mappings, what is missing, what was never declared."""

from __future__ import annotations

import math

import pytest
import torch
import torch.distributed.checkpoint
from torch import nn
from torch.optim.swa_utils import AveragedModel

import ckptaudit
from ckptaudit import compare_frozen
from ckptaudit.errors import UsageError
from ckptaudit.frozen.names import canonical_names


def network():
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 4))
    return nn.ModuleDict({"backbone": backbone, "fc": nn.Linear(4, 2)})


@pytest.fixture
def base():
    return {key: value.clone() for key, value in network().state_dict().items()}


@pytest.fixture
def tuned(base):
    """The head trained, nothing else touched."""
    state = {key: value.clone() for key, value in base.items()}
    for key in ("fc.weight", "fc.bias"):
        state[key] += torch.linspace(0.1, 0.2, state[key].numel()).view_as(state[key])
    return state


def codes(report):
    return [(graded.finding.rule.code, graded.level) for graded in report.findings]


def keys(report, code):
    return [key for graded in report.findings if graded.finding.rule.code == code for key in graded.finding.keys]


def test_a_kept_freeze(base, tuned):
    report = compare_frozen(base, tuned, "backbone.*", trainable="fc.*")
    assert report.ok and not report.findings and report.command == "frozen"
    assert report.fates.of("held") == tuple(key for key in base if key.startswith("backbone"))
    assert report.fates.of("trained") == ("fc.weight", "fc.bias")
    assert report.remarks == ("Of 9 frozen tensors 9 held bit for bit and of 2 trainable tensors 2 changed.",)


def test_a_frozen_tensor_that_moved(base, tuned):
    tuned["backbone.0.weight"][1, 2] += 0.5
    report = compare_frozen(base, tuned, "backbone.*")
    assert codes(report) == [("CKPT801", "error")] and report.exit_status == 1
    [row] = report.findings[0].finding.rows
    assert row == (
        "backbone.0.weight",
        "by up to 0.5, in 1 of 16 values, rows 1",
        "an optimizer trained it, or other code wrote it",
    )


def test_a_sign_of_zero_and_a_nan_are_told(base, tuned):
    base["backbone.2.bias"][:] = torch.tensor([0.0, math.nan, 1.0, 2.0])
    tuned["backbone.2.bias"] = base["backbone.2.bias"].clone()
    assert compare_frozen(base, tuned, "backbone.*").ok
    tuned["backbone.2.bias"][0] = -0.0
    [row] = compare_frozen(base, tuned, "backbone.*").findings[0].finding.rows
    assert row[1] == "by up to 0, in 1 of 4 values"


def test_statistics_of_a_norm_are_a_finding_of_their_own(base, tuned):
    tuned["backbone.1.running_mean"] += 1
    tuned["backbone.1.num_batches_tracked"] += 3
    report = compare_frozen(base, tuned, "backbone.*")
    assert keys(report, "CKPT803") == ["backbone.1.running_mean", "backbone.1.num_batches_tracked"]
    assert codes(report) == [("CKPT803", "error")]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda t: t.mul_(0.97), "all of it was scaled by one factor, as weight decay does, which needs no gradient"),
        (
            lambda t: t.copy_(0.999 * t + 0.001 * t),
            "it is off by rounding: averaged with itself (EMA), or added to and taken back",
        ),
    ],
)
def test_why_it_moved_as_far_as_two_files_tell(base, tuned, change, why):
    change(tuned["backbone.0.weight"])
    assert compare_frozen(base, tuned, "backbone.*").findings[0].finding.rows[0][2] == why


def test_a_frozen_tensor_of_another_dtype_or_shape_or_none_moved(base, tuned):
    tuned["backbone.0.weight"] = tuned["backbone.0.weight"].half()
    tuned["backbone.0.bias"] = tuned["backbone.0.bias"][:2].clone()
    del tuned["backbone.2.bias"]
    rows = compare_frozen(base, tuned, "backbone.*").findings[0].finding.rows
    assert [row[2] for row in rows] == [
        "it went from float32 to float16",
        "it went from (4,) to (2,)",
        "state dict has no tensor of this name",
    ]


def test_a_frozen_tensor_that_the_base_lacks_is_not_checked(base, tuned):
    del base["backbone.0.bias"]
    report = compare_frozen(base, tuned, "backbone.*")
    assert codes(report) == [("CKPT905", "error")] and report.exit_status == 2
    assert report.findings[0].finding.message == "1 tensor could not be compared: backbone.0.bias is not in state dict"


def test_files_of_before_torch_0_4_1_have_no_counters(base, tuned):
    del base["backbone.1.num_batches_tracked"]
    assert compare_frozen(base, tuned, "backbone.*").ok


def test_trainable_tensors_that_are_declared_have_to_change(base, tuned):
    report = compare_frozen(base, tuned, "backbone.0", trainable=["fc", "backbone.2"])
    assert codes(report) == [("CKPT802", "error")]
    assert keys(report, "CKPT802") == ["backbone.2.weight", "backbone.2.bias"]


def test_the_rest_is_held_to_nothing_and_said(base, tuned):
    report = compare_frozen(base, tuned, "backbone.0")
    assert codes(report) == [("CKPT802", "warning")] and report.ok
    assert keys(report, "CKPT802") == ["backbone.1.weight", "backbone.1.bias", "backbone.2.weight", "backbone.2.bias"]
    assert report.fates.to_json()["passed_over"] == [
        f"backbone.1.{n}" for n in ("running_mean", "running_var", "num_batches_tracked")
    ]


def test_without_patterns_it_says_what_was_evidently_frozen(base, tuned):
    report = compare_frozen(base, tuned)
    assert report.ok and not report.findings
    assert report.fates.of("trained") == ("fc.weight", "fc.bias")
    assert report.remarks == ("Of 11 tensors that both have 9 are equal bit for bit and 2 changed.",)
    tuned["backbone.1.running_var"] *= 2
    report = compare_frozen(base, tuned)
    assert codes(report) == [("CKPT803", "warning")] and report.ok
    tuned["backbone.1.weight"] *= 2
    assert not compare_frozen(base, tuned).findings  # the norm trained, and its statistics with it


def test_a_pattern_that_matches_nothing_is_not_passed(base, tuned):
    report = compare_frozen(base, tuned, ["bakbone.*", "backbone.0"])
    assert ("CKPT804", "error") in codes(report) and report.exit_status == 2
    [finding] = [g.finding for g in report.findings if g.finding.rule.code == "CKPT804"]
    assert finding.rows == (("bakbone.*", "frozen", "backbone", "1"),)


@pytest.mark.parametrize("patterns", [["backbone.*", "!backbone.1"], "re:^backbone\\.[02]", ["!fc", "!backbone.1.*"]])
def test_patterns_are_those_of_the_audit(base, tuned, patterns):
    tuned["backbone.1.running_mean"] += 1
    assert "CKPT803" not in dict(codes(compare_frozen(base, tuned, patterns)))


def test_rows_of_an_embedding(base, tuned):
    base["emb.weight"] = torch.randn(10, 3)
    tuned["emb.weight"] = base["emb.weight"].clone()
    tuned["emb.weight"][8:] += 1
    assert compare_frozen(base, tuned, ["backbone", "rows:emb.weight[0:8]"], trainable=["fc", "rows:emb.weight[8:]"]).ok
    assert keys(compare_frozen(base, tuned, "rows:emb.weight[:9]"), "CKPT801") == ["emb.weight"]
    with pytest.raises(UsageError, match="is selected twice"):
        compare_frozen(base, tuned, "rows:emb.weight[:9]", trainable="emb")


def test_types_of_modules_are_in_no_file(base, tuned):
    with pytest.raises(UsageError, match="goes by the type of a module, which no checkpoint records"):
        compare_frozen(base, tuned, "module:BatchNorm1d")


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_names_are_those_without_wrappers(base, tuned, prefix):
    wrapped = {prefix + key: value for key, value in tuned.items()}
    assert compare_frozen(base, wrapped, "backbone.*", trainable="fc").ok
    assert compare_frozen(wrapped, base, "backbone.*", trainable="fc").ok


def test_an_averaged_model_counts_beside_its_module():
    model = network()
    averaged = AveragedModel(model)
    names = canonical_names(averaged.state_dict())
    assert set(names) == {*model.state_dict(), "n_averaged"}
    assert canonical_names(["module.weight", "head.weight"]) == {
        "module.weight": "module.weight",
        "head.weight": "head.weight",
    }
    two = ["a._orig_mod.b._orig_mod.w", "a._orig_mod.b.w"]
    assert canonical_names(two) == {"a.b.w": two[0], "a._orig_mod.b.w": two[1]}


def test_a_mapping_gives_the_base_the_names_of_the_tuned(base, tuned):
    renamed = {f"model.{key}": value for key, value in tuned.items()}
    assert compare_frozen(base, renamed, "model.backbone.*", mapping="* -> model.*").ok
    with pytest.raises(UsageError) as error:
        compare_frozen(base, renamed, "model.backbone.*")
    assert error.value.reason == "has no tensor of a name that state dict has"
    assert error.value.hint == "give its tensors the other's names: --map '* -> model.*'"
    with pytest.raises(UsageError, match="has operations on tensors, and bits are compared"):
        compare_frozen(base, tuned, mapping="transpose fc.weight")


def test_new_and_gone_tensors_are_named(base, tuned):
    tuned["head.weight"] = torch.ones(3)
    base["old.weight"] = torch.ones(3)
    report = compare_frozen(base, tuned)
    assert (report.fates.new, report.fates.gone) == (("head.weight",), ("old.weight",))
    assert report.ok


def test_a_tie_is_named_as_the_cause():
    model = nn.ModuleDict({"emb": nn.Embedding(8, 4), "head": nn.Linear(4, 8, bias=False)})
    model["head"].weight = model["emb"].weight
    base = {key: value.clone() for key, value in model.state_dict().items()}
    with torch.no_grad():
        model["emb"].weight[0] += 1
    report = compare_frozen(base, model, "emb")
    assert report.findings[0].finding.rows[0][2] == "it is the same tensor as head.weight, which is not frozen"


def test_state_dicts_inside_of_files_and_live_models(base, tuned, tmp_path):
    torch.save({"model": base, "ema": {f"module.{key}": value for key, value in tuned.items()}}, tmp_path / "last.ckpt")
    inside = [f"{tmp_path}/last.ckpt#{name}" for name in ("model", "ema")]
    assert compare_frozen(*inside, "backbone.*", trainable="fc").ok
    model = network()
    model.load_state_dict(tuned)
    assert compare_frozen(inside[0], model, "backbone.*", trainable="fc").ok


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_every_format_is_compared_with_every_other(base, tuned, tmp_path):
    torch.save(tuned, tmp_path / "tuned.pth")
    torch.save(base, tmp_path / "legacy.pth", _use_new_zipfile_serialization=False)
    ckptaudit.convert(tmp_path / "tuned.pth", tmp_path / "tuned.safetensors")
    ckptaudit.convert(tmp_path / "tuned.pth", tmp_path / "shards.safetensors.index.json", shard_size=200)
    torch.distributed.checkpoint.save(tuned, checkpoint_id=tmp_path / "dcp", no_dist=True)
    for path in ("tuned.pth", "tuned.safetensors", "shards.safetensors.index.json", "dcp"):
        assert compare_frozen(tmp_path / "legacy.pth", tmp_path / path, "backbone.*", trainable="fc").ok


def test_a_side_without_values_is_refused(base):
    manifest = ckptaudit.Manifest.of(base)
    with pytest.raises(UsageError, match="is a manifest and has no values"):
        compare_frozen(base, manifest)


def test_progress_is_told_in_bytes(base, tuned):
    told = []
    compare_frozen(base, tuned, "backbone.*", progress=lambda done, total: told.append((done, total)))
    assert told[-1][0] == told[-1][1] > 0
    assert told == sorted(told)
