"""What readers remark on becomes findings: oddities that do not keep a file from being read."""

from __future__ import annotations

from collections.abc import Iterator

from . import files, safety
from .base import Evidence, Finding

_REMARKED = {
    rule.code: rule
    for rule in (
        files.TOTAL_SIZE_WRONG,
        safety.CODE_EXECUTION,
        safety.SUSPICIOUS_KEY,
        safety.UNACCOUNTED_CONTENT,
        safety.DISGUISED_FILE,
        safety.HOLDS_PROGRAM,
    )
}


def check_remarks(evidence: Evidence) -> Iterator[Finding]:
    """Yield what the reader of the file found odd."""
    for remark in evidence.checkpoint.remarks if evidence.checkpoint else ():
        yield Finding(_REMARKED[remark.code], remark.keys, data={"reason": remark.reason})


CHECKS = (check_remarks,)
