"""Whatever happens on the way: the old target or the new one, and the source as it was.

CKPTAUDIT_KILLS sets how many conversions are killed (default: 12 of each kind).
"""

from __future__ import annotations

import contextlib
import json
import os
import random as chance
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ckptaudit import CkptauditError, FormatError, UsageError, convert, open_checkpoint
from ckptaudit.formats import base
from ckptaudit.newfile import NewFile

from .support import same

ROOT = Path(__file__).parents[2]
KILLS = int(os.environ.get("CKPTAUDIT_KILLS", "12"))
OLD = {"a": torch.zeros(3), "b": torch.ones(1)}
NEW = {f"layer.{number}.weight": torch.randn(200_000) for number in range(20)}  # 16 MB


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def state_of(target):
    """Load what lies at a target with what everybody uses; None where there is nothing."""
    if not Path(target).exists():
        return None
    if target.endswith(".safetensors"):
        return load_file(target)
    if target.endswith(".pth"):
        return torch.load(target, weights_only=True)
    places = json.loads(Path(target).read_text())["weight_map"]
    shards = {name: load_file(Path(target).parent / name) for name in set(places.values())}
    return {key: shards[name][key] for key, name in places.items()}


def is_one_of(found, *wanted):
    return any(
        found is state if found is None or state is None else same(in_order(found), in_order(state)) for state in wanted
    )


def in_order(state):
    return dict(sorted(state.items()))


TARGETS = {
    "safetensors": ("x.safetensors", {}),
    "torch": ("x.pth", {}),
    "shards": ("x.safetensors.index.json", {"shard_size": "3MB"}),
}


def command(source, target, options):
    arguments = [argument for name, value in options.items() for argument in (f"--{name.replace('_', '-')}", value)]
    return [sys.executable, "-m", "ckptaudit", "convert", source, target, *arguments]


@pytest.mark.parametrize("there", [True, False], ids=["over an old target", "where there is none"])
@pytest.mark.parametrize("kind", TARGETS)
def test_a_kill_at_any_moment_leaves_the_old_target_or_the_new_one(kind, there):
    target, options = TARGETS[kind]
    torch.save(OLD, "old.pth")
    torch.save(NEW, "new.pth")
    source = Path("new.pth").read_bytes()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}

    def start():
        return subprocess.Popen(
            command("new.pth", target, options), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )

    begun = time.perf_counter()
    with start() as process:
        assert process.wait() == 0, process.stderr.read()
    whole = time.perf_counter() - begun
    survivors = []
    for _ in range(KILLS):
        for path in Path().glob("x*"):
            path.unlink()
        if there:
            convert("old.pth", target, **options)
        with start() as process:
            time.sleep(chance.uniform(0.3, 1.1) * whole)
            process.send_signal(signal.SIGKILL)
            process.wait()
        found = state_of(target)
        assert is_one_of(found, OLD if there else None, NEW)
        survivors.append("new" if found is not None and len(found) == len(NEW) else "old")
    print(f"{KILLS} kills: {survivors.count('old')} times the old state, {survivors.count('new')} times the new one")
    assert Path("new.pth").read_bytes() == source
    convert("new.pth", target, **options)  # and the next one cleans up
    assert is_one_of(state_of(target), NEW)
    assert [path.name for path in Path().glob(".*.tmp")] == []


def test_shards_that_a_kill_left_half_published_do_not_keep_their_rest():
    """Killed between two renames: some shards have their names, and the next set takes others."""
    torch.save(NEW, "new.pth")
    target, options = TARGETS["shards"]
    count = len(set(convert("new.pth", target, **options).files)) - 1
    done, rest = (f"x-{number:05d}-of-{count:05d}.safetensors" for number in (1, 2))
    Path(target).unlink()
    Path(rest).rename(f".{rest}.0badcafe.tmp")
    Path(".y-00002-of-00002.safetensors.0badcafe.tmp").touch()  # somebody else's
    convert("new.pth", target, **options)
    assert Path(done).exists()
    assert [str(path) for path in Path().glob(".*.tmp")] == [".y-00002-of-00002.safetensors.0badcafe.tmp"]


@contextlib.contextmanager
def small_disk(folder, size):
    """Mount a file system of so many MiB, where that is allowed."""
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}m", "tmpfs", str(folder)], capture_output=True)
    if done.returncode:
        pytest.skip("mounting a small file system needs more rights than this user has")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.skipif(sys.platform != "linux", reason="mounts a tmpfs")
@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("reserve", [True, False], ids=["told at once", "told on the way"])
def test_a_full_disk_leaves_the_old_target(kind, reserve, tmp_path, monkeypatch):
    name, options = TARGETS[kind]
    torch.save(OLD, "old.pth")
    torch.save(NEW, "new.pth")
    if not reserve:
        monkeypatch.delattr(os, "posix_fallocate")
    with small_disk(tmp_path / "disk", 10) as disk:
        target = str(disk / name)
        convert("old.pth", target, **options)
        before = sorted(os.listdir(disk))
        with pytest.raises(UsageError) as caught:
            convert("new.pth", target, **options)
        assert caught.value.reason == "cannot be written: No space left on device"
        assert caught.value.hint.startswith("it needs ")
        assert is_one_of(state_of(target), OLD)
        assert sorted(os.listdir(disk)) == before


@pytest.mark.parametrize("kind", TARGETS)
def test_a_file_that_may_not_grow_leaves_the_old_target(kind):
    target, options = TARGETS[kind]
    torch.save(OLD, "old.pth")
    torch.save(NEW, "new.pth")
    convert("old.pth", target, **options)
    before = sorted(os.listdir())
    limited = ["bash", "-c", 'ulimit -f 2000; exec "$@"', "bash", *command("new.pth", target, options)]
    done = subprocess.run(limited, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("ckptaudit: error: x") and "cannot be written: File too large" in done.stderr
    assert is_one_of(state_of(target), OLD)
    assert sorted(os.listdir()) == before


def test_a_source_that_vanishes_meanwhile_is_converted_all_the_same():
    torch.save(NEW, "new.pth")

    def vanish(done, total):
        Path("new.pth").unlink(missing_ok=True)

    convert("new.pth", "x.safetensors", progress=vanish)
    assert is_one_of(state_of("x.safetensors"), NEW)


@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("how", ["written to", "cut short"])
def test_a_source_that_changes_meanwhile_is_refused(kind, how):
    target, options = TARGETS[kind]
    torch.save(OLD, "old.pth")
    torch.save(NEW, "new.pth")
    convert("old.pth", target, **options)

    def change(done, total):
        with open("new.pth", "r+b") as file:
            if how == "cut short":
                file.truncate(8_000_000)
            else:
                file.seek(15_000_000)
                file.write(b"changed")
        os.utime("new.pth", ns=(1, 1))

    with pytest.raises(FormatError, match=r"was written to while it was read|was cut short|ends early") as caught:
        convert("new.pth", target, progress=change, verify=False, **options)
    assert caught.value.subject == "new.pth"
    assert is_one_of(state_of(target), OLD)
    assert [path.name for path in Path().glob(".*.tmp")] == []


@pytest.mark.parametrize("kind", TARGETS)
def test_an_interrupt_leaves_the_old_target(kind):
    target, options = TARGETS[kind]
    torch.save(OLD, "old.pth")
    torch.save(NEW, "new.pth")
    convert("old.pth", target, **options)

    def interrupt(done, total):
        if done > total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert("new.pth", target, progress=interrupt, **options)
    assert is_one_of(state_of(target), OLD)
    assert [path.name for path in Path().glob(".*.tmp")] == []


@pytest.mark.parametrize("kind", TARGETS)
def test_what_reads_back_differently_is_not_published(kind, monkeypatch):
    target, options = TARGETS[kind]
    torch.save(OLD, "old.pth")
    torch.save(NEW, "new.pth")
    convert("old.pth", target, **options)
    finish = NewFile.finish

    def corrupt(file):
        finish(file)
        if not file.path.endswith(".json"):
            with open(file.temporary, "r+b") as damaged:
                damaged.seek(-2_000_000 if file._size > 3_000_000 else -500_000, os.SEEK_END)
                byte = damaged.read(1)
                damaged.seek(-1, os.SEEK_CUR)
                damaged.write(bytes([byte[0] ^ 1]))

    monkeypatch.setattr(NewFile, "finish", corrupt)
    with pytest.raises(CkptauditError, match="was written, and reads back differently: ") as caught:
        convert("new.pth", target, **options)
    assert "the disk or the memory of this machine is at fault" in caught.value.hint
    assert is_one_of(state_of(target), OLD)
    assert [path.name for path in Path().glob(".*.tmp")] == []


def test_a_header_that_the_library_refuses_is_not_published(monkeypatch):
    torch.save(OLD, "old.pth")
    finish = NewFile.finish

    def corrupt(file):
        finish(file)
        with open(file.temporary, "r+b") as damaged:
            damaged.write(b"\xff" * 8)

    monkeypatch.setattr(NewFile, "finish", corrupt)
    with pytest.raises(CkptauditError, match="reads back differently: the safetensors library says "):
        convert("old.pth", "x.safetensors")
    assert not Path("x.safetensors").exists()


def test_a_folder_that_is_not_there_or_no_folder():
    torch.save(OLD, "old.pth")
    for target in ("no/where/x.safetensors", "old.pth/x.safetensors"):
        with pytest.raises(UsageError, match="cannot be written: "):
            convert("old.pth", target)
    with pytest.raises(UsageError, match="cannot be read: "):
        convert("old.pth", "no/where/x.safetensors", shard_size=5)


@pytest.mark.skipif(os.geteuid() != 0 or sys.platform != "linux", reason="needs a read-only mount")
def test_a_read_only_target(tmp_path):
    torch.save(OLD, "old.pth")
    torch.save(NEW, "new.pth")
    with small_disk(tmp_path / "disk", 40) as disk:
        convert("old.pth", disk / "x.safetensors")
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        with pytest.raises(UsageError, match="cannot be written: Read-only file system"):
            convert("new.pth", disk / "x.safetensors")
        assert is_one_of(state_of(str(disk / "x.safetensors")), OLD)


def test_an_old_set_of_shards_stays_whole_until_the_new_one_is_there(monkeypatch):
    """Kill the process between any two steps that make something visible."""
    torch.save(OLD, "old.pth")
    torch.save(NEW, "new.pth")
    target, options = TARGETS["shards"]
    publish = NewFile.publish
    for step in range(9):
        for path in Path().glob("x*"):
            path.unlink()
        convert("old.pth", target, **options)
        left = [step]

        def stop(file, left=left):
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
            publish(file)

        monkeypatch.setattr(NewFile, "publish", stop)
        with contextlib.suppress(KeyboardInterrupt):
            convert("new.pth", target, **options)
        monkeypatch.setattr(NewFile, "publish", publish)
        assert is_one_of(state_of(target), NEW if step >= 8 else OLD), step
        open_checkpoint(target)
    assert len(list(Path().glob("x*.safetensors"))) == 7  # the old shard is gone


def test_shards_that_do_not_belong_to_the_target_stay(folder):
    torch.save(OLD, "old.pth")
    convert("old.pth", "x.safetensors", shard_size=8)
    Path("precious.safetensors").write_bytes(b"precious")
    Path("x-00001-of-00009.safetensors").write_bytes(b"another's")
    index = json.loads(Path("x.safetensors.index.json").read_text())
    index["weight_map"]["more"] = "precious.safetensors"
    index["weight_map"]["evil"] = "../x-00001-of-00001.safetensors"
    Path("x.safetensors.index.json").write_text(json.dumps(index))
    convert("old.pth", "x.safetensors", shard_size=8)
    assert Path("precious.safetensors").read_bytes() == b"precious"
    assert Path("x-00001-of-00009.safetensors").read_bytes() == b"another's"
    assert is_one_of(state_of("x.safetensors.index.json"), OLD)
    assert sorted(os.listdir()) == [
        "old.pth",
        "precious.safetensors",
        "x-00001-of-00009.safetensors",
        "x.2-00001-of-00002.safetensors",
        "x.2-00002-of-00002.safetensors",
        "x.safetensors.index.json",
    ]


def test_reading_is_by_the_readers_of_the_package(monkeypatch):
    """What fails there fails the conversion: there is no other way to the bytes of the source."""
    torch.save(OLD, "old.pth")
    monkeypatch.setattr(
        base.ByteSource, "read_into", lambda *_: (_ for _ in ()).throw(OSError(5, "Input/output error"))
    )
    with pytest.raises(OSError, match="Input/output error"):
        convert("old.pth", "x.safetensors")
    assert os.listdir() == ["old.pth"]
