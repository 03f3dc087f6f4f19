"""Fuzz the readers: python tests/fuzz/run.py --target all --executions 100000 --jobs 2 --out FOLDER."""

from __future__ import annotations

import argparse
import importlib
import multiprocessing
import pkgutil
import resource
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from fuzz_engine import Tally, fuzz, store  # noqa: E402
from fuzz_targets import targets  # noqa: E402

import ckptaudit  # noqa: E402

TARGETS = targets()
_PARTS = 4  # for each job, so that none waits long for the others
_SPARE = 1 << 30  # bytes a job may take above what it starts with


def _limit_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + _SPARE
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))


def _part(work: tuple[str, int, str]) -> tuple[str, Tally]:
    name, executions, seed = work
    try:
        return name, fuzz(TARGETS[name], executions, seed)
    except StopIteration as error:  # would end the loop over the results, and nobody would know
        raise RuntimeError(f"{name}: a change of an input failed") from error


def _show(name: str, tally: Tally, most: int) -> None:
    rate = tally.executions / max(tally.seconds, 1e-9)
    print(
        f"{name}: {tally.executions:,} executions, {rate:,.0f}/s for each job, {len(tally.outcomes)} outcomes", end=""
    )
    print(f", slowest {tally.slowest:.3f} s, {len(tally.found)} findings", flush=True)
    for outcome, times in tally.outcomes.most_common(most):
        print(f"  {times:>9,}  {outcome}")
    for kind, (_, detail) in tally.found.items():
        print(f"  FINDING ({tally.times[kind]:,} times) {kind}\n    " + detail.strip().replace("\n", "\n    "))


def main() -> int:
    """Run what the arguments ask for; the exit status is 1 where there are findings."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", action="append", choices=["all", *TARGETS], help="may be repeated")
    parser.add_argument("--executions", type=int, default=10_000, help="for each target")
    parser.add_argument("--seed", default="0", help="the same seed changes the same bytes")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--out", type=Path, help="folder for the inputs of findings and the slowest inputs")
    parser.add_argument("--show", type=int, default=15, help="outcomes to print for each target")
    options = parser.parse_args()
    chosen = options.target or ["all"]
    names = list(TARGETS) if "all" in chosen else chosen
    for module in pkgutil.walk_packages(ckptaudit.__path__, "ckptaudit."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)  # now, so that nothing that is edited meanwhile is read later
    for name in names:
        TARGETS[name].seeds()
    parts = options.jobs * _PARTS
    share = -(-options.executions // parts)
    work = [(name, share, f"{options.seed}.{part}") for name in names for part in range(parts)]
    tallies = {name: Tally() for name in names}
    left = dict.fromkeys(names, parts)
    with multiprocessing.get_context("fork").Pool(options.jobs, _limit_memory) as pool:
        for name, tally in pool.imap_unordered(_part, work):
            tallies[name].add(tally)
            left[name] -= 1
            if not left[name]:
                _show(name, tallies[name], options.show)
                if options.out:
                    store(tallies[name], name, options.out)
    print(f"in all {sum(tally.executions for tally in tallies.values()):,} executions")
    return 1 if any(tally.found for tally in tallies.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
