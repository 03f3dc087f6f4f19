"""README and docs say what is true: every example is run, every link leads somewhere, every list is the code's."""

from __future__ import annotations

import argparse
import ast
import inspect
import json
import re
import runpy
import shlex
import subprocess
from pathlib import Path

import pytest
from examples import (
    FILES,
    NOT_RUN,
    ROOT,
    WIDTH,
    blocks,
    commands,
    execute,
    printed_by,
    reason_not_to_run,
    run,
    workplace,
)

import ckptaudit
from ckptaudit.cli import build_parser
from ckptaudit.cli.mapping import parse_mapping as mapping_of
from ckptaudit.formats import Limits
from ckptaudit.rules import RULES

DOCS = ROOT / "docs"
COMMANDS = [
    command for path in FILES for block in blocks(path) if block.language == "console" for command in commands(block)
]
RUN = [command for command in COMMANDS if reason_not_to_run(command.text) is None]
WITH_CODE = [path for path in FILES if any(block.language == "python" for block in blocks(path))]


def name_of(path):
    return str(path.relative_to(ROOT))


# Examples --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder():
    with workplace() as path:
        yield path


@pytest.mark.parametrize("command", RUN, ids=lambda command: command.place)
def test_a_command_prints_what_the_document_says(command, folder):
    status, output = run(command.text, folder)
    if command.output is None:
        assert status in (0, 1), output
    else:
        assert output == command.output


@pytest.mark.parametrize("path", WITH_CODE, ids=name_of)
def test_python_blocks_run(path, folder, monkeypatch):
    monkeypatch.chdir(folder)
    namespace = {"__name__": "__main__"}
    found = list(blocks(path))
    for block, following in zip(found, [*found[1:], None], strict=False):
        if block.language == "python":
            printed = execute(block, namespace)
            expected = printed_by(block, following)
            assert printed == ("".join(f"{line}\n" for line in expected.lines) if expected else ""), block.place


def test_every_block_is_of_a_known_kind():
    for path in FILES:
        for block in blocks(path):
            assert block.language in ("console", "python", "text", "json", "toml", "yaml"), block.place
            if block.language == "json":
                json.loads("\n".join(block.lines))
            if block.language == "console":
                assert block.lines[0].startswith("$ "), block.place
                free = ("$ ", "ckptaudit: error: ", "hint: ")  # sentences on standard error are not wrapped
                for command in commands(block):
                    table = "" if "--format" in command.text else command.output or ""
                    assert all(len(line) <= WIDTH for line in table.splitlines() if not line.startswith(free)), (
                        block.place
                    )


def test_what_is_not_run_is_known():
    assert {reason_not_to_run(c.text) for c in COMMANDS} - {None} <= set(NOT_RUN.values())
    assert len(RUN) >= 7
    for command in RUN:
        assert "ckptaudit" in command.text.split() or command.text.startswith("ls "), command


def test_the_check_before_a_merge_runs_the_command_of_the_readme():
    script = (ROOT / ".ci" / "run").read_text()
    (extraction,) = re.findall(r"^command=.*$", script, re.MULTILINE)
    shown = f'{extraction}\nprintf %s "$command"'
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", shown], cwd=ROOT, capture_output=True, text=True)
    (readme,) = [c.text for c in COMMANDS if c.place.startswith("README.md") and "-m pytest" in c.text]
    assert done.stdout == readme
    assert readme.endswith(".venv/bin/python -m pytest")


# Links and names -------------------------------------------------------------------------------------------


def anchors(path):
    titles = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


LINKS = [
    (path, link) for path in FILES for link in re.findall(r"\]\(([^)\s]+)\)", path.read_text()) if "://" not in link
]


@pytest.mark.parametrize(
    ("path", "link"), LINKS, ids=lambda value: name_of(value) if isinstance(value, Path) else value
)
def test_a_link_leads_somewhere(path, link):
    file, _, anchor = link.partition("#")
    target = (path.parent / file) if file else path
    assert target.exists()
    assert not anchor or anchor in anchors(target)


def test_every_page_can_be_reached():
    pages = {(path.parent / link.partition("#")[0]).resolve() for path, link in LINKS}
    assert {path for path in FILES if "rules" not in path.parts} - pages <= {ROOT / "README.md"}


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_codes_are_those_of_rules(path):
    assert set(re.findall(r"CKPT\d{3}", path.read_text())) <= set(RULES)


# Tables ----------------------------------------------------------------------------------------------------


def section(path, title):
    """Return the text below a heading, up to the next one of its level or above."""
    text = path.read_text()
    match = re.search(rf"^(#+) {re.escape(title)}$", text, re.MULTILINE)
    assert match, f"{name_of(path)} has no section {title!r}"
    rest = text[match.end() :]
    end = re.search(rf"^#{{1,{len(match[1])}}} ", rest, re.MULTILINE)
    return rest[: end.start()] if end else rest


def rows(text):
    """Return the cells of the tables of a section, without their heads."""
    lines = [line for line in text.splitlines() if line.startswith("| `")]
    return [[cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def ticked(cell):
    return re.findall(r"`([^`]+)`", cell)


def parsers(parser, name="ckptaudit"):
    """Yield every command that takes options of its own, by its full name."""
    nested = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not nested or name == "ckptaudit":
        yield name, [action for action in parser._actions if action not in nested]
    for action in nested:
        for word, inner in action.choices.items():
            yield from parsers(inner, f"{name} {word}")


PARSERS = dict(parsers(build_parser()))
CLI = DOCS / "reference" / "cli.md"


@pytest.mark.parametrize("name", PARSERS)
def test_the_options_of_the_reference_are_those_of_the_parser(name):
    actions = [action for action in PARSERS[name] if "-h" not in action.option_strings]
    own = rows(section(CLI, name))
    common = rows(section(CLI, "Options of every command")) if name != "ckptaudit" else []
    documented = {cells[0]: " ".join(cells) for cells in own + common}
    names = {", ".join(f"`{n}`" for n in a.option_strings or [a.metavar or a.dest]) for a in actions}
    assert names == {re.sub(r"(--?[\w-]+) (?:'[^']*'|[^`\s]+)`", r"\1`", cell) for cell in documented} - {
        "`-h`, `--help`"
    }
    for action in actions:
        text = next(
            t for cell, t in documented.items() if f"`{(action.option_strings or [action.metavar])[-1]}" in cell
        )
        assert all(f"`{choice}`" in text for choice in action.choices or ()), action
        if action.choices and action.default:
            assert f"default `{action.default}`" in text, action


def test_the_environment_of_the_reference_is_that_of_the_code():
    sources = "".join(path.read_text() for path in (ROOT / "ckptaudit").rglob("*.py"))
    read = set(re.findall(r'environ(?:\.get\(|\[)"(\w+)"', sources))
    assert read == {name for cells in rows(section(CLI, "Environment")) for name in ticked(cells[0])}


def test_the_limits_of_the_reference_are_those_of_the_code():
    documented = {ticked(cells[0])[0]: cells[1] for cells in rows(section(DOCS / "reference" / "formats.md", "Limits"))}
    limits = Limits()
    assert documented == {name: f"{getattr(limits, name):,}" for name in Limits.__match_args__}


def test_the_formats_of_the_reference_are_those_of_the_code():
    documented = {ticked(cells[0])[0] for cells in rows(section(DOCS / "reference" / "formats.md", "What is read"))}
    named = re.search(r"``format`` is one of (.*?)\. ", " ".join(ckptaudit.Checkpoint.__doc__.split()))[1]
    assert documented == set(re.findall(r"``([\w-]+)``", named))


API = DOCS / "reference" / "api.md"
SIGNATURES = dict(re.findall(r"^## `(\w+)(.*)`$", API.read_text(), re.MULTILINE)) if API.exists() else {}


def test_the_names_of_the_reference_are_the_public_ones():
    assert set(SIGNATURES) == set(ckptaudit.__all__)


def parameters(signature):
    """Return name, kind and default of each parameter, without annotations."""
    missing = inspect.Parameter.empty
    given = [p for p in signature.parameters.values() if p.name not in ("self", "cls")]
    return [(p.name, p.kind, None if p.default is missing else str(p.default)) for p in given]


def documented_parameters(text):
    (function,) = ast.parse(f"def f{text.partition(' -> ')[0]}: ...").body
    source = f"def f{text.partition(' -> ')[0]}: ..."
    names = {node.id: node.id for node in ast.walk(function) if isinstance(node, ast.Name)}
    namespace = dict(names)
    exec(source, namespace)
    return parameters(inspect.signature(namespace["f"]))


@pytest.mark.parametrize("name", [name for name, text in SIGNATURES.items() if text.startswith("(")])
def test_a_signature_is_that_of_the_code(name):
    value = getattr(ckptaudit, name)
    signature = inspect.signature(value.__init__ if isinstance(value, type) else value)
    expected = [(n, kind, "DEFAULT_LIMITS" if n == "limits" else default) for n, kind, default in parameters(signature)]
    assert documented_parameters(SIGNATURES[name]) == expected


def public_members(value):
    fields = getattr(value, "__match_args__", ())
    return {*fields, *(name for name in vars(value) if not name.startswith("_"))}


@pytest.mark.parametrize("name", [name for name in SIGNATURES if not name.endswith("Error") and name[0].isupper()])
def test_the_members_of_a_class_are_documented(name):
    text = section(API, f"`{name}{SIGNATURES[name]}`")
    documented = {re.match(r"\w+", member)[0] for cells in rows(text) for member in ticked(cells[0])}
    assert documented == public_members(getattr(ckptaudit, name))


@pytest.mark.parametrize("schema", ["manifest", "report", "inspect"])
def test_the_fields_of_a_schema_are_documented(schema):
    path = DOCS / "reference" / f"{schema}.schema.json"
    text = section(DOCS / "reference" / "json.md", f"{json.loads(path.read_text())['$id']}")
    documented = {name for cells in rows(text) for name in ticked(cells[0])}
    assert set(json.loads(path.read_text())["properties"]) <= documented


def test_the_layers_of_the_explanation_are_those_of_the_test():
    layers = runpy.run_path(str(ROOT / "tests" / "test_architecture.py"))["LAYERS"]
    text = section(DOCS / "explanation" / "architecture.md", "The house")
    documented = [set(ticked(cells[0])) for cells in rows(text)]
    assert documented == [{name or "__init__" for name in names} for names in layers]


# The eight changes -----------------------------------------------------------------------------------------

CHANGES = DOCS / "guide" / "changed-models.md"
TABLE = rows(section(CHANGES, "The eight changes")) if CHANGES.exists() else []


def built(name):
    import torch

    code = runpy.run_path(str(ROOT / "fixtures" / "article" / name / "model.py"))
    with torch.device("meta"):
        return (code.get("build_model") or code["Classifier"])()


def test_the_table_has_every_change():
    assert {ticked(cells[0])[-1] for cells in TABLE} == {
        p.parent.name for p in ROOT.glob("fixtures/article/*/model.py")
    }


@pytest.mark.parametrize("cells", TABLE, ids=lambda cells: ticked(cells[0])[-1])
def test_a_line_of_the_table_is_true(cells):
    change, said, hidden, options, then = cells
    model, checkpoint = built(ticked(change)[-1]), str(ROOT / "fixtures" / "article" / "resnet18.pth")
    total = len(model.state_dict())
    report = ckptaudit.diff(model, checkpoint)
    assert re.findall(r"CKPT\d{3}", said) == [g.finding.rule.code for g in report.findings if g.level == "error"]
    outcome = report.outcome_as_is
    assert hidden == (f"loads {outcome.loaded} of {total}" if outcome.non_strict else "raises")
    chosen = build_parser().parse_args(["diff", "MODEL", "CHECKPOINT", *shlex.split(" ".join(ticked(options)))])
    fixed = ckptaudit.diff(model, checkpoint, mapping=mapping_of(chosen.rules or ()), contract=chosen.contract)
    assert fixed.ok
    assert then.startswith(f"{fixed.outcome.loaded} of {total}")
    new = [f"`{k}`" for g in fixed.findings if g.finding.rule.code == "CKPT101" for k in g.finding.keys]
    assert bool(new) == ("new" in then)


# The configuration -----------------------------------------------------------------------------------------

CONFIG = DOCS / "reference" / "config.md"


def test_the_configuration_of_the_reference_is_one():
    from ckptaudit.config import parse_config

    (text,) = ["\n".join(block.lines) for block in blocks(CONFIG) if block.language == "toml"]
    config = parse_config(text, "pyproject.toml")
    assert (len(config.targets), len(config.accepts), config.levels) == (1, 1, {"CKPT301": "error"})


@pytest.mark.parametrize(("title", "place"), [("Keys", ""), ("A target", ".targets.x"), ("An accept", "]")])
def test_the_keys_of_the_reference_are_those_of_the_code(title, place):
    from ckptaudit.config import parse_config

    documented = {name for cells in rows(section(CONFIG, title)) for name in ticked(cells[0])}
    header = f"[[tool.ckptaudit.accept{place}]" if place == "]" else f"[tool.ckptaudit{place}]"
    with pytest.raises(ckptaudit.UsageError) as error:
        parse_config(f"{header}\nnonsense = 1\n", "pyproject.toml")
    assert documented == set(error.value.hint.removeprefix("the keys are ").split(", "))
