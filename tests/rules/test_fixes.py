"""Whatever the change, the fixes of a report, carried out as they are written, do what they promise."""

import random
import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "oracle"))

from trees import MODEL_CHANGES, STATE_CHANGES, random_tree  # isort: skip

from .support import arguments_of, diff  # isort: skip

CASES = [(seed, change, 0) for seed in range(8) for change in range(len(MODEL_CHANGES))]
CASES += [(seed + 50, seed % len(MODEL_CHANGES), change) for seed in range(8) for change in range(len(STATE_CHANGES))]


def helpless(report):
    """Return the codes of the errors that come with advice alone."""
    return {
        graded.finding.rule.code
        for graded in report.findings
        if graded.level == "error" and all(fix.safety == "display" for fix in graded.finding.fixes)
    }


@pytest.mark.parametrize(("seed", "model_change", "state_change"), CASES)
def test_fixes_keep_their_promise(seed, model_change, state_change):
    rng = random.Random(seed * 1000 + model_change * 50 + state_change)
    state = STATE_CHANGES[state_change](rng, random_tree(seed).state_dict())
    model = MODEL_CHANGES[model_change](rng, random_tree(seed))
    before = diff(model, state)

    after = diff(model, state, arguments_of(before))

    left = {graded.finding.rule.code for graded in after.findings if graded.level == "error"}
    assert left <= helpless(before)
    assert left == helpless(before) or after.contract.name == "partial"
    renames = [fix for graded in before.findings for fix in graded.finding.fixes if fix.safety == "safe"]
    for fix in renames:
        promised = re.search(r"([\d,]+) of ([\d,]+) tensors match", fix.then)
        assert promised[1] == f"{before.outcome.loaded:,}"
    if renames and len(renames) == sum(len(graded.finding.fixes) for graded in before.findings):
        assert after.outcome.loaded == before.outcome.loaded
        assert after.mapping.proposed == ()


@pytest.mark.parametrize("seed", range(12))
def test_a_safe_fix_loads_what_it_promises(seed):
    """Under the renames alone, as many tensors receive a value as the fix says."""
    tree = random_tree(seed + 200)
    state = {f"module.{key}": value for key, value in tree.state_dict().items()}
    before = diff(tree, state)
    if not before.outcome_as_is.missing_keys:
        return
    after = diff(tree, state, arguments_of(before))
    assert after.outcome.loaded == before.outcome.loaded > 0
    assert after.ok
