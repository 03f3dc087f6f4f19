"""``scan``: may these files be loaded? Every one is read by the one reader, and gets one verdict."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal

from . import rules
from .errors import FormatError, UsageError
from .formats import DEFAULT_LIMITS, Checkpoint, Limits, kind_of, open_checkpoint
from .formats.base import Global
from .formats.discover import discover
from .inspection import file_findings
from .policy import Graded
from .records import dataclass
from .rules import Contract, Finding, Level

SCHEMA = "ckptaudit.scan/1"

Verdict = Literal["safe", "unsafe", "malformed", "incomplete"]
_UNSAFE = frozenset({"CKPT701", "CKPT702", "CKPT704", "CKPT705", "CKPT708"})
_INCOMPLETE = frozenset({"CKPT703", "CKPT905"})
EXIT_STATUS: dict[Verdict, int] = {"safe": 0, "unsafe": 1, "malformed": 1, "incomplete": 2}
# What load_state_dict would say is the business of diff; whether plain data need a full pickle is worth a warning.
_LEVELS: dict[str, Level] = {"CKPT004": "warning", "CKPT304": "warning"}
_OUT_OF_SCOPE = frozenset({"CKPT005", "CKPT006", "CKPT007", "CKPT008"})

Check = Callable[[Checkpoint], Iterable[Finding]]


@dataclass(frozen=True)
class ScannedFile:
    """One file and its verdict. ``format`` is empty where the file is in none of ours; ``size`` is in bytes.

    ``globals`` are what its pickles name. ``safe`` means that all of it was read and nothing in it would run;
    it may still have warnings. ``unsafe``: loading it would run code or open files elsewhere, or something is hidden
    in it. ``malformed``: readers could differ on what it holds, or it is no checkpoint. ``incomplete``: it could
    not be checked to its end.
    """

    path: str
    format: str
    size: int
    verdict: Verdict
    findings: tuple[Graded, ...]
    globals: tuple[Global, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the ``files`` entry of a scan."""
        return {
            "path": self.path,
            "format": self.format,
            "size": self.size,
            "verdict": self.verdict,
            "globals": [g.to_json() for g in self.globals],
            "findings": [graded.to_json() for graded in self.findings],
        }


@dataclass(frozen=True)
class ScanReport:
    """What a scan found. ``others`` counts the files below the folders that are no checkpoints by name or content."""

    files: tuple[ScannedFile, ...]
    others: int = 0
    integrity: bool = False

    @property
    def ok(self) -> bool:
        """True when every file is safe."""
        return self.exit_status == 0

    @property
    def findings(self) -> tuple[Graded, ...]:
        """The findings of all files."""
        return tuple(graded for file in self.files for graded in file.findings)

    @property
    def exit_status(self) -> int:
        """0 all safe, 1 one is unsafe or malformed, 2 one could not be checked to its end."""
        return max((EXIT_STATUS[file.verdict] for file in self.files), default=0)

    def count(self, verdict: Verdict) -> int:
        """Count the files of one verdict."""
        return sum(1 for file in self.files if file.verdict == verdict)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form (schema ``ckptaudit.scan/1``)."""
        return {
            "schema": SCHEMA,
            "exit_status": self.exit_status,
            "integrity": self.integrity,
            "others": self.others,
            "files": [file.to_json() for file in self.files],
        }


def scan(
    *paths: str | os.PathLike[str],
    integrity: bool = False,
    exclude: Sequence[str] = (),
    limits: Limits = DEFAULT_LIMITS,
    progress: Callable[[int, int], None] | None = None,
) -> ScanReport:
    """Judge checkpoints; nothing in them is executed.

    A path is a file, an index of shards, or a folder, which is searched to its ground for files that are checkpoints
    by name or by content; ``exclude`` holds shell patterns of names to pass over there. ``integrity`` reads every
    byte as well: checksums, weights that were never written, values that are no finite numbers;
    ``progress(done, total)`` is told how many bytes of the file at hand are read.
    Raises UsageError where a path does not exist.
    """
    files: list[ScannedFile] = []
    others = 0
    check = _integrity_check(limits, progress) if integrity else None
    for target, reason in _targets(paths, exclude):
        if reason is None:
            others += 1
        else:
            files.append(_unread(target, reason) if reason else scan_file(target, limits=limits, check=check))
    return ScanReport(tuple(files), others, integrity)


def _targets(paths: Iterable[str | os.PathLike[str]], exclude: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    """Yield path and why it cannot be read ("": it can, None: it is no checkpoint)."""
    from fnmatch import fnmatch

    for path in (os.fspath(given) for given in paths):
        if not os.path.isdir(path):
            yield path, ""
            continue
        for found in discover(path):
            names = (os.path.basename(found.path), os.path.relpath(found.path, path))
            if found.kind == "other" or any(fnmatch(name, pattern) for name in names for pattern in exclude):
                yield found.path, None
            else:
                yield found.path, found.why


def scan_file(path: str, *, limits: Limits = DEFAULT_LIMITS, check: Check | None = None) -> ScannedFile:
    """Judge one file, an index, or the folder of a distributed checkpoint. Raises UsageError where there is none."""
    try:
        checkpoint = open_checkpoint(path, limits=limits, allow_refused=True)
        found = [*file_findings(checkpoint), *(check(checkpoint) if check else ())]
    except FormatError as error:
        return _refused(path, error, limits)
    except UsageError as error:
        if not os.path.lexists(path):
            raise
        return _unread(path, error.reason)
    graded = tuple(Graded(_level(f), f) for f in found if f.rule.code not in _OUT_OF_SCOPE)
    return ScannedFile(
        path, checkpoint.format, checkpoint.size, verdict_of(graded), _sorted(graded), checkpoint.globals
    )


def _level(finding: Finding) -> Level:
    return _LEVELS.get(finding.rule.code) or finding.level(Contract.open)


def verdict_of(findings: Iterable[Graded]) -> Verdict:
    """Decide: code that would run is the worst, then what was not checked, then what contradicts itself."""
    errors = {graded.finding.rule.code for graded in findings if graded.level == "error"}
    if errors & _UNSAFE:
        return "unsafe"
    if errors & _INCOMPLETE:
        return "incomplete"
    return "malformed" if errors else "safe"


def _sorted(findings: tuple[Graded, ...]) -> tuple[Graded, ...]:
    order = {"error": 0, "warning": 1, "note": 2}
    return tuple(sorted(findings, key=lambda graded: (order[graded.level], graded.finding.rule.code)))


def _refused(path: str, error: FormatError, limits: Limits) -> ScannedFile:
    """Return the verdict on a file that the reader refuses: its one finding is the reason."""
    where = "" if error.subject == path else f"{error.subject}: "
    fixes = (rules.Fix("display", error.hint),) if error.hint else ()
    finding = Finding(rules.RULES[error.code], data={"reason": f"{where}{error.reason}"}, fixes=fixes)
    graded = (Graded("error", finding),)
    return ScannedFile(path, kind_of(path, limits), _size(path), verdict_of(graded), graded)


def _unread(path: str, reason: str) -> ScannedFile:
    finding = Finding(rules.RULES["CKPT703"], data={"reason": reason})
    return ScannedFile(path, "", _size(path), "incomplete", (Graded("error", finding),))


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def _integrity_check(limits: Limits, progress: Callable[[int, int], None] | None) -> Check:
    from .integrity import check_integrity

    def check(checkpoint: Checkpoint) -> Iterable[Finding]:
        return check_integrity(checkpoint, limits=limits, progress=progress)

    return check
