"""``ckptaudit completion``: the scripts, sourced by the shells themselves."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from ckptaudit.cli import CONTRACTS, build_parser
from ckptaudit.cli.completion import words_of

from .support import run

COMMANDS = next(iter(words_of(build_parser()))).commands


@pytest.fixture
def script(capsys, tmp_path):
    def write(shell):
        result = run(capsys, "completion", shell)
        assert (result.status, result.err) == (0, "")
        path = tmp_path / f"ckptaudit.{shell}"
        path.write_text(result.out)
        return path

    return write


def execute(shell, text, folder):
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(folder), "TERM": "dumb"}
    done = subprocess.run([*shell, text], cwd=folder, env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


def bash(script, folder, *words):
    """Complete the last word as bash does: set what was typed, and call the function that `complete` knows."""
    typed = " ".join(f"'{word}'" for word in ("ckptaudit", *words))
    text = f"""source {script}
    complete -p ckptaudit | grep -q -- '-F _ckptaudit' || exit 3
    COMP_WORDS=({typed}); COMP_CWORD={len(words)}; _ckptaudit ckptaudit; printf '%s\\n' "${{COMPREPLY[@]}}" """
    return execute(["bash", "--norc", "-c"], text, folder)


def zsh(script, folder, *words):
    """Complete the last word as zsh does, with its builtin replaced by one that prints."""
    typed = " ".join(f"'{word}'" for word in ("ckptaudit", *words))
    text = f"""compdef() {{ }}; compadd() {{ shift; print -l -- "$@" }}; _files() {{ }}
    source {script}
    words=({typed}); CURRENT={len(words) + 1}; _ckptaudit"""
    offered = execute(["zsh", "-f", "-c"], text, folder)
    return [word for word in offered if word.startswith(words[-1])]


def fish(script, folder, *words):
    text = f"source {script}; complete -C {shlex_join('ckptaudit', *words)!r}"
    return [line for line in execute(["fish", "--no-config", "-c"], text, folder) if line.startswith(words[-1] or "")]


def shlex_join(*words):
    return " ".join(words)


SHELLS = [
    pytest.param(call, id=call.__name__,
                 marks=pytest.mark.skipif(shutil.which(call.__name__) is None, reason=f"{call.__name__} is not installed"))
    for call in (bash, zsh, fish)
]  # fmt: skip


@pytest.mark.parametrize("complete", SHELLS)
class TestShells:
    def test_commands(self, complete, script, tmp_path):
        offered = complete(script(complete.__name__), tmp_path, "")
        assert set(COMMANDS) <= set(offered)
        assert complete(script(complete.__name__), tmp_path, "insp")[0] == "inspect"

    def test_commands_below_a_command(self, complete, script, tmp_path):
        assert {"write", "show", "check"} <= set(complete(script(complete.__name__), tmp_path, "manifest", ""))
        offered = complete(script(complete.__name__), tmp_path, "manifest", "write", "--out")
        assert offered[0] == "--output"

    def test_options_of_a_command_and_of_no_other(self, complete, script, tmp_path):
        offered = complete(script(complete.__name__), tmp_path, "diff", "a.pth", "--")
        assert {"--contract", "--map", "--witness"} <= set(offered)
        assert "--shard-size" not in offered

    def test_values_of_an_option(self, complete, script, tmp_path):
        offered = complete(script(complete.__name__), tmp_path, "diff", "--contract", "")
        assert set(CONTRACTS) <= set(offered)
        assert complete(script(complete.__name__), tmp_path, "completion", "fi")[0] == "fish"

    def test_the_name_of_a_file_is_no_command(self, complete, script, tmp_path):
        offered = complete(script(complete.__name__), tmp_path, "diff", "check", "--aga")
        assert "--against" not in offered


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_bash_offers_files_where_nothing_else_is_known(script, tmp_path):
    assert bash(script("bash"), tmp_path, "inspect", "") == []
    assert bash(script("bash"), tmp_path, "convert", "a", "--shard-size", "") == []
    assert "complete -o default " in script("bash").read_text()


def test_an_unknown_shell(capsys):
    result = run(capsys, "completion", "tcsh")
    assert result.status == 2
    assert "invalid choice: 'tcsh'" in result.err


def test_every_option_and_command_is_known():
    def every(parser):
        for action in parser._actions:
            yield from action.option_strings
            for name, inner in action.choices.items() if hasattr(action, "_name_parser_map") else ():
                yield name
                yield from every(inner)

    known = {word for one in words_of(build_parser()) for word in (*one.commands, *one.options)}
    assert known == set(every(build_parser()))
