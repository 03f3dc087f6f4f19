"""``ckptaudit check``."""

from __future__ import annotations

import argparse
import os
import sys

from ..baseline import Entry
from ..checking import Check
from ..errors import UsageError
from ..policy import CheckReport
from ..records import replace
from ..rules import UNCHECKED_CODES, find_rule
from ..textfile import refuse_input
from ..words import plural
from .outputs import emit, parse_outputs
from .project import enter_project
from .streams import write, write_error


def run(options: argparse.Namespace) -> int:
    """Check the project, write the report, and the baseline where that is asked for; return the exit status."""
    outputs = [(form, os.path.abspath(path)) for form, path in parse_outputs(options)]
    report = _report(options, [path for _, path in outputs])
    emit(report, options, outputs)
    for error in [one.error for one in report.reports if one.error is not None and options.debug]:
        write_error(error, debug=True)
    return 0 if options.exit_zero and report.verdict == "broken" else report.exit_status


def _report(options: argparse.Namespace, outputs: list[str]) -> CheckReport:
    """Check, and again where the baseline has changed: what is said then is what the next check will say."""
    adding = _codes(options.add_to_baseline)
    folder = os.path.abspath(options.against) if _is_folder(options.against) else ""
    config = enter_project(options.config)
    against = f"{os.path.relpath(folder)}/" if folder else options.against  # as seen from the project
    if options.baseline:
        config = replace(config, baseline=options.baseline)
    for path in outputs:
        refuse_input(path, [config.path, config.baseline or "", *(target.model for target in config.targets)])
    changing = bool(adding) or options.update_baseline
    if changing and config.baseline is None:
        hint = 'baseline = "ckptaudit-baseline.json" in [tool.ckptaudit], or --baseline FILE'
        raise UsageError(config.path, "names no baseline", hint)
    if changing and against:
        raise UsageError("--against", "compares with another time; a baseline is of the present one", "leave it out")
    check = Check(config, options.targets, against=against, adopting=bool(adding))
    report = check.run()
    if not changing or not _write_baseline(check, report, adding):
        return report
    return Check(config, options.targets).run()


def _is_folder(against: str | None) -> bool:
    return against is not None and (against.startswith(("./", "../")) or against.endswith("/"))


def _codes(names: list[str]) -> set[str]:
    codes = {find_rule(name).code for name in names}
    if unfit := codes & UNCHECKED_CODES:
        raise UsageError(f"--add-to-baseline {min(unfit)}", "was not checked, and nobody knows what it hides")
    return codes


def _write_baseline(check: Check, report: CheckReport, adding: set[str]) -> bool:
    """Take out what is gone, and add what was asked for by its rule; return whether anything changed."""
    gone = check.acceptance.stale()
    found = [(one, graded) for one in report.reports for graded in one.findings]
    chosen = [(one, graded) for one, graded in found if graded.finding.rule.code in adding]
    new = [Entry.of(one, graded, check.config.folder) for one, graded in chosen]
    if not gone and not new:
        return False
    baseline = check.baseline.without(gone).with_(new)
    path = check.config.baseline or ""
    baseline.save(path)
    counts = f"{plural(len(gone), 'finding')} taken out, {len(new):,} added, {len(baseline.entries):,} in it"
    write(sys.stderr, f"{path}: {counts}\n")
    return True
