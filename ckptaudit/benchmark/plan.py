"""What a training step will cost, as it is worked out without running it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import UsageError
from ..records import dataclass, field

PHASES = ("forward", "backward", "optimizer")


@dataclass(frozen=True)
class Cost:
    """The cost of one training step. Bytes are of tensors; nothing is known of what kernels need besides.

    ``flops`` are floating-point operations (two per multiply-add) by phase. ``activations`` are the bytes that the
    forward pass keeps for the backward pass: storages once each, parameters, buffers and the batch left out.
    ``uncounted`` are operations that may be heavy and that nobody can count, with their number. ``seconds`` by phase is
    what the operations of the step take on this machine one by one, empty where they were not timed.
    """

    flops: Mapping[str, int]
    parameters: int
    trainable: int
    buffers: int
    activations: int
    gradients: int
    optimizer_state: int
    operations: int = 0
    uncounted: Mapping[str, int] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def total_flops(self) -> int:
        """The floating-point operations of the whole step."""
        return sum(self.flops.values())

    @property
    def memory(self) -> int:
        """Bytes of parameters, buffers, gradients, optimizer state and saved activations."""
        return self.parameters + self.buffers + self.gradients + self.optimizer_state + self.activations

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form; ``from_json`` is its inverse."""
        return {name: _plain(getattr(self, name)) for name in type(self).__match_args__}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Cost:
        """Rebuild a cost from ``to_json``'s result."""
        return cls(**data)


def _plain(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else value


@dataclass(frozen=True)
class PlannedVariant:
    """One way of training a model, and its cost: None where it cannot be worked out, and ``note`` says why.

    ``kind`` is one of ``variants.KINDS``; ``frozen_stages`` counts the stages that are frozen from the input on, where
    the variant is a freeze depth; ``trains`` names what is trained, for people.
    """

    name: str
    kind: str
    trains: str
    cost: Cost | None
    frozen_stages: int | None = None
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form; ``from_json`` is its inverse."""
        data = {name: getattr(self, name) for name in type(self).__match_args__}
        return data | {"cost": None if self.cost is None else self.cost.to_json()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> PlannedVariant:
        """Rebuild a variant from ``to_json``'s result."""
        cost = data["cost"]
        return cls(**{**data, "cost": None if cost is None else Cost.from_json(cost)})


@dataclass(frozen=True)
class FreezePlan:
    """The costs of several ways to train one model; the first one is the baseline."""

    model: str
    step: str
    variants: tuple[PlannedVariant, ...]
    stages: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> PlannedVariant:
        for variant in self.variants:
            if variant.name == name:
                return variant
        raise UsageError(name, "is no variant", f"one of {', '.join(variant.name for variant in self.variants)}")

    def by_flops(self, name: str) -> float | None:
        """Return the speed-up over the baseline as the FLOPs have it, or None where they are not known."""
        base, cost = self.variants[0].cost, self[name].cost
        return base.total_flops / cost.total_flops if base and cost and cost.total_flops else None

    def predicted(self, name: str) -> float | None:
        """Return the speed-up by the timed operations, or None where they were not timed."""
        base, cost = self.variants[0].cost, self[name].cost
        if not (base and cost and base.seconds and cost.seconds):
            return None
        return sum(base.seconds.values()) / sum(cost.seconds.values())

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form; ``from_json`` is its inverse."""
        variants = [
            v.to_json()
            | {"speed_up_by_flops": _short(self.by_flops(v.name)), "predicted": _short(self.predicted(v.name))}
            for v in self.variants
        ]
        return {"model": self.model, "step": self.step, "stages": list(self.stages), "variants": variants}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> FreezePlan:
        """Rebuild a plan from ``to_json``'s result."""
        derived = ("speed_up_by_flops", "predicted")
        entries = [{key: value for key, value in entry.items() if key not in derived} for entry in data["variants"]]
        variants = tuple(map(PlannedVariant.from_json, entries))
        return cls(data["model"], data["step"], variants, tuple(data["stages"]))


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.5g}")
