"""What the formats of other tools have in common: what was judged, part by part, and where each finding lies."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from urllib.parse import quote

from ..place import Place
from ..policy import EXIT_STATUS as STATUS
from ..policy import CheckReport, Graded, Report, Side, verdict_of
from ..records import dataclass
from ..rules import Level
from ..scanning import EXIT_STATUS, ScannedFile, ScanReport
from ..words import plural, visible
from .layout import folded_rows

One = Report | CheckReport | ScanReport
Judged = One | Sequence[One]


@dataclass(frozen=True)
class Located:
    """A finding and its places, the best first: lines of the model's code, then the files that were compared."""

    graded: Graded
    places: tuple[Place, ...]

    @property
    def line(self) -> str:
        """The line of code to look at, as ``file.py:12``; "" where the best place is no code."""
        return str(self.places[0]) if self.places and self.places[0].file.endswith(".py") else ""


@dataclass(frozen=True)
class Part:
    """What was judged as one: a checkpoint against a model, a training, a file of a scan.

    ``contract`` is the name of the one it was judged by, "" for a scan, whose verdicts are its own words. ``sides``
    are the checkpoint and the model. ``compared`` is False where something kept the comparison from being made.
    """

    command: str
    subject: str
    contract: str
    verdict: str
    exit_status: int
    findings: tuple[Located, ...]
    accepted: tuple[Located, ...] = ()
    sides: tuple[Side, ...] = ()
    compared: bool = True

    @property
    def headline(self) -> str:
        """The verdict in one sentence without a full stop."""
        return f'contract "{self.contract}" {self.verdict}' if self.contract else self.verdict

    def of_level(self, level: Level) -> list[Located]:
        """Return the findings of one level."""
        return [one for one in self.findings if one.graded.level == level]


def parts_of(judged: Judged) -> tuple[Part, ...]:
    """Take what a command found apart: a part for each report, each file of a scan, the configuration of a check."""
    if isinstance(judged, Report):
        return (_of_report(judged),)
    if isinstance(judged, CheckReport):
        return (*map(_of_report, judged.reports), _of_config(judged))
    if isinstance(judged, ScanReport):
        return tuple(map(_of_file, judged.files))
    return tuple(part for one in judged for part in parts_of(one))


def _of_report(report: Report) -> Part:
    def located(findings: Iterable[Graded]) -> tuple[Located, ...]:
        return tuple(Located(graded, _places(report, graded)) for graded in findings)

    target = f"{report.target}: " if report.target else ""
    return Part(
        command=report.command,
        subject=f"{target}{report.checkpoint.name} -> {_without_line(report.model)}",
        contract=report.contract.name,
        verdict=report.verdict,
        exit_status=report.exit_status,
        findings=located(report.findings),
        accepted=located(report.accepted),
        sides=() if report.error else (report.checkpoint, report.model),
        compared=report.error is None,
    )


def _places(report: Report, graded: Graded) -> tuple[Place, ...]:
    """Return the lines that a finding is about, then where the two sides lie: the one at fault first."""
    sides = [report.checkpoint.place, report.model.place]
    if graded.finding.rule.about != "file":
        sides.reverse()
    places = report.places_of(graded.finding) + [place for place in sides if place is not None]
    return tuple(dict.fromkeys(places))


def _without_line(side: Side) -> str:
    """Return the name without the line number of the head: it would change with every edit above it."""
    return side.name.partition(" (line ")[0]


def _of_config(check: CheckReport) -> Part:
    """Return the part of the findings on the configuration, the baseline and the manifests."""
    located = tuple(Located(graded, (*_written_at(graded), Place(check.config, 1))) for graded in check.findings)
    verdict = verdict_of(check.findings)
    return Part("check", check.config, "", verdict, STATUS[verdict], located)


def _written_at(graded: Graded) -> tuple[Place, ...]:
    """Return the lines of the configuration that a finding names, as ``FILE:LINE``."""
    columns = graded.finding.rule.columns
    cells = [row[columns.index("where")] for row in graded.finding.rows] if "where" in columns else []
    split = [cell.rpartition(":") for cell in cells]
    return tuple(Place(file, int(line)) for file, _, line in split if file and line.isdecimal())


def _of_file(file: ScannedFile) -> Part:
    located = tuple(Located(graded, (Place(file.path, 1),)) for graded in file.findings)
    return Part("scan", file.path, "", file.verdict, EXIT_STATUS[file.verdict], located)


def inside(place: Place, root: str) -> str | None:
    """Return the path of a place from the folder ``root``, with slashes; None where it is outside of it."""
    path, base = os.path.abspath(place.file), os.path.join(os.path.abspath(root), "")
    return path[len(base) :].replace(os.sep, "/") if path.startswith(base) else None


def uri(place: Place, root: str) -> tuple[str, bool]:
    """Return the URI of a place, and whether it is one relative to ``root``."""
    relative = inside(place, root)
    text = relative if relative is not None else os.path.abspath(place.file).replace(os.sep, "/")
    encoded = quote(text.encode("utf-8", "surrogateescape"))
    return (encoded, True) if relative is not None else (f"file://{encoded}", False)


def counted(parts: Iterable[Part]) -> str:
    """Count findings by level, and those that were accepted: ``2 errors, 1 note, 3 accepted``."""
    parts = list(parts)
    levels: tuple[Level, ...] = ("error", "warning", "note")
    counts = [(sum(len(part.of_level(level)) for part in parts), level) for level in levels]
    words = [plural(count, level) for count, level in counts if count]
    accepted = sum(len(part.accepted) for part in parts)
    return ", ".join([*words, *([f"{accepted:,} accepted"] if accepted else [])]) or "no findings"


def plain_lines(graded: Graded, most: int) -> list[str]:
    """Return a finding in plain text: message, at most ``most`` rows and how many more there are, detail, fixes."""
    finding = graded.finding
    lines = [finding.message]
    rows = folded_rows(finding) if finding.rule.columns else []
    for first, *cells in rows[:most]:
        values = [f"{name} {cell}" for name, cell in zip(finding.rule.columns[1:], cells, strict=False) if cell]
        lines.append(f"- {first}: {', '.join(values)}" if values else f"- {first}")
    if len(rows) > most:
        lines.append(f"- and {plural(len(rows) - most, 'more row')}")
    lines += filter(None, finding.detail.splitlines())
    for fix in finding.fixes:
        lines.append(f"fix [{fix.safety}]: {fix.do}" + (f" ({fix.then})" if fix.then else ""))
    return [visible(line) for line in lines]
