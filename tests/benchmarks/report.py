"""Measure in one run and write docs/performance.md: python tests/benchmarks/report.py

Both commands of a row run in turn, A B A B ...; the ratio is the median of the ratios of the pairs.
"""

from __future__ import annotations

import platform
import sys
import tempfile
from pathlib import Path
from statistics import median

from workload import CRC, FLOOR, FLOOR_WITHOUT_TEARDOWN, ROOT, TORCH_META, ckptaudit, make_files, measure, python

ROUNDS = 15
TARGET = ROOT / "docs" / "performance.md"


def rows(folder):
    """Yield title, command, the command it is compared with, rounds and the target of the ratio."""
    bare = python("pass")
    for size in ("100MB", "2GB"):
        file = folder / f"{size}.pth"
        json = ("--format", "json")
        meta = python(TORCH_META, file)
        yield f"`inspect` {size}", ckptaudit("inspect", file, *json), "`python -c pass`", bare, ROUNDS, 5.0
        yield f"`diff` {size} {size}", ckptaudit("diff", file, file, *json), "`python -c pass`", bare, ROUNDS, 5.0
        yield f"`scan` {size}", ckptaudit("scan", file, *json), "`python -c pass`", bare, ROUNDS, 5.0
        yield f"`inspect` {size}, table", ckptaudit("inspect", file), "`python -c pass`", bare, ROUNDS, None
        yield f"`inspect` {size}", ckptaudit("inspect", file, *json), "`torch.load(map_location='meta')`", meta, 7, None
    large = folder / "100GB.safetensors"
    yield "`inspect` 100GB (sparse)", ckptaudit("inspect", large, *json), "`python -c pass`", bare, ROUNDS, 5.0
    yield "`diff` 100GB 100GB (sparse)", ckptaudit("diff", large, large, *json), "`python -c pass`", bare, ROUNDS, 5.0
    yield "`scan` 100GB (sparse)", ckptaudit("scan", large, *json), "`python -c pass`", bare, ROUNDS, 5.0
    file = folder / "2GB.pth"
    integrity = ckptaudit("scan", "--integrity", file, *json)
    yield "`scan --integrity` 2GB", integrity, "`cat`, to nowhere", ["cat", str(file)], 7, None
    yield "`scan --integrity` 2GB", integrity, "zlib.crc32 of its bytes, in Python", python(CRC, file), 7, None
    many = folder / "many.pth"
    yield "`inspect` 10,000 tensors", ckptaudit("inspect", many, *json), "`python -c pass`", bare, ROUNDS, None
    meta = python(TORCH_META, many)
    yield (
        "`inspect` 10,000 tensors",
        ckptaudit("inspect", many, *json),
        "`torch.load(map_location='meta')`",
        meta,
        5,
        None,
    )
    diff = ckptaudit("diff", f"{folder / 'net.py'}", folder / "100MB.pth")
    floor = python(FLOOR, folder)
    yield "`diff model.py` 100MB", diff, "import torch and the model, build on meta", floor, 9, 1.15
    floor = python(FLOOR_WITHOUT_TEARDOWN, folder)
    yield "`diff model.py` 100MB", diff, "the same, ended by os._exit", floor, 9, 1.15
    yield "`--help`", ckptaudit("--help"), "`python -c pass`", bare, ROUNDS, None


def compare(command, other, rounds):
    """Return the two lists of usages, after one warm-up each."""
    measure(command), measure(other)
    pairs = [(measure(command), measure(other)) for _ in range(rounds)]
    return [a for a, _ in pairs], [b for _, b in pairs]


def line(title, command, name, other, rounds, target):
    """Measure one row and return it as a line of the table."""
    ours, theirs = compare(command, other, rounds)
    ratio = median(a.wall / b.wall for a, b in zip(ours, theirs, strict=True))
    cells = [
        title,
        f"{1000 * median(a.wall for a in ours):,.0f} ms",
        f"{median(a.peak for a in ours):.0f} MiB",
        name,
        f"{1000 * median(b.wall for b in theirs):,.0f} ms",
        f"{median(b.peak for b in theirs):.0f} MiB",
        f"{ratio:.2f}",
        f"{target:g}" if target else "",
    ]
    return f"| {' | '.join(cells)} |"


def main():
    """Measure everything and write the document."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_files(folder)
        table = [line(*row) for row in rows(folder)]
    import loads

    import conversions

    measured = {"CONVERSIONS": conversions.measured(), "LOADS": loads.measured()}
    head = (ROOT / "tests" / "benchmarks" / "performance.head.md").read_text()
    machine = f"Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    text = head.replace("MACHINE", machine).replace("TABLE", "\n".join(table))
    for mark, lines in measured.items():
        text = text.replace(mark, lines)
    text += "".join(
        TARGET.read_text().partition("\n## Comparing values")[1:]
    )  # by values.py, inference.py and training.py
    TARGET.write_text(text)
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
