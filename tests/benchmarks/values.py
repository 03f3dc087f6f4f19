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

from workload import ROOT, ckptaudit

from report import TARGET, line

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


def rows(folder, size, rounds):
    """Yield rows as report.py does; cmp ends at the first difference, so that it is timed on what is the same."""
    base, same, tuned = (folder / f"{name}.safetensors" for name in ("base", "same", "tuned"))
    json = ("--format", "json")
    through = ["cmp", str(base), str(same)]
    name = "`cmp`, of two that are the same"
    yield (
        f"`diff --values` {size}, the same",
        ckptaudit("diff", base, same, "--values", *json),
        name,
        through,
        rounds,
        1.5,
    )
    yield f"`frozen` {size}, the same", ckptaudit("frozen", base, same, "*", *json), name, through, rounds, 1.5
    yield (
        f"`diff --values` {size}, all changed",
        ckptaudit("diff", base, tuned, "--values", *json),
        name,
        through,
        rounds,
        1.5,
    )
    yield (
        f"`frozen` {size}, frozen, and all changed",
        ckptaudit("frozen", base, tuned, "*", *json),
        name,
        through,
        rounds,
        1.5,
    )
    first = ["cmp", str(base), str(tuned)]
    yield (
        f"`frozen` {size}, without patterns, all changed",
        ckptaudit("frozen", base, tuned, *json),
        "`cmp`, which ends at the first",
        first,
        rounds,
        None,
    )


def measured(parent, sizes=tuple(SIZES)):
    """Measure every row and return the lines of the table."""
    lines = []
    for size in sizes:
        *made, rounds = SIZES[size]
        with tempfile.TemporaryDirectory(dir=parent) as name:
            subprocess.run([sys.executable, "-c", MAKE_FILES, name, *map(str, made)], check=True)
            lines += [line(*row) for row in rows(Path(name), size, rounds)]
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
    options = parser.parse_args()
    text = measured(options.folder, (options.only,) if options.only else tuple(SIZES))
    sys.stdout.write(text + "\n")
    if options.write:
        TARGET.write_text(insert(TARGET.read_text(), text))
