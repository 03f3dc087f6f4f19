"""``ckptaudit check``: a project's targets, accepts, levels and baseline; and against what was committed before."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ckptaudit import Manifest
from ckptaudit.cli import main

from .support import describe, run, saved

NET = {"conv.weight": (4, 3, 1, 1), "fc.weight": (10, 4), "fc.bias": (10,)}
HEAD = {**NET, "fc.weight": (7, 4), "fc.bias": (7,)}
TARGET = '[tool.ckptaudit.targets.net]\nmodel = "net.json"\nmanifest = "net.manifest.json"\n'
ACCEPT = '\n[[tool.ckptaudit.accept]]\nrule = "shape-mismatch"\nkey = "fc.*"\nreason = "a new head"\n'


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def configure(text=TARGET, top=""):
    Path("pyproject.toml").write_text(f"[tool.ckptaudit]\n{top}\n{text}")


def project(model=NET, manifest=NET, text=TARGET, top=""):
    configure(text, top)
    saved("net.json", model)
    if manifest:
        saved("net.manifest.json", manifest)


def check(capsys, *arguments):
    return run(capsys, "check", *arguments)


def codes(result, part="findings"):
    data = result.json
    return [f["code"] for report in data["reports"] for f in report[part]] + [f["code"] for f in data.get(part, [])]


def checked(capsys, *arguments):
    result = check(capsys, *arguments, "--format", "json")
    return result.status, codes(result), codes(result, "accepted")


class TestOneTarget:
    def test_kept(self, capsys):
        project()
        result = check(capsys)
        assert (result.status, result.err) == (0, "")
        assert result.lines == [
            'net  net.json, contract "strict"',
            "  net.manifest.json  kept",
            "",
            "1 check: 1 kept; no findings. Verdict: kept.",
        ]

    def test_broken(self, capsys):
        project(HEAD)
        result = check(capsys)
        assert result.status == 1
        assert result.lines[:3] == ['net  net.json, contract "strict"', "  net.manifest.json  BROKEN", ""]
        assert result.lines[3] == "net: net.manifest.json"
        assert result.lines[-2] == "1 check: 1 broken; 1 error. Verdict: broken."
        start = result.lines.index("  [[tool.ckptaudit.accept]]")
        assert result.lines[start : start + 5] == [
            "  [[tool.ckptaudit.accept]]",
            '  rule = "CKPT201"',
            '  key = "fc.{bias,weight}"',
            '  target = "net"',
            '  reason = ""',
        ]

    def test_the_proposed_accept_is_one(self, capsys):
        project(HEAD)
        lines = check(capsys).lines
        start = lines.index("  [[tool.ckptaudit.accept]]")
        accept = "\n".join(lines[start : start + 5]).replace('reason = ""', 'reason = "meant"')
        configure(TARGET + accept)
        assert checked(capsys) == (0, [], ["CKPT201"])

    def test_exit_zero_is_for_what_is_broken_alone(self, capsys):
        project(HEAD)
        assert check(capsys, "--exit-zero").status == 0
        Path("net.manifest.json").unlink()
        assert check(capsys, "--exit-zero").status == 2

    def test_concise_is_a_line_a_finding_and_the_verdict(self, capsys):
        project(HEAD)
        assert check(capsys, "--format", "concise").lines == [
            "net.manifest.json: error CKPT201 shape-mismatch: 2 tensors with another shape in the model: fc.{bias,weight}",
            'net.manifest.json: contract "strict": broken',
            "pyproject.toml: 1 check: 1 broken; 1 error. Verdict: broken.",
        ]

    def test_outputs_lie_where_the_command_was_given(self, capsys, folder, monkeypatch):
        project(HEAD)
        (folder / "deep").mkdir()
        monkeypatch.chdir(folder / "deep")
        result = check(capsys, "--format", "concise", "--output", "json=report.json")
        assert result.status == 1
        assert json.loads((folder / "deep" / "report.json").read_text())["verdict"] == "broken"

    def test_an_output_overwrites_no_input(self, capsys):
        project()
        assert "is an input of this command" in check(capsys, "--output", "json=net.json").err
        assert Manifest.load("net.json").tensors

    def test_checkpoints_by_patterns_with_a_mapping(self, capsys):
        text = '[tool.ckptaudit.targets.net]\nmodel = "net.json"\ncheckpoint = ["v*.json"]\nmap = "module.* -> *"\n'
        project(manifest=None, text=text)
        for name in ("v1", "v2"):
            saved(f"{name}.json", {f"module.{key}": shape for key, shape in NET.items()})
        result = check(capsys, "--format", "json")
        assert (result.status, codes(result)) == (0, [])
        assert [report["file"] for report in result.json["reports"]] == ["v1.json", "v2.json"]

    def test_a_pattern_that_matches_nothing_is_not_checked(self, capsys):
        project(text='[tool.ckptaudit.targets.net]\nmodel = "net.json"\ncheckpoint = "v*.pth"\n')
        result = check(capsys)
        assert result.status == 2
        assert "error[CKPT905] check-skipped: v*.pth: matches no file" in result.lines

    def test_a_missing_manifest_says_how_to_write_it(self, capsys):
        project(manifest=None)
        result = check(capsys)
        assert result.status == 2
        assert "  fix [display]  ckptaudit manifest write --target net" in result.lines

    def test_the_contract_is_the_target_s(self, capsys):
        half = {key: (*shape[:-1], shape[-1]) for key, shape in NET.items()}
        for contract, status in (("strict", 0), ("exact", 1)):
            project(text=f'{TARGET}contract = "{contract}"\n')
            saved("net.manifest.json", half, dtype="float64")
            assert checked(capsys)[:2] == (status, ["CKPT301"])


class TestLevels:
    @pytest.mark.parametrize(
        ("level", "status", "found"), [("warning", 0, ["CKPT201"]), ("off", 0, []), ("error", 1, ["CKPT201"])]
    )
    def test_a_level_of_a_rule(self, capsys, level, status, found):
        project(HEAD, text=f'{TARGET}[tool.ckptaudit.rules]\nshape-mismatch = "{level}"\n')
        assert checked(capsys)[:2] == (status, found)

    def test_an_unused_accept_may_be_an_error(self, capsys):
        project(text=f'{TARGET}{ACCEPT}[tool.ckptaudit.rules]\nunused-accept = "error"\n')
        assert checked(capsys)[:2] == (1, ["CKPT901"])


class TestAccepts:
    def test_an_accepted_finding_stays_in_the_report_with_its_reason(self, capsys):
        project(HEAD, text=TARGET + ACCEPT)
        result = check(capsys, "--format", "json")
        assert (result.status, codes(result)) == (0, [])
        (accepted,) = result.json["reports"][0]["accepted"]
        assert (accepted["code"], accepted["reason"]) == ("CKPT201", "a new head")
        assert check(capsys).lines[1] == "  net.manifest.json  kept, 1 accepted"

    @pytest.mark.parametrize(
        ("change", "status", "found"),
        [
            ('key = "fc.weight"', 1, ["CKPT201"]),  # not all of its keys
            ('key = "conv.*"', 1, ["CKPT201", "CKPT901"]),
            ('rule = "CKPT101"', 1, ["CKPT201", "CKPT901"]),
            ("expires = 2020-01-01", 1, ["CKPT201", "CKPT907"]),
            ("expires = 9999-01-01", 0, []),
            ('target = "net"', 0, []),
            ('target = "other"', 1, ["CKPT201", "CKPT901"]),
        ],
    )
    def test_it_is_narrow(self, capsys, change, status, found):
        name = change.partition(" ")[0]
        kept = "\n".join(line for line in ACCEPT.splitlines() if not line.startswith(f"{name} ="))
        other = (
            TARGET.replace("targets.net", "targets.other").replace("net.json", "other.json").replace("net.m", "other.m")
        )
        saved("other.json", NET), saved("other.manifest.json", NET)
        project(HEAD, text=f"{TARGET}{other}{kept}\n{change}\n")
        assert checked(capsys)[:2] == (status, found)

    def test_two_accepts_may_cover_a_finding_together(self, capsys):
        both = ACCEPT.replace("fc.*", "fc.weight") + ACCEPT.replace("fc.*", "fc.bias").replace("a new head", "its bias")
        project(HEAD, text=TARGET + both)
        result = check(capsys, "--format", "json")
        assert result.json["reports"][0]["accepted"][0]["reason"] == "a new head; its bias"

    def test_none_is_called_unused_while_something_is_not_checked(self, capsys):
        project(text=TARGET + ACCEPT)
        assert checked(capsys)[:2] == (0, ["CKPT901"])
        Path("net.manifest.json").unlink()
        assert checked(capsys)[:2] == (2, ["CKPT905"])

    def test_none_is_called_unused_while_its_target_is_not_asked_for(self, capsys):
        other = TARGET.replace("targets.net", "targets.other")
        project(text=TARGET + other + ACCEPT)
        assert checked(capsys, "other")[:2] == (0, [])
        assert checked(capsys)[:2] == (0, ["CKPT901"])


class TestTheBaseline:
    TOP = 'baseline = "baseline.json"'

    def test_it_is_written_by_the_names_of_rules_and_shrinks(self, capsys):
        project({**HEAD, "extra.weight": (2,)}, top=self.TOP)
        assert check(capsys).status == 2  # a missing baseline is no empty one
        result = check(capsys, "--add-to-baseline", "shape-mismatch")
        assert (result.status, result.err) == (1, "baseline.json: 0 findings taken out, 1 added, 1 in it\n")
        assert checked(capsys) == (1, ["CKPT101"], ["CKPT201"])
        saved("net.manifest.json", HEAD)
        assert checked(capsys) == (1, ["CKPT101", "CKPT902"], [])
        result = check(capsys, "--update-baseline", "--format", "json")
        assert (codes(result), result.err) == (["CKPT101"], "baseline.json: 1 finding taken out, 0 added, 0 in it\n")

    def test_an_update_never_adds(self, capsys):
        project(HEAD, top=self.TOP)
        Path("baseline.json").write_text('{"schema": "ckptaudit.baseline/1", "findings": []}')
        before = Path("baseline.json").read_text()
        result = check(capsys, "--update-baseline")
        assert (result.status, result.err, Path("baseline.json").read_text()) == (1, "", before)

    def test_another_finding_of_the_rule_is_not_in_it(self, capsys):
        project(HEAD, top=self.TOP)
        check(capsys, "--add-to-baseline", "CKPT201")
        saved("net.json", {**HEAD, "fc.bias": (8,)})
        assert checked(capsys) == (1, ["CKPT201", "CKPT902"], [])

    def test_the_file_may_be_named_on_the_command_line(self, capsys):
        project(HEAD)
        assert check(capsys, "--baseline", "mine.json", "--add-to-baseline", "CKPT201").status == 0
        assert check(capsys, "--baseline", "mine.json").status == 0
        assert check(capsys).status == 1

    def test_entries_of_targets_that_are_gone_are_stale(self, capsys):
        project(HEAD, top=self.TOP)
        check(capsys, "--add-to-baseline", "CKPT201")
        configure(TARGET.replace("targets.net", "targets.other"), self.TOP)
        assert checked(capsys) == (1, ["CKPT201", "CKPT902"], [])

    @pytest.mark.parametrize(
        ("arguments", "subject"),
        [
            (["--update-baseline"], "pyproject.toml: names no baseline"),
            (["--add-to-baseline", "CKPT905"], "--add-to-baseline CKPT905: was not checked"),
            (["--add-to-baseline", "CKPT20"], "CKPT20: is no rule"),
            (["--update-baseline", "--baseline", "b.json", "--against", "./"], "--against: compares with another time"),
        ],
    )
    def test_what_is_refused(self, capsys, arguments, subject):
        project(HEAD)
        result = check(capsys, *arguments)
        assert (result.status, result.out) == (2, "")
        assert result.err.startswith(f"ckptaudit: error: {subject}")

    @pytest.mark.parametrize(
        "text", ["{", "[]", '{"schema": "x"}', '{"schema": "ckptaudit.baseline/1", "findings": [{}]}']
    )
    def test_a_file_that_is_none(self, capsys, text):
        project(HEAD, top=self.TOP)
        Path("baseline.json").write_text(text)
        result = check(capsys)
        assert (result.status, result.out) == (2, "")
        assert result.err.startswith("ckptaudit: error: baseline.json: is n")


class TestSeveralTargets:
    def test_one_that_fails_hides_no_other(self, capsys):
        models = {"good": "net.json", "gone": "gone.json", "bad": "bad.py:Net", "empty": "empty.json"}
        targets = "".join(TARGET.replace(".net", f".{n}").replace('"net.json"', f'"{m}"') for n, m in models.items())
        project(text=targets)
        Path("bad.py").write_text("import nonsense_that_is_not_there\n")
        Path("empty.json").touch()
        result = check(capsys, "--format", "json")
        assert result.status == 2
        verdicts = {report["target"]: report["verdict"] for report in result.json["reports"]}
        assert verdicts == {"good": "kept", "gone": "unchecked", "bad": "unchecked", "empty": "unchecked"}
        errors = {report["target"]: report["error"] for report in result.json["reports"] if "error" in report}
        assert errors["bad"]["subject"] == "bad.py:Net"
        table = check(capsys)
        assert "4 checks: 1 kept, 3 unchecked; 3 errors. Verdict: unchecked." in table.lines

    def test_a_fault_of_our_own_hides_no_other(self, capsys, monkeypatch):
        project(text=TARGET + TARGET.replace("targets.net", "targets.other"))
        calls = []

        def faulty(*arguments, **options):
            calls.append(arguments)
            if len(calls) == 1:
                raise ZeroDivisionError("division by zero")
            return real(*arguments, **options)

        from ckptaudit import checking

        real = checking.compare
        monkeypatch.setattr(checking, "compare", faulty)
        result = check(capsys, "--format", "json")
        assert [report["verdict"] for report in result.json["reports"]] == ["unchecked", "kept"]
        assert result.json["reports"][0]["error"]["reason"] == "ZeroDivisionError: division by zero"

    def test_some_alone(self, capsys):
        project(text=TARGET + TARGET.replace("targets.net", "targets.other"))
        assert len(check(capsys, "other", "--format", "json").json["reports"]) == 1
        assert check(capsys, "othr").err == (
            "ckptaudit: error: othr: is no target; did you mean 'other'?\n"
            "hint: the targets of pyproject.toml: net, other\n"
        )

    def test_no_target_is_no_pass(self, capsys):
        configure("")
        result = check(capsys)
        assert (result.status, result.err.splitlines()[0]) == (
            2,
            "ckptaudit: error: pyproject.toml: names no target: there is nothing to check",
        )


MODELS = """from torch import nn


class Net(nn.Module):
    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4)
        self.fc = nn.Linear(4, classes)
"""


def test_models_are_built_and_torch_is_asked(capsys, folder):
    names = ("one", "two", "three")
    configure("".join(
        f'[tool.ckptaudit.targets.{name}]\nmodel = "models.py:Net"\nmanifest = "{name}.manifest.json"\nargs.classes = {n}\n'
        for n, name in enumerate(names, 2)
    ))  # fmt: skip
    Path("models.py").write_text(MODELS)
    assert main(["manifest", "write"]) == 0
    capsys.readouterr()
    assert Manifest.load("two.manifest.json")["fc.weight"].shape == (3, 4)
    result = check(capsys, "--format", "json")
    assert (result.status, codes(result)) == (0, [])
    assert {report["loads"]["judge"] for report in result.json["reports"]} == {"torch"}
    Path("models.py").write_text(MODELS.replace("fc =", "head ="))
    result = check(capsys, "two", "--format", "json")
    assert (result.status, codes(result)) == (1, ["CKPT104"])
    Path("models.py").write_text(MODELS + '        self.register_buffer("seen", self.fc.bias.data, persistent=False)\n')
    assert checked(capsys, "two")[:2] == (0, ["CKPT904"])


def git(*arguments):
    identity = ["-c", "user.name=n", "-c", "user.email=e@x", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *identity, *arguments], check=True, capture_output=True)


def commit():
    git("add", "-A")
    git("commit", "-q", "-m", "m")


@pytest.fixture
def repository(folder):
    git("init", "-q", "-b", "main")
    project()
    commit()


@pytest.mark.usefixtures("repository")
class TestAgainst:
    def test_what_is_committed_is_the_measure(self, capsys):
        saved("net.json", HEAD), saved("net.manifest.json", HEAD)
        assert checked(capsys)[:2] == (0, [])
        result = check(capsys, "--against", "main")
        assert result.status == 1
        assert result.lines[:3] == [
            "the measure is what is committed at main",
            'net  net.json, contract "strict"',
            "  net.manifest.json  at main  BROKEN",
        ]
        assert checked(capsys, "--against", "HEAD")[:2] == (1, ["CKPT201"])

    def test_a_change_is_told_once(self, capsys):
        saved("net.json", HEAD)
        assert checked(capsys, "--against", "main")[:2] == (1, ["CKPT201"])

    def test_a_manifest_that_was_not_written_anew_is_told(self, capsys):
        saved("net.json", HEAD), saved("net.manifest.json", {**HEAD, "fc.bias": (3,)})
        assert checked(capsys, "--against", "main")[:2] == (1, ["CKPT201", "CKPT904"])

    def test_an_accept_holds_and_none_is_unused(self, capsys):
        saved("net.json", HEAD), saved("net.manifest.json", HEAD)
        configure(TARGET + ACCEPT)
        assert checked(capsys, "--against", "main") == (0, [], ["CKPT201"])
        commit()
        assert checked(capsys, "--against", "HEAD") == (0, [], [])
        assert checked(capsys)[:2] == (0, ["CKPT901"])

    def test_a_target_that_is_new_is_compared_with_itself(self, capsys):
        configure(TARGET + TARGET.replace(".net]", ".new]").replace("net.manifest", "new.manifest"))
        saved("new.manifest.json", NET)
        assert checked(capsys, "--against", "main")[:2] == (0, [])

    def test_what_was_taken_away_is_told(self, capsys):
        configure(TARGET.replace("targets.net", "targets.other"))
        assert checked(capsys, "--against", "main")[:2] == (0, ["CKPT909"])
        configure(TARGET.replace('manifest = "net.manifest.json"', 'checkpoint = "net.manifest.json"'))
        assert checked(capsys, "--against", "main")[:2] == (0, ["CKPT909"])

    def test_a_finding_on_a_checkpoint_counts_where_it_is_new(self, capsys):
        saved("old.json", {**NET, "left.over": (1,)})
        configure(f'{TARGET}checkpoint = "old.json"\n')
        assert checked(capsys)[:2] == (1, ["CKPT102"])
        assert checked(capsys, "--against", "main") == (0, [], ["CKPT102"])
        saved("net.json", HEAD), saved("net.manifest.json", HEAD)
        assert checked(capsys, "--against", "main") == (1, ["CKPT201", "CKPT201"], ["CKPT102"])

    def test_a_baseline_does_not_grow(self, capsys):
        project(HEAD, HEAD, top='baseline = "baseline.json"')
        saved("net.json", NET)
        check(capsys, "--add-to-baseline", "CKPT201")
        assert checked(capsys, "--against", "main")[:2] == (0, ["CKPT904"])  # there was none: this is how it begins
        commit()
        saved("net.json", {**NET, "fc.bias": (11,)})
        check(capsys, "--add-to-baseline", "CKPT201")
        assert checked(capsys, "--against", "HEAD")[1][-1] == "CKPT908"

    def test_from_a_folder_below(self, capsys, folder, monkeypatch):
        saved("net.json", HEAD), saved("net.manifest.json", HEAD)
        (folder / "deep").mkdir()
        monkeypatch.chdir(folder / "deep")
        assert checked(capsys, "--against", "main")[:2] == (1, ["CKPT201"])

    def test_a_project_below_the_repository_s_root(self, capsys, folder, monkeypatch):
        (folder / "sub").mkdir()
        monkeypatch.chdir(folder / "sub")
        project()
        commit()
        saved("net.json", HEAD), saved("net.manifest.json", HEAD)
        assert checked(capsys, "--against", "HEAD")[:2] == (1, ["CKPT201"])

    def test_no_old_code_is_imported_and_nothing_is_checked_out(self, capsys, folder):
        Path("models.py").write_text("raise SystemExit('this is old code')\n")
        commit()
        Path("models.py").write_text("")
        before = sorted(path for path in folder.rglob("*") if ".git" not in path.parts)
        assert checked(capsys, "--against", "main")[0] == 0
        assert sorted(path for path in folder.rglob("*") if ".git" not in path.parts) == before

    @pytest.mark.parametrize("revision", ["nonsense", "-x", "HEAD:net.json", "main~7"])
    def test_an_unknown_revision(self, capsys, revision):
        result = check(capsys, f"--against={revision}")
        assert (result.status, result.out) == (2, "")
        assert result.err.splitlines() == [
            f"ckptaudit: error: {revision}: is no revision of this repository",
            "hint: fetch it first (in GitHub Actions: actions/checkout with fetch-depth: 0)",
        ]

    def test_a_manifest_that_was_none(self, capsys):
        Path("net.manifest.json").write_text("{}")
        commit()
        saved("net.manifest.json", NET)
        result = check(capsys, "--against", "HEAD")
        assert result.status == 2
        assert "net.manifest.json at HEAD: is not a manifest" in " ".join(result.out.split())

    def test_a_link_is_not_followed(self, capsys):
        Path("link.json").symlink_to("net.manifest.json")
        configure(TARGET.replace("net.manifest.json", "link.json"))
        commit()
        saved("net.json", HEAD), saved("net.manifest.json", HEAD)
        assert checked(capsys, "--against", "HEAD")[:2] == (0, [])


def test_outside_a_repository(capsys, monkeypatch, folder):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(folder.parent))
    project()
    result = check(capsys, "--against", "main")
    assert result.status == 2
    assert result.err.startswith(f"ckptaudit: error: {folder}: is in no repository of git\n")


def test_without_git(capsys, monkeypatch, folder):
    monkeypatch.setenv("PATH", str(folder))
    project()
    result = check(capsys, "--against", "main")
    assert result.status == 2
    assert result.err.startswith("ckptaudit: error: git: cannot be run: ")


def test_against_a_folder(capsys, folder, monkeypatch):
    project(HEAD, HEAD)
    (folder / "old").mkdir()
    saved("old/net.manifest.json", NET)
    for written in ("old/", "./old"):
        assert checked(capsys, "--against", written)[:2] == (1, ["CKPT201"])
    assert "no such folder" in check(capsys, "--against", "older/").err
    (folder / "deep").mkdir()
    monkeypatch.chdir(folder / "deep")
    assert checked(capsys, "--against", "../old")[:2] == (1, ["CKPT201"])


def test_torch_is_not_needed_where_no_target_has_a_model(folder):
    project()
    code = "import sys; sys.modules['torch'] = sys.modules['numpy'] = None; from ckptaudit.cli import main; sys.exit(main(['check']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


class TestManifestsOfTheProject:
    def test_they_are_written_and_checked(self, capsys):
        project(manifest=None)
        assert run(capsys, "manifest", "check").status == 2
        assert run(capsys, "manifest", "write") == (0, "net.manifest.json: 3 tensors of net.json\n", "")
        assert run(capsys, "manifest", "write").out == "net.manifest.json: already that of net.json\n"
        assert run(capsys, "manifest", "check") == (0, "net.manifest.json: is that of net.json, 3 tensors\n", "")
        saved("net.json", HEAD)
        result = run(capsys, "manifest", "check")
        assert result.status == 1
        assert result.lines[0] == "net.manifest.json: is not that of net.json"
        assert result.lines[1].startswith("error[CKPT904] manifest-outdated: ")
        assert "  fc.bias    (10,)     (7,)" in result.lines

    def test_one_target_alone(self, capsys):
        project(text=TARGET + TARGET.replace("targets.net", "targets.other").replace("net.m", "other.m"), manifest=None)
        assert (
            run(capsys, "manifest", "write", "--target", "other").out == "other.manifest.json: 3 tensors of net.json\n"
        )
        assert not Path("net.manifest.json").exists()

    def test_one_that_fails_hides_no_other(self, capsys):
        project(text=TARGET.replace("net", "bad") + TARGET, manifest=None)
        result = run(capsys, "manifest", "write")
        assert (result.status, result.out) == (2, "net.manifest.json: 3 tensors of net.json\n")
        assert result.err.startswith("ckptaudit: error: bad.json: no such file")

    def test_a_target_without_one(self, capsys):
        project(text='[tool.ckptaudit.targets.net]\nmodel = "net.json"\ncheckpoint = "x.pth"\n')
        assert run(capsys, "manifest", "write").err.startswith(
            "ckptaudit: error: pyproject.toml: has no target with a manifest"
        )
        result = run(capsys, "manifest", "write", "--target", "net")
        assert result.err.startswith("ckptaudit: error: pyproject.toml:3: targets.net has no manifest\n")

    def test_a_source_and_a_file(self, capsys):
        saved("a.json", NET)
        describe(NET, source="elsewhere").save("b.json")
        assert run(capsys, "manifest", "check", "a.json", "b.json").status == 0
        saved("b.json", HEAD)
        assert run(capsys, "manifest", "check", "a.json", "b.json").status == 1
        assert run(capsys, "manifest", "check", "a.json").err.startswith("ckptaudit: error: MANIFEST: is missing")
        assert run(capsys, "manifest", "write", "a.json").err.splitlines() == [
            "ckptaudit: error: -o: is missing: where is the manifest to go?",
            "hint: -o a.manifest.json",
        ]
