"""What the tests of the commands share: manifests as inputs, which need no torch, and one way to run a command."""

from __future__ import annotations

import json
from typing import NamedTuple

from ckptaudit import Manifest, TensorSpec
from ckptaudit.cli import main


class Result(NamedTuple):
    status: int
    out: str
    err: str

    @property
    def lines(self):
        return self.out.splitlines()

    @property
    def json(self):
        return json.loads(self.out)


def run(capsys, *arguments):
    """Run a command in this process."""
    try:
        status = main([str(argument) for argument in arguments])
    except SystemExit as end:
        status = end.code
    return Result(status, *capsys.readouterr())


def describe(shapes, dtype="float32", **parts):
    """Return a manifest of tensors of one dtype: key -> shape."""
    return Manifest({key: TensorSpec(tuple(shape), dtype) for key, shape in shapes.items()}, **parts)


def saved(path, shapes, dtype="float32", **parts):
    """Write such a manifest and return its path as text."""
    describe(shapes, dtype, **parts).save(path)
    return str(path)
