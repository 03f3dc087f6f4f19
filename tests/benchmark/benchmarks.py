"""Benchmarks with figures of our own, so that nothing here depends on the time."""

from __future__ import annotations

from ckptaudit.benchmark.plan import Cost, FreezePlan, PlannedVariant
from ckptaudit.benchmark.results import AGAIN, Round, StepBenchmark, StepTime

ENVIRONMENT = {"torch": "2.14.1+cpu", "device": "cpu", "device_name": "", "threads": 1, "dtype": "float32"}


def cost(forward, backward, optimizer=0.0, **parts):
    """Return a cost with predicted milliseconds; FLOPs are in proportion."""
    seconds = {"forward": forward / 1000, "backward": backward / 1000, "optimizer": optimizer / 1000}
    flops = {"forward": int(1e6 * forward), "backward": int(1e6 * backward), "optimizer": 0}
    sizes = {"parameters": 1000, "trainable": 1000, "buffers": 0, "activations": 5000, "gradients": 1000}
    return Cost(flops=flops, **(sizes | {"optimizer_state": 2000, "operations": 10} | parts), seconds=seconds)


def benchmark(rows, rounds=12, jitter=0.0, depths=None, **parts):
    """Return a benchmark of rows (name, kind, cost, milliseconds of the three phases)."""
    base = rows[0]
    rows = [base, (AGAIN, "again", base[2], base[3]), *rows[1:]]
    depths = depths or {}
    variants = tuple(PlannedVariant(name, kind, "fc", cost, depths.get(name)) for name, kind, cost, _ in rows)
    plan = FreezePlan("model.py:Net", "batch 8x3x32x32, adamw", variants, ("stem", "body", "fc"))
    measured = []
    for number in range(rounds):
        times = {}
        for place, (name, _, _, phases) in enumerate(rows):
            factor = 1 + jitter * ((number * 7 + place * 3) % 5 - 2)
            split = tuple(factor * one / 1000 for one in phases)
            times[name] = StepTime(split, sum(split), sum(split))
        measured.append(Round(times))
    names = [row[0] for row in rows]
    peaks = dict.fromkeys(names, 10_000)
    return StepBenchmark(plan, tuple(measured), dict.fromkeys(names, 8), peaks, ENVIRONMENT, **parts)
