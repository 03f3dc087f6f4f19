"""What a benchmark measured: the times of every step, and what they come to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import TYPE_CHECKING, Any, Literal

from ..errors import UsageError
from ..records import dataclass, field
from .plan import PHASES, Cost, FreezePlan, PlannedVariant
from .statistics import MIN_ROUNDS, Noise, Ratio, speed_up

if TYPE_CHECKING:
    from ..policy import Graded

SCHEMA = "ckptaudit.bench/1"
AGAIN = "full again"  # the A/A pair's other half
TOO_NOISY = 1.15  # a machine that cannot tell less than this ratio has measured nothing

Clock = Literal["wall", "cpu"]


@dataclass(frozen=True)
class StepTime:
    """The seconds of one step: of its phases, in all, and of the processor."""

    phases: tuple[float, float, float]
    wall: float
    cpu: float

    def to_json(self) -> list[float]:
        """Return the JSON form: phases, wall, cpu; ``from_json`` is its inverse."""
        return [*self.phases, self.wall, self.cpu]

    @classmethod
    def from_json(cls, data: Sequence[float]) -> StepTime:
        """Rebuild a time from ``to_json``'s result."""
        forward, backward, optimizer, wall, cpu = data
        return cls((forward, backward, optimizer), wall, cpu)


@dataclass(frozen=True)
class Round:
    """One step of every variant, in random order."""

    times: Mapping[str, StepTime]


@dataclass(frozen=True)
class StepBenchmark:
    """Training steps of several variants, measured in rounds and compared with the first of them.

    ``plan`` holds the variants, the baseline first, and their predicted costs; ``samples`` the batch size of each;
    ``peaks`` the bytes that a step needs at its peak beyond what was there before it, where that could be measured.
    ``left_out`` says of variants that could not be run why. ``minimum`` is a speed-up that was asked for.
    """

    plan: FreezePlan
    rounds: tuple[Round, ...]
    samples: Mapping[str, int]
    peaks: Mapping[str, int | None]
    environment: Mapping[str, Any]
    clock: Clock = "wall"
    left_out: Mapping[str, str] = field(default_factory=dict)
    minimum: Mapping[str, float] = field(default_factory=dict)
    interrupted: bool = False

    @property
    def baseline(self) -> str:
        """The name of the variant that the others are compared with."""
        return self.plan.variants[0].name

    @property
    def measured(self) -> tuple[PlannedVariant, ...]:
        """The variants that were run, in order."""
        return tuple(variant for variant in self.plan.variants if variant.name in self.samples)

    def seconds(self, name: str) -> list[float]:
        """Return the seconds of a variant's steps by the benchmark's clock, one per round."""
        if name not in self.samples:
            raise UsageError(name, "was not measured", f"measured: {', '.join(self.samples)}")
        return [getattr(one.times[name], self.clock) for one in self.rounds]

    def speed_up(self, name: str) -> Ratio:
        """Return how many times as fast as the baseline a variant is, with the 95 % interval of the median."""
        return speed_up(self.seconds(self.baseline), self.seconds(name))

    def samples_per_second(self, name: str) -> float:
        """Return the throughput by the median step."""
        return self.samples[name] / median(self.seconds(name))

    def split(self, name: str) -> dict[str, float]:
        """Return the median seconds of forward, backward and optimizer."""
        return {phase: median(one.times[name].phases[i] for one in self.rounds) for i, phase in enumerate(PHASES)}

    @property
    def noise(self) -> Noise:
        """What the baseline against itself says."""
        return Noise.of(self.seconds(self.baseline), self.seconds(AGAIN))

    @property
    def trouble(self) -> str:
        """Why the figures say nothing, or the empty string."""
        if len(self.rounds) < MIN_ROUNDS:
            return f"{len(self.rounds)} rounds are too few to know the noise: at least {MIN_ROUNDS} are needed"
        noise = self.noise
        if noise.resolvable > TOO_NOISY:
            return f"too noisy: ratios below {noise.resolvable:.2f} cannot be told from 1 on this machine now"
        if not noise.ratio.low <= 1 <= noise.ratio.high:
            return f"two steps built alike differ by {abs(noise.ratio.point - 1):.1%}: something favours one of them"
        return ""

    @property
    def findings(self) -> list[Graded]:
        """What follows from the figures."""
        from .judge import findings

        return findings(self)

    @property
    def verdict(self) -> Literal["kept", "broken", "unchecked"]:
        """``broken`` where a speed-up asked for is missed, ``unchecked`` where the figures say nothing."""
        if self.trouble:
            return "unchecked"
        return "broken" if any(graded.level == "error" for graded in self.findings) else "kept"

    @property
    def exit_status(self) -> int:
        """0, 1 or 2, as of every report."""
        return {"kept": 0, "broken": 1, "unchecked": 2}[self.verdict]

    @property
    def ok(self) -> bool:
        """True where the figures hold, and no speed-up asked for is missed."""
        return self.verdict == "kept"

    def cost(self, name: str) -> Cost | None:
        """Return the planned cost of a variant."""
        return self.plan[name].cost

    def to_json(self) -> dict[str, Any]:
        """Return the machine format."""
        rounds = len(self.rounds)
        return {
            "schema": SCHEMA,
            "command": "bench",
            "verdict": self.verdict,
            "exit_status": self.exit_status,
            "interrupted": self.interrupted,
            "trouble": self.trouble,
            "model": self.plan.model,
            "step": self.plan.step,
            "stages": list(self.plan.stages),
            "environment": dict(self.environment),
            "clock": self.clock,
            "rounds": rounds,
            "noise": self.noise.to_json() if rounds else None,
            "variants": [self._variant(entry) for entry in self.plan.to_json()["variants"]],
            "left_out": dict(self.left_out),
            "findings": [graded.to_json() for graded in self.findings] if rounds else [],
        }

    def _variant(self, entry: dict[str, Any]) -> dict[str, Any]:
        name = entry["name"]
        if name not in self.samples or not self.rounds:
            return {**entry, "measured": None}
        measured = {
            "speed_up": self.speed_up(name).to_json(),
            "samples": self.samples[name],
            "samples_per_second": float(f"{self.samples_per_second(name):.5g}"),
            "split": {phase: float(f"{seconds:.5g}") for phase, seconds in self.split(name).items()},
            "peak_bytes": self.peaks.get(name),
            "seconds": [float(f"{seconds:.5g}") for seconds in self.seconds(name)],
        }
        return {**entry, "measured": measured}

    def text(self, width: int = 100) -> str:
        """Return the report for people."""
        from .text import render_bench

        return render_bench(self, "table", width)

    def __str__(self) -> str:
        return self.text()
