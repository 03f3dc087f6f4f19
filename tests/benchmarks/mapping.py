"""What it costs to find a mapping at the command line: python tests/benchmarks/mapping.py [--write]

CPU time and memory of whole processes, on manifests made for it: a language model with experts, and a convolutional model
in which no two blocks have one width. All names differ between the two sides.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

from section import write

ROOT = Path(__file__).parents[2]
TITLE = "## Finding mappings at the command line"

HEAD = f"""{TITLE}

Measured in one run by

    python tests/benchmarks/mapping.py --write

CPU time of one thread and peak memory of whole processes, with `--format json`. Both sides are manifests, and every name differs. `diff`
looks for simple causes first, and asks inference where these leave keys missing and unexpected.

| tensors | names | `map` | peak | `diff` | peak |
|---|---|---|---|---|---|
"""
NAMES = ("blocks that repeat", "blocks that all differ")
SIZES = (1_000, 10_000)


def inference():
    """Import the benchmark of inference itself, which makes the state dicts."""
    spec = spec_from_file_location("inference_benchmark", Path(__file__).parent / "inference.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def cost(*arguments):
    """Return the CPU seconds and the MiB at the peak of one command, measured by a process of its own."""
    code = (
        "import resource, subprocess, sys\n"
        "subprocess.run([sys.executable, '-m', 'ckptaudit', *sys.argv[1:]], stdout=subprocess.DEVNULL)\n"
        "used = resource.getrusage(resource.RUSAGE_CHILDREN)\n"
        "print(used.ru_utime + used.ru_stime, used.ru_maxrss)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True, check=True
    )
    seconds, peak = done.stdout.split()
    return f"{float(seconds):.2f} s", f"{int(peak) // 1024} MiB"


def section():
    """Measure everything and return the section of the document."""
    made, lines = inference(), HEAD
    with tempfile.TemporaryDirectory() as folder:
        for n in SIZES:
            for names, sides in zip(NAMES, made.pairs_of(n), strict=False):
                files = [f"{folder}/{side}.json" for side in ("source", "target")]
                for file, side in zip(files, sides, strict=True):
                    made.manifest(side).save(file)
                costs = [*cost("map", *files, "--format", "json"), *cost("diff", *files[::-1], "--format", "json")]
                lines += f"| {n:,} | {names} | {' | '.join(costs)} |\n"
    return lines


if __name__ == "__main__":
    made = section()
    sys.stdout.write(made)
    if sys.argv[1:] == ["--write"]:
        write(made)
