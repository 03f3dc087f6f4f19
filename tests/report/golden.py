"""The golden terminal outputs: python tests/report/golden.py writes them; the tests only compare."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDER = Path(__file__).parent / "golden"

RESNET50 = ["fixtures/resnet50/model.py", "fixtures/resnet50/dataparallel.pth"]
DISAGREES = [f"fixtures/rules/CKPT906/fires/{name}" for name in ("model.py", "checkpoint.safetensors")]
CASES = {
    "diff_resnet50": ["diff", *RESNET50],
    "diff_resnet50_concise": ["diff", *RESNET50, "--format", "concise"],
    "diff_mapped": ["diff", *RESNET50, "--map", "module.* -> *", "--drop", "fc.*", "--contract", "partial"],
    "diff_clean": ["diff", "torchvision.models:resnet18", "fixtures/article/resnet18.pth"],
    "diff_extract": ["diff", "fixtures/article/extract_layers/model.py", "fixtures/article/resnet18.pth"],
    "diff_own_class": ["diff", "fixtures/article/own_class/model.py", "fixtures/article/resnet18.pth", "-v"],
    "diff_witness": ["diff", *RESNET50, "--map", "module.* -> *", "--arg", "num_classes=1000", "--witness"],
    "diff_disagrees": ["diff", *DISAGREES, "--witness"],
    "inspect_resnet50": ["inspect", "fixtures/resnet50/dataparallel.pth"],
    "scan_fixtures": ["scan", "fixtures/rules/CKPT702", "fixtures/resnet50", "fixtures/rules/CKPT707"],
    "convert_plan": [
        *("convert", "fixtures/resnet50/dataparallel.pth", "resnet50.safetensors", "--dry-run"),
        *("--map", "module.* -> *", "--drop", "fc.*", "--map", "cast layer4.* dtype=float16"),
    ],
    "diff_values": [
        "diff",
        *(f"fixtures/rules/CKPT305/fires/{n}.safetensors" for n in ("model", "checkpoint")),
        "--values",
    ],
    "frozen": [
        "frozen",
        *(f"fixtures/rules/CKPT804/fires/{n}.safetensors" for n in ("base", "checkpoint")),
        "encoder.*",
        "fc",
    ],
    "map_renamed": ["map", "fixtures/renamed/old.pth", "fixtures/renamed/model.py:Net"],
    "map_explain": [
        "map",
        *(f"fixtures/renamed/{name}.manifest.json" for name in ("decoder", "classifier")),
        "--explain",
    ],
    "explain_rule": ["explain", "CKPT103"],
    "explain_list": ["explain"],
}
WIDTHS = (80, 100)


def run(case, width):
    """Return what a command prints into a pipe."""
    command = [sys.executable, "-m", "ckptaudit", *CASES[case], "--width", str(width)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False).stdout


def path_of(case, width):
    """Return where the golden output lies."""
    return FOLDER / f"{case}.{width}.txt"


if __name__ == "__main__":
    for name in CASES:
        for columns in WIDTHS:
            path_of(name, columns).write_text(run(name, columns))
