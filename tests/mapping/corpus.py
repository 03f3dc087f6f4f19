"""The development half of the mapping corpus: real conversions and realistic changes, with what is true of each."""

from __future__ import annotations

import gzip
import json
from collections import OrderedDict
from pathlib import Path

from ckptaudit.manifest import Manifest, TensorSpec
from ckptaudit.mapping.assignment import Assignment, Assignments

FOLDER = Path(__file__).parents[2].parent / "shared" / "corpus" / "dev"
CASES = sorted(path.name.removesuffix(".json.gz") for path in FOLDER.glob("*.json.gz"))
OPAQUE = ("resize", "arith", "gather", "strided", "rows")  # operations that no rule can write down


def read(name):
    with gzip.open(FOLDER / f"{name}.json.gz", "rt") as file:
        return json.load(file)


def manifest(rows):
    return Manifest(OrderedDict((key, TensorSpec(tuple(shape), dtype)) for key, shape, dtype in rows))


def truth(case):
    """Return what an inference would say that makes no mistake; what cannot be written down is left ambiguous."""
    writable = [
        each
        for each in case["truth"]
        if all(isinstance(source, str) for source in each["sources"]) and not each["op"].startswith(OPAQUE)
    ]
    said = {each["target"] for each in writable} | set(case["uninitialised_target"])
    return Assignments(
        tuple(Assignment(each["target"], tuple(each["sources"]), each["op"]) for each in writable),
        tuple(case["uninitialised_target"]),
        tuple(key for key in case["dropped_source"] if isinstance(key, str)),
        tuple(key for key, _, _ in case["target"] if key not in said),
    )
