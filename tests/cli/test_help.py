"""The examples of every ``--help`` are commands that the parser takes."""

from __future__ import annotations

import argparse
import re
import shlex

import pytest

from ckptaudit.cli import build_parser


def parsers(parser, name="ckptaudit"):
    yield name, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for word, inner in action.choices.items():
                yield from parsers(inner, f"{name} {word}")


PARSERS = dict(parsers(build_parser()))


def examples(parser):
    text = parser.format_help().partition("examples:\n")[2]
    return [re.split(r" {2,}", line.strip())[0] for line in text.splitlines() if line.startswith("  ckptaudit ")]


@pytest.mark.parametrize("name", PARSERS)
def test_every_command_has_examples_that_parse(name, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    found = examples(PARSERS[name])
    assert found
    assert name == "ckptaudit" or any(example.startswith(name) for example in found)
    for example in found:
        words = shlex.split(example)
        words = words[: words.index(">")] if ">" in words else words
        options = build_parser().parse_args(words[1:])
        assert options.command == words[1]


@pytest.mark.parametrize("name", PARSERS)
def test_every_argument_is_explained(name):
    for action in PARSERS[name]._actions:
        assert action.help or action.metavar in ("FILE", "SOURCE", "MANIFEST", "COMMAND", "ACTION"), action
