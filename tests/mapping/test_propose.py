"""What a comparison proposes: the simple cause where there is one, inference where it is sure, nothing otherwise."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
import torch
from corpus import CASES, FOLDER, manifest, read
from torch import nn

from ckptaudit import Manifest, TensorSpec, diff, load
from ckptaudit.mapping.causes import fitting, propose
from ckptaudit.mapping.inference import infer
from ckptaudit.mapping.mapping import KeyMapping
from ckptaudit.mapping.propose import propose_best

RENAMED = Path(__file__).parents[2] / "fixtures" / "renamed"


def of(shapes):
    return Manifest({key: TensorSpec(tuple(shape), "float32") for key, shape in shapes.items()})


def blocks(names, prefix="blocks", qkv=("qkv",), head=10):
    shapes = {}
    for i in range(3):
        shapes |= {f"{prefix}.{i}.{names[0]}.{one}.weight": (24 // len(qkv), 8) for one in qkv}
        shapes |= {f"{prefix}.{i}.{names[1]}.weight": (16, 8), f"{prefix}.{i}.{names[2]}.weight": (8, 16)}
    return of(shapes | {"head.weight": (head, 8)})


OLD = blocks(("attention", "intermediate.dense", "output.dense"), "encoder.layer", ("query", "key", "value"))
NEW = blocks(("attn", "mlp.fc1", "mlp.fc2"))


@pytest.fixture
def never(monkeypatch):
    """Fail where inference is asked."""
    monkeypatch.setattr("ckptaudit.mapping.inference.infer", lambda *_: pytest.fail("inference was asked"))


def test_a_simple_cause_that_explains_all_is_kept(never):
    wrapped = of({f"module.{key}": spec.shape for key, spec in NEW.tensors.items()})
    assert propose_best(wrapped, NEW) == propose(wrapped, NEW)
    assert propose_best(wrapped, NEW).mapping.to_json() == ["module.* -> *"]


def test_a_simple_cause_that_uses_the_whole_file_is_kept(never):
    wrapped = of({f"module.{key}": spec.shape for key, spec in NEW.tensors.items() if key != "head.weight"})
    assert propose_best(wrapped, NEW).mapping.to_json() == ["module.* -> *"]


def test_what_is_simple_does_not_explain_is_inferred():
    proposal = propose_best(OLD, NEW)
    assert proposal.mapping.to_json()[-1].startswith("concat ")
    assert len(fitting(proposal.mapping, OLD, NEW)) == len(NEW.tensors)
    explained = {target for cause in proposal.causes for _, target in cause.explained}
    assert explained == set(NEW.tensors) - {"head.weight"}
    assert [cause.rule for cause in proposal.causes] == list(proposal.mapping.rules)


def test_a_changed_head_stays_a_finding():
    model = blocks(("attn", "mlp.fc1", "mlp.fc2"), head=7)
    report = diff(model, OLD)
    assert [one.finding.rule.code for one in report.findings] == ["CKPT104", "CKPT201"]
    assert not any(line.startswith("drop") for line in report.mapping.proposed)


def test_what_is_not_sure_is_not_proposed():
    source = of({f"{word}.weight": (4, 4) for word in ("amber", "birch", "cedar")})
    target = of({f"{word}.weight": (4, 4) for word in ("lotus", "maple", "north")})
    assert infer(source, target).assigned
    assert propose_best(source, target) is None


def test_what_fits_already_is_not_moved():
    source = of({"a.query.weight": (4, 4), "b.key.weight": (4, 4), "old.value.bias": (3,)})
    target = of({"a.query.weight": (4, 4), "b.key.weight": (4, 4), "new.value.bias": (3,)})
    proposal = propose_best(source, target)
    assert (
        proposal is None
        or {"a.query.weight": "a.query.weight"}.items() <= fitting(proposal.mapping, source, target).items()
    )


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"a": ()}, {"b": ()}),
        ({"y": (1,)}, {f"{'x' * i}.w": (i,) for i in range(1, 9)}),
        (
            {"c.weight_g": (8, 1), "c.weight_v": (8, 8)},
            {f"c.parametrizations.weight.original{i}": (8, 1 + 7 * i) for i in (0, 1)},
        ),
        ({"a.w": (8, 8), "b.w": (8, 8), "a.table": (9, 3)}, {"a.w": (8, 8), "b.w": (8, 8), "b.table": (9, 3)}),
    ],
    ids=["scalar", "small", "parametrization", "between modules"],
)
def test_what_has_another_cause_is_no_renaming(old, new):
    assert propose_best(of(old), of(new)) == propose(of(old), of(new))


def test_a_given_mapping_is_not_inferred_upon(never):
    diff(NEW, OLD, mapping="head.* -> fc.*")


def test_few_rules_are_options_and_many_a_file():
    few = diff(NEW, blocks(("attn", "mlp.fc1", "mlp.fc2"), "stages", ("q", "k", "v")))
    (fix,) = few.findings[0].finding.fixes
    assert fix.safety == "safe"
    assert "--map 'concat " in fix.do
    assert few.mapping.fix == "the safe fix"
    wide = ("attn", "mlp.fc1", "mlp.fc2"), "blocks", ("q", "k", "v")
    more = [f"extra{letter}" for letter in "abcdefg"]
    old, new = (
        of({key: spec.shape for key, spec in blocks(*wide).tensors.items()} | extra)
        for extra in (
            {f"old_{name}.x.weight": (n + 3, 5) for n, name in enumerate(more)},
            {f"{name}.new_{n}.weight": (n + 3, 5) for n, name in enumerate(more)},
        )
    )
    many = diff(new, old)
    assert len(many.mapping.proposed) > 6
    (fix,) = many.findings[0].finding.fixes
    assert (fix.safety, fix.do) == ("display", "ckptaudit map CHECKPOINT MODEL -o mapping.toml")
    assert many.mapping.fix == "the rules found"


def test_the_rules_found_load_and_compute_the_same():
    """On a real model and a real file: the proposal, applied by a real load, gives the outputs of the old model."""
    old = runpy.run_path(str(RENAMED / "old_model.py"))["OldNet"]()
    old.load_state_dict(torch.load(RENAMED / "old.pth"))
    model = runpy.run_path(str(RENAMED / "model.py"))["Net"]()
    report = diff(model, RENAMED / "old.pth", witness=True)
    assert report.hearing.agrees
    (finding,) = [one.finding for one in report.findings]
    assert finding.rule.code == "CKPT104"
    assert len(finding.keys) == 61
    (fix,) = finding.fixes
    assert fix.do.startswith("ckptaudit map ")
    assert "49 of 49 tensors match" in fix.then
    load(model, RENAMED / "old.pth", mapping=KeyMapping.parse(report.mapping.proposed))
    images = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(images), old.eval()(images))


def test_values_are_compared_under_names_and_not_under_operations():
    class Old(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = nn.ModuleList(nn.ModuleDict({n: nn.Linear(8, 8) for n in "qkv"}) for _ in range(3))
            self.head = nn.Linear(8, 3)

    state = Old().state_dict()
    new = {f"layers.{i}.qkv.{leaf}": torch.cat([state[f"blocks.{i}.{n}.{leaf}"] for n in "qkv"])
           for i in range(3) for leaf in ("weight", "bias")}  # fmt: skip
    report = diff({**new, "head.weight": state["head.weight"], "head.bias": state["head.bias"]}, state, values=True)
    assert any(line.startswith("concat") for line in report.mapping.proposed)
    assert len(report.values.unread) == 6


@pytest.mark.skipif(not CASES, reason=f"the mapping corpus is not at {FOLDER}")
@pytest.mark.parametrize("name", CASES[::9])
def test_a_proposal_keeps_what_fits_and_is_sure(name):
    case = read(name)
    source, target = manifest(case["source"]), manifest(case["target"])
    proposal = propose_best(source, target)
    simple = propose(source, target)
    if proposal is None:
        assert simple is None
        return
    before, after = (fitting(mapping, source, target) for mapping in (KeyMapping(), proposal.mapping))
    assert before.items() <= after.items()
    assert not proposal.mapping.apply(source).unused
    if simple is not None and proposal != simple:
        assert len(after) > len(fitting(simple.mapping, source, target))
