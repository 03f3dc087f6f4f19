"""pytest: the fixture ``ckptaudit``, its marker and its options. What they do is imported when a test asks for it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from .pytest_bench import TrainStepBenchmark
    from .pytest_session import Auditor, Session

_SESSION = pytest.StashKey["Session"]()
_DESELECTED = pytest.StashKey[bool]()
_MARKER = (
    "ckptaudit(contract=None, accept=()): what the fixture's assertions of a test hold; accept=[(rule, key, reason)]"
)
_PYTEST_BENCHMARK = ("benchmark", "pytest_benchmark.plugin")  # as an entry point, and by -p
MANIFESTS = "__manifests__"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("ckptaudit", "checkpoints (ckptaudit)")
    group.addoption(
        "--ckptaudit-update", action="store_true", help="write the manifests of tests anew; frozen ones where missing"
    )
    group.addoption(
        "--ckptaudit-report",
        action="append",
        default=[],
        metavar="FORMAT=PATH",
        help="write what the assertions found to a file, in a format of ckptaudit check; repeatable",
    )
    group.addoption(
        "--ckptaudit-unused",
        choices=("ignore", "warn", "error"),
        default="warn",
        help="what to do about manifests that no test uses, after a run of all tests; default: warn",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker, and refuse a report that cannot be written before any test has run."""
    config.addinivalue_line("markers", _MARKER)
    if any(map(config.pluginmanager.hasplugin, _PYTEST_BENCHMARK)):
        config.pluginmanager.register(_WithBenchmark(), "ckptaudit-benchmark")
    if config.getoption("ckptaudit_report"):
        _session(config)


def _session(config: pytest.Config) -> Session:
    """Return what is known of this run, from the first time on that something has to be."""
    if _SESSION not in config.stash:
        from .pytest_session import Session

        config.stash[_SESSION] = session = Session(config)
        config.pluginmanager.register(session, "ckptaudit-session")
    return config.stash[_SESSION]


@pytest.fixture
def ckptaudit(request: pytest.FixtureRequest) -> Auditor:
    """Offer the assertions of ``ckptaudit.testing``; ``assert_manifest`` keeps a committed file for each test."""
    return _session(request.config).auditor(request)


@pytest.fixture
def train_step_benchmark() -> Any:
    """Compare training steps within rounds, hold them to a speed-up, and hand the figures to pytest-benchmark."""
    reason = "train_step_benchmark: needs pytest-benchmark, which this run has not loaded"
    raise pytest.UsageError(f"{reason}\nhint: pip install pytest-benchmark")


class _WithBenchmark:
    """What is registered where pytest-benchmark is: the fixture in the place of the one that refuses."""

    @pytest.fixture
    def train_step_benchmark(self, request: pytest.FixtureRequest, benchmark: Any) -> TrainStepBenchmark:
        """Compare training steps within rounds, hold them to a speed-up, and hand the figures to pytest-benchmark."""
        from .pytest_bench import TrainStepBenchmark

        return TrainStepBenchmark(benchmark, request.node.nodeid)


def pytest_deselected(items: Iterable[pytest.Item]) -> None:
    """Remember that some tests will not run: nobody can say then which manifests are not used."""
    for item in items:
        item.config.stash[_DESELECTED] = True
        return


def pytest_collection_finish(session: pytest.Session) -> None:
    """Take an interest in the run where manifests lie beside its tests."""
    files = {os.fspath(item.path) for item in session.items}
    folders = {os.path.dirname(file) for file in files}
    if any(os.path.isdir(os.path.join(folder, MANIFESTS)) for folder in folders):
        _session(session.config).collected(files, partial=session.config.stash.get(_DESELECTED, False))


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take over what a worker of pytest-xdist knows."""
    if packed := getattr(node, "workeroutput", {}).get("ckptaudit"):
        _session(node.config).take_over(packed)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Hand over to the controller, or write the reports and look for manifests that no test uses."""
    ours = session.config.stash.get(_SESSION, None)
    if ours is None:
        return
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["ckptaudit"] = ours.pack()
    else:
        session.exitstatus = ours.finish(exitstatus)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say which manifests were written, and which no test uses."""
    ours = config.stash.get(_SESSION, None)
    if ours is not None:
        ours.summarise(terminalreporter)


def pytest_assertrepr_compare(op: str, left: object, right: object) -> list[str] | None:
    """Explain ``assert manifest == other`` by what differs."""
    if op != "==" or type(left).__name__ != "Manifest" or type(left) is not type(right):
        return None
    from .pytest_session import explain

    return explain(left, right)
