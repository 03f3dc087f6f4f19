"""``ckptaudit diff``: options, formats, outputs and exit status, on manifests, which need no torch."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from .support import run, saved

FIXTURES = Path(__file__).parents[2] / "fixtures"

NET = {"conv.weight": (4, 3, 3, 3), "fc.weight": (10, 4), "fc.bias": (10,)}
FORMATS = ("table", "concise", "json")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    saved("net.json", NET)
    saved("wrapped.json", {f"module.{key}": shape for key, shape in NET.items()})
    saved("head.json", {**NET, "fc.weight": (1000, 4), "fc.bias": (1000,)})
    saved("both.json", {"module.fc.bias": (10,), **NET})


def diff(capsys, *arguments):
    return run(capsys, "diff", *arguments)


class TestStatus:
    def test_kept_broken_and_forgiven(self, capsys):
        assert diff(capsys, "net.json", "net.json").status == 0
        assert diff(capsys, "net.json", "head.json").status == 1
        assert diff(capsys, "net.json", "head.json", "--exit-zero").status == 0

    @pytest.mark.parametrize("form", FORMATS)
    def test_it_does_not_depend_on_the_format(self, form, capsys):
        assert diff(capsys, "net.json", "head.json", "--format", form).status == 1
        assert diff(capsys, "net.json", "net.json", "--format", form).status == 0
        assert diff(capsys, "net.json", "net.json", "--format", form, "--contract", "resume").status == 2

    def test_exit_zero_forgives_a_broken_contract_and_nothing_else(self, capsys):
        for arguments in (["missing.json"], ["net.json", "--contract", "resume"], ["net.json", "--map", "x"]):
            assert diff(capsys, "net.json", *arguments, "--exit-zero").status == 2

    @pytest.mark.parametrize(
        ("contract", "status"), [("open", 0), ("partial", 1), ("strict", 1), ("exact", 1), ("resume", 2)]
    )
    def test_the_contract_decides(self, contract, status, capsys):
        assert diff(capsys, "net.json", "head.json", "--contract", contract).status == status


class TestMapping:
    def test_rules_apply_in_the_order_of_the_command_line(self, capsys):
        renamed_first = diff(capsys, "net.json", "wrapped.json", "--map", "module.* -> *", "--drop", "module.fc.*")
        assert renamed_first.status == 1
        assert "CKPT903" in renamed_first.out  # nothing is called module.fc.* any more
        dropped_first = diff(capsys, "net.json", "wrapped.json", "--drop", "module.fc.*", "--map", "module.* -> *")
        assert (dropped_first.status, "CKPT903" in dropped_first.out) == (1, False)

    def test_a_pattern_of_drop_is_never_read_as_a_rename(self, capsys):
        saved("arrow.json", {**NET, "a->b": (1,)})
        result = diff(capsys, "net.json", "arrow.json", "--drop", "a->b", "--format", "json")
        assert (result.status, result.json["mapping"]["given"]) == (0, ["drop a->b"])

    def test_a_collision_and_a_rule_without_a_key(self, capsys):
        result = diff(capsys, "net.json", "both.json", "--map", "module.* -> *", "--map", "modul.* -> *")
        assert result.status == 1
        assert "error[CKPT107] ambiguous-mapping: 1 key would receive several checkpoint keys" in result.out
        assert "module.fc.bias, fc.bias" in result.out
        assert "error[CKPT903] unused-mapping-rule: 1 mapping rule matched nothing" in result.out
        assert "\n  modul.* -> *\n" in result.out

    def test_the_offered_mapping_works_when_pasted(self, capsys):
        first = diff(capsys, "net.json", "wrapped.json")
        (line,) = (line for line in first.lines if "fix [safe]" in line)
        options = shlex.split(line.partition("fix [safe]")[2])
        assert options == ["--map", "module.* -> *"]
        assert diff(capsys, "net.json", "wrapped.json", *options).out.splitlines()[-2:] == [
            'All 3 tensors match by name and shape under the mapping. Contract "strict": kept.',
            "Not checked: values.",
        ]


class TestOutput:
    def test_every_format_goes_to_its_file_and_one_to_stdout(self, capsys):
        plain = {form: diff(capsys, "net.json", "head.json", "--format", form).out for form in FORMATS}
        outputs = [f"--output={form}=report.{form}" for form in FORMATS]
        result = diff(capsys, "net.json", "head.json", "--format", "concise", *outputs)
        assert (result.status, result.out, result.err) == (1, plain["concise"], "")
        assert {form: Path(f"report.{form}").read_text() for form in FORMATS} == plain

    def test_a_file_gets_no_colour(self, capsys):
        result = diff(capsys, "net.json", "head.json", "--color", "always", "--output", "table=t.txt")
        assert "\x1b[1;31merror[CKPT201]\x1b[0m shape-mismatch" in result.out
        assert "\x1b" not in Path("t.txt").read_text()

    def test_a_path_may_hold_an_equals_sign(self, capsys):
        diff(capsys, "net.json", "net.json", "--output", "json=a=b.json")
        assert json.loads(Path("a=b.json").read_text())["verdict"] == "kept"

    def test_a_device_is_written_to_and_not_replaced(self, capsys):
        assert diff(capsys, "net.json", "net.json", "--output", "json=/dev/null").status == 0
        assert Path("/dev/null").is_char_device()

    def test_a_failed_comparison_writes_no_file(self, capsys):
        assert diff(capsys, "net.json", "missing.json", "--output", "json=r.json").status == 2
        assert not Path("r.json").exists()

    def test_nothing_is_compared_for_an_output_that_cannot_be(self, capsys):
        result = diff(capsys, "net.json", "missing.json", "--output", "yaml=r")
        assert result.err.startswith("ckptaudit: error: --output yaml=r: is not FORMAT=PATH")


class TestFields:
    """The names of the machine format, as agreed."""

    def test_a_report(self, capsys):
        data = diff(capsys, "net.json", "head.json", "--format", "json").json
        assert list(data) == [
            "schema",
            "command",
            "contract",
            "verdict",
            "exit_status",
            "inputs",
            "alignment",
            "loads",
            "mapping",
            "findings",
            "accepted",
            "skipped_rules",
            "witness",
        ]
        assert (data["schema"], data["command"], data["contract"]) == ("ckptaudit.report/1", "diff", "strict")
        assert list(data["inputs"]) == ["checkpoint", "model"]
        assert data["alignment"] == {
            "matched_keys": ["conv.weight"],
            "missing_keys": [],
            "unexpected_keys": [],
            "mismatched_keys": [
                {"key": "fc.weight", "checkpoint": [1000, 4], "model": [10, 4]},
                {"key": "fc.bias", "checkpoint": [1000], "model": [10]},
            ],
            "non_tensor_keys": [],
            "dtype_mismatches": [],
        }
        assert data["loads"]["strict"] == {"as_is": False, "with_mapping": False}
        assert data["loads"]["non_strict"]["as_is"] is False
        assert data["loads"]["non_strict"]["loaded"] == 1
        (finding,) = data["findings"]
        assert (finding["code"], finding["name"], finding["level"]) == ("CKPT201", "shape-mismatch", "error")
        assert finding["keys"] == ["fc.weight", "fc.bias"]
        assert len(finding["fingerprint"]) == 12

    def test_dtypes_are_torchs_names(self, capsys):
        saved("half.json", NET, "bfloat16")
        data = diff(capsys, "half.json", "net.json", "--format", "json").json
        assert data["alignment"]["dtype_mismatches"][0] == {
            "key": "conv.weight",
            "checkpoint": "float32",
            "model": "bfloat16",
        }

    def test_a_failure_has_the_same_fields_and_the_error(self, capsys):
        kept = diff(capsys, "net.json", "net.json", "--format", "json").json
        failed = diff(capsys, "net.json", "missing.json", "--format", "json", "--contract", "exact").json
        assert set(failed) == {*kept, "error"}
        assert (failed["verdict"], failed["exit_status"], failed["contract"]) == ("unchecked", 2, "exact")
        assert (failed["inputs"], failed["alignment"], failed["loads"]) == ({}, None, None)
        (finding,) = failed["findings"]
        assert (finding["code"], finding["message"]) == ("CKPT905", "missing.json: no such file")

    def test_the_fault_of_a_file_is_a_finding(self, capsys):
        Path("empty.pth").touch()
        data = diff(capsys, "net.json", "empty.pth", "--format", "json").json
        (finding,) = data["findings"]
        assert (finding["code"], finding["level"], finding["data"]["reason"]) == (
            "CKPT001",
            "error",
            "is empty (0 bytes)",
        )

    def test_the_same_input_gives_the_same_bytes(self, capsys):
        for form in FORMATS:
            texts = {diff(capsys, "net.json", "both.json", "--format", form, "-v").out for _ in range(3)}
            assert len(texts) == 1


STRANGE = [
    "ключ.вес",
    "q\"u'ote",
    "back\\slash",
    "{1..4}",
    "*",
    "a b  c",
    "\x1b[31mred",
    "x\n1 error.",
    "\ud800",
    "\u202e",
]


class TestStrangeKeys:
    @pytest.fixture(autouse=True)
    def strange(self):
        saved("strange.json", {key: (index + 2,) for index, key in enumerate(STRANGE)})

    def test_json_holds_them_as_they_are(self, capsys):
        result = diff(capsys, "net.json", "strange.json", "--format", "json")
        assert result.out.isascii()
        assert result.json["alignment"]["unexpected_keys"] == STRANGE

    @pytest.mark.parametrize("form", ["table", "concise"])
    @pytest.mark.parametrize("width", [40, 80])
    def test_none_of_them_acts(self, form, width, capsys):
        result = diff(capsys, "net.json", "strange.json", "--format", form, "--width", width)
        assert all(char.isprintable() or char == "\n" for char in result.out)
        assert "1 error." not in result.lines
        if form == "concise":
            assert all(line.startswith("strange.json: ") for line in result.lines)

    @pytest.mark.parametrize("width", [40, 80])
    def test_the_table_shows_each(self, width, capsys):
        shown = "".join(diff(capsys, "net.json", "strange.json", "--width", width).out.split())
        for text in (r"\x1b[31mred", r"x\n1error.", r"\ud800", r"\u202e", r"ключ.вес", r"back\\slash", r"\{1..4\}"):
            assert text in shown


@pytest.mark.parametrize("rules", [["--map", "x"], ["--drop", "{"]])
def test_a_rule_that_cannot_be_read_is_a_report_too(rules, capsys):
    result = diff(capsys, "net.json", "net.json", *rules, "--format", "json")
    assert (result.status, result.json["verdict"]) == (2, "unchecked")
    assert result.json["error"]["subject"].startswith(rules[0])


class TestMappingFiles:
    def test_a_file_stands_for_its_rules_among_the_others(self, capsys):
        Path("m.toml").write_text('[[rule]]\nrename = "module.* -> *"\n')
        options = ("--drop", "module.fc.bias", "--map", "m.toml", "--map", "init fc.bias", "--format", "json")
        result = diff(capsys, "net.json", "wrapped.json", *options)
        assert result.json["mapping"] == {
            "given": ["drop module.fc.bias", "module.* -> *", "init fc.bias"],
            "proposed": [],
            "expected_missing": ["fc.bias"],
        }
        assert (result.status, result.json["findings"]) == (0, [])

    def test_a_fault_names_file_and_line(self, capsys):
        Path("m.toml").write_text('# a comment\n[[rule]]\nrename = "module.* -> *"\n\n[[rule]]\nrenam = "a -> b"\n')
        result = diff(capsys, "net.json", "net.json", "--map", "m.toml")
        assert (result.status, result.out) == (2, "")
        assert result.err.splitlines() == [
            "ckptaudit: error: m.toml:6: has the unknown key 'renam'; did you mean 'rename'?",
            'hint: write each rule as a table: [[rule]] and below it, for instance, rename = "module.* -> *"',
        ]

    def test_the_mapping_is_never_overwritten(self, capsys):
        Path("m.toml").write_text("")
        result = diff(capsys, "net.json", "net.json", "--map", "m.toml", "--output", "json=m.toml")
        assert (result.status, Path("m.toml").read_text()) == (2, "")
        assert "m.toml: is an input of this command and would be overwritten" in result.err


class TestTensorRules:
    def test_the_effect_is_shown_without_loading(self, capsys):
        saved("fused.json", {"qkv.weight": (12, 4), "norm.weight": (4,)})
        saved("parts.json", {"q.weight": (4, 4), "k.weight": (4, 4), "v.weight": (4, 4), "norm.weight": (4,)})
        rule = "split qkv.weight -> q.weight, k.weight, v.weight"
        result = diff(capsys, "parts.json", "fused.json", "--map", rule)
        assert result.out.splitlines()[-2] == (
            'All 4 tensors match by name and shape under the mapping. Contract "strict": kept.'
        )
        assert diff(capsys, "fused.json", "parts.json", "--map", f"{rule} dim=1").status == 1

    def test_what_does_not_fit_ends_the_command(self, capsys):
        line = "split fc.weight -> a, b, c"
        result = diff(capsys, "net.json", "net.json", "--map", line)
        assert (result.status, result.out) == (2, "")
        assert result.err == (
            f"ckptaudit: error: {line}: fc.weight (10, 4) cannot be split: 10 is not divisible by 3\n"
        )
        failed = diff(capsys, "net.json", "net.json", "--map", line, "--format", "json")
        assert failed.json["error"]["subject"] == line

    def test_a_fault_of_a_line_names_the_option(self, capsys):
        result = diff(capsys, "net.json", "net.json", "--map", "transpose fc.weight dim=0")
        assert result.err.splitlines() == [
            "ckptaudit: error: --map 'transpose fc.weight dim=0': has no option 'dim'; did you mean 'dims'?",
            "hint: as in: transpose h.{i}.attn.c_attn.weight dims=0,1",
        ]

    def test_what_a_rule_makes_cannot_be_dropped_and_that_is_not_offered(self, capsys):
        result = diff(
            capsys, "net.json", "net.json", "--map", "split fc.weight -> a, b", "--map", "tie c = conv.weight"
        )
        assert "CKPT102" in result.out
        assert "--drop" not in result.out
        assert "make no tensor that the model lacks" in result.out

    def test_what_is_left_to_the_model_is_said(self, capsys):
        result = diff(capsys, "net.json", "head.json", "--map", "init fc.*")
        assert result.out.splitlines()[-4:] == [
            "1 of 3 tensors match by name and shape under the mapping. The mapping leaves 2 to the model's",
            "initial values.",
            'Contract "strict": kept.',
            "Not checked: values.",
        ]

    def test_a_proposal_that_would_not_work_beside_the_rules_is_not_made(self, capsys):
        saved("wide.json", {"module.fc.weight": (4, 10), "module.conv.weight": (4, 3, 3, 3), "module.fc.bias": (10,)})
        result = diff(capsys, "net.json", "wide.json", "--map", "transpose module.fc.weight", "--format", "json")
        assert result.json["mapping"]["proposed"] == []
        result = diff(capsys, "net.json", "wide.json", "--map", "transpose *.weight when=4x10", "--format", "json")
        assert result.json["mapping"]["proposed"] == ["module.* -> *"]


class TestWitness:
    def test_it_is_asked_where_there_is_a_model(self, capsys):
        folder = FIXTURES / "rules" / "CKPT906"
        clean = [folder / "clean" / name for name in ("model.py", "checkpoint.safetensors")]
        result = diff(capsys, *clean, "--witness", "--format", "json")
        assert (result.status, result.json["witness"]["agrees"], result.json["witness"]["loads"]) == (0, True, 1)
        assert diff(capsys, *clean).status == 2  # its load hook needs the values
        result = diff(capsys, *clean[:1], folder / "fires" / "checkpoint.safetensors", "--witness", "--exit-zero")
        assert (result.status, "error[CKPT906] prediction-disagrees" in result.out) == (2, True)

    def test_a_manifest_is_no_model(self, capsys):
        result = diff(capsys, "net.json", "net.json", "--witness")
        assert (result.status, result.out) == (2, "")
        assert result.err.splitlines() == [
            "ckptaudit: error: net.json: is a manifest, into which no witness can load",
            "hint: name the model's code",
        ]
