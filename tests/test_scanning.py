"""One verdict per file: what the rules of a scan make of files and folders."""

from __future__ import annotations

import argparse
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ckptaudit.errors import UsageError
from ckptaudit.formats import Limits
from ckptaudit.scanning import EXIT_STATUS, ScanReport, scan

RULES = Path(__file__).parents[1] / "fixtures" / "rules"
STATE = {"w": torch.ones(2)}


class Payload:
    def __reduce__(self) -> tuple[object, ...]:
        return os.system, ("id",)


class Stranger:
    pass


def verdicts(report: ScanReport) -> dict[str, str]:
    return {os.path.basename(file.path): file.verdict for file in report.files}


def findings(report: ScanReport) -> list[tuple[str, str]]:
    return [(graded.finding.rule.code, graded.level) for graded in report.findings]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.pth"


@pytest.mark.parametrize("zipped", [True, False])
def test_a_state_dict_is_safe_in_either_format(path: Path, zipped: bool) -> None:
    torch.save(STATE, path, _use_new_zipfile_serialization=zipped)
    report = scan(path)
    assert (report.ok, report.exit_status, findings(report)) == (True, 0, [])
    (file,) = report.files
    assert (file.verdict, file.size, file.format) == (
        "safe",
        path.stat().st_size,
        "torch-zip" if zipped else "torch-legacy",
    )


def test_what_is_no_state_dict_may_be_safe_all_the_same(path: Path) -> None:
    torch.save({"generator": STATE, "discriminator": STATE}, path)
    assert (scan(path).exit_status, findings(scan(path))) == (0, [])
    torch.save(3, path)
    assert (scan(path).exit_status, findings(scan(path))) == (0, [])


def test_plain_data_outside_the_list_of_torch_are_a_warning(path: Path) -> None:
    torch.save({"args": argparse.Namespace(lr=1), **STATE}, path)
    assert findings(scan(path)) == [("CKPT004", "warning")]
    assert scan(path).ok


def test_code_is_unsafe_and_shown_where_it_lies(path: Path) -> None:
    torch.save({"x": Payload(), **STATE}, path)
    report = scan(path)
    assert (verdicts(report), report.exit_status) == ({"x.pth": "unsafe"}, 1)
    (graded,) = report.findings
    ((name, where, call),) = graded.finding.rows
    assert (graded.finding.rule.code, name, call) == ("CKPT702", "posix.system", "posix.system('id')")
    assert where.startswith("x/data.pkl, byte ")


def test_a_class_of_a_project_is_unsafe(path: Path) -> None:
    torch.save({"x": Stranger(), **STATE}, path)
    assert findings(scan(path)) == [("CKPT701", "error")]
    assert verdicts(scan(path)) == {"x.pth": "unsafe"}


@pytest.mark.parametrize(
    ("code", "verdict"),
    [
        ("CKPT001", "malformed"),
        ("CKPT002", "malformed"),
        ("CKPT003", "malformed"),
        ("CKPT004", "safe"),
        ("CKPT501", "malformed"),
        ("CKPT502", "malformed"),
        ("CKPT503", "malformed"),
        ("CKPT504", "safe"),
        ("CKPT505", "malformed"),
        ("CKPT701", "unsafe"),
        ("CKPT702", "unsafe"),
        ("CKPT703", "incomplete"),
        ("CKPT704", "unsafe"),
        ("CKPT705", "unsafe"),
        ("CKPT706", "safe"),
        ("CKPT707", "safe"),
        ("CKPT708", "unsafe"),
        ("CKPT709", "safe"),
    ],
)
def test_each_rule_leads_to_its_verdict(code: str, verdict: str) -> None:
    (folder,) = RULES.glob(f"{code}/fires")
    checkpoint = max(folder.glob("checkpoint.*"), key=lambda path: len(path.name))
    report = scan(checkpoint)
    assert [graded.finding.rule.code for graded in report.findings] == [code]
    assert (report.files[0].verdict, report.exit_status) == (verdict, EXIT_STATUS[report.files[0].verdict])
    clean = max((folder.parent / "clean").glob("checkpoint.*"), key=lambda path: len(path.name))
    assert findings(scan(clean)) == []


def test_a_folder_is_searched_and_what_is_no_checkpoint_is_counted(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    torch.save(STATE, tmp_path / "sub" / "good.pth")
    torch.save(Payload(), tmp_path / "sub" / "weights")
    save_file(STATE, tmp_path / "fine.safetensors")
    (tmp_path / "notes.txt").write_text("notes")
    report = scan(tmp_path)
    assert verdicts(report) == {"fine.safetensors": "safe", "good.pth": "safe", "weights": "unsafe"}
    assert (report.others, report.exit_status) == (1, 1)
    assert verdicts(scan(tmp_path, exclude=["sub/wei*"])) == {"fine.safetensors": "safe", "good.pth": "safe"}
    assert verdicts(scan(tmp_path, exclude=["*.pth", "weights"])) == {"fine.safetensors": "safe"}


def test_one_bad_file_hides_no_other_and_the_worst_decides(tmp_path: Path) -> None:
    shutil.copy(RULES / "CKPT703" / "fires" / "checkpoint.pth", tmp_path / "incomplete.pth")
    torch.save(Payload(), tmp_path / "bad.pth")
    torch.save(STATE, tmp_path / "good.pth")
    report = scan(tmp_path)
    assert verdicts(report) == {"bad.pth": "unsafe", "good.pth": "safe", "incomplete.pth": "incomplete"}
    assert report.exit_status == 2


def test_what_cannot_be_read_is_incomplete(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pth")
    report = scan(tmp_path / "pipe.pth")
    assert (verdicts(report), report.exit_status) == ({"pipe.pth": "incomplete"}, 2)
    assert report.findings[0].finding.message == "is not a regular file"


def test_a_path_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        scan(tmp_path / "nothing.pth")


def test_an_empty_folder_has_nothing_to_say(tmp_path: Path) -> None:
    assert scan(tmp_path) == ScanReport(())
    assert scan(tmp_path).ok


def test_limits_are_those_of_the_caller(path: Path) -> None:
    torch.save(STATE, path)
    assert verdicts(scan(path, limits=Limits(pickle_opcodes=5))) == {"x.pth": "incomplete"}


def test_a_shard_with_code_makes_its_index_unsafe(tmp_path: Path) -> None:
    torch.save({"x": Payload(), **STATE}, tmp_path / "a.bin")
    index = {"metadata": {}, "weight_map": {"w": "a.bin", "x": "a.bin"}}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    report = scan(tmp_path / "pytorch_model.bin.index.json")
    assert verdicts(report) == {"pytorch_model.bin.index.json": "unsafe"}
    assert report.findings[0].finding.rows[0][1].startswith("a.bin:a/data.pkl, byte ")


def test_the_json_form(path: Path) -> None:
    torch.save({"x": Payload(), **STATE}, path)
    data = scan(path).to_json()
    assert (data["schema"], data["exit_status"], data["integrity"], data["others"]) == ("ckptaudit.scan/1", 1, False, 0)
    (file,) = data["files"]
    assert (file["path"], file["format"], file["verdict"]) == (str(path), "torch-zip", "unsafe")
    (danger,) = [g for g in file["globals"] if g["verdict"] == "dangerous"]
    assert (danger["name"], danger["call"]) == ("posix.system", "posix.system('id')")
    assert [finding["code"] for finding in file["findings"]] == ["CKPT702"]
