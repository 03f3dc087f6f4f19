"""Scans of real checkpoints: no false alarm, and no bit that is not what was written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ckptaudit.scanning import scan

from .catalogue import FILES

pytestmark = pytest.mark.real

RealFile = Callable[[str], Path]
# Files whose container is no checkpoint's, or holds more than weights.
PROGRAMS = {"torchscript": ("safe", ["CKPT709"]), "torch.package": ("malformed", ["CKPT001"])}
NOT_FINITE = ("metapredict/backend/networks/epoch-49-step-42600.ckpt",)  # the best score so far, in a callback


@pytest.mark.parametrize("name", FILES)
def test_the_verdict_is_that_of_the_globals(name: str, real_file: RealFile) -> None:
    """What torch's weights_only loader opens is safe without a word; plain data outside of its list are a warning."""
    _, file = FILES[name]
    expected = {None: ("safe", []), "inert": ("safe", ["CKPT004"])}.get(file.verdict, ("unsafe", ["CKPT701"]))
    (scanned,) = scan(real_file(name), integrity=True).files
    found = [graded.finding.rule.code for graded in scanned.findings]
    verdict, codes = PROGRAMS.get(file.format, expected)
    assert (scanned.verdict, found) == (verdict, [*codes, *(["CKPT304"] if name in NOT_FINITE else [])])
