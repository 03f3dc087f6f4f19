"""Change, run, judge: what happens to one input, and what many inputs add up to. No format is known here."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import signal
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from fuzz_bytes import MARKER

from ckptaudit.errors import CkptauditError

Files = dict[str, bytes]  # of one input: the first is the one that is opened, the others lie beside it

SECONDS = 1.0  # of processor time one input may take
HANGS = 60  # seconds, on the clock, after which an input is given up
MEMORY = 128 << 10  # KiB by which one input may raise the peak of the process
LARGEST = 1 << 16  # bytes of an input that is kept as a seed
MOST_SEEDS = 1000
_ADDRESS = re.compile(r" at 0x[0-9a-f]{8,}")
_QUOTED = re.compile(r"""b?'(?:[^'\\]|\\.)*'|b?"(?:[^"\\]|\\.)*\"""")


class FindingError(Exception):
    """The property does not hold; ``kind`` groups the findings that have one cause."""

    def __init__(self, kind: str, detail: str = "") -> None:
        super().__init__(f"{kind}\n{detail}")
        self.kind = kind
        self.detail = detail


class _Hang(BaseException):
    """Raised by the alarm; no handler of the reader's catches it."""


@dataclass(frozen=True)
class Target:
    """One reader. ``check`` takes the path of an input and returns its outcome in a few words, or raises FindingError."""

    name: str
    seeds: Callable[[], list[Files]]
    mutate: Callable[[Random, Files, list[Files]], Files]
    check: Callable[[str], str]


@dataclass
class Tally:
    """What was seen. ``found`` maps the kind of a finding to its first input and the details."""

    executions: int = 0
    seconds: float = 0.0
    outcomes: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0
    slowest_input: Files = field(default_factory=dict)
    found: dict[str, tuple[Files, str]] = field(default_factory=dict)
    times: Counter[str] = field(default_factory=Counter)

    def add(self, other: Tally) -> None:
        """Take over what another run has seen."""
        self.executions += other.executions
        self.seconds += other.seconds
        self.outcomes += other.outcomes
        self.times += other.times
        self.found = {**other.found, **self.found}
        if other.slowest > self.slowest:
            self.slowest, self.slowest_input = other.slowest, other.slowest_input


def skeleton(text: str) -> str:
    """Return a message without what differs from input to input: digits, quoted parts, paths."""
    text = _QUOTED.sub("'…'", re.sub(r"/\S*/(?=fuzz-)[^\s:#]*", "PATH", text))
    text = re.sub(r"'…'(?:,? (?:and )?'…')+", "'…'", text)
    return re.sub(r"\d[\d,.]*", "N", text)[:160]


def error_outcome(error: CkptauditError) -> str:
    """Return the kind of an error in a few words."""
    no_address(f"{error.reason} {error.hint}")
    return f"{getattr(error, 'code', type(error).__name__)} {skeleton(error.reason)}"


def no_address(text: str) -> None:
    """Complain about text that differs from run to run."""
    if match := _ADDRESS.search(text):
        raise FindingError("an address of memory in the output", text[max(0, match.start() - 200) : match.end()])


@contextlib.contextmanager
def workplace() -> Iterator[str]:
    """Make the folder inputs are written to, in memory where there is such a place."""
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with tempfile.TemporaryDirectory(prefix="fuzz-", dir=memory) as folder:
        yield folder


def write(folder: str, files: Files) -> str:
    """Write an input and return the path of what is to be opened: its first file, or the folder with a .metadata."""
    for name in set(os.listdir(folder)) - set(files):
        os.unlink(os.path.join(folder, name))
    for name, data in files.items():
        with open(os.path.join(folder, name), "wb") as file:
            file.write(data)
    return folder if ".metadata" in files else os.path.join(folder, next(iter(files)))


def _ring(*_: object) -> None:
    raise _Hang


def execute(target: Target, files: Files, folder: str) -> tuple[str, float]:
    """Run one input; return its outcome and the processor seconds it took. Raises FindingError."""
    path = write(folder, files)
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    signal.signal(signal.SIGALRM, _ring)
    signal.setitimer(signal.ITIMER_REAL, HANGS)
    try:
        outcome = target.check(path)
    except FindingError:
        raise
    except _Hang:
        raise FindingError("hangs", traceback.format_exc()) from None
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        last = [frame for frame in traceback.extract_tb(error.__traceback__) if "ckptaudit" in frame.filename][-1:]
        where = f"{os.path.basename(last[0].filename)}:{last[0].name}" if last else "?"
        raise FindingError(
            f"{type(error).__name__} in {where}: {skeleton(str(error))[:60]}", traceback.format_exc()
        ) from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    seconds = time.process_time() - started
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    if grown > MEMORY:
        raise FindingError("memory", f"the peak rose by {grown:,} KiB; outcome {outcome}")
    if seconds > SECONDS:
        raise FindingError("slow", f"{seconds:.2f} s; outcome {outcome}")
    if os.path.exists(MARKER):
        os.unlink(MARKER)
        raise FindingError("a payload ran", outcome)
    return outcome, seconds


def fuzz(target: Target, executions: int, seed: str) -> Tally:
    """Run changed seeds. What has a new outcome becomes a seed itself, so that later changes go deeper."""
    rng = Random(f"{seed} {target.name}")
    tally = Tally()
    seeds = list(target.seeds())
    originals = len(seeds)
    began = time.monotonic()
    with workplace() as folder:
        for number in range(executions):
            if number < originals:
                files = seeds[number]
            else:
                files = target.mutate(rng, rng.choice(seeds if rng.random() < 0.5 else seeds[:originals]), seeds)
            tally.executions += 1
            try:
                outcome, seconds = execute(target, files, folder)
            except FindingError as finding:
                outcome, seconds = f"FINDING {finding.kind}", 0.0
                tally.found.setdefault(finding.kind, (files, finding.detail))
                tally.times[finding.kind] += 1
            fresh = outcome not in tally.outcomes and number >= originals
            if fresh and len(seeds) < MOST_SEEDS and sum(map(len, files.values())) < LARGEST:
                seeds.append(files)
            tally.outcomes[outcome] += 1
            if seconds > tally.slowest:
                tally.slowest, tally.slowest_input = seconds, files
    tally.seconds = time.monotonic() - began
    return tally


def store(tally: Tally, name: str, out: Path) -> None:
    """Write the inputs of findings, and the slowest input, each into a folder of its own."""
    kept = {kind: (files, detail) for kind, (files, detail) in tally.found.items()}
    kept["slowest"] = (tally.slowest_input, f"{tally.slowest:.3f} s")
    for kind, (files, detail) in kept.items():
        folder = out / name / re.sub(r"\W+", "-", kind)[:80]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "detail.txt").write_text(detail, errors="backslashreplace")
        for file, data in files.items():
            (folder / file).write_bytes(data)
