"""What the lint says of each case of the catalogue, before its training and after: python tests/training/lint_hits.py

writes lint_hits.json. Read the difference before you commit it: a new hit is the point of your change, or a false alarm.
"""

from __future__ import annotations

import contextlib
import json
import warnings
from pathlib import Path

import torch
from catalogue import CASES

import ckptaudit

TABLE = Path(__file__).with_name("lint_hits.json")


def linted(case):
    """Run a case; return the report of its lint before the training, and that after it."""
    reports = []

    @contextlib.contextmanager
    def audit(model, optimizers, **named):
        optimizers = optimizers if isinstance(optimizers, torch.optim.Optimizer) else list(optimizers)
        reports.append(ckptaudit.lint_training(model, optimizers, **named))
        yield
        reports.append(ckptaudit.lint_training(model, optimizers, **named))

    torch.manual_seed(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        case.run(audit)
    return reports


def hits():
    """Return the table, one line per case."""
    rows = {case.id: [_said(report) for report in linted(case)] for case in CASES}
    lines = ",\n".join(f" {json.dumps(name)}: {json.dumps(row)}" for name, row in rows.items())
    return f"{{\n{lines}\n}}\n"


def _said(report):
    return {graded.finding.rule.code: graded.level for graded in report.findings}


if __name__ == "__main__":
    TABLE.write_text(hits())
