"""What the tests of the rules share: manifests in a line, findings by code, fixes carried out as written."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from torch import nn

import ckptaudit
from ckptaudit import Manifest
from ckptaudit.cli import build_parser
from ckptaudit.cli.mapping import parse_mapping
from ckptaudit.manifest import TensorSpec
from ckptaudit.mapping.mapping import KeyMapping

FIXTURES = Path(__file__).parents[2] / "fixtures"
sys.path.insert(0, str(FIXTURES))


def spec(*shape, dtype="float32", **rest):
    return TensorSpec(shape, dtype, **rest)


def manifest(shapes=(), /, entries=None, versions=None, **tensors):
    """Describe a state dict: shapes by key, or specs; names without dots as keywords."""
    given = {**dict(shapes), **tensors}
    return Manifest({key: value if isinstance(value, TensorSpec) else spec(*value) for key, value in given.items()},
                    entries or {}, versions)  # fmt: skip


NET = {"conv.weight": (4, 3, 1, 1), "fc.weight": (2, 4), "fc.bias": (2,)}


def net(prefix="", **changes):
    """Return the small network's shapes under a prefix, with some keys changed (``fc__bias``) or left out (None)."""
    shapes = NET | {name.replace("__", "."): shape for name, shape in changes.items()}
    return {prefix + key: shape for key, shape in shapes.items() if shape is not None}


def codes(report):
    return [graded.finding.rule.code for graded in report.findings]


def found(report, code):
    """Return the one finding of a rule."""
    [finding] = [graded.finding for graded in report.findings if graded.finding.rule.code == code]
    return finding


def arguments_of(report):
    """Return the command-line arguments of every fix that is one, in the order of the report."""
    fixes = [fix for graded in report.findings for fix in graded.finding.fixes if fix.safety != "display"]
    return shlex.split(" ".join(fix.do for fix in fixes))


def diff(model, checkpoint, arguments=(), given=()):
    """Compare with these arguments, read as the command line reads them."""
    options = build_parser().parse_args(["diff", "MODEL", "CHECKPOINT", *arguments])
    written = parse_mapping(options.rules or ())
    rules = (*KeyMapping.parse(given).rules, *(written.rules if written else ()))
    report = ckptaudit.diff(model, checkpoint, contract=options.contract, mapping=KeyMapping(rules))
    if isinstance(model, nn.Module) and not isinstance(checkpoint, Manifest) and report.outcome.judge == "torch":
        options = {"contract": options.contract, "mapping": KeyMapping(rules)}
        witnessed = ckptaudit.diff(model, checkpoint, **options, witness=True)
        assert witnessed.hearing.agrees, (witnessed.hearing.unheard, witnessed.hearing.disagreements)
        assert codes(witnessed) == codes(report)
    return report


def follow(model, checkpoint, given=()):
    """Compare, carry all fixes out, compare again; return both reports."""
    before = diff(model, checkpoint, given=given)
    return before, diff(model, checkpoint, arguments_of(before), given)
