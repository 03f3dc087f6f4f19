"""Every way a command can fail: the whole sentence on standard error, nothing else, and exit status 2."""

from __future__ import annotations

import argparse
import gzip
import json
import os
import shutil
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from ckptaudit.cli import main

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
    for name, data in FILES.items():
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


class TestModelSpecs:
    def test_several_candidates(self, capsys):
        assert fails(capsys, "diff", "model.py", "good.pth") == [
            "ckptaudit: error: model.py: three candidates and no choice: Encoder (line 5), Net (line 9), "
            "build() (line 15)",
            "hint: ckptaudit diff model.py:Net good.pth",
        ]

    @pytest.mark.parametrize(
        ("spec", "arguments", "reason", "hint"),
        [
            ("model.py:Net", [], "Net() needs 1 argument: num_classes", "--arg num_classes=10"),
            ("model.py:Net", ["--arg", "num_clases=3"], "num_clases", "num_classes"),
            ("model.py:Nett", [], "Nett", "ckptaudit diff model.py:Net good.pth"),
            ("model.py:number", [], "number", ""),
            ("model.py:broken", [], "no such depth: 17", ""),
            ("empty_module.py", [], "empty_module.py", ""),
            ("syntax.py", [], "line 1", ""),
            ("imports.py", [], "no_such_package", ""),
            ("nowhere.py", [], "there is no file nowhere.py", ""),
            ("no_such_package.models:build", [], "no_such_package", ""),
        ],
    )
    def test_a_model_that_cannot_be_built(self, spec, arguments, reason, hint, capsys):
        lines = fails(capsys, "diff", spec, "good.pth", *arguments)
        assert lines[0].startswith("ckptaudit: error: ")
        assert reason in lines[0]
        assert hint in (lines[1] if len(lines) > 1 else "")

    def test_the_hint_works(self, capsys):
        hint = fails(capsys, "diff", "model.py:Net", "good.pth")[1]
        command = hint.removeprefix("hint: ckptaudit ").replace("=10", "=2").split()
        assert main(command) == 1  # built and compared: its keys have another prefix
        assert "prefix-mismatch" in capsys.readouterr().out

    def test_an_argument_without_a_model(self, capsys):
        (first, hint) = fails(capsys, "diff", "good.pth", "good.pth", "--arg", "x=1")
        assert first == "ckptaudit: error: --arg: is for a model spec, and good.pth is none"
        assert hint == "hint: ckptaudit diff model.py:Net CHECKPOINT"


class TestUsage:
    @pytest.mark.parametrize(
        ("arguments", "reason"),
        [
            (["--map", "module.*"], "module.*: is no mapping rule"),
            (["--map", "a.* -> b"], "a.* -> b: has 1 stars on the left and 0 on the right"),
            (["--drop", "fc{"], "fc{: has an opening brace without a closing one"),
            (["--output", "table"], "--output table: is not FORMAT=PATH with one of table, concise, json"),
            (["--output", "json=/no/such/folder/x"], "/no/such/folder/x: cannot be written: No such file or directory"),
        ],
    )
    def test_options_of_diff(self, arguments, reason, capsys):
        assert main(["diff", "good.pth", "good.pth", *arguments]) == 2
        assert capsys.readouterr().err.splitlines()[0] == f"ckptaudit: error: {reason}"

    @pytest.mark.parametrize(
        ("arguments", "reason"),
        [
            (["diff"], "the following arguments are required: MODEL, CHECKPOINT"),
            (["diff", "a", "b", "--contract", "loose"], "argument --contract: invalid choice: 'loose'"),
            (["diff", "a", "b", "--width", "3"], "argument --width: at least 40 columns"),
            (["dif"], "argument COMMAND: invalid choice: 'dif'"),
            (["inspect", "x", "--verb"], "unrecognized arguments: --verb"),
        ],
    )
    def test_arguments(self, arguments, reason, capsys):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 2
        out, err = capsys.readouterr()
        first, hint = err.splitlines()
        assert out == ""
        assert first.startswith(f"ckptaudit: error: arguments: {reason}")
        assert hint.startswith("hint: ckptaudit")
        assert hint.endswith("--help")

    def test_an_unknown_rule(self, capsys):
        assert fails(capsys, "explain", "shape-mismach") == [
            "ckptaudit: error: shape-mismach: is no rule",
            "hint: ckptaudit explain shape-mismatch",
        ]

    def test_no_command_prints_the_help(self, capsys):
        assert main([]) == 2
        assert "ckptaudit diff model.py" in capsys.readouterr().out


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

    def test_a_target_that_cannot_be_written(self, capsys):
        (first,) = fails(capsys, "manifest", "write", "good.pth", "-o", "no/such/folder.json")
        assert first == "ckptaudit: error: no/such/folder.json: cannot be written: No such file or directory"


def test_failures_in_json_are_reports_too(capsys):
    assert main(["diff", "good.pth", "missing.pth", "--format", "json"]) == 2
    out, err = capsys.readouterr()
    report = json.loads(out)
    assert (report["verdict"], report["exit_status"]) == ("unchecked", 2)
    assert report["error"]["subject"] == "missing.pth"
    assert err.startswith("ckptaudit: error: missing.pth: no such file")


def test_one_unreadable_file_does_not_hide_the_others(capsys):
    Path("empty.pth").touch()
    assert main(["inspect", "empty.pth", "good.pth"]) == 2
    out, err = capsys.readouterr()
    assert "good.pth" in out
    assert "empty.pth" in err


def test_debug_shows_the_traceback(capsys):
    with pytest.raises(Exception, match="no such file"):
        main(["diff", "good.pth", "missing.pth", "--debug"])
