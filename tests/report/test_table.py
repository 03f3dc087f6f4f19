"""The terminal report: one finding a cause, every key, the verdict in one sentence."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from ckptaudit import CkptauditError, Manifest, TensorSpec, audit
from ckptaudit.cli.streams import terminal_width
from ckptaudit.inspection import inspect
from ckptaudit.keys import KeyPattern, fold
from ckptaudit.report.inspection import render_inspection
from ckptaudit.report.table import render_table

ROOT = Path(__file__).parents[2]
FIXTURES = ROOT / "fixtures"
sys.path.insert(0, str(FIXTURES))

import rule_hits  # noqa: E402  # isort: skip

WIDTHS = [40, 41, 50, 63, 79, 80, 100, 132, 200]


def net(shapes, dtype="float32", **parts):
    return Manifest({key: TensorSpec(shape, dtype) for key, shape in shapes.items()}, **parts)


def table(model, checkpoint, width=80, verbose=False, **options):
    return render_table(audit.diff(model, checkpoint, **options), width, verbose)


NET = {"fc.weight": (10, 4), "fc.bias": (10,)}


class TestWholeReports:
    def test_clean(self):
        assert table(net(NET), net(NET)) == (
            "  checkpoint  manifest  2 tensors  50 values\n"
            "  model       manifest  2 tensors  50 values\n"
            "\n"
            'All 2 tensors match by name, shape and dtype. Contract "strict": kept.\n'
            "Not checked: values.\n"
        )

    def test_with_a_witness(self):
        layer = nn.Linear(4, 2)
        assert table(layer, layer.state_dict(), witness=True) == (
            "  checkpoint  state dict  2 tensors  10 values\n"
            "  model       Linear      2 tensors  10 values  built on cpu\n"
            "  witness: torch's own load did the same (from memory)\n"
            "\n"
            'All 2 tensors match by name, shape and dtype. Contract "strict": kept.\n'
            "Every value arrives, as a real load shows. Not checked: the values themselves.\n"
        )

    def test_broken(self):
        assert table(net(NET), net({**NET, "fc.bias": (7,)})) == (
            "  checkpoint  manifest  2 tensors  47 values\n"
            "  model       manifest  2 tensors  50 values\n"
            "\n"
            "error[CKPT201] shape-mismatch: 1 tensor with another shape in the model\n"
            "\n"
            "  key      checkpoint  model\n"
            "  fc.bias  (7,)        (10,)\n"
            "\n"
            "  strict=True and strict=False both raise\n"
            "  fix [unsafe]  --drop fc.bias --contract partial\n"
            "                the model keeps its own 10 initial values\n"
            "\n"
            "  load_state_dict  as is\n"
            "  strict=False     raises\n"
            "  strict=True      raises\n"
            "\n"
            '1 error. Contract "strict": broken.\n'
            "next: ckptaudit explain CKPT201\n"
        )

    def test_a_prefix_and_what_remains_with_the_fix(self):
        lines = table(net(NET), net({f"module.{key}": shape for key, shape in {**NET, "fc.bias": (7,)}.items()}))
        assert "\nWith that fix:\n\nerror[CKPT201] shape-mismatch" in lines
        assert "  load_state_dict  as is                  with the safe fix\n" in lines


class TestTheLastSentences:
    def last(self, *arguments, **options):
        return table(*arguments, **options).rpartition("\n\n")[2].splitlines()

    def test_a_mapping_that_fits(self):
        wrapped = net({f"module.{key}": shape for key, shape in NET.items()})
        assert self.last(net(NET), wrapped, mapping=["module.* -> *"]) == [
            "All 2 tensors match by name and shape under the mapping.",
            'Contract "strict": kept.',
            "Not checked: values.",
        ]

    def test_a_cast_that_keeps_every_value_is_no_match_of_dtypes(self):
        assert self.last(net(NET), net(NET, "float16")) == [
            "All 2 tensors match by name and shape. The load casts 2 to the model's dtype.",
            'Contract "strict": kept.',
            "Not checked: values.",
        ]

    def test_a_note_does_not_hide_that_everything_matches(self):
        scalar = {"n": ()}
        assert self.last(net(scalar), net({"n": (1,)})) == [
            "The only tensor matches by name, shape and dtype. 1 note (-v shows notes).",
            'Contract "strict": kept.',
            "Not checked: values.",
        ]

    def test_a_counter_that_torch_forgives_is_not_claimed(self):
        model = {**NET, "bn.num_batches_tracked": ()}
        kinds = {key: TensorSpec(shape, "float32", kind="buffer") for key, shape in model.items()}
        lines = self.last(Manifest(kinds, versions={"bn": 2}), net(NET))
        assert lines[0].startswith("2 of 3 tensors match by name, shape and dtype.")

    def test_a_weaker_contract_does_not_claim_a_match(self):
        lines = self.last(net(NET), net({"fc.weight": (10, 4)}), contract="open")
        assert lines == ['1 note (-v shows notes). Contract "open": kept.', "Not checked: values."]

    def test_what_was_not_checked_is_not_kept(self):
        lines = self.last(net(NET), net(NET), contract="resume")
        assert lines == ['1 error. Contract "resume": unchecked.', "next: ckptaudit explain CKPT905"]

    def test_empty_sides(self):
        assert (
            self.last(net({}), net({}))[0] == 'All 0 tensors match by name, shape and dtype. Contract "strict": kept.'
        )


def test_both_sides_say_where_they_were_read():
    import torch
    from torch import nn

    for name in ("a.pth", "b.pth"):
        torch.save({"epoch": 1, "model": nn.Linear(2, 2).state_dict()}, name)
    text = table("a.pth", "b.pth")
    assert '  the checkpoint\'s state dict was read at ["model"]; the file also holds epoch\n' in text
    assert '  the model\'s state dict was read at ["model"]; the file also holds epoch\n' in text


def test_a_given_mapping_and_a_proposal_are_both_named():
    renamed = net({"module.head.weight": (10, 4), "module.head.bias": (10,)})
    text = table(net(NET), renamed, mapping=["module.* -> *"])
    assert "with the mapping and the safe fix" in text
    assert "with the mapping\n" in table(net({**NET, "x": (1,)}), renamed, mapping=["module.head.* -> fc.*"])


def test_long_findings_are_cut_at_whole_rows_and_say_so():
    many = net({f"{'x' * i}.w": (i,) for i in range(1, 40)})
    text = table(many, net({"y": (1,)}))
    assert "  and 19 more rows: add -v\n" in text
    assert "more row" not in table(many, net({"y": (1,)}), verbose=True)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def fixture_reports():
    """Yield every report that the fixtures give, under its folder's name, as a function of width and verbosity."""
    for folder in rule_hits.folders():
        checkpoint = str(rule_hits.checkpoint_of(folder))
        try:
            if (path := rule_hits.model_of(folder)) is not None:
                mapping = rule_hits.options_of(folder)[1::2]
                yield folder, partial(render_table, audit.diff(rule_hits.built(path), checkpoint, mapping=mapping))
            yield folder, partial(render_inspection, inspect(checkpoint))
        except CkptauditError:
            continue  # files that nobody can read have no report


def test_no_report_of_a_fixture_is_wider_than_asked():
    rendered = 0
    for name, render in fixture_reports():
        for width in WIDTHS:
            for verbose in (False, True):
                lines = render(width, verbose).splitlines()
                assert max(map(len, lines)) <= width, (name, width)
                assert all(line == line.rstrip() for line in lines), (name, width)
        rendered += 1
    assert rendered > 60


def test_the_large_reports_are_not_wider_than_asked():
    resnet50 = FIXTURES / "resnet50"
    report = audit.diff(str(resnet50 / "model.manifest.json"), str(resnet50 / "dataparallel.pth"))
    found = inspect(resnet50 / "dataparallel.pth")
    for width in WIDTHS:
        assert max(map(len, render_table(report, width, True).splitlines())) <= width
        assert max(map(len, render_inspection(found, width, True).splitlines())) <= width


NAMES = st.lists(
    st.sampled_from(["layer1", "layer2", "conv", "bn", "0", "1", "12", "weight", "bias", "attention_output", "x" * 50]),
    min_size=1,
    max_size=5,
).map(".".join)
SHAPES = st.lists(st.integers(1, 2048), max_size=4).map(tuple)
STATES = st.dictionaries(NAMES, SHAPES, min_size=1, max_size=12)


@given(STATES, STATES, st.sampled_from(["float32", "bfloat16", "float8_e4m3fnuz"]), st.integers(40, 200))
@settings(max_examples=120, deadline=None)
def test_any_report_fits_and_names_every_key(model, checkpoint, dtype, width):
    report = audit.diff(net(model), net(checkpoint, dtype))
    text = render_table(report, width, verbose=True)
    assert max(map(len, text.splitlines())) <= width
    assert terminal_width(width) == width
    squeezed = "".join(text.split())
    for graded in report.findings:
        if graded.finding.rule.code in ("CKPT101", "CKPT102", "CKPT201", "CKPT202"):
            for pattern in shown_patterns(graded.finding):
                assert in_order(pattern, text) or pattern in squeezed


def shown_patterns(finding):
    """Fold the rows as the table does, and prove that nothing got lost in it."""
    groups = {}
    for key, *values in finding.rows:
        groups.setdefault(tuple(values), []).append(key)
    patterns = [pattern for keys in groups.values() for pattern in fold(keys)]
    assert sorted(key for pattern in patterns for key in pattern.expand()) == sorted(finding.keys)
    assert all(KeyPattern.parse(str(pattern)) == pattern for pattern in patterns)
    return [str(pattern) for pattern in patterns]


def in_order(pattern, text):
    """Find a pattern in the first column, where its pieces stand one below the other."""
    column = [line[2:].split("  ")[0].strip() for line in text.splitlines() if line.startswith("  ")]
    return any(
        "".join(column[start:end]) == pattern
        for start in range(len(column))
        for end in range(start + 1, min(len(column), start + 30) + 1)
    )
