"""Everything that [tool.ckptaudit] names, checked: each model against its committed manifest and checkpoints."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import date
from functools import partial
from typing import TypeVar

from .acceptance import Acceptance, growth
from .audit import compare
from .baseline import Baseline
from .config import EXAMPLE, Config, Target, load_config, parse_config
from .errors import CkptauditError, UsageError
from .manifest import Manifest
from .past import Past, open_past
from .policy import CheckReport, Graded, Report, Side, failed, grade
from .records import replace
from .rules import Finding
from .rules.upkeep import TARGET_REMOVED, check_outdated
from .sources import Source, open_source
from .targets import files_of, has_signs, manifest_of, open_targets, path_of
from .words import listed

T = TypeVar("T")


def check(
    config: Config | str | os.PathLike[str] | None = None,
    targets: Iterable[str] = (),
    *,
    against: str | None = None,
    today: date | None = None,
) -> CheckReport:
    """Check the targets of a configuration, all where none is named; a target that fails hides no other.

    ``config`` is a path, or a Config; the nearest one upwards where it is None. Its paths are relative to its folder.
    ``against`` names a revision of git, or a folder (``./old``, ``old/``): then the manifests committed there are the
    measure, without any code of that time, and findings on checkpoints count only where they are new since then.
    ``today`` decides which accepts have expired.

    Raises UsageError for a faulty configuration, an unknown target and an unknown revision; what goes wrong with a
    target is in its report, with the verdict ``unchecked``.
    """
    chosen = config if isinstance(config, Config) else load_config(config)
    return Check(chosen, targets, against=against, today=today).run()


class Check:
    """One check, with what it needs of the project read before anything is compared.

    ``adopting`` takes a baseline that is not there yet for an empty one.
    """

    def __init__(
        self,
        config: Config,
        targets: Iterable[str] = (),
        *,
        against: str | None = None,
        today: date | None = None,
        adopting: bool = False,
    ) -> None:
        if not config.targets:
            raise UsageError(config.path, "names no target: there is nothing to check", EXAMPLE)
        self.config = config
        self._targets = [target.name for target in config.choose(targets)]
        self._past = open_past(against, config.folder) if against else None
        self._then = _config_of(self._past, config) if self._past else None
        self.baseline = _baseline_of(config, adopting)
        self.acceptance = Acceptance(config, self.baseline, today or date.today())

    def run(self) -> CheckReport:
        """Compare everything."""
        opened = open_targets(self.config, self._targets)
        reports = [report for target, model in opened for report in self._reports(target, model)]
        findings = [*self.acceptance.leftovers(whole=self._past is None), *self._since_then()]
        levels = self.config.levels
        against = self._past.name if self._past else ""
        return CheckReport(self.config.path, tuple(reports), grade(findings, self.config.contract, levels), against)

    def _reports(self, target: Target, model: Source | CkptauditError) -> Iterator[Report]:
        """Compare one target's model with all of its files; what fails is told in place of its report."""
        manifest = [path_of(self.config, target.manifest)] if target.manifest else []
        checkpoints = files_of(self.config, target)
        built = _attempt(partial(_built, model))
        if isinstance(built, CkptauditError):
            yield self._failed(target, listed([*manifest, *checkpoints]), built)
            return
        old = _attempt(partial(self._old_manifest, target))
        if isinstance(old, CkptauditError):
            yield self._failed(target, listed(manifest), old)
            manifest, old = [], None
        runs = [(path, partial(self._manifest_report, target, built, old)) for path in manifest]
        runs += [(path, partial(self._checkpoint_report, target, built, old, path)) for path in checkpoints]
        for path, run in runs:
            report = _attempt(run)
            yield self._failed(target, path, report) if isinstance(report, CkptauditError) else report

    def _failed(self, target: Target, name: str, error: CkptauditError) -> Report:
        sides = Side("checkpoint", "checkpoint", name, 0, 0, 0), Side("model", "model", target.model, 0, 0, 0)
        return self._settled(target, failed(error, "check", target.contract, *sides))

    def _settled(self, target: Target, report: Report, older: Mapping[str, str] | None = None) -> Report:
        return self.acceptance.settle(replace(report, command="check", target=target.name), older)

    def _manifest_report(self, target: Target, model: Source, old: Source | None) -> Report:
        """Compare with the manifest of that time, else with the present one, which has to be the model's anyway."""
        present = manifest_of(self.config, target)
        report = compare(old or present, model, None, target.contract)
        renewed = old is not None and old.manifest != present.manifest
        if renewed or all(one.level == "note" for one in report.findings):
            outdated = [Graded("warning", finding) for finding in check_outdated(present.manifest, model.manifest)]
            report = replace(report, findings=(*report.findings, *outdated))
        return self._settled(target, report)

    def _checkpoint_report(self, target: Target, model: Source, old: Source | None, path: str) -> Report:
        """Compare with a checkpoint; what the old manifest says to it as well is not new."""
        if has_signs(path) and not os.path.exists(path.partition("#")[0]):
            raise UsageError(path, "matches no file")
        with open_source(path) as checkpoint:
            report = compare(checkpoint, model, target.mapping, target.contract)
            if old is None or self._past is None:
                return self._settled(target, report)
            before = compare(checkpoint, old, target.mapping, target.contract)
        reason = f"not new: it is so at {self._past.name} too"
        return self._settled(target, report, {one.finding.fingerprint: reason for one in before.findings})

    def _old_manifest(self, target: Target) -> Source | None:
        """Return the target's manifest as it was committed then, None where it was not."""
        known = {one.name: one for one in self._then.targets} if self._then else {}
        path = known.get(target.name, target).manifest
        text = self._past.read(path) if self._past and path else None
        if text is None or self._past is None or path is None:
            return None
        name = f"at {self._past.name}"
        return Source(path_of(self.config, path), "manifest", Manifest.parse(text, f"{path} {name}"), facts=(name,))

    def _since_then(self) -> Iterator[Finding]:
        """Yield what the change does to the check itself: a baseline that grew, targets and manifests taken away."""
        if self._past is None:
            return
        against, file = self._past.name, self.config.baseline
        if file is not None and (text := self._past.read(file)) is not None:
            yield from growth(Baseline.parse(text, f"{file} at {against}"), self.baseline, file, against)
        if rows := tuple(_taken_away(self._then, self.config) if self._then else ()):
            yield Finding(TARGET_REMOVED, tuple(row[0] for row in rows), data={"against": against}, rows=rows)


def _taken_away(then: Config, now: Config) -> Iterator[tuple[str, str, str]]:
    present = {target.name: target for target in now.targets}
    for old in then.targets:
        if old.name not in present:
            yield old.name, "the target", "1"
        elif old.manifest and not present[old.name].manifest:
            yield old.name, f"its manifest {old.manifest}", "1"


def _attempt(run: Callable[[], T]) -> T | CkptauditError:
    """Return what went wrong instead of raising it: a fault, one of ours too, hides no other target."""
    try:
        return run()
    except CkptauditError as error:
        return error
    except Exception as error:
        what = " ".join(f"{type(error).__name__}: {error}".split())
        problem = CkptauditError("internal error", what, "run it again with --debug and report the traceback")
        problem.__cause__ = error
        return problem


def _built(model: Source | CkptauditError) -> Source:
    """Wait for the model. Raises what went wrong with it."""
    if isinstance(model, CkptauditError):
        raise model
    _ = model.manifest
    return model


def _config_of(past: Past, config: Config) -> Config | None:
    """Return the configuration of that time, None where there was none that can be read."""
    name = os.path.basename(config.path)
    try:
        text = past.read(name)
        return None if text is None else parse_config(text, name)
    except UsageError:
        return None


def _baseline_of(config: Config, adopting: bool) -> Baseline:
    if config.baseline is None:
        return Baseline()
    path = path_of(config, config.baseline)
    if adopting and not os.path.exists(path):
        return Baseline()
    return Baseline.load(path)
