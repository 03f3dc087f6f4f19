"""The terminal pages of ``ckptaudit scan``."""

from __future__ import annotations

from ..formats.base import Global
from ..scanning import ScannedFile, ScanReport, Verdict
from ..words import plural, visible
from .layout import wrap
from .table import finding_lines, grid

MAX_ROWS = 40
_VERDICTS: tuple[Verdict, ...] = ("unsafe", "malformed", "incomplete", "safe")


def render_scan(report: ScanReport, width: int, verbose: bool) -> str:
    """Return a table of the files, the findings of each, and a sentence that counts."""
    lines: list[str] = []
    shown = _shown(report.files, verbose)
    if shown:
        rows = [(file.path, file.format, _word(file)) for file in shown]
        lines += grid(rows, ("file", "format", "verdict"), width)
    if hidden := len(report.files) - len(shown):
        lines.append(f"  and {plural(hidden, 'more file')}, safe: add -v")
    for file in report.files:
        for graded in file.findings:
            if verbose or graded.level != "note":
                lines += ["", *wrap(file.path, width), *finding_lines(graded, width, verbose)]
        if verbose and file.globals:
            lines += ["", *wrap(f"{file.path}: its pickles name", width), *_names(file.globals, width)]
    lines += [""] if lines else []
    lines += [line for sentence in _closing(report) for line in wrap(sentence, width)]
    worst = next((graded for graded in report.findings if graded.level == "error"), None)
    if worst is not None:
        lines.append(f"next: ckptaudit explain {worst.finding.rule.code}")
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _shown(files: tuple[ScannedFile, ...], verbose: bool) -> list[ScannedFile]:
    """Return the files that get a row: of many, those that something is to be said of."""
    return [file for file in files if verbose or len(files) <= MAX_ROWS or file.findings or file.verdict != "safe"]


def render_scan_concise(report: ScanReport) -> str:
    """Return ``FILE: VERDICT`` per file, then a line per finding; the last line counts."""
    lines = []
    for file in report.files:
        lines.append(f"{file.path}: {file.verdict}")
        for graded in file.findings:
            rule = graded.finding.rule
            lines.append(f"{file.path}: {graded.level} {rule.code} {rule.name}: {graded.finding.message}")
    return "".join(f"{visible(line)}\n" for line in [*lines, _closing(report)[0]])


def _word(file: ScannedFile) -> str:
    """Return the verdict, loud where it is bad; warnings beside it are counted."""
    if file.verdict != "safe":
        return file.verdict.upper()
    warnings = sum(1 for graded in file.findings if graded.level == "warning")
    return f"safe, {plural(warnings, 'warning')}" if warnings else "safe"


def _names(found: tuple[Global, ...], width: int) -> list[str]:
    rows = [(g.name, g.verdict, f"{g.member}, byte {g.offset:,}") for g in found]
    return grid(rows, ("name", "judged", "first at"), width)


def _closing(report: ScanReport) -> list[str]:
    """Return the sentence that counts, and what was not looked at."""
    counts = [f"{report.count(verdict)} {verdict}" for verdict in _VERDICTS if report.count(verdict)]
    if not counts:
        return ["No checkpoint was found."]
    sentences = [f"{plural(len(report.files), 'file')}: {', '.join(counts)}."]
    if report.others:
        sentences.append(f"{plural(report.others, 'other file')} passed over: no checkpoint by name or content.")
    if not report.integrity:
        sentences.append("Not checked: checksums and values (--integrity).")
    return sentences
