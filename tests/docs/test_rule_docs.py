"""docs/rules/ is what the rules and their fixtures say."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from ckptaudit.report.rule_page import render_rule, render_rule_list
from ckptaudit.rules import RULES

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs" / "rules"


@pytest.fixture(scope="module")
def generate():
    spec = importlib.util.spec_from_file_location("generate_docs", ROOT / "docs" / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_no_page_is_stale_or_left_over(generate):
    pages = generate.pages()
    assert sorted(path.name for path in PAGES.iterdir()) == sorted(pages)
    stale = [name for name, text in pages.items() if (PAGES / name).read_text() != text]
    assert not stale, "run: python docs/generate.py"
    assert not [name for name, text in pages.items() if str(ROOT) in text]  # another checkout makes the same pages


def test_the_pages_show_what_the_command_prints(generate):
    """The pages are made without the process that builds models; it would say the same."""
    folder = ROOT / "fixtures" / "rules" / "CKPT403" / "fires"
    arguments = generate.command_of(RULES["CKPT403"], folder)
    environment = {"COLUMNS": "80", "NO_COLOR": "1", "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "ckptaudit", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout + done.stderr == generate.say(arguments, folder)
    assert done.returncode == 1
    assert done.stdout in (PAGES / "CKPT403.md").read_text()


def test_the_output_names_the_rule(generate):
    for code, rule in RULES.items():
        page = (PAGES / f"{code}.md").read_text()
        refused = "ckptaudit: error:" in page
        assert refused or f"[{code}] {rule.name}:" in page


@pytest.mark.parametrize("rule", RULES.values(), ids=lambda rule: rule.code)
@pytest.mark.parametrize("width", [60, 80, 100])
def test_the_terminal_page_keeps_to_its_width_and_says_all(rule, width):
    page = render_rule(rule, width)
    assert max(map(len, page.splitlines())) <= width
    words = " ".join(page.split())
    for text in (rule.code, rule.name, rule.summary, rule.why, rule.fix, f"docs/rules/{rule.code}.md"):
        assert " ".join(text.split()) in words or len(text) > width


def test_the_list_has_every_rule():
    text = render_rule_list(RULES.values(), 100)
    assert all(f"{rule.code}  {rule.name} " in text for rule in RULES.values())
    assert max(map(len, text.splitlines())) <= 100
