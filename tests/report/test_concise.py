"""One line a finding, for logs and grep."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from ckptaudit import Manifest, TensorSpec, audit
from ckptaudit.report import render

NET = {"fc.weight": (10, 4), "fc.bias": (10,)}


def concise(model, checkpoint, **options):
    sides = [
        Manifest({key: TensorSpec(shape, "float32") for key, shape in side.items()}) for side in (model, checkpoint)
    ]
    return render(audit.diff(*sides, **options), "concise")


def test_each_finding_is_one_line_and_the_verdict_the_last():
    assert concise(NET, {**NET, "fc.bias": (7,), "old.w": (1,)}) == (
        "manifest: error CKPT102 unexpected-key: 1 key of the checkpoint has no place in the model: old.w\n"
        "manifest: error CKPT201 shape-mismatch: 1 tensor with another shape in the model: fc.bias\n"
        'manifest: contract "strict": broken\n'
    )
    assert concise(NET, NET) == 'manifest: contract "strict": kept\n'


def test_a_safe_fix_is_on_its_line():
    assert "(2 tensors) [safe fix: --map 'module.* -> *']\n" in concise(NET, {f"module.{k}": s for k, s in NET.items()})


def test_many_keys_are_counted():
    text = concise(NET, {**NET, **{f"x{'.w' * i}": (1,) for i in range(1, 9)}})
    assert text.count("\n") == 2
    assert ": x.w, x.w.w, x.w.w.w and 5 more\n" in text


def test_rules_are_shown_as_they_were_written():
    text = concise(NET, NET, mapping=["modul.* -> *"])
    assert "manifest: error CKPT903 unused-mapping-rule: 1 mapping rule matched nothing" in text
    assert ": modul.* -> *\n" in text


@given(st.dictionaries(st.text(min_size=1, max_size=5), st.just((1,)), max_size=4))
def test_no_key_makes_a_line_of_its_own(keys):
    lines = concise({"w": (2,)}, keys).split("\n")
    assert lines.pop() == ""
    assert all(line.startswith("manifest: ") and line.isprintable() for line in lines)


def test_the_witness_has_the_line_before_the_last():
    layer = nn.Linear(4, 2)
    text = render(audit.diff(layer, layer.state_dict(), witness=True), "concise")
    assert text.splitlines() == [
        "state dict: witness: torch's own load did the same (from memory)",
        'state dict: contract "strict": kept',
    ]
