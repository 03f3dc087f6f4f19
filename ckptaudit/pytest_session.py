"""What the pytest plugin knows of a run: the manifests of its tests, which were written or used, and what was found."""

from __future__ import annotations

import os
import re
from argparse import Namespace
from collections.abc import Iterable
from datetime import date
from functools import wraps
from typing import TYPE_CHECKING, Any

import pytest

from . import testing
from .acceptance import Acceptance
from .audit import diff, parse_contract
from .baseline import Baseline
from .cli.outputs import parse_outputs
from .cli.streams import terminal_width
from .config import Accept, Config, find_config, load_config
from .errors import CkptauditError, UsageError
from .keys import KeyPattern
from .manifest import Manifest
from .policy import CheckReport, Report
from .records import replace
from .rules import find_rule
from .rules.upkeep import check_outdated
from .sources import open_source
from .textfile import write_text
from .wire import pack, unpack

if TYPE_CHECKING:
    from .mapping.mapping import KeyMapping

MANIFESTS = "__manifests__"
_MARGIN = 4  # columns that pytest puts before an assertion's text
_LONGEST = 100  # characters of a file's name
_STOPPED = (2, 3, 4, 5)  # interrupted, internal error, usage error, no tests


class Session:
    """One run of pytest, or one worker's share of it."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.update: bool = config.getoption("ckptaudit_update")
        self.root = os.fspath(config.rootpath)
        wanted = Namespace(output=config.getoption("ckptaudit_report"), format="json")
        self.outputs = _checked(parse_outputs, wanted)
        self.reports: list[Report] = []
        self.written: list[str] = []
        self.used: set[str] = set()
        self.files: set[str] = set()
        self.incomplete: set[str] = set()
        self.partial = False
        self.unused: list[str] = []
        self._project: Config | None = None

    @property
    def project(self) -> Config:
        """The project's configuration, an empty one where there is none."""
        if self._project is None:
            path = _checked(find_config, self.root)
            self._project = Config("", ()) if path is None else _checked(load_config, path)
        return self._project

    def auditor(self, request: pytest.FixtureRequest) -> Auditor:
        """Return the value of the fixture for one test."""
        return Auditor(self, request)

    def collected(self, files: Iterable[str], *, partial: bool) -> None:
        """Take note of the files whose tests will run, or a part of them."""
        self.files |= set(files)
        options = self.config.option
        chosen = any("::" in argument for argument in self.config.args)
        self.partial |= partial or chosen or any(getattr(options, name, None) for name in ("lf", "stepwise"))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take note of tests that may have ended before they used their manifest."""
        if not report.passed:
            self.incomplete.add(os.path.join(self.root, report.location[0]))

    def pack(self) -> list[Any]:
        """Return what a worker knows, in builtin types."""
        sets = [sorted(one) for one in (self.used, self.files, self.incomplete)]
        return [pack(self.reports), self.written, *sets, self.partial]

    def take_over(self, packed: list[Any]) -> None:
        """Add what a worker knows."""
        reports, written, used, files, incomplete, partial = packed
        self.reports += unpack(reports)
        self.written += written
        self.used |= set(used)
        self.files |= set(files)
        self.incomplete |= set(incomplete)
        self.partial |= partial

    def finish(self, status: int) -> int:
        """Write the reports and look for unused manifests; return the exit status of the run."""
        self.reports.sort(key=lambda report: report.target)
        if self.outputs:
            from .report import render

            whole = CheckReport("pytest", tuple(self.reports))
            for form, path in self.outputs:
                write_text(path, render(whole, form))
        if self.config.getoption("ckptaudit_unused") != "ignore" and not self.partial and status not in _STOPPED:
            self.unused = sorted(self._unused())
        if self.unused and self.config.getoption("ckptaudit_unused") == "error":
            return status or int(pytest.ExitCode.TESTS_FAILED)
        return status

    def _unused(self) -> Iterable[str]:
        """Yield the manifests of complete files that no test has used, and those of files that are gone."""
        for folder in {os.path.join(os.path.dirname(file), MANIFESTS) for file in self.files}:
            for stem in sorted(os.listdir(folder)) if os.path.isdir(folder) else ():
                test_file = os.path.join(os.path.dirname(folder), f"{stem}.py")
                inside = os.path.join(folder, stem)
                if os.path.isdir(inside) and (not os.path.exists(test_file) or self._is_complete(test_file)):
                    paths = (os.path.join(inside, name) for name in os.listdir(inside) if name.endswith(".json"))
                    yield from (path for path in paths if path not in self.used)

    def _is_complete(self, file: str) -> bool:
        return file in self.files and file not in self.incomplete

    def summarise(self, reporter: pytest.TerminalReporter) -> None:
        """Say which manifests were written, and which no test uses."""
        if self.written:
            reporter.section("ckptaudit: manifests written")
            reporter.line("\n".join(map(self._short, sorted(self.written))))
        if self.unused:
            reporter.section("ckptaudit: manifests that no test uses")
            reporter.line("\n".join(map(self._short, self.unused)))
            reporter.line("remove them, or run with --ckptaudit-unused=ignore")

    def _short(self, path: str) -> str:
        return os.path.relpath(path, self.root)


def _checked(call: Any, argument: Any) -> Any:
    """Turn a failure into a sentence of pytest's own."""
    try:
        return call(argument)
    except CkptauditError as error:
        hint = f"\nhint: {error.hint}" if error.hint else ""
        raise pytest.UsageError(f"ckptaudit: {error}{hint}") from None


class Auditor:
    """The fixture ``ckptaudit``: every assertion of ``ckptaudit.testing``, told of the test that it is part of."""

    def __init__(self, session: Session, request: pytest.FixtureRequest) -> None:
        self._session = session
        self._request = request
        self._node = request.node
        self._width = terminal_width(None) - _MARGIN
        self._manifests = 0
        self._contract: str | None = None
        self._accepts: tuple[Accept, ...] = tuple(one for one in session.project.accepts if one.target is None)
        for marker in reversed(list(self._node.iter_markers("ckptaudit"))):
            _checked(self._read_marker, marker)

    def _read_marker(self, marker: pytest.Mark) -> None:
        """Read a marker; the one nearest to the test is the last."""
        unknown = sorted(set(marker.kwargs) - {"accept", "contract"})
        if unknown or marker.args:
            raise UsageError(
                "@pytest.mark.ckptaudit", f"takes contract and accept, and not {(*marker.args, *unknown)[0]!r}"
            )
        self._contract = marker.kwargs.get("contract") or self._contract
        if self._contract is not None:
            parse_contract(self._contract)
        for accept in marker.kwargs.get("accept", ()):
            if not (isinstance(accept, tuple) and len(accept) == 3 and all(isinstance(part, str) for part in accept)):
                hint = 'accept=[("shape-mismatch", "fc.*", "a new head")]'
                raise UsageError("@pytest.mark.ckptaudit", f"{accept!r} is no rule, key and reason", hint)
            self._accepts += (Accept(find_rule(accept[0]).code, KeyPattern.parse(accept[1]), accept[2]),)

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("assert_"):
            raise AttributeError(f"the fixture ckptaudit has no {name!r}")
        function = getattr(testing, name)

        @wraps(function)
        def assertion(*arguments: Any, **options: Any) -> Any:
            __tracebackhide__ = True
            try:
                result = function(*arguments, **options)
            except testing.AuditAssertionError as failure:
                self._record(failure.report)
                raise
            self._record(getattr(result, "report", None))
            return result

        return assertion

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *(name for name in dir(testing) if name.startswith("assert_"))})

    def assert_loads(
        self, model: Any, checkpoint: Any, *, contract: str | None = None, mapping: KeyMapping | Any = None
    ) -> None:
        """Assert that a checkpoint keeps the contract: the one given, the marker's, or the configuration's."""
        __tracebackhide__ = True
        chosen = self._chosen(contract)
        report = self._settled(diff(model, checkpoint, contract=chosen, mapping=mapping))
        if not report.ok:
            sides = self._named(model, "model"), self._named(checkpoint, "checkpoint")
            self._fail(report, testing.diff_command(*sides, chosen, mapping))

    def assert_manifest(
        self, model: Any, *, frozen: str | None = None, name: str | None = None, contract: str | None = None
    ) -> None:
        """Assert that the model is the one that this test's committed manifest describes.

        The manifest lies in ``__manifests__`` beside the test's file, a file for each test, and one more for each
        further call, or by ``name``. ``--ckptaudit-update`` writes it where it differs.

        ``frozen`` names a manifest that is written once and never again: that of a release. The model need not equal
        it, but what the release saved has to load by the contract.
        """
        __tracebackhide__ = True
        path = self._path(name, frozen)
        chosen = self._chosen(contract)
        with open_source(model) as source:
            manifest = source.manifest
            if self._session.update and self._is_due(path, manifest, frozen):
                manifest.save(path)
                self._session.written.append(path)
            if not os.path.exists(path):
                self._miss(path)
            report = self._settled(testing.manifest_report(source, path, frozen=bool(frozen), contract=chosen))
        if not report.ok:
            self._fail(report, testing.diff_command(self._named(model, "model"), os.path.relpath(path), chosen, None))

    def _is_due(self, path: str, manifest: Manifest, frozen: str | None) -> bool:
        """Tell whether the file is to be written; make its folder."""
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if not os.path.exists(path):
            return True
        return not frozen and any(check_outdated(Manifest.load(path), manifest))

    def _path(self, name: str | None, frozen: str | None) -> str:
        folder, file = os.path.split(os.fspath(self._node.path))
        self._manifests += name is None and frozen is None
        number = f".{self._manifests}" if name is None and frozen is None and self._manifests > 1 else ""
        test = self._node.nodeid.partition("::")[2].replace("::", ".")
        parts = [test, *filter(None, (name, f"{frozen}.frozen" if frozen else None))]
        inside = os.path.join(folder, MANIFESTS, file.removesuffix(".py"))
        path = os.path.join(inside, f"{_file_name('.'.join(parts) + number)}.json")
        self._session.used.add(path)
        return path

    def _miss(self, path: str) -> None:
        __tracebackhide__ = True
        again = f"pytest {self._node.nodeid} --ckptaudit-update"
        pytest.fail(f"{os.path.relpath(path)}: no such manifest\nhint: write it, look at it, commit it: {again}", False)

    def _chosen(self, contract: str | None) -> str:
        return contract or self._contract or self._session.project.contract.name

    def _settled(self, report: Report) -> Report:
        """Grade and accept as the project and the test's marker say, and remember it.

        An outdated manifest is an error here: the test is about nothing else.
        """
        project = self._session.project
        config = replace(project, accepts=self._accepts, levels={"CKPT904": "error", **project.levels})
        named = replace(report, command="pytest", target=self._node.nodeid)
        settled = Acceptance(config, Baseline(), date.today()).settle(named)
        self._session.reports.append(settled)
        return settled

    def _record(self, report: Report | None) -> None:
        if report is not None:
            self._session.reports.append(replace(report, command="pytest", target=self._node.nodeid))

    def _fail(self, report: Report, command: str) -> None:
        __tracebackhide__ = True
        raise testing.AuditAssertionError(report, self._width, command)

    def _named(self, given: Any, role: str) -> str:
        """Return what a command line can name: a path as it is, of anything else its manifest, saved for this."""
        if isinstance(given, (str, os.PathLike)):
            return os.fspath(given)
        folder = self._request.getfixturevalue("tmp_path_factory").mktemp("ckptaudit")
        path = os.path.join(folder, f"{role}.manifest.json")
        with open_source(given) as source:
            source.manifest.save(path)
        return path


def _file_name(text: str) -> str:
    """Return a name that every file system takes; what had to be changed in it is told apart by a digest."""
    safe = re.sub(r"[^A-Za-z0-9_.\-\[\]=]+", "_", text)[:_LONGEST]
    if safe == text:
        return safe
    from hashlib import sha256

    return f"{safe}-{sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"


def explain(left: Any, right: Any) -> list[str]:
    """Return what two manifests differ in, for ``assert left == right``."""
    from .report.table import grid

    rows = [row[:-1] for finding in check_outdated(left, right) for row in finding.rows]
    if not rows:
        return ["the manifests differ in their source or in how their tensors lie in memory"]
    return ["the manifests differ", *grid(rows, ("what", "left", "right"), terminal_width(None) - _MARGIN)]
