"""Every way a command can fail: the whole sentence on standard error, nothing else, and exit status 2."""

from __future__ import annotations

import argparse
import gzip
import json
import os
import shlex
import shutil
import sys
import zipfile
from functools import cached_property
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from ckptaudit.cli import main
from ckptaudit.model.build import build
from ckptaudit.model.describe import manifest_of
from ckptaudit.model.live import LiveModel

ROOT = Path(__file__).parents[1]
STATE = nn.Linear(2, 2).state_dict()
MODEL = """
from torch import nn


class Encoder(nn.Module):
    pass


class Net(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.fc = nn.Linear(2, num_classes)


def build():
    return Net(2)


def broken():
    raise ValueError("no such depth: 17")


number = 3
"""


class Payload:
    def __reduce__(self):
        return (os.system, ("echo it ran > ran.txt",))


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A folder of broken and ambiguous files, as the working directory."""
    monkeypatch.chdir(tmp_path)
    Path("model.py").write_text(MODEL)
    Path("empty_module.py").write_text("x = 1\n")
    Path("syntax.py").write_text("def build(:\n    pass\n")
    Path("imports.py").write_text("import no_such_package\n")
    torch.save(STATE, "good.pth")
    return tmp_path


FROM_TO = "write FROM -> TO, as in 'module.* -> *' or 'blocks.{i}.* -> layers.{i+1}.*'"
OUTPUT = "is not FORMAT=PATH; FORMAT is one of table, concise, json, github, sarif, junit, markdown, html"


def usage_error(capsys, arguments):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    out, err = capsys.readouterr()
    assert out == ""
    return caught.value.code, err.splitlines()


def fails(capsys, *arguments):
    """Run a command that must fail; return its lines on standard error."""
    assert main(list(arguments)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "Traceback" not in err
    return err.splitlines()


FILES = {
    "lfs.pth": b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 102530333\n",
    "page.pth": b"<!DOCTYPE html>\n<html><body>404</body></html>\n",
    "empty.pth": b"",
    "zeros.pth": bytes(4096),
    "hdf5.pth": b"\x89HDF\r\n\x1a\n" + bytes(64),
    "gguf.pth": b"GGUF" + bytes(64),
    "text.pth": b"hello, this is not a checkpoint\n",
}
FILE_ERRORS = {
    "lfs.pth": ("is a git-lfs pointer to a file of 102,530,333 bytes, not the file itself", "git lfs pull"),
    "page.pth": (
        "is a web page (HTML), not a checkpoint",
        "download it from the link to the raw file; this link answered with a web page",
    ),
    "empty.pth": ("is empty (0 bytes)", "download or copy it again; this copy is incomplete"),
}


@pytest.mark.parametrize("command", ["diff", "inspect"])
@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_no_checkpoint_says_what_it_is(name, command, capsys):
    Path(name).write_bytes(FILES[name])
    arguments = [name] if command == "inspect" else ["good.pth", name]
    first, hint = fails(capsys, command, *arguments)
    assert first.startswith(f"ckptaudit: error: {name}: ")
    assert hint.startswith("hint: ")
    if name in FILE_ERRORS:
        assert (first, hint) == (f"ckptaudit: error: {name}: {FILE_ERRORS[name][0]}", f"hint: {FILE_ERRORS[name][1]}")


def test_each_stranger_has_a_sentence_of_its_own(capsys):
    sentences = set()
    for data in FILES.values():
        Path("file.pth").write_bytes(data)
        sentences.add(fails(capsys, "inspect", "file.pth")[0])
    assert len(sentences) == len(FILES)


def test_a_truncated_archive(capsys):
    data = Path("good.pth").read_bytes()
    Path("cut.pth").write_bytes(data[: len(data) // 2])
    assert fails(capsys, "inspect", "cut.pth") == [
        f"ckptaudit: error: cut.pth: is cut short: it begins as a zip archive, but its {len(data) // 2:,} bytes "
        "have no end record",
        "hint: download or copy it again; the file is incomplete",
    ]


def test_a_truncated_safetensors_file(capsys):
    save_file(STATE, "good.safetensors")
    Path("cut.safetensors").write_bytes(Path("good.safetensors").read_bytes()[:-4])
    size = Path("good.safetensors").stat().st_size
    assert fails(capsys, "inspect", "cut.safetensors") == [
        f"ckptaudit: error: cut.safetensors: ends early: it has {size - 4} bytes, its tensors end at byte {size}",
        "hint: download or copy it again; this copy is incomplete",
    ]


def test_a_safetensors_file_called_pt_is_read(capsys):
    save_file(STATE, "called.pt")
    assert main(["inspect", "called.pt"]) == 0
    assert "safetensors" in capsys.readouterr().out


def test_a_gzip_file_names_itself(capsys):
    Path("packed.pth").write_bytes(gzip.compress(Path("good.pth").read_bytes()))
    (first, hint) = fails(capsys, "inspect", "packed.pth")
    assert "gzip" in first
    assert "gunzip" in hint or "gzip -d" in hint


def test_a_zip_that_is_no_checkpoint(capsys):
    with zipfile.ZipFile("other.pth", "w") as archive:
        archive.writestr("hello.txt", "hello")
    (first, _) = fails(capsys, "inspect", "other.pth")
    assert first.startswith("ckptaudit: error: other.pth: ")


def test_a_missing_file_names_its_neighbours(capsys):
    (first, hint) = fails(capsys, "inspect", "god.pth")
    assert first == "ckptaudit: error: god.pth: no such file"
    assert "good.pth" in hint


def test_several_state_dicts_and_no_choice(capsys):
    torch.save({"generator": STATE, "discriminator": nn.Linear(3, 3).state_dict()}, "gan.pth")
    assert fails(capsys, "diff", "good.pth", "gan.pth") == [
        "ckptaudit: error: gan.pth: holds 2 state dicts and no choice: generator (2 tensors), "
        "discriminator (2 tensors)",
        "hint: pick one: ckptaudit inspect 'gan.pth#generator'",
    ]
    assert main(["inspect", "gan.pth#generator"]) == 0
    assert main(["diff", "good.pth", "gan.pth#generator"]) == 0


def test_a_path_that_is_not_in_the_file(capsys):
    torch.save({"model": STATE, "epoch": 3}, "train.pth")
    (first, hint) = fails(capsys, "inspect", "train.pth#ema")
    assert first.startswith("ckptaudit: error: train.pth: has no state dict at 'ema'; it has model (2 tensors)")
    assert hint == "hint: pick one: ckptaudit inspect 'train.pth#model'"


def test_a_file_without_a_state_dict(capsys):
    torch.save([torch.zeros(2)], "list.pth")
    assert fails(capsys, "diff", "good.pth", "list.pth") == [
        "ckptaudit: error: list.pth: holds no state dict: 1 tensor, but no mapping of names to tensors",
        "hint: save a dict of names and tensors, as model.state_dict() returns it",
    ]


@pytest.mark.parametrize(
    ("saved", "words"),
    [
        (Payload(), "posix.system"),
        (nn.Linear(2, 2), "torch.nn.modules.linear.Linear"),
    ],
)
def test_a_pickle_that_names_more_than_data_is_refused_by_name(saved, words, capsys):
    torch.save({"w": torch.zeros(2), "x": saved}, "evil.pth")
    (first, hint) = fails(capsys, "diff", "good.pth", "evil.pth")
    assert words in first
    assert hint.endswith("ckptaudit inspect evil.pth")
    assert main(["inspect", "evil.pth"]) == 1
    assert words in capsys.readouterr().out.replace("\n  ", " ")
    assert not Path("ran.txt").exists()


def test_inert_data_is_read_and_reported(capsys):
    torch.save({"args": argparse.Namespace(lr=1), "state_dict": STATE}, "args.pth")
    assert main(["diff", "good.pth", "args.pth"]) == 1
    assert "CKPT004" in capsys.readouterr().out


def test_shards_that_are_missing_or_elsewhere(capsys):
    Path("shards").mkdir()
    index = Path("shards/model.safetensors.index.json")
    index.write_text(json.dumps({"weight_map": {"a": "model-1.safetensors"}}))
    (first, hint) = fails(capsys, "inspect", str(index))
    assert "model-1.safetensors" in first
    assert hint.startswith("hint: ")
    index.write_text(json.dumps({"weight_map": {"a": "../good.safetensors"}}))
    (first, _) = fails(capsys, "inspect", str(index))
    assert "../good.safetensors" in first


def test_a_folder_without_a_checkpoint(capsys):
    Path("nothing").mkdir()
    (first, hint) = fails(capsys, "inspect", "nothing")
    assert first.startswith("ckptaudit: error: nothing: ")
    assert hint.startswith("hint: ")


class InThisProcess:
    """A witness as the command line opens one, without the seconds that a process of its own takes."""

    def __init__(self, spec):
        self._spec = spec

    @cached_property
    def _built(self):
        return build(self._spec)

    @property
    def manifest(self):
        return manifest_of(self._built.module)

    @property
    def facts(self):
        return self._built.facts

    def try_load(self, checkpoint):
        return LiveModel(self._built.module).try_load(checkpoint)

    def really_load(self, given, limits, mappings):
        return LiveModel(self._built.with_values()).really_load(given, limits, mappings)

    def places(self, keys):
        return self._built.places(keys)

    def close(self):
        pass


@pytest.fixture
def in_process(monkeypatch):
    monkeypatch.setattr("ckptaudit.model.process.open_model", InThisProcess)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    monkeypatch.setattr(sys, "argv", sys.argv)
    known = set(sys.modules)
    yield
    for name in set(sys.modules) - known:
        if str(Path.cwd()) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


@pytest.mark.usefixtures("in_process")
class TestModelSpecs:
    @pytest.mark.parametrize(
        ("spec", "arguments", "reason", "hint"),
        [
            (
                "model.py",
                [],
                "three candidates and no choice: Encoder (line 5), Net (line 9), build() (line 15)",
                "ckptaudit diff model.py:Net good.pth",
            ),
            (
                "model.py:Net",
                [],
                "Net() needs 1 argument: num_classes",
                "ckptaudit diff model.py:Net good.pth --arg num_classes=10",
            ),
            (
                "model.py:Net",
                ["--arg", "num_clases=3"],
                "Net() has no argument 'num_clases'; it takes num_classes",
                "ckptaudit diff model.py:Net good.pth --arg num_classes=3",
            ),
            (
                "model.py:Nett",
                [],
                "model.py has no attribute 'Nett'; the closest is 'Net'",
                "ckptaudit diff model.py:Net good.pth",
            ),
            (
                "model.py:number",
                [],
                "is of type int, neither a torch.nn.Module nor a function that builds one",
                "name a class, a function or an instance: ckptaudit diff model.py:NAME good.pth",
            ),
            (
                "model.py:broken",
                [],
                "broken() raised ValueError: no such depth: 17",
                "for the traceback: ckptaudit diff model.py:broken good.pth --debug",
            ),
            (
                "empty_module.py",
                [],
                "holds no model: no torch.nn.Module class, no function that builds one, no instance",
                "define one there, or name what builds it: ckptaudit diff empty_module.py:NAME good.pth",
            ),
            (
                "syntax.py",
                [],
                "line 1 of syntax.py is not valid Python: invalid syntax",
                "python -m py_compile syntax.py",
            ),
            (
                "imports.py",
                [],
                "imports 'no_such_package', which was not found",
                "pip install no_such_package, or run from the folder that holds it",
            ),
            (
                "nowhere.py",
                [],
                "there is no file nowhere.py",
                "give the path of the file that defines the model, from the current folder",
            ),
            (
                "no_such_package.models:build",
                [],
                "there is no module 'no_such_package'",
                "pip install no_such_package, or run from the folder that holds it",
            ),
        ],
    )
    def test_a_model_that_cannot_be_built(self, spec, arguments, reason, hint, capsys):
        expected = [f"ckptaudit: error: {spec}: {reason}", f"hint: {hint}"]
        assert fails(capsys, "diff", spec, "good.pth", *arguments) == expected
        assert fails(capsys, "diff", "good.pth", spec, *arguments) == expected  # the order does not matter

    @pytest.mark.parametrize(
        ("argument", "reason"),
        [
            ("x", "is not of the form NAME=VALUE"),
            ("1x=2", "'1x' is no argument name"),
        ],
    )
    def test_a_malformed_argument(self, argument, reason, capsys):
        assert fails(capsys, "diff", "model.py:Net", "good.pth", "--arg", argument) == [
            f"ckptaudit: error: --arg {argument}: {reason}",
            "hint: ckptaudit diff model.py:Net good.pth --arg num_classes=10",
        ]

    def test_every_hint_leads_on_until_the_model_is_built(self, capsys):
        shutil.copy("good.pth", "my 'best' file.pth")
        command, followed = ["diff", "model.py", "my 'best' file.pth"], 0
        while main(command) == 2:
            command = shlex.split(capsys.readouterr().err.splitlines()[1].removeprefix("hint: ckptaudit "))
            followed += 1
        assert (followed, command) == (2, ["diff", "model.py:Net", "my 'best' file.pth", "--arg", "num_classes=10"])
        assert "model.py:Net (line 9)" in capsys.readouterr().out

    def test_the_hint_of_the_second_side_names_both(self, capsys):
        hint = fails(capsys, "diff", "model.py:build", "model.py")[1]
        assert hint == "hint: ckptaudit diff model.py:build model.py:Net"

    def test_the_hint_of_manifest_write_names_its_target(self, capsys):
        hint = fails(capsys, "manifest", "write", "model.py", "-o", "a b.json")[1]
        assert hint == "hint: ckptaudit manifest write model.py:Net -o 'a b.json'"

    def test_debug_shows_the_traceback_of_the_users_code(self, capsys):
        assert main(["diff", "model.py:broken", "good.pth", "--debug"]) == 2
        lines = capsys.readouterr().err.splitlines()
        assert '    raise ValueError("no such depth: 17")' in lines
        assert lines[-2] == "ckptaudit: error: model.py:broken: broken() raised ValueError: no such depth: 17"


def test_an_argument_without_a_model(capsys):
    assert fails(capsys, "diff", "good.pth", "good.pth", "--arg", "x=1") == [
        "ckptaudit: error: --arg: is for a model spec, and good.pth is none",
        "hint: leave it out, or name the model's code",
    ]


class TestUsage:
    @pytest.mark.parametrize(
        ("arguments", "subject", "reason", "hint"),
        [
            (["--map", "module.*"], "--map 'module.*'", "is no mapping rule", FROM_TO),
            (["--map", ""], "--map ''", "is no mapping rule", FROM_TO),
            (["--map", "a.* -> b"], "--map 'a.* -> b'", "has 1 stars on the left and 0 on the right", FROM_TO),
            (["--map", "a.* -> {i}*"], "--map 'a.* -> {i}*'", "uses {i} on the right alone", FROM_TO),
            (
                ["--drop", "fc{"],
                "--drop 'fc{'",
                "has an opening brace without a closing one",
                "write a brace that belongs to a key as \\{ or \\}",
            ),
            (["--output", "table"], "--output table", OUTPUT, "write it as --output json=report.json"),
            (["--output", "xml=a b"], "--output 'xml=a b'", OUTPUT, "write it as --output json=report.json"),
            (["--output", "json="], "--output json=", OUTPUT, "write it as --output json=report.json"),
            (
                ["--output", "json=no/such/folder/x"],
                "no/such/folder/x",
                "cannot be written: No such file or directory",
                None,
            ),
            (["--output", "json=."], ".", "cannot be written: Is a directory", None),
            (
                ["--output", "json=./good.pth"],
                "./good.pth",
                "is an input of this command and would be overwritten",
                "name another file",
            ),
        ],
    )
    def test_options_of_diff(self, arguments, subject, reason, hint, capsys):
        before = Path("good.pth").read_bytes()
        expected = [f"ckptaudit: error: {subject}: {reason}"] + ([f"hint: {hint}"] if hint else [])
        assert fails(capsys, "diff", "good.pth", "good.pth", *arguments) == expected
        assert Path("good.pth").read_bytes() == before

    @pytest.mark.parametrize(
        ("arguments", "reason", "program"),
        [
            (["diff"], "the following arguments are required: MODEL, CHECKPOINT", " diff"),
            (["diff", "a", "b", "--width", "3"], "argument --width: 3 is no number of columns from 40 up", " diff"),
            (["diff", "a", "b", "--width", "x"], "argument --width: x is no number of columns from 40 up", " diff"),
            (["diff", "a", "b", "--width", "-5"], "argument --width: -5 is no number of columns from 40 up", " diff"),
            (["inspect", "x", "--verb"], "unrecognized arguments: --verb", ""),
            (["manifest"], "the following arguments are required: ACTION", " manifest"),
            (["diff", "a", "b", "--contract"], "argument --contract: expected one argument", " diff"),
        ],
    )
    def test_arguments(self, arguments, reason, program, capsys):
        status, lines = usage_error(capsys, arguments)
        assert (status, lines) == (2, [f"ckptaudit: error: arguments: {reason}", f"hint: ckptaudit{program} --help"])
        with pytest.raises(SystemExit) as caught:
            main([*program.split(), "--help"])
        assert caught.value.code == 0

    @pytest.mark.parametrize(
        ("arguments", "reason"),
        [
            (["diff", "a", "b", "--contract", "loose"], "argument --contract: invalid choice: 'loose'"),
            (["diff", "a", "b", "--format", "xml"], "argument --format: invalid choice: 'xml'"),
            (["diff", "a", "b", "--color", "blue"], "argument --color: invalid choice: 'blue'"),
            (["dif"], "argument COMMAND: invalid choice: 'dif'"),
            (["manifest", "chek"], "argument ACTION: invalid choice: 'chek'"),
        ],
    )
    def test_choices(self, arguments, reason, capsys):
        status, (first, hint) = usage_error(capsys, arguments)
        assert status == 2
        assert first.startswith(f"ckptaudit: error: arguments: {reason} (choose from ")
        assert hint.endswith("--help")

    @pytest.mark.parametrize(
        ("text", "hint"),
        [
            ("shape-mismach", "ckptaudit explain shape-mismatch"),
            ("ckpt999", "ckptaudit explain CKPT909"),
            ("xyzzy", "list every rule: ckptaudit explain"),
        ],
    )
    def test_an_unknown_rule(self, text, hint, capsys):
        assert fails(capsys, "explain", text) == [f"ckptaudit: error: {text}: is no rule", f"hint: {hint}"]
        assert main(hint.partition("ckptaudit ")[2].split()) == 0

    def test_no_command_prints_the_help_as_an_error(self, capsys):
        assert main([]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert "ckptaudit diff model.py" in err


class TestManifests:
    @pytest.mark.parametrize(
        ("data", "reason"),
        [
            ({"schema": "ckptaudit.manifest/1"}, "tensors is not a list"),
            ({"schema": "ckptaudit.manifest/1", "tensors": [{"key": "a"}]}, "tensors[0] has no shape of"),
            (
                {"schema": "ckptaudit.manifest/1", "tensors": [{"key": "a", "shape": [1], "dtype": "float12"}]},
                "tensors[0] has the unknown dtype 'float12'",
            ),
            (
                {"schema": "ckptaudit.manifest/1", "tensors": [{"key": "a", "shape": [-1], "dtype": "float32"}]},
                "tensors[0] has no shape of non-negative integers",
            ),
        ],
    )
    def test_a_broken_manifest_names_the_fault(self, data, reason, capsys):
        Path("m.json").write_text(json.dumps(data))
        (first, hint) = fails(capsys, "diff", "m.json", "good.pth")
        assert first.startswith(f"ckptaudit: error: m.json: is not a manifest: {reason}")
        assert hint == "hint: write one with: ckptaudit manifest write model.py -o model.manifest.json"

    def test_a_manifest_is_nothing_to_inspect(self, capsys):
        shutil.copy(ROOT / "fixtures" / "resnet50" / "model.manifest.json", "m.json")
        (first, hint) = fails(capsys, "inspect", "m.json")
        assert first == "ckptaudit: error: m.json: is a manifest: it describes a state dict and holds no tensors"
        assert main(hint.removeprefix("hint: ckptaudit ").split()) == 0

    @pytest.mark.parametrize(
        ("target", "reason", "hint"),
        [
            ("no/such/folder.json", "cannot be written: No such file or directory", []),
            (".", "cannot be written: Is a directory", []),
            ("good.pth", "is an input of this command and would be overwritten", ["hint: name another file"]),
            ("./good.pth", "is an input of this command and would be overwritten", ["hint: name another file"]),
        ],
    )
    def test_a_target_that_cannot_be_written(self, target, reason, hint, capsys):
        before = Path("good.pth").read_bytes()
        lines = fails(capsys, "manifest", "write", "good.pth", "-o", target)
        assert lines == [f"ckptaudit: error: {target}: {reason}", *hint]
        assert Path("good.pth").read_bytes() == before

    def test_the_code_of_the_model_is_not_overwritten(self, capsys):
        lines = fails(capsys, "manifest", "write", "model.py:build", "-o", "model.py")
        assert lines[0] == "ckptaudit: error: model.py: is an input of this command and would be overwritten"

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            ('{"schema": "ckptaudit.manifest/1", "tensors": [', "is not valid JSON: Expecting value: line 1 column 48"),
            ('{"schema": "ckptaudit.manifest/2", "tensors": []}', "is not a manifest: schema is not"),
            ('{"a": 1, "a": 2, "schema": "ckptaudit.manifest/1"}', "is not valid JSON: an object names 'a' twice"),
        ],
    )
    def test_a_manifest_that_cannot_be_used(self, text, reason, capsys):
        Path("m.json").write_text(text)
        for command in (["diff", "good.pth", "m.json"], ["diff", "m.json", "good.pth"], ["manifest", "show", "m.json"]):
            first, hint = fails(capsys, *command)
            assert first.startswith(f"ckptaudit: error: m.json: {reason}")
            assert hint == "hint: write one with: ckptaudit manifest write model.py -o model.manifest.json"


def test_failures_in_json_are_reports_too(capsys):
    assert main(["diff", "good.pth", "missing.pth", "--format", "json", "--exit-zero"]) == 2
    out, err = capsys.readouterr()
    report = json.loads(out)
    assert (report["verdict"], report["exit_status"]) == ("unchecked", 2)
    assert report["error"] == {"subject": "missing.pth", "reason": "no such file", "hint": None}
    assert err == "ckptaudit: error: missing.pth: no such file\n"


def test_one_unreadable_file_does_not_hide_the_others(capsys):
    Path("empty.pth").touch()
    assert main(["inspect", "empty.pth", "good.pth", "missing.pth"]) == 2
    out, err = capsys.readouterr()
    assert out.startswith("good.pth   torch-zip")
    assert err.splitlines() == [
        "ckptaudit: error: empty.pth: is empty (0 bytes)",
        "hint: download or copy it again; this copy is incomplete",
        "ckptaudit: error: missing.pth: no such file",
    ]


@pytest.mark.parametrize("command", [["diff", "good.pth", "missing.pth"], ["inspect", "missing.pth"]])
def test_debug_shows_the_traceback_above_the_sentence(command, capsys):
    assert main([*command, "--debug"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-1] == "ckptaudit: error: missing.pth: no such file"


def test_a_fault_of_our_own_is_a_sentence_too(capsys, monkeypatch):
    monkeypatch.setattr("ckptaudit.cli.diff.diff", lambda *_, **__: 1 // 0)
    assert fails(capsys, "diff", "good.pth", "good.pth") == [
        "ckptaudit: error: internal error: ZeroDivisionError: integer division or modulo by zero",
        "hint: run it again with --debug and report the traceback",
    ]


def test_a_file_name_cannot_forge_a_line(capsys):
    assert fails(capsys, "inspect", "a\nckptaudit: error: b\x1b[31m") == [
        "ckptaudit: error: a\\nckptaudit: error: b\\x1b[31m: no such file"
    ]
