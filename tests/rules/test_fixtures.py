"""Every rule has a fixture that fires it and one that does not, and every rule is run on all of them."""

import filecmp
import json

import pytest

import ckptaudit
from ckptaudit.rules import RULES

from .support import FIXTURES, arguments_of, diff

import make_rules  # isort: skip
import rule_hits  # isort: skip

HITS = json.loads((FIXTURES / "rules" / "hits.json").read_text())


@pytest.fixture(scope="module")
def observed():
    return rule_hits.hits()


def test_every_rule_has_both_fixtures_and_every_fixture_a_rule():
    folders = sorted(path.name for path in (FIXTURES / "rules").iterdir() if path.is_dir())
    assert folders == list(RULES) == sorted(make_rules.CASES)
    for folder in rule_hits.folders():
        assert rule_hits.checkpoint_of(folder).exists()


def test_fixtures_are_small():
    assert all(path.stat().st_size < 8192 for path in (FIXTURES / "rules").glob("*/*/*"))


@pytest.mark.parametrize("code", RULES)
def test_the_rule_fires_on_one_fixture_and_not_on_the_other(code, observed):
    seen = json.loads(observed)
    assert code in seen[f"{code}/fires"]["findings"]
    assert code not in seen[f"{code}/clean"]["findings"]


def test_no_rule_fires_anywhere_else_than_recorded(observed):
    assert json.loads(observed) == HITS
    assert observed == (FIXTURES / "rules" / "hits.json").read_text()


def test_a_clean_fixture_breaks_nothing_but_the_one_about_leftovers():
    """A file that loads something, and not all, is clean for nothing-loaded alone."""
    broken = [name for name, row in HITS.items() if name.endswith("clean") and row["exit_status"]]
    assert broken == ["CKPT105/clean"]


DISGUISED = "CKPT708/fires/checkpoint.safetensors"


def files_below(root):
    return sorted(str(path.relative_to(root)) for path in root.glob("CKPT*/*/**/*") if path.is_file())


def test_making_the_fixtures_twice_makes_the_same_bytes(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    make_rules.make(one)
    make_rules.make(two)
    names = files_below(one)
    assert names == files_below(two) == files_below(FIXTURES / "rules")
    assert filecmp.cmpfiles(one, two, names, shallow=False)[0] == names
    # What torch.save writes may differ between its versions; everything else is as committed.
    own = [name for name in names if not name.endswith((".pth", ".distcp", ".metadata")) and name != DISGUISED]
    assert filecmp.cmpfiles(one, FIXTURES / "rules", own, shallow=False)[0] == own


COMPARED = [
    folder
    for folder in rule_hits.folders()
    if folder.name == "fires"
    and rule_hits.model_of(folder)
    and folder.parent.name
    not in ("CKPT006", "CKPT906")  # there is no comparison; what disagrees, the witness alone sees
]


@pytest.mark.parametrize("folder", COMPARED, ids=lambda folder: folder.parent.name)
def test_the_fixes_of_a_fixture_work(folder):
    """Carried out together, the fixes leave no error behind but those that have none."""
    model, checkpoint = rule_hits.built(rule_hits.model_of(folder)), str(rule_hits.checkpoint_of(folder))
    given = rule_hits.rules_of(folder)
    before = diff(model, checkpoint, given=given)
    after = diff(model, checkpoint, arguments_of(before), given)
    helpless = {
        g.finding.rule.code
        for g in before.findings
        if g.level == "error" and all(fix.safety == "display" for fix in g.finding.fixes)
    }
    assert {g.finding.rule.code for g in after.findings if g.level == "error"} == helpless


LOADED = [folder for folder in rule_hits.folders() if (folder / "model.py").exists()]


@pytest.mark.parametrize("folder", LOADED, ids=lambda folder: f"{folder.parent.name}/{folder.name}")
def test_torchs_own_load_does_as_the_report_says(folder):
    """Fixtures with a model's code; without the checkpoint's values CKPT905 is undecided, and with them it is not."""
    model = rule_hits.built(rule_hits.model_of(folder))
    report = ckptaudit.diff(
        model, str(rule_hits.checkpoint_of(folder)), mapping=rule_hits.rules_of(folder), witness=True
    )
    assert not report.hearing.unheard
    refused = f"{folder.parent.name}/{folder.name}" in ("CKPT905/fires", "CKPT906/fires")
    assert report.hearing.agrees is not refused
