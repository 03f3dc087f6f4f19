from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from .support import run

ROOT = Path(__file__).parents[2]
STATE = {"w": torch.ones(2)}


class Payload:
    def __reduce__(self):
        return os.system, ("touch ran",)


@pytest.fixture(autouse=True)
def weights(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("weights").mkdir()
    save_file(STATE, "weights/a.safetensors")
    torch.save(STATE, "weights/b.pth")
    torch.save({"x": Payload(), **STATE}, "weights/c.pt", _use_new_zipfile_serialization=False)
    Path("weights/notes.txt").write_text("notes")


class TestTable:
    def test_every_file_has_a_row_and_the_last_line_counts(self, capsys):
        result = run(capsys, "scan", "weights")
        assert (result.status, result.err) == (1, "")
        assert result.lines[:4] == [
            "  file                   format        verdict",
            "  weights/a.safetensors  safetensors   safe",
            "  weights/b.pth          torch-zip     safe",
            "  weights/c.pt           torch-legacy  UNSAFE",
        ]
        assert result.lines[-4:] == [
            "3 files: 1 unsafe, 2 safe.",
            "1 other file passed over: no checkpoint by name or content.",
            "Not checked: checksums and values (--integrity).",
            "next: ckptaudit explain CKPT702",
        ]

    def test_code_is_shown_with_its_place_and_its_call(self, capsys):
        result = run(capsys, "scan", "weights/c.pt", "--width", 80)
        assert "error[CKPT702] code-execution: the pickle names what runs code when it is" in result.out
        assert "  posix.system  the object, byte " in result.out
        assert "posix.system('touch ran')" in result.out
        assert not Path("ran").exists()

    def test_all_that_pickles_name_is_shown_on_demand(self, capsys):
        assert "torch.FloatStorage" not in run(capsys, "scan", "weights/b.pth").out
        result = run(capsys, "scan", "weights/b.pth", "-v")
        assert "weights/b.pth: its pickles name" in result.out
        assert "  torch.FloatStorage " in result.out

    @pytest.mark.parametrize(("count", "rows"), [(40, 41), (41, 1)])
    def test_of_many_files_those_that_matter_have_a_row(self, capsys, count, rows):
        Path("many").mkdir()
        for number in range(count - 1):
            save_file(STATE, f"many/{number:02}.safetensors")
        save_file({"../w": torch.ones(2)}, "many/odd.safetensors")
        result = run(capsys, "scan", "many")
        table = [line for line in result.lines if line.startswith("  many/")]
        assert len(table) == min(rows, count)
        assert ("  and 40 more files, safe: add -v" in result.lines) == (count > 40)
        assert len([line for line in run(capsys, "scan", "many", "-v").lines if line.startswith("  many/")]) == count

    def test_no_checkpoint_at_all(self, capsys):
        Path("empty").mkdir()
        result = run(capsys, "scan", "empty")
        assert (result.status, result.out) == (0, "No checkpoint was found.\n")

    def test_names_are_shown_and_not_obeyed(self, capsys):
        Path("weights/\x1b[2J.pth").write_bytes(b"")
        result = run(capsys, "scan", "weights")
        assert "\x1b" not in result.out
        assert "\\x1b[2J.pth" in result.out

    @pytest.mark.parametrize("width", [60, 80, 100])
    def test_no_line_is_wider_than_asked_for(self, capsys, width):
        result = run(capsys, "scan", "weights", "-v", "--width", width)
        assert max(map(len, result.lines)) <= width


class TestOtherFormats:
    def test_concise(self, capsys):
        result = run(capsys, "scan", "weights", "--format", "concise")
        assert result.lines[:3] == ["weights/a.safetensors: safe", "weights/b.pth: safe", "weights/c.pt: unsafe"]
        assert result.lines[3].startswith("weights/c.pt: error CKPT702 code-execution: the pickle names ")
        assert result.lines[4] == "3 files: 1 unsafe, 2 safe."

    def test_json(self, capsys):
        result = run(capsys, "scan", "weights", "--format", "json")
        assert [file["verdict"] for file in result.json["files"]] == ["safe", "safe", "unsafe"]
        assert (result.json["exit_status"], result.status) == (1, 1)


class TestArguments:
    def test_a_path_that_is_not_there_hides_no_other(self, capsys):
        result = run(capsys, "scan", "nowhere.pth", "weights/b.pth")
        assert result.status == 2
        assert result.err == "ckptaudit: error: nowhere.pth: no such file or folder\n"
        assert "1 file: 1 safe." in result.out

    def test_exclude(self, capsys):
        result = run(capsys, "scan", "weights", "--exclude", "c.*", "--format", "concise")
        assert result.status == 0
        assert result.lines[-1] == "2 files: 2 safe."

    def test_limits(self, capsys):
        result = run(capsys, "scan", "weights/b.pth", "--limit", "pickle_opcodes=3")
        assert result.status == 2
        assert "error[CKPT703] scan-incomplete: " in result.out
        assert "INCOMPLETE" in result.out

    @pytest.mark.parametrize(
        ("text", "what", "hint"),
        [
            ("pickle_opcode=3", "pickle_opcode is no limit", "did you mean pickle_opcodes?"),
            ("pickle_opcodes", "gives no number", "--limit pickle_opcodes="),
            ("pickle_opcodes=-1", "gives no number", "--limit pickle_opcodes="),
            ("=3", "it is no limit", "one of "),
        ],
    )
    @pytest.mark.parametrize("command", [["scan"], ["inspect"], ["diff", "weights/a.safetensors"]])
    def test_limits_that_are_none(self, capsys, command, text, what, hint):
        result = run(capsys, *command, "weights/b.pth", "--limit", text)
        assert (result.status, result.out) == (2, "")
        assert result.err.startswith(f"ckptaudit: error: --limit {text}: {what}\nhint: {hint}")

    @pytest.mark.parametrize("command", [["inspect"], ["diff", "weights/a.safetensors"]])
    def test_limits_of_the_other_commands(self, capsys, command):
        result = run(capsys, *command, "weights/b.pth", "--limit", "pickle_opcodes=3")
        assert result.status == 2
        assert "is not read to its end" in result.err


class TestIntegrity:
    def test_values_are_looked_at(self, capsys):
        torch.save({"w": torch.tensor([1.0, float("nan")])}, "weights/b.pth")
        result = run(capsys, "scan", "weights/b.pth", "--integrity")
        assert result.status == 0
        assert "warning[CKPT304] non-finite-value: 1 tensor with values that are NaN or infinite" in result.out
        assert result.lines[-1] == "1 file: 1 safe."

    def test_a_bar_is_for_people_alone(self, capsys, monkeypatch):
        monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
        result = run(capsys, "scan", "weights/b.pth", "--integrity")
        assert result.status == 0
        assert "%|" in result.err
        monkeypatch.setattr("sys.stderr.isatty", lambda: False, raising=False)
        assert run(capsys, "scan", "weights/b.pth", "--integrity").err == ""


def test_scanning_needs_neither_torch_nor_numpy_nor_anything_else(tmp_path):
    code = (
        "import sys; from ckptaudit.cli import main; status = main(sys.argv[1:]);"
        "heavy = [m for m in ('torch', 'numpy', 'tabulate', 'tqdm', 'safetensors', 'pickle', 'zipfile') if m in sys.modules];"
        "print(heavy); sys.exit(status)"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", code, "scan", str(tmp_path / "weights"), "--format", "json"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1, done.stderr
    text, _, heavy = done.stdout.rstrip().rpartition("\n")
    assert heavy == "[]"
    assert json.loads(text)["exit_status"] == 1
