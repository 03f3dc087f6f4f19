"""Hold `ckptaudit scan` against other scanners: python tests/benchmarks/scanners.py [--write].

Every tool reads every file of a set of hostile and control files in a process of its own; for one file the tools run
in turn, so that the ratios of their times are those of pairs. The other scanners are installed in a temporary folder.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from scanner_tools import PACKAGES, REQUIREMENTS, Outcome, Tool, Verdict, floor, target, tools

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "explanation" / "safety.md"
SECTION = Path(__file__).with_name("scanners.section.md")
BEGIN, END = "<!-- scanners: begin -->", "<!-- scanners: end -->"
ROUNDS, SECONDS, FOLDER_SECONDS, GIBIBYTES = 3, 30, 300, 8
FLOOR = "`python -c pass`"

# A process is charged with the largest size its parent ever had, so that a small one starts what is measured.
LAUNCHER = """
import os, resource, signal, sys, time
seconds, space, output, *command = sys.argv[1:]
resource.setrlimit(resource.RLIMIT_AS, (int(space), int(space)))
files = [(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
         (os.POSIX_SPAWN_OPEN, 1, output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600),
         (os.POSIX_SPAWN_DUP2, 1, 2)]
start = time.perf_counter()
child = os.posix_spawn(command[0], command, os.environ, file_actions=files, setpgroup=0)
signal.signal(signal.SIGALRM, lambda *_: os.killpg(child, signal.SIGKILL))
signal.setitimer(signal.ITIMER_REAL, float(seconds))
_, status, usage = os.wait4(child, 0)
print(time.perf_counter() - start, usage.ru_maxrss, os.waitstatus_to_exitcode(status))
"""

Case = dict[str, Any]
GROUPS: dict[str, Callable[[Case], bool]] = {
    "live payloads": lambda case: case["live"],
    "others to refuse": lambda case: case["expect"] == "refuse" and not case["live"],
    "suspicious": lambda case: case["expect"] == "flag",
    "legitimate": lambda case: case["expect"] == "fine",
}


class Run(NamedTuple):
    """One process: seconds on the clock, MiB of peak memory, and what it said."""

    wall: float
    peak: float
    outcome: Outcome


class Row(NamedTuple):
    """What one tool made of one file: its verdict, its exit status (None: stopped), and a run for every round."""

    verdict: Verdict | None
    status: int | None
    runs: list[Run]

    @property
    def wall(self) -> float:
        return median(run.wall for run in self.runs)

    @property
    def peak(self) -> float:
        return max(run.peak for run in self.runs)


Results = dict[str, dict[str, Row]]  # file -> tool -> row


# Processes ------------------------------------------------------------------------------------------------


def measure(command: Sequence[str], folder: Path, seconds: float = SECONDS) -> Run:
    """Run a command in an empty folder, with a limit of time and of address space."""
    output, report = folder / "output", folder / "report.json"
    report.unlink(missing_ok=True)
    launcher = [sys.executable, "-I", "-S", "-c", LAUNCHER, str(seconds), str(GIBIBYTES << 30), str(output)]
    done = subprocess.run([*launcher, *command], cwd=folder, stdout=subprocess.PIPE, text=True, check=True)
    wall, peak, status = done.stdout.split()
    stopped = float(wall) >= seconds
    said = output.read_text(errors="replace")
    written = report.read_text(errors="replace") if report.exists() else ""
    return Run(float(wall), int(peak) / 1024, Outcome(None if stopped else int(status), said, written))


def freeze(folder: Path) -> None:
    """Copy ckptaudit and let every process import the copy: a change of the sources must not split the run in two."""
    shutil.copytree(ROOT / "ckptaudit", folder / "ckptaudit")
    os.environ["PYTHONPATH"] = str(folder)
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def install(folder: Path) -> Path:
    """Make a virtual environment with the other scanners; return its interpreter."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = folder / "bin" / "python"
    subprocess.run([str(python), "-m", "pip", "install", "--quiet", *REQUIREMENTS], check=True)
    return python


def versions(python: Path) -> str:
    """Return the names and versions of the scanners that are compared."""
    code = "import sys, importlib.metadata as m; print(*(f'{n} {m.version(n)}' for n in sys.argv[1:]), sep=', ')"
    done = subprocess.run([str(python), "-c", code, *PACKAGES], check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout.strip()


def run_case(rows: Sequence[Tool], files: Path, case: str, folder: Path, rounds: int) -> dict[str, Row]:
    """Run every tool on one file, in turn and `rounds` times; what took seconds is not repeated."""
    runs: dict[str, list[Run]] = {FLOOR: [], **{tool.name: [] for tool in rows}}
    for number in range(rounds):
        runs[FLOOR].append(measure(floor(), folder))
        for tool in rows:
            if not number or runs[tool.name][0].wall < 5:
                command = tool.command(target(tool, files, case), folder / "report.json")
                runs[tool.name].append(measure(command, folder))
    found = {FLOOR: Row(None, 0, runs[FLOOR])}
    for tool in rows:
        outcome = runs[tool.name][0].outcome
        verdict = "error" if outcome.status is None else tool.verdict(outcome)
        found[tool.name] = Row(verdict, outcome.status, runs[tool.name])
    return found


def run_folder(rows: Sequence[Tool], files: Path, folder: Path, rounds: int) -> dict[str, Row]:
    """Run every tool once a round on a whole folder."""
    runs: dict[str, list[Run]] = {tool.name: [] for tool in rows}
    for _ in range(rounds):
        for tool in rows:
            runs[tool.name].append(measure(tool.command(files, folder / "report.json"), folder, FOLDER_SECONDS))
    return {name: Row(None, found[0].outcome.status, found) for name, found in runs.items()}


def copy_legitimate(cases: Sequence[Case], files: Path, folder: Path) -> Path:
    """Copy the legitimate files into a folder that no tool has a reason to stumble over."""
    folder.mkdir()
    for case in filter(GROUPS["legitimate"], cases):
        top = case["file"].split("/")[0]
        (shutil.copytree if (files / top).is_dir() else shutil.copy2)(files / top, folder / top)
    return folder


# Tables ---------------------------------------------------------------------------------------------------


def table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Return a table in markdown."""
    shown = [f"| {' | '.join(line)} |" for line in (head, *lines)]
    return "\n".join([shown[0], f"|{'---|' * len(head)}", *shown[1:]])


def verdict_lines(cases: Sequence[Case], results: Results) -> Iterator[list[str]]:
    """Yield for every group of files and every tool how many files got which verdict."""
    for group, member in GROUPS.items():
        files = [case["file"] for case in cases if member(case)]
        names = [name for name in results[files[0]] if name != FLOOR] if files else []
        for name in names:
            rows = [results[file][name] for file in files]
            count = Counter(row.verdict for row in rows)
            unread = count["not scanned"] + count["error"]
            passes = sum(row.status == 0 for row in rows)
            shown = [count["dangerous"], count["suspicious"], unread, count["clean"], passes]
            title = f"**{group}, {len(files)}**" if name == names[0] else ""
            yield [title, name, *map(str, shown)]


def alarms(cases: Sequence[Case], results: Results) -> str:
    """Return for every tool how many legitimate files it speaks against, where the set allows no such word."""
    words = {"dangerous": "refuse", "suspicious": "flag"}
    legitimate = [case for case in cases if GROUPS["legitimate"](case)]
    count = {name: 0 for name in next(iter(results.values())) if name != FLOOR}
    for case in legitimate:
        for name in count:
            word = words.get(str(results[case["file"]][name].verdict))
            count[name] += word is not None and word not in case["also"]
    return ", ".join(f"{name} {number}" for name, number in count.items())


def time_lines(results: Results) -> Iterator[list[str]]:
    """Yield for every tool its time and memory a file, and the ratio to the first tool over all pairs of runs."""
    first = next(iter(results.values()))
    names = list(first)
    ours = names[1]
    for name in names:
        rows = [found[name] for found in results.values()]
        pairs = [
            theirs.wall / our.wall
            for found in results.values()
            for theirs, our in zip(found[name].runs, found[ours].runs, strict=False)
        ]
        walls, peaks = [row.wall for row in rows], [row.peak for row in rows]
        yield [name, ms(median(walls)), ms(max(walls)), mib(median(peaks)), mib(max(peaks)), f"{median(pairs):.1f}"]


def folder_lines(everything: dict[str, Row], legitimate: dict[str, Row]) -> Iterator[list[str]]:
    """Yield for every tool how it came through the whole folder, and through the legitimate files alone."""
    for name, row in everything.items():
        alone = legitimate[name]
        yield [name, ms(row.wall), ending(row), ms(alone.wall), mib(alone.peak), ending(alone)]


def ending(row: Row) -> str:
    """Return how a run over a folder ended. Both picklescan and modelscan say so where an exception ends it."""
    if row.status is None:
        return f"stopped after {FOLDER_SECONDS} s"
    broke = re.search("^(Unhandled exception|Exception: )", row.runs[0].outcome.output, re.M)
    return "broke off" if broke else f"exit {row.status}"


def ms(seconds: float) -> str:
    """Return a time in milliseconds."""
    return f"{1000 * seconds:,.0f} ms"


def mib(peak: float) -> str:
    """Return a size in MiB."""
    return f"{peak:,.0f} MiB"


def section(cases: Sequence[Case], results: Results, folders: Sequence[dict[str, Row]], names: str) -> str:
    """Fill in the template of the section; the folders are that of all files and that of the legitimate ones."""
    verdicts = ("files", "tool", "dangerous", "suspicious", "not scanned", "clean", "exit 0")
    times = ("tool", "median", "worst", "peak, median", "peak, worst", "ratio")
    whole = ("tool", "all files", "end", "legitimate files", "peak", "end")
    tables = {
        "VERSIONS": f"{names}; Python {platform.python_version()}, {platform.system()} {platform.machine()}",
        "FILES": str(len(cases)),
        "VERDICTS": table(verdicts, verdict_lines(cases, results)),
        "ALARMS": alarms(cases, results),
        "TIMES": table(times, time_lines(results)),
        "FOLDER": table(whole, folder_lines(*folders)),
    }
    text = SECTION.read_text()
    for name, value in tables.items():
        text = text.replace(f"{{{name}}}", value)
    return text


def insert(document: str, text: str) -> str:
    """Return the document with the text between its markers; without them they are added at its end."""
    if BEGIN not in document:
        document = f"{document.rstrip()}\n\n## Beside other scanners\n\n{BEGIN}\n{END}\n"
    before, _, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise ValueError(f"{BEGIN} without {END}")
    return f"{before}{BEGIN}\n\n{text.strip()}\n\n{END}{after}"


def details(results: Results) -> str:
    """Return verdict, exit status and time of every tool and file as JSON."""
    said = {
        case: {name: [row.verdict, row.status, round(row.wall, 4), round(row.peak, 1)] for name, row in found.items()}
        for case, found in results.items()
    }
    return json.dumps(said, indent=1)


# The command ----------------------------------------------------------------------------------------------


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    default = ROOT.parent / "shared" / "hostile" / "dev"
    parser.add_argument("--set", type=Path, default=default, help="folder with manifest.json and files/")
    parser.add_argument("--python", type=Path, help="interpreter that has the scanners; otherwise they are installed")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--write", action="store_true", help=f"write the section of {DOCUMENT.name}")
    parser.add_argument("--details", type=Path, help="write what every tool said of every file to this JSON file")
    return parser.parse_args(arguments)


def main() -> None:
    """Measure everything, print the section, and write it where that is asked for."""
    options = parse()
    manifest = json.loads((options.set / "manifest.json").read_text())
    cases, files, marker = manifest["cases"], options.set.resolve() / "files", Path(manifest["marker"])
    marker.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as name:
        python = options.python.absolute() if options.python else install(Path(name) / "scanners")
        freeze(Path(name) / "source")
        folder = Path(name) / "empty"
        folder.mkdir()
        rows = tools(python)
        run_case(rows, files, cases[0]["file"], folder, 1)  # so that no tool meets a cold cache
        results = {case["file"]: run_case(rows, files, case["file"], folder, options.rounds) for case in cases}
        controls = copy_legitimate(cases, files, Path(name) / "controls")
        folders = [run_folder(rows, path, folder, options.rounds) for path in (files, controls)]
        text = section(cases, results, folders, versions(python))
    if marker.exists():
        raise SystemExit(f"{marker} exists: something of a file ran")
    sys.stdout.write(text)
    if options.details:
        options.details.write_text(details(results))
    if options.write:
        DOCUMENT.write_text(insert(DOCUMENT.read_text(), text))


if __name__ == "__main__":
    main()
