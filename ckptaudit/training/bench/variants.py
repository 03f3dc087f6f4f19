"""The ways of training a model that are compared, and how a model is made ready for each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from ...benchmark.results import AGAIN
from ...errors import UsageError
from ...records import dataclass
from ..freezing import freeze
from ..names import named_tensors
from ..select import Patterns, select
from .cached import cache_features
from .stages import Stage
from .step import Groups

KINDS = {
    "full": "everything trains",
    "again": "everything trains: the baseline once more, for the noise",
    "frozen": "requires_grad=False, in train mode",
    "frozen-eval": "as ckptaudit.freeze does: requires_grad=False, whole modules in eval mode",
    "frozen-no-grad": "the same, and frozen modules run under torch.no_grad",
    "depth": "the stages before are frozen as by ckptaudit.freeze",
    "norm-bias": "of what is frozen, norms and biases train",
    "cached": "the head alone, on features that were computed once",
    "lr-zero": "no freeze: a learning rate of zero",
    "left-out": "no freeze: left out of the optimizer",
    "own": "as its maker made it",
}


@dataclass(frozen=True)
class Variant:
    """One way to train: its name, its kind, and the names of the parameters that are frozen in it."""

    name: str
    kind: str
    frozen: frozenset[str]
    trains: str
    frozen_stages: int | None = None


def variants_of(
    model: nn.Module, stages: Sequence[Stage], patterns: Patterns | None, depths: int | None
) -> list[Variant]:
    """Return the variants of a model, the baseline first.

    ``patterns`` select what is frozen; without them all stages are but the last. ``depths`` bounds the freeze depths
    between none and all, spread evenly; None takes every one. Raises UsageError where nothing or all is frozen.
    """
    frozen = frozen_names(model, stages, patterns)
    names = [name for name, _ in model.named_parameters()]
    trains = _parts(stages, set(names) - frozen)
    return [
        Variant("full", "full", frozenset(), "everything", 0),
        Variant(AGAIN, "again", frozenset(), "everything"),
        *_depths(stages, frozen, depths),
        Variant("frozen", "frozen", frozen, trains),
        Variant("frozen eval", "frozen-eval", frozen, trains, sum(1 for s in stages if set(s.parameters) <= frozen)),
        Variant("frozen no_grad", "frozen-no-grad", frozen, trains),
        Variant("norms+biases", "norm-bias", frozen - _norms_and_biases(model), f"norms, biases, {trains}"),
        Variant("cached features", "cached", frozen, trains),
        Variant("lr=0", "lr-zero", frozen, f"{trains}; the rest at lr=0"),
        Variant("not optimized", "left-out", frozen, f"{trains}; the rest in no group"),
    ]


def frozen_names(model: nn.Module, stages: Sequence[Stage], patterns: Patterns | None) -> frozenset[str]:
    """Return the canonical names of the parameters to freeze."""
    names = {name for name, _ in model.named_parameters()}
    if patterns is None:
        if len(stages) < 2:
            raise UsageError(type(model).__name__, "is one stage, which cannot be frozen in part", "--freeze PATTERN")
        return frozenset(name for stage in stages[:-1] for name in stage.parameters)
    frozen = frozenset(set(select(model, patterns, role="--freeze")) & names)
    if not frozen or frozen == names:
        raise UsageError(
            "--freeze", f"means {'every' if frozen else 'no'} parameter", "freeze some, and train the rest"
        )
    return frozen


def _depths(stages: Sequence[Stage], frozen: frozenset[str], most: int | None) -> Iterator[Variant]:
    """Yield the depths between nothing and everything frozen: the last stages train, with what always does."""
    inner = [s for s in stages if set(s.parameters) <= frozen]
    cuts = list(range(1, len(inner)))
    if most is not None and len(cuts) > most:
        step = (len(cuts) - 1) / max(1, most - 1)
        cuts = sorted({cuts[round(i * step)] for i in range(most)}) if most else []
    for cut in cuts:
        names = frozenset(name for stage in inner[:cut] for name in stage.parameters)
        yield Variant(f"last {len(stages) - cut}", "depth", names, f"from {inner[cut].label} on", cut)


def _parts(stages: Sequence[Stage], names: set[str]) -> str:
    whole = [stage.label for stage in stages if names & set(stage.parameters)]
    return ", ".join(whole) if len(whole) <= 2 else f"{whole[0]}, ..., {whole[-1]}"


def _norms_and_biases(model: nn.Module) -> frozenset[str]:
    return frozenset(
        name
        for name, named in named_tensors(model).items()
        if named.attribute.endswith("bias") or "Norm" in type(named.module).__name__
    )


def prepare(model: nn.Module, variant: Variant) -> Groups:
    """Make a model ready for a variant; return the parameter groups for its optimizer."""
    model.train()
    named = dict(model.named_parameters())
    for name, parameter in named.items():
        parameter.requires_grad_(name not in variant.frozen or variant.kind in ("lr-zero", "left-out"))
    if variant.kind in ("frozen-eval", "frozen-no-grad", "depth", "cached"):
        _freeze(model, variant)
    if variant.kind == "frozen-no-grad":
        _run_without_grad(model, variant)
    trained = [parameter for name, parameter in named.items() if name not in variant.frozen]
    groups: Groups = [{"params": trained}]
    if variant.kind == "lr-zero":
        idle = [parameter for name, parameter in named.items() if name in variant.frozen]
        groups.append({"params": idle, "lr": 0.0, "weight_decay": 0.0})
    return groups


def _freeze(model: nn.Module, variant: Variant) -> None:
    """Freeze as ``ckptaudit.freeze`` does, the buffers of wholly frozen modules with their parameters."""
    whole = {id(module) for module in _whole_modules(model, variant.frozen)}
    tensors = {id(tensor) for name, tensor in model.named_parameters() if name in variant.frozen}
    freeze(model, lambda _, tensor, module: id(tensor) in tensors or id(module) in whole)


def _whole_modules(model: nn.Module, frozen: frozenset[str]) -> Iterator[nn.Module]:
    """Yield modules that have parameters, all of them frozen, with what is below them."""
    for path, module in model.named_modules():
        names = [f"{path}.{name}" if path else name for name, _ in module.named_parameters()]
        if names and frozen.issuperset(names):
            yield from module.modules()


def _run_without_grad(model: nn.Module, variant: Variant) -> None:
    """Have the largest frozen modules run under ``no_grad``, where no gradient has to pass through them."""
    inside: set[int] = set()
    for module in list(_whole_modules(model, variant.frozen)):
        if id(module) not in inside:
            inside.update(map(id, module.modules()))
            module.forward = _without_grad(module.forward)


def _without_grad(forward: Callable[..., Any]) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        leaves = tree_leaves((args, kwargs))
        if any(isinstance(leaf, Tensor) and leaf.requires_grad for leaf in leaves):
            return forward(*args, **kwargs)
        with torch.no_grad():
            return forward(*args, **kwargs)

    return run


def finish(model: nn.Module, variant: Variant, run: Callable[[], object]) -> None:
    """Do what needs a step to run first: put the features of a batch in the place of what computes them."""
    if variant.kind == "cached":
        cache_features(model, variant.frozen, run)
