"""A short fuzz of every reader, with the same seed in every run; run.py beside this file does the long ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import fuzz_engine
import fuzz_judge
import pytest
import torch
from fuzz_engine import FindingError, Target, fuzz, store
from fuzz_targets import targets

TARGETS = targets()
EXECUTIONS = 300
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module", autouse=True)
def oracle() -> Iterator[None]:
    """End the process that asks torch."""
    yield
    fuzz_judge.ORACLE.close()


@pytest.mark.parametrize("name", TARGETS)
def test_a_reader(name: str) -> None:
    seen = fuzz(TARGETS[name], EXECUTIONS, "a short fuzz")
    assert seen.executions == EXECUTIONS
    assert {kind: detail for kind, (_, detail) in seen.found.items()} == {}
    assert len(seen.outcomes) > 3  # the changes lead somewhere
    if "=" in name:
        assert sum(times for outcome, times in seen.outcomes.items() if outcome.startswith("the same")) >= 5


# The engine itself ---------------------------------------------------------------------------------------------


def raising(error: BaseException) -> Callable[[str], str]:
    def check(path: str) -> str:
        raise error

    return check


def running(path: str) -> str:
    while True:
        pass


def paying(path: str) -> str:
    Path(fuzz_engine.MARKER).touch()
    return "read"


@pytest.mark.parametrize(
    ("check", "kind"),
    [
        (raising(ValueError("no 'x' in 12")), "ValueError in ?: no '…' in N"),
        (raising(RecursionError("deep")), "RecursionError in ?: deep"),
        (raising(MemoryError()), "MemoryError in ?: "),
        (raising(FindingError("another shape")), "another shape"),
        (running, "hangs"),
        (paying, "a payload ran"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_the_engine_sees(
    check: Callable[[str], str], kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(fuzz_engine, "HANGS", 0.2)
    monkeypatch.setattr(fuzz_engine, "MARKER", str(tmp_path / "marker"))
    target = Target("broken", lambda: [{"x": b"seed"}], lambda rng, files, others: files, check)
    seen = fuzz(target, 2, "")
    assert list(seen.found) == [kind]
    assert seen.times[kind] == 2
    store(seen, "broken", tmp_path)
    assert sorted(file.read_bytes() for file in tmp_path.rglob("x")) == [b"seed"]


@pytest.mark.parametrize(("budget", "kind"), [("SECONDS", "slow"), ("MEMORY", "memory")])
def test_the_engine_sees_what_takes_too_much(budget: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz_engine, budget, -1)
    target = Target("greedy", lambda: [{"x": b""}], lambda rng, files, others: files, lambda path: "read")
    assert list(fuzz(target, 1, "").found) == [kind]


def test_the_same_seed_changes_the_same_bytes() -> None:
    for name in ("torch-zip", "torch-tar", "sharded", "manifest", "distributed"):
        target = TARGETS[name]
        seeds = target.seeds()
        first, again = ([target.mutate(rng, seeds[0], seeds) for _ in range(20)] for rng in (Random(1), Random(1)))
        assert first == again


def test_the_judge_sees_another_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask about one file, and let torch load another."""
    ours, theirs = tmp_path / "ours.pt", tmp_path / "theirs.pt"
    torch.save({"a": torch.zeros(2), "b": torch.ones(2)}, ours)
    ask = fuzz_judge.ORACLE.ask
    monkeypatch.setattr(fuzz_judge.ORACLE, "ask", lambda how, path: ask(how, str(theirs)))
    for state, kind in [
        ({"a": torch.zeros(2)}, "other keys"),
        ({"a": torch.zeros(2), "b": torch.ones(3)}, "another shape"),
        ({"a": torch.zeros(2), "b": torch.ones(2, dtype=torch.int32)}, "another dtype"),
        ({"a": torch.zeros(2), "b": torch.ones(2) * 2}, "other bytes"),
        ({"a": torch.zeros(2), "b": torch.ones(2), "c": 1}, "other entries"),
        ({"a": torch.zeros(2), "b": torch.ones(2), "c": {"d": torch.ones(1)}}, "other entries"),
        ({"model": {"a": torch.zeros(2), "b": torch.ones(2)}}, "other keys"),
        (torch.zeros(2), "a state dict that is not loaded"),
    ]:
        torch.save(state, theirs)
        with pytest.raises(FindingError, match=f"^{kind}"):
            TARGETS["torch-zip=torch"].check(str(ours))
    theirs.write_bytes(b"")
    with pytest.raises(FindingError, match=r"^only torch refuses: EOFError"):
        TARGETS["torch-zip=torch"].check(str(ours))
