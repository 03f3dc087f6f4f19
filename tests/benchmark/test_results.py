from __future__ import annotations

import json

import pytest

from benchmarks import benchmark, cost
from ckptaudit import UsageError
from ckptaudit.benchmark.plan import FreezePlan
from ckptaudit.benchmark.text import render_bench

FULL = ("full", "full", cost(10, 20, 5), (10, 20, 5))
FROZEN = ("frozen eval", "frozen-eval", cost(10, 0, 0), (10, 0.1, 0.1))


def test_figures_come_from_the_medians():
    result = benchmark([FULL, FROZEN])
    assert result.speed_up("frozen eval").point == pytest.approx(35 / 10.2)
    assert result.samples_per_second("full") == pytest.approx(8 / 0.035)
    assert result.split("full") == pytest.approx({"forward": 0.01, "backward": 0.02, "optimizer": 0.005})
    assert result.plan.predicted("frozen eval") == pytest.approx(3.5)
    assert result.plan.by_flops("frozen eval") == pytest.approx(3.0)
    assert (result.verdict, result.exit_status, result.findings) == ("kept", 0, [])


def test_a_name_that_was_not_measured_is_an_error():
    with pytest.raises(UsageError, match="was not measured"):
        benchmark([FULL]).speed_up("frozen")


def test_pseudo_freezes_are_named_with_their_ratio():
    lazy = ("lr=0", "lr-zero", cost(10, 20, 5), (10, 20, 5))
    absent = ("not optimized", "left-out", cost(10, 20), (10, 20, 0.5))
    (graded,) = benchmark([FULL, lazy, absent]).findings
    assert (graded.level, graded.finding.rule.code) == ("warning", "CKPT851")
    assert [row[:2] for row in graded.finding.rows] == [("lr=0", "1.00"), ("not optimized", "1.15")]


@pytest.mark.parametrize("phase", ["forward", "backward", "optimizer"])
def test_a_step_far_slower_than_predicted_is_a_finding_with_its_phase(phase):
    measured = {"forward": 10, "backward": 0.1, "optimizer": 0.1} | {phase: 25}
    slow = ("frozen eval", "frozen-eval", cost(10, 0, 0), tuple(measured.values()))
    (graded,) = benchmark([FULL, slow]).findings
    assert graded.finding.rule.code == "CKPT852"
    name, _ratio, predicted, cause = graded.finding.rows[0]
    assert (name, predicted) == ("frozen eval", "3.50")
    assert cause.startswith(f"{phase} takes 25 ms")


def test_the_cause_is_uncounted_operations_where_there_are_some():
    slow = ("frozen", "frozen", cost(10, 0, 0, uncounted={"my::op": 2}), (30, 0, 0))
    assert "my::op" in benchmark([FULL, slow]).findings[0].finding.rows[0][3]


def test_a_little_slower_than_predicted_is_none():
    slow = ("frozen eval", "frozen-eval", cost(10, 0, 0), (12, 0.1, 0.1))
    assert benchmark([FULL, slow]).findings == []


def test_a_speed_up_that_was_asked_for_is_held_by_its_interval():
    assert benchmark([FULL, FROZEN], minimum={"frozen eval": 3}).exit_status == 0
    broken = benchmark([FULL, FROZEN], minimum={"frozen eval": 3.6})
    assert (broken.verdict, broken.exit_status) == ("broken", 1)
    assert broken.findings[0].finding.rule.code == "CKPT853"
    noisy = benchmark([FULL, FROZEN], jitter=0.01)
    ratio = noisy.speed_up("frozen eval")
    least = (ratio.point + ratio.high) / 2
    assert ratio.point < least < ratio.high
    assert benchmark([FULL, FROZEN], jitter=0.01, minimum={"frozen eval": least}).exit_status == 0


def test_noise_is_said_and_not_averaged_away():
    noisy = benchmark([FULL, FROZEN], jitter=0.3, minimum={"frozen eval": 100})
    assert noisy.noise.resolvable > 1.15
    assert (noisy.verdict, noisy.exit_status) == ("unchecked", 2)
    assert "too noisy" in noisy.trouble
    assert "More --seconds, less else on the machine, or --clock cpu." in " ".join(str(noisy).split())
    assert "--clock" not in str(benchmark([FULL], jitter=0.3, clock="cpu"))
    assert noisy.findings == []


def test_too_few_rounds_are_said():
    assert "7 rounds are too few" in benchmark([FULL], rounds=7).trouble


def test_a_bias_between_two_steps_built_alike_is_said():
    result = benchmark([FULL])
    rounds = [type(one)({"full": one.times["full"], "full again": _slower(one.times["full"])}) for one in result.rounds]
    assert "favours one" in type(result)(result.plan, tuple(rounds), result.samples, {}, {}).trouble


def _slower(time):
    return type(time)(time.phases, 1.05 * time.wall, 1.05 * time.cpu)


def test_the_clock_is_chosen():
    assert benchmark([FULL], clock="cpu").seconds("full")[0] == pytest.approx(0.035)


def test_a_plan_survives_its_json():
    plan = benchmark([FULL, FROZEN]).plan
    assert FreezePlan.from_json(json.loads(json.dumps(plan.to_json()))) == plan


@pytest.mark.parametrize("width", [80, 100])
def test_no_line_of_the_table_is_wider_than_asked(width):
    lazy = ("norms+biases", "lr-zero", cost(10, 20, 5), (10, 20, 5))
    text = render_bench(benchmark([FULL, FROZEN, lazy], left_out={"cached features": "no head " * 20}), "table", width)
    assert max(map(len, text.splitlines())) <= width
    rows = [line for line in text.splitlines() if line.startswith("  frozen eval")]
    assert [len(row.split()) for row in rows] == [10, 12]


def test_markdown_has_tables():
    lines = render_bench(benchmark([FULL, FROZEN]), "markdown").splitlines()
    assert "| variant | speed-up | 95 % interval | predicted | samples/s | peak |" in lines
    assert "| frozen eval | 3.43 | 3.43 to 3.43 | 3.50 | 784.3 | 9.8 KiB |" in lines


def test_an_interrupted_benchmark_says_so():
    assert "Interrupted. 9 rounds" in str(benchmark([FULL], rounds=9, interrupted=True))


def test_steps_of_other_makers_name_no_model():
    result = benchmark([FULL])
    plan = FreezePlan("", "steps of their own makers", result.plan.variants)
    own = type(result)(plan, result.rounds, result.samples, result.peaks, {**result.environment, "dtype": ""})
    assert str(own).splitlines()[:2] == [
        "  step     steps of their own makers",
        "  machine  torch 2.14.1, cpu, 1 thread",
    ]


def test_a_long_phase_is_written_in_full():
    slow = ("frozen eval", "frozen-eval", cost(10, 0, 0), (1234, 0.1, 0.1))
    assert "forward takes 1,234 ms where" in benchmark([FULL, slow]).findings[0].finding.rows[0][3]


def test_an_unknown_variant_names_those_that_there_are():
    with pytest.raises(UsageError, match="frzen: is no variant"):
        benchmark([FULL, FROZEN]).plan["frzen"]
