"""Files that are whole or not there."""

from __future__ import annotations

import os
import stat

import pytest

from ckptaudit.errors import UsageError
from ckptaudit.textfile import refuse_input, write_text


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_what_is_written_is_utf8_whatever_it_holds(folder):
    write_text("a.txt", "ключ \ud800\n")
    assert (folder / "a.txt").read_bytes() == "ключ ".encode() + b"\\ud800\n"


def test_an_older_file_is_replaced_in_one_step(folder):
    (folder / "a.txt").write_text("old")
    with open("a.txt") as reader:
        write_text("a.txt", "new")
        assert reader.read() == "old"  # whoever had it open reads the old file to its end
    assert (folder / "a.txt").read_text() == "new"
    assert os.listdir() == ["a.txt"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failure_leaves_the_older_file_and_nothing_else(error, folder, monkeypatch):
    (folder / "a.txt").write_text("old")

    def fail(*_):
        raise error

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises((UsageError, KeyboardInterrupt)) as caught:
        write_text("a.txt", "new")
    if isinstance(error, OSError):
        assert str(caught.value) == "a.txt: cannot be written: No space left on device"
    assert (os.listdir(), (folder / "a.txt").read_text()) == (["a.txt"], "old")


def test_what_is_no_regular_file_is_never_replaced(folder):
    read, write = os.pipe()
    write_text(f"/dev/fd/{write}", "through a pipe")
    os.close(write)
    assert os.read(read, 100) == b"through a pipe"
    os.close(read)
    write_text("/dev/null", "nothing")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


@pytest.mark.parametrize(
    ("path", "reason"), [("no/folder/a.txt", "No such file or directory"), (".", "Is a directory")]
)
def test_a_place_that_cannot_be_written(path, reason):
    with pytest.raises(UsageError) as caught:
        write_text(path, "x")
    assert (caught.value.subject, caught.value.reason) == (path, f"cannot be written: {reason}")


def test_an_input_is_not_to_be_overwritten_under_any_of_its_names(folder):
    for name in ("net.pth", "model.py"):
        (folder / name).touch()
    os.symlink("net.pth", "link.pth")
    os.link("net.pth", "hard.pth")
    for path, given in [
        ("net.pth", "net.pth"),
        ("./net.pth", "net.pth"),
        ("net.pth", "net.pth#model"),
        ("link.pth", "net.pth"),
        ("hard.pth", "net.pth"),
        ("net.pth", "link.pth"),
        ("model.py", "model.py:Net"),
        ("model.py", "model.py"),
    ]:
        with pytest.raises(UsageError, match="is an input of this command and would be overwritten"):
            refuse_input(path, ["other", given])
    refuse_input("new.pth", ["net.pth"])
    refuse_input("/dev/null", ["/dev/null"])
    refuse_input(".", ["."])
    refuse_input("torchvision.models", ["torchvision.models:resnet18"])
