"""One run, audited while it trains and compared from its two files: the verdicts are the same, and so are the words."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import pytest
import torch

import ckptaudit
from ckptaudit.errors import UsageError
from ckptaudit.selection import Pattern
from ckptaudit.training.audit import audit_training

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))
from catalogue import CASES  # isort: skip

pytestmark = [
    pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated"),
    pytest.mark.filterwarnings("ignore:`torch.nn.utils.spectral_norm`"),
    pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad=True"),
    pytest.mark.filterwarnings("ignore:.*lr_scheduler.step"),
]
RUNS = [case for case in CASES if not case.error]


def both_ways(case, folder):
    """Run a case; return the live audit, its patterns, and the files of before and after."""
    torch.manual_seed(1)
    seen = []

    @contextlib.contextmanager
    def audit(model, optimizers=(), *, frozen, trainable=None, schedulers=(), **options):  # which are the lint's
        torch.save(model.state_dict(), folder / "base.pth")
        with audit_training(model, optimizers, frozen=frozen, trainable=trainable, **options) as live:
            yield live
        torch.save(model.state_dict(), folder / "tuned.pth")
        seen.append((live, frozen, trainable, options))

    case.run(audit)
    return seen[0]


def saved_kinds(live):
    return {one.name: one for one in live.verdicts if one.kind in ("parameter", "buffer")}


@pytest.mark.parametrize("case", RUNS, ids=lambda case: case.id)
def test_a_run_is_judged_alike_both_ways(case, tmp_path):
    live, frozen, trainable, options = both_ways(case, tmp_path)
    named = [frozen] if isinstance(frozen, str) else frozen
    if options or not all(isinstance(one, str) and not Pattern.parse(one).needs_modules for one in named):
        pytest.skip("its patterns go by more than names")
    try:
        report = ckptaudit.compare_frozen(tmp_path / "base.pth", tmp_path / "tuned.pth", frozen, trainable=trainable)
    except UsageError as error:
        pytest.skip(str(error))
    found = {one.name: one for one in report.fates.verdicts}
    compared = 0
    for name, one in saved_kinds(live).items():
        if name not in found or one.verdict == "not checked":
            continue  # no state dict has it
        compared += 1
        if one.expected == "frozen":
            lazy = case.id == "H03" and name.startswith("backbone")  # it has no values in the first file
            assert found[name].verdict == ("not checked" if lazy else one.verdict), name
        else:
            assert (found[name].verdict == "trained") == (one.verdict == "trained"), name
    codes = {code for code in ("CKPT801", "CKPT803") if any(n in found for n in keys_of(live.report, code))}
    if case.id != "H02":  # a plain attribute is in no file
        assert {code for code in ("CKPT801", "CKPT803") if keys_of(report, code)} == codes
    assert compared or case.id in NOT_IN_FILES


NOT_IN_FILES = ("H02",)


def keys_of(report, code):
    return [key for graded in report.findings if graded.finding.rule.code == code for key in graded.finding.keys]
