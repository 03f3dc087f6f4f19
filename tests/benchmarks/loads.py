"""Hold ckptaudit.load against torch.load(mmap=True) and load_state_dict: python tests/benchmarks/loads.py [--write].

Both load the same file into the same model in one process, in turn; the ratio is the median of those of the pairs. A
peak is what a process that does nothing else needs beyond the model.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from workload import ROOT

TARGET = ROOT / "docs" / "performance.md"
BEGIN, END = "<!-- loads: begin -->", "<!-- loads: end -->"
ROUNDS = 15
PEAK = "import sys; sys.path.insert(0, {folder!r}); import loads; loads.peak(*sys.argv[1:])"


def build(size):
    import torch
    from torch import nn
    from torchvision.models import resnet50

    if size == "98 MiB, ResNet-50":
        return resnet50()
    layers = [nn.Linear(4096, 4096) for _ in range(32)]
    model = nn.Sequential(*layers)
    if size.endswith("load hook"):
        model.register_load_state_dict_post_hook(lambda *_: None)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(0.5)
    return model


def ours(model, path):
    import ckptaudit

    ckptaudit.load(model, path)


def theirs(model, path):
    import torch

    model.load_state_dict(torch.load(path, mmap=True, weights_only=True))


def peak(size, path, way):
    """Print by how many MiB one load raises the peak of this process."""
    model = build(size)
    before = high_water()
    globals()[way](model, path)
    sys.stdout.write(str(round((high_water() - before) / 1024)))


def high_water():
    """Return the most memory that this process had so far, in KiB."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM"))


def forget(path):
    """Ask the system to forget what it keeps of a file in memory."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def row(size, folder):
    import torch

    model, path = build(size), folder / "c.pth"
    torch.save(model.state_dict(), path)
    times = {ours: [], theirs: []}
    for round_ in range(ROUNDS + 1):
        for way in (ours, theirs) if round_ % 2 else (theirs, ours):
            if size.endswith("from the disk"):
                forget(path)
            start = time.perf_counter()
            way(model, path)
            if round_:
                times[way].append(time.perf_counter() - start)
    code = PEAK.format(folder=str(Path(__file__).parent))
    peaks = [
        subprocess.run(
            [sys.executable, "-c", code, size, str(path), way.__name__], capture_output=True, text=True, check=True
        ).stdout
        for way in (ours, theirs)
    ]
    ratio = median(a / b for a, b in zip(times[ours], times[theirs], strict=True))
    a, b = (f"{1000 * median(times[way]):,.0f} ms" for way in (ours, theirs))
    return f"| {size} | {a} | {peaks[0]} MiB | {b} | {peaks[1]} MiB | {ratio:.2f} | 1 |"


def measured():
    """Measure every row and return the lines of the table."""
    with tempfile.TemporaryDirectory(dir=ROOT.parent) as name:
        sizes = ("98 MiB, ResNet-50", "2 GiB, 32 layers", "2 GiB, from the disk", "2 GiB, with a load hook")
        return "\n".join(row(size, Path(name)) for size in sizes)


def insert(document, table):
    """Return the document with the table between its marks."""
    head, _, rest = document.partition(f"{BEGIN}\n")
    titles = rest.splitlines()[:2]
    return "\n".join([f"{head}{BEGIN}", *titles, table, f"{END}{rest.partition(END)[2]}"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--write", action="store_true", help=f"write the table of {TARGET.name}")
    options = parser.parse_args()
    text = measured()
    sys.stdout.write(text + "\n")
    if options.write:
        TARGET.write_text(insert(TARGET.read_text(), text))
