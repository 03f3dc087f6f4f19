"""Width, colour and streams, decided without a terminal."""

from __future__ import annotations

import io
import os
import sys

import pytest

from ckptaudit.cli import streams
from ckptaudit.cli.streams import terminal_width, wants_colour, write, write_error, write_report
from ckptaudit.errors import UsageError

from .support import run, saved


class Screen(io.StringIO):
    def isatty(self):
        return True


class TestWidth:
    @pytest.fixture(autouse=True)
    def no_columns(self, monkeypatch):
        monkeypatch.delenv("COLUMNS", raising=False)

    def test_into_a_pipe_it_is_100(self):
        assert terminal_width(None) == 100

    @pytest.mark.parametrize(
        ("columns", "width"),
        [("80", 80), ("40", 40), ("7", 40), ("400", 100), ("0", 100), ("-1", 100), ("", 100), ("x", 100), ("²", 100)],
    )
    def test_columns_is_obeyed_within_bounds(self, columns, width, monkeypatch):
        monkeypatch.setenv("COLUMNS", columns)
        assert terminal_width(None) == width

    def test_the_option_wins(self, monkeypatch):
        monkeypatch.setenv("COLUMNS", "80")
        assert terminal_width(160) == 160

    def test_the_terminal_is_asked(self, monkeypatch):
        monkeypatch.setattr(os, "get_terminal_size", lambda *_: os.terminal_size((72, 20)))
        monkeypatch.setattr(sys, "stdout", open(os.devnull, "w"))  # a stream with a file number
        assert terminal_width(None) == 72
        sys.stdout.close()
        assert terminal_width(None) == 100

    def test_without_any_stream(self, monkeypatch):
        monkeypatch.setattr(sys, "stdout", None)
        assert terminal_width(None) == 100


class TestColour:
    @pytest.fixture(autouse=True)
    def plain_environment(self, monkeypatch):
        for name in ("NO_COLOR", "FORCE_COLOR", "CLICOLOR_FORCE"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("TERM", "xterm")

    @pytest.mark.parametrize(
        ("choice", "environment", "stream", "wanted"),
        [
            ("auto", {}, Screen(), True),
            ("auto", {}, io.StringIO(), False),
            ("auto", {}, None, False),
            ("auto", {"TERM": "dumb"}, Screen(), False),
            ("auto", {"NO_COLOR": "1"}, Screen(), False),
            ("auto", {"NO_COLOR": ""}, Screen(), True),  # no-color.org: when present and not an empty string
            ("auto", {"FORCE_COLOR": "1"}, io.StringIO(), True),
            ("auto", {"FORCE_COLOR": ""}, io.StringIO(), False),
            ("auto", {"CLICOLOR_FORCE": "1"}, io.StringIO(), True),
            ("auto", {"CLICOLOR_FORCE": "0"}, io.StringIO(), False),
            ("auto", {"CLICOLOR_FORCE": ""}, io.StringIO(), False),
            ("auto", {"NO_COLOR": "1", "FORCE_COLOR": "1"}, Screen(), False),
            ("always", {"NO_COLOR": "1"}, io.StringIO(), True),
            ("never", {"FORCE_COLOR": "1"}, Screen(), False),
        ],
    )
    def test_who_decides(self, choice, environment, stream, wanted, monkeypatch):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        assert wants_colour(choice, stream) is wanted

    def test_each_level_has_its_own_and_nothing_else_is_coloured(self, capsys):
        write_report("error[A] x\n  error[A] y\nwarning[B] x\nnote[C] x\nerrors\n", "always")
        assert capsys.readouterr().out == (
            "\x1b[1;31merror[A]\x1b[0m x\n  error[A] y\n\x1b[1;33mwarning[B]\x1b[0m x\n\x1b[1;36mnote[C]\x1b[0m x\nerrors\n"
        )

    @pytest.mark.parametrize("command", [["diff", "a.json", "b.json"], ["inspect", "evil.pth"]])
    def test_the_text_without_the_codes_is_the_plain_one(self, command, capsys, tmp_path, monkeypatch):
        import torch
        from torch import nn

        monkeypatch.chdir(tmp_path)
        saved("a.json", {"w": (2,), "x": (3,)})
        saved("b.json", {"w": (3,), "y": (4,)})
        torch.save({"w": torch.zeros(2), "m": nn.Linear(1, 1)}, "evil.pth")
        coloured, plain = (run(capsys, *command, "--color", when).out for when in ("always", "never"))
        assert "\x1b[1;31m" in coloured
        assert coloured.replace("\x1b[1;31m", "").replace("\x1b[1;33m", "").replace("\x1b[0m", "") == plain

    def test_json_is_never_coloured(self, capsys, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        saved("a.json", {"w": (2,)})
        assert "\x1b" not in run(capsys, "diff", "a.json", "a.json", "--format", "json", "--color", "always").out


class TestWriting:
    def test_control_characters_are_shown(self, capsys):
        write_report("a\x1b[31m\x07b\x9bc\x7f\n")
        assert capsys.readouterr().out == "a\\x1b[31m\\x07b\\x9bc\\x7f\n"

    def test_an_encoding_that_is_too_narrow(self):
        stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
        write(stream, "ключ \ud800\n")
        assert stream.buffer.getvalue() == b"\\u043a\\u043b\\u044e\\u0447 \\ud800\n"

    def test_no_stream_at_all(self):
        write(None, "nobody reads this")

    def test_an_error_is_one_line_and_its_hint_another(self, capsys):
        write_error(UsageError("a\nb", "is\tbad", "try\rc"))
        assert capsys.readouterr().err == "ckptaudit: error: a\\nb: is\\tbad\nhint: try\\rc\n"
        write_error(UsageError("a", "is bad"))
        assert capsys.readouterr().err == "ckptaudit: error: a: is bad\n"

    def test_a_foreign_exception_becomes_one_line(self, capsys):
        write_error(ValueError("two\nlines"))
        assert capsys.readouterr().err == (
            "ckptaudit: error: internal error: ValueError: two lines\n"
            "hint: run it again with --debug and report the traceback\n"
        )


def test_long_reports_are_written_part_by_part(capsys, monkeypatch):
    parts = ["a" * 5, "", "b" * 200_000, "é\n", "c" * 65_536, "d"]
    written = []
    monkeypatch.setattr(streams, "write_report", written.append)
    streams.write_pieces(iter(parts))
    assert "".join(written) == "".join(parts)
    assert max(map(len, written)) <= 65_536
    monkeypatch.undo()
    streams.write_pieces(iter(parts))
    assert capsys.readouterr().out == "".join(parts)
