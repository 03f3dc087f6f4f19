"""``ckptaudit bench``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

from ..benchmark.plan import FreezePlan
from ..benchmark.results import Round, StepBenchmark, StepTime
from ..benchmark.text import render_bench, render_plan
from ..errors import UsageError
from ..model import parse_model_spec
from ..model.process import ChildProcess
from ..textfile import refuse_input
from .streams import terminal_width, write_report

_SERVER = "ckptaudit.training.bench.serving"
_SENT = ("freeze", "step", "optimizer", "device", "dtype", "threads", "clock", "rounds", "seconds", "depths", "plan")


def run(options: argparse.Namespace) -> int:
    """Plan or measure in a process of its own, and report; what Ctrl-C ends is reported as far as it got."""
    if options.plot:
        _check_plot(options)
    if not options.input and not options.step:
        usage = f"ckptaudit bench {options.model} --input 8,3,224,224"
        raise UsageError("the step", "has no batch: neither --input nor --step is given", usage)
    minimum = _minimum(options.min_speedup)
    gathered = _Gathered(options.clock, minimum)
    spec = parse_model_spec(options.model, options.arg, "ckptaudit bench {model}")
    settings = {name: getattr(options, name) for name in _SENT}
    timed = options.timed or not options.plan
    only = [name.strip() for name in options.variants.split(",")] if options.variants else None
    process = ChildProcess(spec, _SERVER, settings | {"inputs": options.input, "only": only, "timed": timed})
    try:
        for message in _messages(process):
            gathered.take(message)
    except KeyboardInterrupt:
        if gathered.plan is None or not gathered.rounds:
            raise
        gathered.interrupted = True
    finally:
        gathered.show(None)
        process.close()
    return _report(gathered, options)


def _messages(process: ChildProcess) -> Iterator[dict[str, Any]]:
    while True:
        message = process.receive()
        yield message
        if "end" in message:
            return


class _Gathered:
    """What the child has sent so far."""

    def __init__(self, clock: Any, minimum: dict[str, float]) -> None:
        self.clock, self.minimum = clock, minimum
        self.plan: FreezePlan | None = None
        self.rounds: list[Round] = []
        self.facts: dict[str, Any] = {}
        self.interrupted = False
        self._bar = _progress()

    def take(self, message: dict[str, Any]) -> None:
        """Keep what a message says, and show how far the work has come."""
        if "plan" in message:
            self.plan = FreezePlan.from_json(message["plan"])
            for name in self.minimum:
                self.plan[name]
        if "round" in message:
            times = {name: StepTime.from_json(data) for name, data in message["round"].items()}
            self.rounds.append(Round(times))
        self.show(message.get("progress"))
        self.facts |= message

    def show(self, progress: list[Any] | None) -> None:
        """Pass progress on to the bar; None ends it."""
        if self._bar is not None:
            self._bar(*(progress or (0, 0, "")))

    def benchmark(self) -> StepBenchmark:
        """Return the benchmark so far."""
        assert self.plan is not None
        facts = self.facts
        return StepBenchmark(
            self.plan,
            tuple(self.rounds),
            facts["samples"],
            facts["peaks"],
            facts["environment"],
            self.clock,
            facts["left_out"],
            self.minimum,
            self.interrupted,
        )


def _report(gathered: _Gathered, options: argparse.Namespace) -> int:
    assert gathered.plan is not None
    width = terminal_width(options.width)
    if options.plan:
        write_report(render_plan(gathered.plan, gathered.facts["environment"], options.format, width), options.color)
        return 0
    benchmark = gathered.benchmark()
    if options.plot:
        _plot(benchmark, options.plot)
    write_report(render_bench(benchmark, options.format, width), options.color)
    return 130 if gathered.interrupted else benchmark.exit_status


def _check_plot(options: argparse.Namespace) -> None:
    """Raise UsageError for figures that could not be written, before minutes are spent on them."""
    from ..benchmark.figures import check_path

    if options.plan:
        raise UsageError("--plot", "draws what was measured, and --plan measures nothing", "leave one of them out")
    check_path(options.plot)
    refuse_input(options.plot, [options.model, options.step or ""])


def _plot(benchmark: StepBenchmark, path: str) -> None:
    from ..benchmark.figures import draw
    from ..newfile import NewFile

    data = draw(benchmark, os.path.splitext(path)[1])
    with NewFile(path, len(data)) as file:
        file.write(data)
        file.finish()
        file.publish()


def _minimum(texts: list[str]) -> dict[str, float]:
    """Read ``--min-speedup [VARIANT=]N``; the frozen variant in eval mode is meant where none is named."""
    least = {}
    for text in texts:
        name, equals, number = text.rpartition("=")
        try:
            least[name if equals else "frozen eval"] = float(number)
        except ValueError:
            raise UsageError(f"--min-speedup {text}", "gives no number", "--min-speedup 2") from None
    return least


def _progress() -> Callable[[int, int, str], None] | None:
    if not sys.stderr.isatty():
        return None
    from .progress import steps_bar

    return steps_bar()
