"""The fixture ``train_step_benchmark``: steps with a clock of their own, so that no outcome depends on the machine."""

from __future__ import annotations

import json

import pytest

CLOCKS = """
import itertools
import random

import torch
from torch import nn

import ckptaudit
from ckptaudit.training.bench.rounds import Clocks


class Watch:
    now = 0.0

    def clocks(self):
        return Clocks(lambda: self.now, lambda: self.now, lambda: None, lambda: self.now)


class Step(ckptaudit.TrainStep):
    '''A step that takes seconds of a watch.'''

    def __init__(self, watch, seconds, spread, seed):
        self.samples, self.watch, self.seconds, self.spread = 4, watch, seconds, spread
        self.random, self.runs = random.Random(seed), 0

    def forward(self):
        self.runs += 1
        self.watch.now += self.seconds * self.random.lognormvariate(0, self.spread)

    def backward(self, loss):
        pass

    def update(self):
        pass


def simulated(spread=0.0, **seconds):
    '''Return what the fixture takes: steps by name, and their clocks.'''
    watch, seeds = Watch(), itertools.count()
    makers = {name: lambda s=s: Step(watch, s, spread, next(seeds)) for name, s in seconds.items()}
    return {"variants": makers, "clocks": watch.clocks(), "rounds": 16}


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.body, self.fc = nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, x):
        return self.fc(self.body(self.stem(x)))


def ticking():
    '''Return the variants of a net, and a clock by which every step and every operation takes equally long.'''
    tick = itertools.count().__next__
    variants = ckptaudit.freeze_variants(Net(), [(2, 4)], only=["frozen eval", "last 2"], device="cpu")
    return {"variants": variants, "clocks": Clocks(tick, tick, lambda: None, tick), "rounds": 8}
"""
TESTS = """
import pytest
from clocks import simulated, ticking


def test_holds(train_step_benchmark):
    result = train_step_benchmark(**simulated(full=3.0, frozen=1.0), min_speedup=2.9)
    assert result.speed_up("frozen").point == 3


def test_misses(train_step_benchmark):
    train_step_benchmark(**simulated(full=3.0, frozen=2.0), min_speedup=1.6)


def test_point_misses_and_interval_does_not(train_step_benchmark):
    given = simulated(full=3.0, frozen=1.0, spread=0.02)
    result = train_step_benchmark(**given, min_speedup=3.001)
    assert result.speed_up("frozen").point < 3.001 < result.speed_up("frozen").high


def test_is_too_noisy(train_step_benchmark):
    train_step_benchmark(**simulated(full=3.0, frozen=2.0, spread=0.5), min_speedup=100)


def test_holds_a_share_of_the_predicted(train_step_benchmark):
    result = train_step_benchmark(**ticking(), min_of_predicted=0.01)
    assert result.speed_up("frozen eval").point == 1
    assert result.plan.predicted("frozen eval") > 1


def test_misses_a_share_of_the_predicted(train_step_benchmark):
    train_step_benchmark(**ticking(), variant="last 2", min_of_predicted=1.0)


def test_has_no_prediction(train_step_benchmark):
    train_step_benchmark(**simulated(full=3.0, frozen=2.0), min_of_predicted=0.6)


def test_has_too_few_rounds(train_step_benchmark):
    train_step_benchmark(**simulated(full=3.0, frozen=2.0) | {"rounds": 7}, min_speedup=1.5)


def test_names_no_variant(train_step_benchmark):
    train_step_benchmark(**simulated(full=3.0, frozen=2.0), variant="forzen")


def test_is_another():
    pass
"""
# pytest-benchmark warns of a fixture that failed before it was used, and warnings are errors here.
BENCHMARK = ("-p", "pytest_benchmark.plugin", "-W", "ignore:Benchmark fixture was not used")


@pytest.fixture
def tests(run_apart, pytester, monkeypatch):
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)  # pytest-benchmark measures nothing in one
    pytester.makepyfile(clocks=CLOCKS, test_steps=TESTS)
    return run_apart


def test_gates_and_figures(tests, pytester):
    result = tests(*BENCHMARK, "--benchmark-json=figures.json", "-rsf")
    result.assert_outcomes(passed=4, failed=5, skipped=1)
    failed = {line.split("::")[1].split()[0] for line in result.outlines if line.startswith("FAILED")}
    assert failed == {
        "test_misses",
        "test_misses_a_share_of_the_predicted",
        "test_has_no_prediction",
        "test_has_too_few_rounds",
        "test_names_no_variant",
    }
    result.stdout.fnmatch_lines([
        "frozen is 1.50 times as fast as full (1.50 to 1.50); min_speedup asks for 1.60",
        "  variant *speed-up *95 % interval*",
        "  frozen *1.50 *1.50 to 1.50*",
        "reproduce: pytest test_steps.py::test_misses --benchmark-only",
        "last 2 is 1.00 times as fast as full (1.00 to 1.00); min_of_predicted asks for *, 100 % of the predicted *",
        "frozen: has no prediction that min_of_predicted could be a share of",
        "7 rounds: are too few to hold a speed-up to anything*",
        "hint: at least 8",
        "forzen: is no variant",
        "hint: one of full, full again, frozen",
        "SKIPPED *test_steps.py*: frozen was not measured: too noisy: *",
    ])  # fmt: skip
    assert "pytest_bench.py" not in "\n".join(line for line in result.outlines if not line.startswith("SKIPPED"))

    found = {one["name"]: one for one in json.loads((pytester.path / "figures.json").read_text())["benchmarks"]}
    assert {"test_holds", "test_misses", "test_is_too_noisy"} <= set(found)
    assert found["test_holds"]["stats"]["rounds"] == 16
    facts = found["test_holds"]["extra_info"]["ckptaudit"]
    assert (facts["variant"], facts["baseline"]) == ("frozen", "full")
    assert facts["speed_up"] == {"point": 3.0, "low": 3.0, "high": 3.0}
    assert facts["noise"] == {"ratio": {"point": 1.0, "low": 1.0, "high": 1.0}, "resolvable": 1.0, "enough": True}
    assert (facts["predicted"], facts["trouble"]) == (None, "")
    assert facts["environment"]["device"] == "cpu"
    assert found["test_misses_a_share_of_the_predicted"]["extra_info"]["ckptaudit"]["predicted"] > 1
    assert "too noisy" in found["test_is_too_noisy"]["extra_info"]["ckptaudit"]["trouble"]


def test_figures_are_stored_and_compared(tests):
    chosen = ("-k", "test_holds and not share", *BENCHMARK)
    tests(*chosen, "--benchmark-save=first").assert_outcomes(passed=1, deselected=9)
    result = tests(*chosen, "--benchmark-compare=0001")
    result.assert_outcomes(passed=1, deselected=9)
    for which in ("NOW", "0001_first"):  # the fastest comes first
        result.stdout.fnmatch_lines([f"test_holds ({which})*"])


def test_switches_of_pytest_benchmark(tests, pytester):
    tests(*BENCHMARK, "--benchmark-skip").assert_outcomes(passed=1, skipped=9)
    pytester.makepyfile(
        test_steps="""
        from clocks import simulated

        def test_misses(train_step_benchmark):
            result = train_step_benchmark(**simulated(full=3.0, frozen=2.0), min_speedup=1.6)
            print("rounds:", len(result.rounds))

        def test_is_another():
            pass
        """
    )
    result = tests(*BENCHMARK, "--benchmark-disable", "-s")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["*rounds: 1"])
    tests(*BENCHMARK, "--benchmark-only").assert_outcomes(failed=1, skipped=1)


def test_without_pytest_benchmark(tests):
    result = tests("-k", "test_holds or test_is_another")
    result.assert_outcomes(passed=1, errors=2, deselected=7)
    result.stdout.fnmatch_lines([
        "*UsageError: train_step_benchmark: needs pytest-benchmark, which this run has not loaded",
        "*hint: pip install pytest-benchmark",
    ])  # fmt: skip
