"""The development corpus beside the checkout: its cases, its scorer, and predictions in its form."""

from __future__ import annotations

import gzip
import importlib.util
import json
from pathlib import Path

from ckptaudit.manifest import Manifest, TensorSpec
from ckptaudit.mapping.inference import infer

FOLDER = Path(__file__).parents[4] / "shared" / "corpus"


def tool(name):
    """Import a script of the corpus."""
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def cases(every=1):
    """Yield the cases, or every n-th of them."""
    for path in sorted(FOLDER.glob("dev/*.json.gz"))[::every]:
        with gzip.open(path, "rt") as file:
            yield json.load(file)


def manifests(case):
    """Return source and target of a case."""
    return [
        Manifest({key: TensorSpec(tuple(shape), dtype) for key, shape, dtype in case[side]})
        for side in ("source", "target")
    ]


def predict(case):
    """Return what the inference says, in the form the scorer reads."""
    found = infer(*manifests(case))
    return {
        "assignments": [
            {"target": one.target, "sources": list(one.sources), "op": one.op, "confidence": one.confidence}
            for one in found.assigned
        ],
        "uninitialised_target": list(found.uninitialised),
    }
