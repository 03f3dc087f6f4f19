"""The process as a whole: help, version, pipes that close, devices that are full, Ctrl-C, terminals."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import ckptaudit
from ckptaudit.cli import main

from .support import run, saved

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "ckptaudit"]
PLAIN = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR", "COLUMNS")}
ENVIRONMENT = {**PLAIN, "PYTHONPATH": str(ROOT), "TERM": "xterm"}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    saved("net.json", {"fc.weight": (10, 4), "fc.bias": (10,)})
    saved("head.json", {"fc.weight": (7, 4), "fc.bias": (7,)})
    saved("big.json", {f"layer{'x' * i}.weight": (i, 2) for i in range(2000)})


def process(*arguments, shell=False, **options):
    command = arguments[0] if shell else [*COMMAND, *arguments]
    options = {"env": ENVIRONMENT, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.run(command, shell=shell, text=True, check=False, timeout=60, **options)


class TestHelp:
    @pytest.mark.parametrize("width", [40, 80])
    @pytest.mark.parametrize(
        "command",
        [
            [],
            ["diff"],
            ["check"],
            ["inspect"],
            ["manifest"],
            ["manifest", "write"],
            ["manifest", "show"],
            ["manifest", "check"],
            ["explain"],
        ],
    )
    def test_every_help_fits_and_names_its_options(self, command, width, capsys, monkeypatch):
        monkeypatch.setenv("COLUMNS", str(width))
        result = run(capsys, *command, "--help")
        assert (result.status, result.err) == (0, "")
        assert " ".join(result.out.split()).startswith(f"usage: {' '.join(['ckptaudit', *command])} [-h]")
        assert width == 40 or max(map(len, result.lines)) <= width  # the examples are not wrapped
        assert "ckptaudit " in result.out.partition("examples:")[2]

    def test_the_main_help_states_the_exit_status(self, capsys):
        words = " ".join(run(capsys, "--help").out.split())
        assert words.endswith("0 the contract is kept, 1 it is broken, 2 it could not be (fully) checked")

    def test_the_version(self, capsys):
        assert run(capsys, "--version") == (0, f"ckptaudit {ckptaudit.__version__}\n", "")

    def test_abbreviated_options_are_refused(self, capsys):
        assert run(capsys, "diff", "net.json", "net.json", "--cont", "open").status == 2


class TestClosedPipes:
    """``| head -1`` ends quietly, and the status stays that of the verdict."""

    @pytest.mark.parametrize(
        ("arguments", "status"),
        [
            ("manifest show big.json", 0),
            ("diff net.json big.json -v", 1),
            ("diff net.json big.json --format json", 1),
            ("diff --help", 0),
        ],
    )
    def test_the_reader_goes_away(self, arguments, status):
        line = f"{sys.executable} -m ckptaudit {arguments} | true; echo ${{PIPESTATUS[0]}}"
        result = process(line, shell=True, executable="/bin/bash")
        assert (result.stdout, result.stderr) == (f"{status}\n", "")

    def test_a_stream_that_was_never_open(self):
        for end in (">&-", "2>&-", ">&- 2>&-"):
            line = f"{sys.executable} -m ckptaudit diff net.json head.json {end}"
            assert process(line, shell=True).returncode == 1

    @pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
    @pytest.mark.parametrize("arguments", ["diff net.json head.json", "--help", "--version"])
    def test_a_full_device_is_an_error(self, arguments):
        result = process(f"{sys.executable} -m ckptaudit {arguments} > /dev/full", shell=True)
        assert result.returncode == 2
        assert result.stderr == "ckptaudit: error: standard output: cannot be written: No space left on device\n"


def interruptible():
    """Undo what a background job of a shell passes on: SIGINT ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_ctrl_c_ends_with_one_line():
    Path("slow.py").write_text("import time\nopen('started', 'w').close()\ntime.sleep(60)\n")
    child = subprocess.Popen(
        [*COMMAND, "diff", "slow.py", "net.json"],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=interruptible,
    )
    end = time.monotonic() + 60
    while not os.path.exists("started") and time.monotonic() < end:
        time.sleep(0.02)
    os.killpg(child.pid, signal.SIGINT)  # as a terminal does: to the command and to the process that builds the model
    out, err = child.communicate(timeout=20)
    assert (child.returncode, out, err) == (130, "", "ckptaudit: interrupted\n")


class TestEncodings:
    @pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8", "latin-1"])
    @pytest.mark.parametrize("arguments", [["manifest", "show"], ["diff", "net.json"]])
    def test_a_narrow_encoding_is_no_crash(self, encoding, arguments):
        saved("m.json", {"ключ": (2,), "naïve\ud800": (3,)})
        result = subprocess.run(
            [*COMMAND, *arguments, "m.json"],
            env={**ENVIRONMENT, "PYTHONIOENCODING": encoding},
            capture_output=True,
            check=False,
        )
        assert (result.returncode, result.stderr) == (int(arguments[0] == "diff"), b"")
        text = result.stdout.decode(encoding)
        assert ("ключ" if encoding == "utf-8" else r"\u043a\u043b\u044e\u0447") in text
        assert ("naïve" if encoding != "ascii" else r"na\xefve") in text

    def test_a_file_name_that_is_no_text(self):
        result = process("inspect", b"caf\xe9.pth")
        assert result.returncode == 2
        assert result.stderr == "ckptaudit: error: caf\\udce9.pth: no such file\n"


class TestTerminal:
    def on_terminal(self, columns=60, **environment):
        """Run a broken diff on a pseudo terminal; return what it shows."""
        master, slave = pty.openpty()
        os.set_blocking(master, True)
        import fcntl
        import struct
        import termios

        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        process("diff", "net.json", "head.json", stdout=slave, env={**ENVIRONMENT, **environment})
        os.close(slave)
        shown = b""
        while True:
            try:
                part = os.read(master, 65536)
            except OSError:  # the other end is closed and everything is read
                break
            if not part:
                break
            shown += part
        os.close(master)
        return shown.decode().replace("\r\n", "\n")

    def test_colour_and_the_width_of_the_terminal(self):
        shown = self.on_terminal(60)
        assert "\x1b[1;31merror[CKPT201]\x1b[0m shape-mismatch" in shown
        plain = shown.replace("\x1b[1;31m", "").replace("\x1b[0m", "")
        assert "\x1b" not in plain
        assert 50 < max(map(len, plain.splitlines())) <= 60

    @pytest.mark.parametrize("name", ["NO_COLOR", "TERM"])
    def test_no_colour_where_it_is_not_wanted(self, name):
        assert "\x1b" not in self.on_terminal(**{name: "dumb"})

    def test_no_colour_into_a_pipe(self):
        assert "\x1b" not in process("diff", "net.json", "head.json").stdout


def test_help_goes_through_main_as_well(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith("usage: ckptaudit")


def test_the_choices_are_those_of_the_code_they_stand_for():
    """The parser repeats both lists, so that --help imports neither rules nor reports."""
    from ckptaudit import cli, report
    from ckptaudit.rules import Contract

    assert tuple(Contract.__members__) == cli.CONTRACTS
    assert report.FORMATS == cli.FORMATS
    assert report.SCAN_FORMATS == cli.SCAN_FORMATS
