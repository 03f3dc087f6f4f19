"""Binary files that are whole or not there."""

from __future__ import annotations

import os
import resource
import signal
import stat
import subprocess
import sys
import textwrap

import pytest

from ckptaudit import newfile
from ckptaudit.errors import UsageError
from ckptaudit.newfile import BUFFER, NewFile


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def put(path, data):
    with NewFile(path, len(data)) as file:
        file.write(data)
        file.finish()
        file.publish()


@pytest.mark.parametrize("size", [0, 1, 4096, BUFFER - 1, BUFFER, BUFFER + 1, 3 * BUFFER + 17])
def test_what_is_written_is_there(size, folder):
    data = os.urandom(size)
    put("a.bin", data)
    assert (folder / "a.bin").read_bytes() == data
    assert os.listdir() == ["a.bin"]
    assert stat.S_IMODE(os.stat("a.bin").st_mode) == 0o666 & ~current_umask()


def current_umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_bytes_may_be_read_right_into_its_buffer(folder):
    data = os.urandom(2 * BUFFER + 5)
    with NewFile("a.bin", len(data)) as file:
        done = 0
        while done < len(data):
            room = file.room(min(700_001, len(data) - done))
            room[:] = data[done : done + len(room)]
            file.filled(len(room))
            done += len(room)
        file.finish()
        file.publish()
    assert (folder / "a.bin").read_bytes() == data


def test_the_old_file_stays_until_the_new_one_is_whole(folder):
    (folder / "a.bin").write_bytes(b"old")
    with NewFile("a.bin", 3) as file:
        file.write(b"new")
        assert (folder / "a.bin").read_bytes() == b"old"
        file.finish()
        assert (folder / "a.bin").read_bytes() == b"old"
        with open("a.bin", "rb") as reader:
            file.publish()
            assert reader.read() == b"old"
    assert (folder / "a.bin").read_bytes() == b"new"


def test_a_failure_leaves_the_old_file_and_nothing_else(folder):
    (folder / "a.bin").write_bytes(b"old")

    def interrupted():
        with NewFile("a.bin", 3) as file:
            file.write(b"ne")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert (os.listdir(), (folder / "a.bin").read_bytes()) == (["a.bin"], b"old")


def test_a_link_is_followed(folder):
    (folder / "real.bin").write_bytes(b"old")
    os.symlink("real.bin", "link.bin")
    put("link.bin", b"new")
    assert os.path.islink("link.bin")
    assert (folder / "real.bin").read_bytes() == b"new"


def test_what_killed_writers_left_is_swept_and_what_living_ones_write_is_not(folder):
    (folder / ".a.bin.0123abcd.tmp").write_bytes(b"left")
    (folder / ".b.bin.0123abcd.tmp").write_bytes(b"another's")
    with NewFile("a.bin", 1) as living:
        put("a.bin", b"new")
        assert set(os.listdir()) == {os.path.basename(living.temporary), ".b.bin.0123abcd.tmp", "a.bin"}
    assert sorted(os.listdir()) == [".b.bin.0123abcd.tmp", "a.bin"]


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("no/folder/a.bin", "cannot be written: No such file or directory"),
        (".", "is not a regular file and is not replaced by one"),
        ("/dev/null", "is not a regular file and is not replaced by one"),
        ("x" * 300, "cannot be written: File name too long"),
    ],
)
def test_a_place_that_cannot_be_written(path, reason):
    with pytest.raises(UsageError) as caught:
        NewFile(path, 1)
    assert (caught.value.subject, caught.value.reason) == (path, reason)


def test_the_longest_name_that_there_can_be(folder):
    put("x" * 255, b"new")
    assert os.listdir() == ["x" * 255]


def run_limited(code, limit):
    """Run code in a process that may write files of at most ``limit`` bytes."""

    def restrict():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    environment = {**os.environ, "PYTHONPATH": os.path.dirname(os.path.dirname(newfile.__file__))}
    command = [sys.executable, "-c", textwrap.dedent(code)]
    return subprocess.run(command, preexec_fn=restrict, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("reserve", [True, False])
def test_a_file_that_may_not_grow_leaves_the_old_one(reserve, folder):
    (folder / "a.bin").write_bytes(b"old")
    code = f"""
    import os
    if not {reserve}:
        del os.posix_fallocate
    from ckptaudit.newfile import NewFile
    from ckptaudit.errors import UsageError
    try:
        with NewFile("a.bin", 5 << 20) as file:
            file.write(bytes(5 << 20))
            file.finish()
            file.publish()
    except UsageError as error:
        print(error)
    """
    done = run_limited(code, 3 << 20)
    assert done.stdout == "a.bin: cannot be written: File too large\n", done.stderr
    assert (os.listdir(), (folder / "a.bin").read_bytes()) == (["a.bin"], b"old")


def test_a_writer_that_is_killed_leaves_the_old_file_and_the_next_one_cleans_up(folder):
    (folder / "a.bin").write_bytes(b"old")
    code = """
    import os, signal
    from ckptaudit.newfile import NewFile
    file = NewFile("a.bin", 5 << 20)
    file.write(bytes(3 << 20))
    os.kill(os.getpid(), signal.SIGKILL)
    """
    assert run_limited(code, resource.RLIM_INFINITY).returncode == -signal.SIGKILL
    assert (len(os.listdir()), (folder / "a.bin").read_bytes()) == (2, b"old")
    put("a.bin", b"new")
    assert (os.listdir(), (folder / "a.bin").read_bytes()) == (["a.bin"], b"new")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write what is read-only")
def test_a_file_that_is_read_only_is_not_replaced(folder):
    (folder / "a.bin").write_bytes(b"old")
    os.chmod("a.bin", 0o444)
    with pytest.raises(UsageError, match="cannot be written: Permission denied"):
        NewFile("a.bin", 3)
    assert os.listdir() == ["a.bin"]
