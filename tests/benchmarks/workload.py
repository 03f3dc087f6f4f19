"""The files and commands that are measured, and how one process is measured."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import subprocess
import sys
import tempfile
import venv
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]

MAKE_FILES = """
import sys, torch
from pathlib import Path
from torchvision.models import resnet50
folder = Path(sys.argv[1])
torch.save(resnet50().state_dict(), folder / "100MB.pth")
layers = {f"layers.{i}.{name}.weight": torch.zeros(2048, 2048, dtype=torch.bfloat16) for i in range(32) for name in "qkvogud"}
layers["embed.weight"] = torch.zeros(32000, 2048, dtype=torch.bfloat16)
torch.save(layers, folder / "2GB.pth")
many = {f"blocks.{i}.attention.weight": torch.zeros(16) for i in range(10_000)}
torch.save(many, folder / "many.pth")
"""

MODEL = """
from torch import nn
from torchvision.models import resnet50


def build_model() -> nn.Module:
    model = resnet50()
    model.fc = nn.Linear(2048, 10)
    return model
"""

# What a `diff model.py` cannot do without: import torch and the model's module, build on the meta device.
FLOOR = """
import sys
sys.path.insert(0, sys.argv[1])
import torch
import net
with torch.device("meta"):
    net.build_model()
"""
FLOOR_WITHOUT_TEARDOWN = FLOOR + "import os; os._exit(0)"
# One pass over a file, for its checksum and nothing else.
CRC = """
import sys, zlib
buffer, crc = memoryview(bytearray(1 << 20)), 0
with open(sys.argv[1], "rb", buffering=0) as file:
    while count := file.readinto(buffer):
        crc = zlib.crc32(buffer[:count], crc)
"""
TORCH_META = "import sys, torch; torch.load(sys.argv[1], map_location='meta', weights_only=True)"


# A process is charged with the largest size its parent ever had, so that a small one starts what is measured.
LAUNCHER = """
import os, sys, time
actions = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0) for number in range(3)]
start = time.perf_counter()
child = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ, file_actions=actions)
_, status, usage = os.wait4(child, 0)
wall = time.perf_counter() - start
print(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss, os.waitstatus_to_exitcode(status))
"""


class Usage(NamedTuple):
    """One finished process: seconds on the clock, seconds of user and system time, MiB of peak memory."""

    wall: float
    cpu: float
    peak: float


def make_files(folder):
    """Write the checkpoints in a process of its own, so that torch's memory is not in ours."""
    subprocess.run([sys.executable, "-c", MAKE_FILES, str(folder)], check=True)
    (folder / "net.py").write_text(MODEL)
    make_sparse(folder / "100GB.safetensors", tensors=800, rows=8192)


def make_sparse(path, tensors, rows):
    """Write a safetensors file whose data are one hole: the size of a large model without its bytes."""
    size = rows * rows * 2
    header = {
        f"layers.{i}.weight": {"dtype": "BF16", "shape": [rows, rows], "data_offsets": [i * size, (i + 1) * size]}
        for i in range(tensors)
    }
    text = json.dumps(header).encode()
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + tensors * size)


def measure(command, expected=(0, 1)):
    """Run a command to its end with its output thrown away."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    launcher = [sys.executable, "-I", "-S", "-c", LAUNCHER, *command]
    done = subprocess.run(launcher, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    wall, cpu, peak, status = done.stdout.split()
    assert int(status) in expected, command
    return Usage(float(wall), float(cpu), int(peak) / 1024)


@cache
def interpreter():
    """Return a Python that starts as it does where a wheel was installed, with the packages of this one.

    What finds an editable installation imports pathlib and urllib at each start: half of the time of ``python -c pass``.
    """
    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    venv.create(folder, symlinks=True)
    [packages] = Path(folder).glob("lib/python*/site-packages")
    packages.joinpath("packages.pth").write_text("\n".join([str(ROOT), *(p for p in sys.path if "site-packages" in p)]))
    return f"{folder}/bin/python"


def ckptaudit(*arguments):
    """Return the command line of the console script, without its wrapper."""
    return python("import sys; from ckptaudit.cli import command; sys.exit(command())", *arguments)


def python(code, *arguments):
    """Return the command line that runs a piece of Python."""
    return [interpreter(), "-c", code, *map(str, arguments)]
