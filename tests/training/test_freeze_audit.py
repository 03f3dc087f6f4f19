"""audit_training: what it says of when, how far and by whom; against a file; and that it leaves everything as it was."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import jsonschema
import pytest
import torch
from catalogue import Net, Tied, flags_off, loss_of, norms, sgd, train
from referencing import Registry, Resource
from torch import nn

from ckptaudit.errors import CkptauditError, UsageError
from ckptaudit.report import render
from ckptaudit.training.audit import audit_training


def frozen_net():
    torch.manual_seed(0)
    model = Net()
    flags_off(model.backbone)
    return model, sgd(model.fc.parameters())


def verdict(audit, name):
    return next(one for one in audit.verdicts if one.name == name)


# Verdicts --------------------------------------------------------------------------------------------------


def test_what_holds_and_what_trains():
    model, optimizer = frozen_net()
    with audit_training(model, optimizer, frozen="backbone") as audit:
        train(model, optimizer)
    assert {one.name: one.verdict for one in audit.verdicts} == {
        "backbone.0.weight": "held",
        "backbone.0.bias": "held",
        "fc.weight": "trained",
        "fc.bias": "trained",
    }
    assert (audit.report.ok, audit.report.verdict, audit.report.exit_status, audit.steps) == (True, "kept", 0, 3)
    assert render(audit.report, "table", 80) == (
        "  start  Net  4 tensors  30 values  2 frozen, 2 trainable\n"
        "  end    Net  4 tensors  30 values  3 steps of SGD\n"
        "\n"
        "In 3 steps of SGD, of 2 frozen tensors 2 held bit for bit and of 2 trainable\n"
        "tensors 2 moved.\n"
        'Contract "exact": kept.\n'
    )


@pytest.mark.parametrize("step", [1, 2, 3, 4])
def test_the_first_steps_are_told_apart_even_where_autograd_does_not_look(step):
    model, optimizer = frozen_net()
    with audit_training(model, optimizer, frozen="backbone") as audit:
        for number in range(1, 7):
            if number == step:
                model.backbone[0].weight.data.add_(1)
            train(model, optimizer, 1)
    found = verdict(audit, "backbone.0.weight")
    assert (found.first_step, found.when) == (step, f"at step {step}")
    assert found.difference.max_abs == pytest.approx(1)


@pytest.mark.parametrize(
    ("every", "step", "when"),
    [
        (None, 6, "in steps 5 to 8"),
        (3, 2, "in steps 1 to 3"),
        (1, 7, "at step 7"),
        (None, 12, "in steps 9 to 13"),
        (20, 5, "in steps 1 to 13"),
    ],
)
def test_later_steps_are_told_as_closely_as_they_are_looked_at(every, step, when):
    model, optimizer = frozen_net()
    with audit_training(model, optimizer, frozen="backbone", every=every) as audit:
        for number in range(1, 14):
            if number == step:
                model.backbone[0].weight.data.add_(1)
            train(model, optimizer, 1)
    assert verdict(audit, "backbone.0.weight").when == when


@pytest.mark.parametrize("write", [lambda w: w.mul_(2), lambda w: setattr(w, "data", w.data * 2)])
def test_writes_that_leave_a_sign_are_dated_at_any_step(write):
    model, optimizer = frozen_net()
    with audit_training(model, optimizer, frozen="backbone", every=100) as audit:
        for number in range(1, 10):
            if number == 7:
                write(model.backbone[0].weight)
            train(model, optimizer, 1)
    assert verdict(audit, "backbone.0.weight").when == "at step 7"


def test_a_write_after_the_last_step_is_said_to_be_one():
    model, optimizer = frozen_net()
    with audit_training(model, optimizer, frozen="backbone") as audit:
        train(model, optimizer)
        model.backbone[0].bias.data.add_(1)
    assert (verdict(audit, "backbone.0.bias").first_step, verdict(audit, "backbone.0.bias").when) == (
        None,
        "after step 3",
    )
    with audit_training(model, optimizer, frozen="backbone") as audit:
        model.backbone[0].bias.data.add_(1)
    assert verdict(audit, "backbone.0.bias").when == "without an optimizer step"


def test_moved_and_moved_back_is_moved():
    model, optimizer = frozen_net()
    with audit_training(model, optimizer, frozen="backbone") as audit:
        before = model.backbone[0].weight.detach().clone()
        model.backbone[0].weight.add_(1)
        train(model, optimizer, 1)
        model.backbone[0].weight.copy_(before)
        train(model, optimizer, 1)
    assert verdict(audit, "backbone.0.weight").verdict == "moved"
    assert verdict(audit, "backbone.0.weight").difference.changed == 0


def test_rows_may_be_frozen_and_the_others_trained():
    torch.manual_seed(0)
    model = Tied()
    optimizer = sgd(model.parameters())
    hook = model.emb.weight.register_hook(lambda gradient: gradient * (torch.arange(10) >= 4)[:, None])
    patterns = {"frozen": "rows:emb.weight[0:4]", "trainable": "rows:emb.weight[4:]"}
    with audit_training(model, optimizer, **patterns) as audit:
        train(model, optimizer)
    assert [one.verdict for one in audit.verdicts] == ["held", "trained"]
    hook.remove()
    with audit_training(model, optimizer, **patterns) as audit:
        train(model, optimizer)
    assert [one.verdict for one in audit.verdicts] == ["moved", "trained"]


def test_a_tensor_that_goes_or_changes_its_dtype():
    model, optimizer = frozen_net()
    with audit_training(model, optimizer, frozen="backbone") as audit:
        del model.backbone[0].bias
        model.backbone[0].weight.data = model.backbone[0].weight.data.half()
    assert verdict(audit, "backbone.0.bias").cause.kind == "gone"
    assert verdict(audit, "backbone.0.weight").cause.text == "it went from float32 to float16"


def test_what_cannot_be_read_is_not_passed():
    model = Net(nn.Sequential(nn.LazyLinear(4)))
    optimizer = sgd(model.fc.parameters())
    with audit_training(model, optimizer, frozen="backbone") as audit:
        pass
    assert verdict(audit, "backbone.0.weight").verdict == "not checked"
    assert (audit.report.verdict, audit.report.exit_status) == ("unchecked", 2)
    message = audit.report.findings[0].finding.message
    assert message == "2 tensors could not be compared: backbone.0.weight is lazy and has no values yet"


def test_a_lazy_layer_is_held_from_its_first_values_on():
    model = Net(nn.Sequential(nn.LazyLinear(4)))
    optimizer = sgd(model.parameters())
    with audit_training(model, optimizer, frozen="backbone") as audit:
        train(model, optimizer)
    assert verdict(audit, "backbone.0.weight").cause.kind == "trained"


def test_optimizers_that_were_not_named_are_noticed():
    model = Net()
    with audit_training(model, frozen="backbone") as audit:
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)
        train(model, optimizer)
    assert verdict(audit, "backbone.0.weight").cause.text == "requires_grad is True, and AdamW trains it"
    assert "3 steps of AdamW" in audit.report.model.facts


def test_steps_are_those_of_the_optimizer_that_steps_most():
    model = Net()
    flags_off(model.backbone)
    first, second, foreign = sgd([model.fc.weight]), sgd([model.fc.bias]), sgd([nn.Parameter(torch.ones(1))])
    with audit_training(model, [first, second], frozen="backbone") as audit:
        for number in range(6):
            loss_of(model).backward()
            first.step()
            if number % 2:
                second.step()
            foreign.step()
    assert audit.steps == 6


def test_without_trainable_patterns_a_layer_left_out_is_a_warning():
    model, _ = frozen_net()
    optimizer = sgd([model.fc.weight])
    with audit_training(model, optimizer, frozen="backbone") as audit:
        train(model, optimizer)
    assert audit.report.ok
    (graded,) = audit.report.findings
    assert (graded.level, graded.finding.rule.code, graded.finding.keys) == ("warning", "CKPT802", ("fc.bias",))


def test_statistics_have_a_finding_of_their_own():
    model = norms()
    flags_off(model.backbone)
    optimizer = sgd(model.parameters())
    with audit_training(model, optimizer, frozen="backbone") as audit:
        train(model, optimizer)
    (graded,) = audit.report.findings
    assert graded.finding.rule.name == "frozen-statistics-drifted"
    assert graded.finding.message == "3 running statistics of frozen norms moved"
    assert "BatchNorm1d was in train mode" in render(audit.report, "table", 200)


def test_the_report_as_json_has_every_number():
    model, optimizer = frozen_net()
    with audit_training(model, optimizer, frozen="backbone") as audit:
        model.backbone[0].weight.data[1, 2] += 0.5
        train(model, optimizer)
    data = json.loads(render(audit.report, "json"))
    folder = Path(__file__).parents[2] / "docs" / "reference"
    schemas = [json.loads(path.read_text()) for path in folder.glob("*.schema.json")]
    registry = Registry().with_resources((schema["$id"], Resource.from_contents(schema)) for schema in schemas)
    schema = json.loads((folder / "report.schema.json").read_text())
    jsonschema.Draft202012Validator(schema, registry=registry).validate(data)
    assert (data["command"], data["alignment"], data["loads"]) == ("audit", None, None)
    (moved,) = data["findings"][0]["data"]["verdicts"]
    assert moved == {
        "key": "backbone.0.weight", "kind": "parameter", "expected": "frozen", "verdict": "moved", "cause": "unseen",
        "when": "at step 1", "first_step": 1, "changed": 1, "looked": 16, "total": 16, "rows": [1],
        "max_abs": pytest.approx(0.5), "max_ulp": moved["max_ulp"],
    }  # fmt: skip


# Blame -----------------------------------------------------------------------------------------------------


def write_here(weight):
    weight.data.mul_(2)


def test_blame_names_the_operation_and_the_line():
    model, optimizer = frozen_net()
    with audit_training(model, optimizer, frozen="backbone", blame=True) as audit:
        train(model, optimizer, 1)
        write_here(model.backbone[0].weight)
    blame = verdict(audit, "backbone.0.weight").blame
    assert blame.operation == "aten.mul_.Tensor"
    line = write_here.__code__.co_firstlineno + 1
    assert blame.stack[0] == f"{__file__}:{line} in write_here"
    assert blame.text == f"aten.mul_.Tensor from {__file__}:{line} in write_here".replace(
        f"{__import__('os').getcwd()}/", ""
    )


def test_blame_names_the_optimizer_and_passes_over_writes_that_change_nothing():
    model = Net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)
    with audit_training(model, optimizer, frozen="backbone", blame=True) as audit:
        model.backbone[0].weight.data.mul_(1)
        train(model, optimizer)
    blame = verdict(audit, "backbone.0.weight").blame
    assert blame.operation == "aten._fused_adamw_.default"
    assert blame.stack[0].endswith("in train")


def test_blame_sees_the_statistics_of_norms():
    model = norms()
    flags_off(model.backbone)
    optimizer = sgd(model.fc.parameters())
    with audit_training(model, optimizer, frozen="backbone", blame=True) as audit:
        train(model, optimizer)
    assert verdict(audit, "backbone.1.running_mean").blame.operation == "aten.native_batch_norm.default"


def test_writes_past_the_dispatcher_have_nobody_to_blame():
    model, optimizer = frozen_net()
    with audit_training(model, optimizer, frozen="backbone", blame=True) as audit:
        model.backbone[0].weight.numpy()[:] = 0
        train(model, optimizer)
    found = verdict(audit, "backbone.0.weight")
    assert (found.verdict, found.blame, found.cause.kind) == ("moved", None, "unseen")


# Against a file --------------------------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path):
    model, _ = frozen_net()
    torch.save(model.state_dict(), tmp_path / "base.pth")
    return str(tmp_path / "base.pth")


def test_the_file_counts_and_not_the_start(saved):
    model, optimizer = frozen_net()
    with audit_training(model, optimizer, frozen="backbone", against=saved) as audit:
        train(model, optimizer)
    assert audit.report.ok
    assert (audit.report.checkpoint.name, audit.report.checkpoint.format) == (saved, "torch-zip")
    with torch.no_grad():
        model.backbone[0].weight[3, 1] += 0.25
    with audit_training(model, optimizer, frozen="backbone", against=saved) as audit:
        train(model, optimizer)
    found = verdict(audit, "backbone.0.weight")
    assert (found.verdict, found.first_step, found.when) == ("moved", 0, "before the audit")
    assert (found.difference.max_abs, found.difference.rows) == (pytest.approx(0.25), (3,))
    assert found.cause.text == "it was different when the audit began"


def test_every_value_of_a_file_is_compared_and_it_is_not_kept(tmp_path):
    model = Net(nn.Sequential(nn.Linear(4, 3000), nn.Linear(3000, 4)))
    flags_off(model.backbone)
    torch.save(model.state_dict(), tmp_path / "large.pth")
    optimizer = sgd(model.fc.parameters())
    for against, changed in ((tmp_path / "large.pth", 1), (None, 0)):
        before = copy.deepcopy(model)
        with audit_training(model, optimizer, frozen="backbone", against=against) as audit:
            model.backbone[0].weight.data[1, 1] += 1
            train(model, optimizer)
        difference = verdict(audit, "backbone.0.weight").difference
        assert difference.changed == changed
        assert (difference.looked == difference.total) == (against is not None)
        model = before
        optimizer = sgd(model.fc.parameters())


@pytest.mark.parametrize("form", ["state dict", "safetensors", "open", "Path"])
def test_a_checkpoint_may_be_given_in_any_form(saved, form, tmp_path):
    from safetensors.torch import save_file

    import ckptaudit

    model, optimizer = frozen_net()
    save_file(model.state_dict(), tmp_path / "base.safetensors")
    given = {
        "state dict": torch.load(saved),
        "safetensors": str(tmp_path / "base.safetensors"),
        "open": ckptaudit.open_checkpoint(saved),
        "Path": Path(saved),
    }[form]
    with audit_training(model, optimizer, frozen="backbone", against=given) as audit:
        train(model, optimizer)
        model.backbone[0].bias.data += 1
    assert [one.verdict for one in audit.verdicts] == ["held", "moved", "trained", "trained"]


def test_keys_of_a_file_may_be_mapped(tmp_path):
    model, optimizer = frozen_net()
    torch.save({f"module.{key}": value for key, value in model.state_dict().items()}, tmp_path / "ddp.pth")
    with (
        pytest.raises(UsageError, match="has none of the frozen tensors") as caught,
        audit_training(model, optimizer, frozen="backbone", against=tmp_path / "ddp.pth"),
    ):
        pass
    assert caught.value.hint == "give the mapping of its keys"
    mapped = {"against": tmp_path / "ddp.pth", "mapping": "module.* -> *"}
    with audit_training(model, optimizer, frozen="backbone", **mapped) as audit:
        train(model, optimizer)
    assert audit.report.ok
    with pytest.raises(UsageError, match="has operations on tensors"):
        audit_training(
            model, optimizer, frozen="backbone", **{**mapped, "mapping": ["module.* -> *", "transpose fc.weight"]}
        )


def test_a_tensor_that_the_file_lacks_has_not_passed(tmp_path):
    model = norms()
    flags_off(model.backbone)
    model.backbone.eval()
    state = model.state_dict()
    del state["backbone.0.bias"], state["backbone.1.num_batches_tracked"]
    torch.save(state, tmp_path / "part.pth")
    optimizer = sgd(model.fc.parameters())
    with audit_training(model, optimizer, frozen="backbone", against=tmp_path / "part.pth") as audit:
        train(model, optimizer)
    assert audit.report.verdict == "unchecked"
    assert [one.name for one in audit.verdicts if one.verdict == "not checked"] == ["backbone.0.bias"]


def test_a_file_in_another_dtype_is_another_file(tmp_path):
    model, optimizer = frozen_net()
    torch.save({key: value.half() for key, value in model.state_dict().items()}, tmp_path / "half.pth")
    with audit_training(model, optimizer, frozen="backbone", against=tmp_path / "half.pth") as audit:
        train(model, optimizer)
    assert verdict(audit, "backbone.0.weight").cause.text == "it went from float16 to float32"


def test_what_cannot_be_opened_is_an_error():
    model, optimizer = frozen_net()
    with pytest.raises(CkptauditError, match=r"missing\.pth"):
        audit_training(model, optimizer, frozen="backbone", against="missing.pth")
    with pytest.raises(UsageError, match="has no values to compare with"):
        audit_training(model, optimizer, frozen="backbone", against=__import__("ckptaudit").Manifest.of(model))


# Left as it was --------------------------------------------------------------------------------------------


def everything(model, optimizer):
    hooks = [
        (name, {key: len(value) for key, value in vars(module).items() if key.endswith("_hooks")})
        for name, module in model.named_modules()
    ]
    return (
        {name: (id(p), p._version, p.data_ptr(), p.requires_grad, p.grad) for name, p in model.named_parameters()},
        {name: (id(b), b._version, b.data_ptr()) for name, b in model.named_buffers()},
        {name: module.training for name, module in model.named_modules()},
        {name: sorted(vars(module)) for name, module in model.named_modules()},
        hooks,
        [p._backward_hooks for p in model.parameters()],
        copy.deepcopy(optimizer.state_dict()),
        (vars(optimizer)["_optimizer_step_pre_hooks"].copy(), vars(optimizer)["_optimizer_step_post_hooks"].copy()),
        (*global_hooks(),),
        torch.get_rng_state().tolist(),
        torch.is_grad_enabled(),
    )


def global_hooks():
    from torch.optim import optimizer as module

    return dict(module._global_optimizer_pre_hooks), dict(module._global_optimizer_post_hooks)


@pytest.mark.parametrize("options", [{}, {"blame": True}, {"every": 1}], ids=str)
def test_a_loop_that_does_nothing_finds_everything_as_it_was(options):
    model = norms(nn.Sequential(nn.BatchNorm1d(4), nn.Dropout(0.5)))
    optimizer = sgd(model.parameters(), momentum=0.9)
    train(model, optimizer)
    loss_of(model).backward()
    before = everything(model, optimizer)
    with audit_training(model, optimizer, frozen="backbone", **options) as audit:
        pass
    assert audit.report.ok
    assert str(everything(model, optimizer)) == str(before)


@pytest.mark.parametrize("options", [{}, {"blame": True}, {"every": 1}], ids=str)
def test_training_is_the_same_with_and_without(options):
    def trained(audited):
        torch.manual_seed(3)
        model = norms(nn.Sequential(nn.BatchNorm1d(4), nn.Dropout(0.5)))
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
        with audit_training(model, optimizer, frozen="backbone", **options) if audited else torch.enable_grad():
            for _ in range(3):
                train(model, optimizer, 1)
                scheduler.step()
        return model.state_dict()

    plain, audited = trained(False), trained(True)
    assert all(torch.equal(plain[key], audited[key]) for key in plain)


def test_an_exception_ends_the_audit_and_goes_on():
    model, optimizer = frozen_net()
    audit = audit_training(model, optimizer, frozen="backbone", blame=True)

    def fail():
        model.backbone[0].bias.data.add_(1)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), audit:
        fail()
    assert global_hooks() == ({}, {})
    assert verdict(audit, "backbone.0.bias").verdict == "moved"


def test_there_is_no_result_inside_the_block():
    model, optimizer = frozen_net()
    with audit_training(model, optimizer, frozen="backbone") as audit, pytest.raises(UsageError) as caught:
        audit.report  # noqa: B018
    assert str(caught.value) == "the audit: has no result before its block ends"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"frozen": "bakbone"}, "bakbone: matches no tensor"),
        ({"frozen": "backbone", "trainable": "*"}, "backbone.0.weight: is selected twice, as frozen and as trainable"),
        ({"frozen": "backbone", "every": 0}, "every: is 0; it counts steps"),
        ({"frozen": 3}, "frozen: is of type int and no pattern"),
    ],
)
def test_what_cannot_be_audited_is_refused(options, said):
    model, optimizer = frozen_net()
    with pytest.raises(UsageError) as caught:
        audit_training(model, optimizer, **options)
    assert str(caught.value) == said
    assert global_hooks() == ({}, {})
