"""What a project lives with, taken out of the count: accepts, the baseline, what is older than the change."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import date

from .baseline import Baseline, Entry
from .config import Accept, Config
from .policy import Graded, Report, grade, verdict_of
from .records import replace
from .rules import UNCHECKED_CODES, Finding, Fix, Rule
from .rules.upkeep import BASELINE_GREW, EXPIRED_ACCEPT, STALE_BASELINE, UNUSED_ACCEPT


class Acceptance:
    """Settles reports, and remembers which accepts and entries were of use, and of which targets all is known.

    ``today`` decides which accepts have expired.
    """

    def __init__(self, config: Config, baseline: Baseline, today: date) -> None:
        self._config = config
        self._accepts = [accept for accept in config.accepts if not accept.expired(today)]
        self._expired = [accept for accept in config.accepts if accept.expired(today)]
        self._entries = {entry.identity: entry for entry in baseline.entries}
        self._met: set[tuple[str, str, str]] = set()
        self._used: set[Accept] = set()
        self._judged: set[str] = set()
        self._unsure: set[str] = set()

    def settle(self, report: Report, older: Mapping[str, str] | None = None) -> Report:
        """Grade by the configuration's levels, and move what is accepted out of the findings.

        ``older`` has the fingerprints of findings that are none of the change's, each with the reason. What was not
        checked is never accepted.
        """
        graded = grade((one.finding for one in report.findings), report.contract, self._config.levels)
        kept: list[Graded] = []
        accepted: list[Graded] = []
        for one in graded:
            final = one.finding.rule.code in UNCHECKED_CODES or report.error
            reason = "" if final else self._reason(report, one, older)
            (accepted if reason else kept).append(replace(one, reason=reason))
        verdict = report.verdict if report.error else verdict_of(kept)
        self._judged.add(report.target)
        if verdict == "unchecked":
            self._unsure.add(report.target)
        return replace(report, findings=tuple(kept), accepted=(*report.accepted, *accepted), verdict=verdict)

    def _reason(self, report: Report, graded: Graded, older: Mapping[str, str] | None) -> str:
        """Say why a finding counts for nothing; every one of its keys has to be accepted."""
        finding, code = graded.finding, graded.finding.rule.code
        fitting = [one for one in self._accepts if (one.rule, one.target or report.target) == (code, report.target)]
        using = [one for one in fitting if not finding.keys or any(map(one.key.matches, finding.keys))]
        self._used |= set(using)
        if using and all(any(one.key.matches(key) for one in using) for key in finding.keys):
            return "; ".join(dict.fromkeys(one.reason for one in using))
        identity = Entry.of(report, graded, self._config.folder).identity
        if identity in self._entries:
            self._met.add(identity)
            return f"in the baseline {self._config.baseline}"
        return (older or {}).get(finding.fingerprint, "")

    def stale(self) -> list[Entry]:
        """Return the entries whose findings are gone, of targets that were checked to their end or are gone too."""
        names = {target.name for target in self._config.targets}
        return [
            entry
            for identity, entry in self._entries.items()
            if identity not in self._met and (entry.target not in names or entry.target in self._judged - self._unsure)
        ]

    def leftovers(self, *, whole: bool) -> Iterator[Finding]:
        """Yield the accepts that have expired, and those, and the entries, that nothing needed.

        ``whole`` says that all that could need them was looked at.
        """
        if self._expired:
            rows = tuple((str(one), one.place, str(one.expires), "1") for one in self._expired)
            yield Finding(EXPIRED_ACCEPT, tuple(map(str, self._expired)), rows=rows)
        if not whole:
            return
        names = {target.name for target in self._config.targets}
        unused = [one for one in self._accepts if one not in self._used and self._is_known(one, names)]
        if unused:
            rows = tuple((str(one), one.place, one.reason, "1") for one in unused)
            yield Finding(UNUSED_ACCEPT, tuple(map(str, unused)), rows=rows)
        if stale := self.stale():
            fix = Fix("display", "take them out: ckptaudit check --update-baseline")
            yield _of_entries(STALE_BASELINE, stale, {"file": self._config.baseline}, (fix,))

    def _is_known(self, accept: Accept, names: set[str]) -> bool:
        """Tell whether all targets that could need an accept were checked, whole."""
        return (names if accept.target is None else {accept.target}) <= self._judged - self._unsure


def growth(old: Baseline, new: Baseline, file: str, against: str) -> Iterator[Finding]:
    """Yield the entries that a baseline has gained since then."""
    known = {entry.identity for entry in old.entries}
    if gained := [entry for entry in new.entries if entry.identity not in known]:
        yield _of_entries(BASELINE_GREW, gained, {"file": file, "against": against})


def _of_entries(
    rule: Rule, entries: Iterable[Entry], data: Mapping[str, object], fixes: tuple[Fix, ...] = ()
) -> Finding:
    rows = tuple((_name(entry), entry.target, entry.checkpoint, "1") for entry in entries)
    return Finding(rule, tuple(row[0] for row in rows), data=data, rows=rows, fixes=fixes)


def _name(entry: Entry) -> str:
    return f"{entry.code} {' '.join(entry.keys)}".strip()
