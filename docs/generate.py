"""Make the pages of docs/rules/ again: python docs/generate.py (needs torch).

Each page is one Rule object and what the command line says to the rule's fixture in fixtures/rules/.
"""

from __future__ import annotations

import contextlib
import io
import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "fixtures")]

import rule_hits  # noqa: E402

from ckptaudit import cli  # noqa: E402
from ckptaudit.model.live import LiveModel  # noqa: E402
from ckptaudit.model.witness import ModelFacts  # noqa: E402
from ckptaudit.report.rule_page import render_rule_markdown, render_rules_markdown  # noqa: E402
from ckptaudit.rules import RULES, Rule  # noqa: E402

PAGES = ROOT / "docs" / "rules"
WIDTH = 80


def command_of(rule: Rule, folder: Path) -> list[str]:
    """Return the arguments with which a user would see the finding, as typed inside the folder."""
    if rule_hits.checkpoint_of(folder).name == "ckptaudit.toml":
        return ["check", *(["--against", "old/"] if (folder / "old").exists() else [])]
    checkpoint, model = rule_hits.checkpoint_of(folder).name, rule_hits.model_of(folder)
    if rule.code in rule_hits.SCANNED:
        return ["scan", "--integrity", checkpoint]
    if (base := rule_hits.base_of(folder)) is not None:
        return ["frozen", base.name, checkpoint, *rule_hits.options_of(folder)]
    if model is None:
        return ["inspect", checkpoint, *(["-v"] if rule.fixed == "note" else [])]
    return ["diff", model.name, checkpoint, *rule_hits.options_of(folder), *(["-v"] if rule.fixed == "note" else [])]


def say(arguments: list[str], folder: Path) -> str:
    """Return what the command prints in that folder, errors last, at the width of the pages."""
    output, errors = io.StringIO(), io.StringIO()
    environment = {"COLUMNS": str(WIDTH), "NO_COLOR": "1"}
    with (
        _inside(folder),
        mock.patch.dict(os.environ, environment),
        mock.patch("ckptaudit.model.process.open_model", _in_this_process),
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(errors),
    ):
        cli.main(arguments)
    return output.getvalue() + errors.getvalue()


@contextlib.contextmanager
def _inside(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def _in_this_process(spec: Any) -> LiveModel:
    """Stand in for the process that builds a model: the same answers, without the start-up time of torch."""
    path = Path(spec.file)
    line = path.read_text().splitlines().index("class Net(nn.Module):") + 1
    witness = LiveModel(rule_hits.built(path))
    vars(witness)["facts"] = ModelFacts(f"{path}:Net", str(path), line)
    return witness


def pages() -> dict[str, str]:
    """Return every page by its file name."""
    found = {"README.md": render_rules_markdown(RULES.values())}
    for rule in RULES.values():
        folder = rule_hits.RULES / rule.code / "fires"
        if (script := rule_hits.checkpoint_of(folder)).name == "train.py":
            command, output = "python train.py", rule_hits.trained(script)[1]
        else:
            arguments = command_of(rule, folder)
            command, output = shlex.join(["ckptaudit", *arguments]), say(arguments, folder)
        found[f"{rule.code}.md"] = render_rule_markdown(rule, command, output)
    return found


if __name__ == "__main__":
    for name, text in pages().items():
        (PAGES / name).write_text(text)
