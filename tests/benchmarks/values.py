"""Hold `diff --values` and `frozen` against cmp: python tests/benchmarks/values.py [--write] [--only 100MB].

Files of 100 MB and 4 GB: twice the same weights, and weights that all differ a little, as after fine-tuning. They lie in a
temporary folder beside the repository (``--folder``), and are removed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from workload import ROOT, ckptaudit, python

from report import TARGET, compare

BEGIN, END = "<!-- values: begin -->", "<!-- values: end -->"
SIZES = {"100MB": (25, 1024, "float32", 15), "4GB": (476, 2048, "bfloat16", 5)}

MAKE_FILES = """
import shutil, sys, torch
from safetensors.torch import save_file
folder, count, width, dtype = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), getattr(torch, sys.argv[4])
torch.manual_seed(0)
layer = torch.randn(width, width)
weights = {f"layers.{number}.weight": layer.to(dtype).clone() for number in range(count)}
save_file(weights, f"{folder}/base.safetensors")
shutil.copyfile(f"{folder}/base.safetensors", f"{folder}/same.safetensors")
tuned = (layer + 0.01 * torch.randn(width, width)).to(dtype)
save_file({name: tuned.clone() for name in weights}, f"{folder}/tuned.safetensors")
"""


# What one writes by hand: both files mapped, tensor by tensor.
BY_HAND = """
import sys, torch
from safetensors import safe_open
with safe_open(sys.argv[1], "pt") as first, safe_open(sys.argv[2], "pt") as second:
    print(all(torch.equal(first.get_tensor(key), second.get_tensor(key)) for key in first.keys()))
"""


def rows(folder, size, rounds):
    """Yield title, command, name of the other, its command, rounds and target; cmp ends at the first difference."""
    base, same, tuned = (folder / f"{name}.safetensors" for name in ("base", "same", "tuned"))
    json = ("--format", "json")
    through = ("`cmp`, of two that are the same", ["cmp", str(base), str(same)])
    equal = ckptaudit("diff", base, same, "--values", *json)
    yield f"`diff --values` {size}, the same", equal, *through, rounds, 1.5
    yield f"`frozen` {size}, the same", ckptaudit("frozen", base, same, "*", *json), *through, rounds, 1.5
    changed = ckptaudit("diff", base, tuned, "--values", *json)
    yield f"`diff --values` {size}, all changed", changed, *through, rounds, 1.5
    moved = ckptaudit("frozen", base, tuned, "*", *json)
    yield f"`frozen` {size}, frozen, and all changed", moved, *through, rounds, 1.5
    first = ("`cmp`, which ends at the first", ["cmp", str(base), str(tuned)])
    yield (
        f"`frozen` {size}, without patterns, all changed",
        ckptaudit("frozen", base, tuned, *json),
        *first,
        rounds,
        None,
    )
    by_hand = ("`safe_open` twice, `torch.equal`", python(BY_HAND, base, same))
    yield f"`diff --values` {size}, the same", equal, *by_hand, min(rounds, 5), None


def line(title, command, name, other, rounds, target):
    """Measure one row, by the clock and by the processor, and return it as a line of the table."""
    ours, theirs = compare(command, other, rounds)
    ratios = [
        [getattr(a, kind) / getattr(b, kind) for a, b in zip(ours, theirs, strict=True)] for kind in ("wall", "cpu")
    ]
    sides = [
        [*(f"{1000 * median(getattr(one, kind) for one in side):,.0f} ms" for kind in ("wall", "cpu"))]
        for side in (ours, theirs)
    ]
    peak = f"{median(one.peak for one in ours):.0f} MiB"
    cells = [title, *sides[0], peak, name, *sides[1], *(f"{median(part):.2f}" for part in ratios)]
    return f"| {' | '.join([*cells, f'{target:g}' if target else ''])} |"


def measured(parent, sizes=tuple(SIZES), fewer=None):
    """Measure every row and return the lines of the table; ``fewer`` rounds where time is short."""
    lines = []
    for size in sizes:
        *made, rounds = SIZES[size]
        with tempfile.TemporaryDirectory(dir=parent) as name:
            subprocess.run([sys.executable, "-c", MAKE_FILES, name, *map(str, made)], check=True)
            lines += [line(*row) for row in rows(Path(name), size, fewer or rounds)]
    return "\n".join(lines)


def insert(document, table):
    """Return the document with the table between its marks."""
    head, _, rest = document.partition(f"{BEGIN}\n")
    titles = rest.splitlines()[:2]
    return "\n".join([f"{head}{BEGIN}", *titles, table, f"{END}{rest.partition(END)[2]}"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--write", action="store_true", help=f"write the table of {TARGET.name}")
    parser.add_argument("--only", choices=SIZES, help="measure one size")
    parser.add_argument("--folder", default=ROOT.parent, help="where the files are to lie: 12 GB at most")
    parser.add_argument("--rounds", type=int, help="of each row, instead of 15 and 5")
    options = parser.parse_args()
    text = measured(options.folder, (options.only,) if options.only else tuple(SIZES), options.rounds)
    sys.stdout.write(text + "\n")
    if options.write:
        TARGET.write_text(insert(TARGET.read_text(), text))
