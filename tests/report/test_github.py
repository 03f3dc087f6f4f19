"""Workflow commands, read as the runner of GitHub reads them: what it would annotate, and that nothing is forged."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from cases import FIXTURES, HOSTILE, NET, every, findings_of, huge, net, reports

from ckptaudit import audit
from ckptaudit.records import replace
from ckptaudit.report import render

COMMAND = re.compile(r"\s*::([\w-]+)(?: (.*?))?::(.*)", re.DOTALL)
OLD_COMMAND = re.compile(r"##\[(error|warning|debug|group|add-mask|save-state|command)\b")


def unescaped(text, *more):
    for code, char in [*more, ("%0D", "\r"), ("%0A", "\n"), ("%25", "%")]:
        text = text.replace(code, char)
    return text


def run(text):
    """Do what the runner does with standard output; return its commands as (name, properties, data), and what it shows."""
    commands, shown, stopped = [], [], None
    for line in text.split("\n"):
        found = COMMAND.match(line)
        if stopped is not None:
            if found and found[1] == stopped:
                stopped = None
            else:
                shown.append(line)
        elif found and found[1] == "stop-commands":
            stopped = found[3]
        elif found:
            pairs = (pair.split("=", 1) for pair in (found[2] or "").split(",") if pair)
            properties = {name: unescaped(value, ("%3A", ":"), ("%2C", ",")) for name, value in pairs}
            commands.append((found[1], properties, unescaped(found[3])))
        else:
            assert not OLD_COMMAND.search(line), line
            shown.append(line)
    assert stopped is None
    return commands, shown


def annotations(text):
    return [command for command in run(text)[0] if command[0] in ("error", "warning", "notice")]


@pytest.mark.parametrize("name", every())
def test_one_annotation_per_finding_and_the_whole_table(name):
    report = every()[name]
    text = render(report, "github")
    commands, shown = run(text)
    assert [command[0] for command in commands][:2] == ["group", "endgroup"]
    assert "\n".join(shown) == render(report, "table")
    levels = [graded.level for graded in findings_of(report)]
    for level, command in (("error", "error"), ("warning", "warning"), ("note", "notice")):
        assert len([one for one in commands if one[0] == command]) == min(levels.count(level), 10)


def test_an_annotation_says_what_and_how_to_mend_it():
    (one, *_) = annotations(render(reports()["mapped"], "github"))
    assert one == (
        "error",
        {"title": "CKPT103 prefix-mismatch"},
        'checkpoint keys carry "module.", model keys do not (3 tensors)\n'
        "- module.fc.*: model fc.*\n"
        "- module.conv.weight: model conv.weight\n"
        "The file was saved from DataParallel or DistributedDataParallel.\n"
        "strict=True raises; strict=False returns, and loads 0 of 3 tensors\n"
        "fix [safe]: --map 'module.* -> *' (then 2 of 3 tensors match)\n"
        "in manifest -> manifest",
    )


def test_it_stands_at_the_line_of_the_code(monkeypatch):
    monkeypatch.chdir(FIXTURES.parent)
    article = FIXTURES / "article"
    lines = {}
    for change in ("changed_head", "changed_input", "delete_layer", "replace_layer", "own_class"):
        report = audit.diff(f"fixtures/article/{change}/model.py", article / "resnet18.pth")
        for _, properties, _ in annotations(render(report, "github")):
            assert properties["file"] == f"fixtures/article/{change}/model.py"
            source = (FIXTURES.parent / properties["file"]).read_text().splitlines()
            lines.setdefault(change, []).append(source[int(properties["line"]) - 1].strip())
    assert lines["changed_head"] == ["model.fc = nn.Linear(model.fc.in_features, num_classes)"]
    assert lines["changed_input"] == [
        "model.conv1 = nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)",
    ]
    assert lines["delete_layer"] == ["del model.layer4"]
    assert lines["replace_layer"][0].startswith("model.layer1 = nn.Sequential(")
    assert "self.head = nn.Linear(512, num_classes)" in lines["own_class"]


def test_paths_are_those_of_the_root(monkeypatch):
    monkeypatch.chdir(FIXTURES / "article")
    report = audit.diff("changed_head/model.py", "resnet18.pth")
    (_, properties, _) = annotations(render(report, "github", root=str(FIXTURES.parent)))[0]
    assert properties["file"] == "fixtures/article/changed_head/model.py"
    (_, properties, _) = annotations(render(report, "github", root="/nowhere"))[0]
    assert "file" not in properties


class TestLimits:
    def test_ten_are_shown_and_more_are_counted(self):
        report = reports()["broken"]
        for count in (9, 10, 11, 40):
            many = replace(report, findings=report.findings[:1] * count)
            found = annotations(render(many, "github"))
            assert len(found) == min(count, 10)
            assert (found[-1][2] == f"{count - 9} more errors: see the log of this step") == (count > 10)

    def test_an_annotation_shows_a_few_rows_and_counts_the_rest(self):
        ((_, _, data),) = annotations(render(huge(2_000), "github"))
        assert "- and 1,990 more rows\n" in data
        assert len(data) < 4_000


def test_no_name_forges_a_command():
    names = [name for name in HOSTILE if "forged" in name]
    report = audit.diff(net(NET), net({**NET, **{name: (size,) for size, name in enumerate(names)}}))
    commands, shown = run(render(report, "github"))
    assert len(commands) == 2 + len(report.findings)
    assert "\n".join(shown) == render(report, "table")
    assert all("forged" not in str(properties) for _, properties, _ in commands)
    assert r"- line\n::error::forged: checkpoint (3,)" in commands[2][2].split("\n")


def test_paths_and_titles_are_escaped(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = "a,b:c%0A::error::x.json"
    net({**NET, "fc.bias": (3,)}).save(name)
    Path("m.json").write_text(Path(name).read_text())
    report = audit.diff(name, net(NET))
    ((_, properties, data),) = annotations(render(report, "github"))
    assert properties["file"] == name
    assert data.endswith(f"in manifest -> {name}")


def test_accepted_findings_are_counted_and_not_annotated():
    text = render(reports()["accepted"], "github")
    assert annotations(text) == []
    assert text.startswith('::group::ckptaudit: contract "strict" kept: 1 accepted\n')
