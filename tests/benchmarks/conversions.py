"""Hold `ckptaudit convert` against cp and other ways: python tests/benchmarks/conversions.py [--write].

``report.py`` measures the same rows with all others; this writes the section of the document alone.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from workload import ROOT, ckptaudit, python

from report import TARGET, line

BEGIN, END = "<!-- conversions: begin -->", "<!-- conversions: end -->"

MAKE_FILES = """
import sys, torch
from pathlib import Path
from torchvision.models import resnet50
folder = Path(sys.argv[1])
torch.save(resnet50().state_dict(), folder / "100MB.pth")
layer = torch.randn(2048, 2048).bfloat16()
layers = {f"layers.{i}.{name}.weight": layer.clone() for i in range(68) for name in "qkvogud"}
layers["embed.weight"] = torch.randn(32000, 2048).bfloat16()
torch.save(layers, folder / "4GB.pth")
"""
LOAD_AND_SAVE = """
import sys, torch
from safetensors.torch import save_file
save_file(torch.load(sys.argv[1], map_location="cpu", weights_only=True), sys.argv[2])
"""
MMAP_AND_SAVE = LOAD_AND_SAVE.replace("weights_only=True", "weights_only=True, mmap=True")
# convert_file of bindings/python/convert.py of the safetensors project: load, untie, save, load again, compare.
RECIPE = """
import os, sys, torch
from safetensors.torch import _remove_duplicate_names, load_file, save_file
loaded = torch.load(sys.argv[1], map_location="cpu", weights_only=True)
metadata = {"format": "pt"}
for kept, group in _remove_duplicate_names(loaded).items():
    for name in group:
        metadata.setdefault(name, kept)
        del loaded[name]
loaded = {key: value.contiguous() for key, value in loaded.items()}
save_file(loaded, sys.argv[2], metadata=metadata)
if abs(os.stat(sys.argv[2]).st_size / os.stat(sys.argv[1]).st_size - 1) > 0.01:
    raise RuntimeError("the sizes differ by more than one percent")
reloaded = load_file(sys.argv[2])
for key, value in loaded.items():
    if not torch.equal(value, reloaded[key]):
        raise RuntimeError(f"the output tensors do not match for key {key}")
"""


def make_large_files(folder):
    """Write the checkpoints in a process of its own."""
    subprocess.run([sys.executable, "-c", MAKE_FILES, str(folder)], check=True)


def rows(folder):
    """Yield rows as report.py does. Every command replaces its own earlier result."""
    for size, rounds in (("100MB", 15), ("4GB", 5)):
        source, target = folder / f"{size}.pth", folder / "ours.safetensors"
        verified = ckptaudit("convert", source, target)
        plain = ckptaudit("convert", source, target, "--no-verify")
        back = ckptaudit("convert", source, folder / "ours.pth", "--no-verify")
        copy = ["cp", "--remove-destination", str(source), str(folder / "copy")]
        synced = ["sh", "-c", 'cp --remove-destination "$1" "$2" && sync "$2"', "sh", str(source), str(folder / "copy")]
        theirs = folder / "theirs.safetensors"
        yield f"`convert --no-verify` {size}", plain, "`cp`", copy, rounds, 1.0
        yield f"`convert --no-verify` {size}", plain, "`cp`, `sync`", synced, rounds, None
        yield f"`convert --no-verify` {size} to .pth", back, "`cp`", copy, rounds, None
        yield f"`convert` {size}", verified, "`cp`", copy, rounds, None
        yield f"`convert` {size}", verified, "`cp`, `sync`", synced, rounds, None
        few = 3 if size == "4GB" else 5
        for name, code in (
            ("`torch.load`, `save_file`", LOAD_AND_SAVE),
            ("`torch.load(mmap=True)`, `save_file`", MMAP_AND_SAVE),
            ("the recipe of the safetensors project", RECIPE),
        ):
            yield f"`convert` {size}", verified, name, python(code, source, theirs), few, None


def measured():
    """Measure every row and return the lines of the table."""
    with tempfile.TemporaryDirectory(dir=ROOT.parent) as name:  # on a disk: /tmp is in memory on some machines
        folder = Path(name)
        make_large_files(folder)
        return "\n".join(line(*row) for row in rows(folder))


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
