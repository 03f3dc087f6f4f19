"""What was judged, part by part; where a finding lies; the registry of formats."""

from __future__ import annotations

from pathlib import Path

import pytest
from cases import HOSTILE, NET, RESNET50, checks, every, findings_of, hostile, huge, net, reports, scans

from ckptaudit import audit
from ckptaudit.place import Place
from ckptaudit.report import FORMATS, SCAN_FORMATS, render
from ckptaudit.report.parts import counted, inside, parts_of, plain_lines, uri
from ckptaudit.scanning import ScanReport


@pytest.mark.parametrize("name", reports())
def test_every_format_renders_every_report_and_always_the_same(name):
    report = reports()[name]
    for form in FORMATS:
        text = render(report, form)
        assert text.endswith("\n")
        assert text == render(report, form)


@pytest.mark.parametrize("name", scans())
def test_every_format_renders_every_scan(name):
    report = scans()[name]
    assert all(render(report, form).endswith("\n") for form in SCAN_FORMATS)


def test_no_finding_is_lost():
    for report in every().values():
        found = [one.graded for part in parts_of(report) for one in part.findings]
        assert found == findings_of(report)


def test_several_reports_are_so_many_parts():
    several = [reports()["kept"], scans()["safe"], reports()["broken"]]
    assert [part.exit_status for part in parts_of(several)] == [0] * len(scans()["safe"].files) + [0, 1][0:1] + [1]


def test_a_scan_of_nothing_has_no_parts():
    assert parts_of(ScanReport(())) == ()


def test_the_subject_does_not_move_with_the_lines_of_the_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = "from torch import nn\n\nclass Net(nn.Linear):\n    def __init__(self):\n        super().__init__(2, 2)\n"
    subjects = set()
    for blank in ("", "\n\n"):
        Path("model.py").write_text(blank + source)
        report = audit.diff("model.py", net({"weight": (2, 3), "bias": (2,)}))
        (part,) = parts_of(report)
        subjects.add(part.subject)
        assert part.findings[0].places[0] == Place("model.py", 3 + len(blank))
    assert subjects == {"manifest -> model.py:Net"}


class TestPlaces:
    def test_the_file_comes_first_where_it_is_at_fault(self):
        report = audit.diff(RESNET50 / "model.manifest.json", RESNET50 / "dataparallel.pth")
        (part,) = parts_of(report)
        places = {one.graded.finding.rule.code: one.places for one in part.findings}
        files = [Place(str(RESNET50 / name), 1) for name in ("dataparallel.pth", "model.manifest.json")]
        assert places["CKPT106"] == tuple(files)
        assert places["CKPT201"] == tuple(files[::-1])

    def test_paths_below_the_root_are_relative(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        Path("sub").mkdir()
        monkeypatch.chdir("sub")
        assert inside(Place("m.py", 1), ".") == "m.py"
        assert inside(Place("m.py", 1), str(tmp_path)) == "sub/m.py"
        assert inside(Place("../m.py", 1), ".") is None
        assert inside(Place(f"{tmp_path}x/m.py", 1), str(tmp_path)) is None
        assert uri(Place("a b#%?.py", 1), ".") == ("a%20b%23%25%3F.py", True)
        assert uri(Place("/etc/ü.py", 1), ".") == ("file:///etc/%C3%BC.py", False)
        assert uri(Place("caf\udce9.pth", 1), ".") == ("caf%E9.pth", True)


class TestPlainLines:
    def test_more_rows_than_shown_are_counted(self):
        (one,) = huge(50).findings
        lines = plain_lines(one, 10)
        assert [line for line in lines if line.startswith("- ")][10] == "- and 40 more rows"
        assert lines[0] == "50 tensors with another shape in the model"

    def test_no_name_makes_a_line_or_acts(self):
        lines = [line for graded in hostile().findings for line in plain_lines(graded, 100)]
        assert all(line.isprintable() for line in lines)
        assert sum(line.startswith("- ") for line in lines) >= len(HOSTILE) - 2  # some fold


def test_counts():
    assert counted(parts_of(reports()["broken"])) == "3 errors"
    assert counted(parts_of(reports()["accepted"])) == "1 accepted"
    assert counted(parts_of(reports()["kept"])) == "no findings"
    assert counted(parts_of([reports()["broken"], audit.diff(net(NET), net(NET))])) == "3 errors"


class TestChecks:
    def test_a_part_for_each_report_and_one_for_the_configuration(self):
        *parts, config = parts_of(checks()["missing"])
        assert [(part.subject.partition(":")[0], part.exit_status, part.compared) for part in parts] == [
            ("net", 1, True),
            ("two", 2, False),
            ("three", 2, False),
            ("three", 0, True),
        ]
        assert (config.subject.rpartition("/")[2], config.exit_status) == ("ckptaudit.toml", 0)

    def test_a_finding_on_the_configuration_stands_at_its_line(self):
        *_, config = parts_of(checks()["unused"])
        (one,) = config.findings
        assert one.graded.finding.rule.name == "unused-accept"
        assert (Path(one.places[0].file).name, one.places[0].line) == ("ckptaudit.toml", 4)
