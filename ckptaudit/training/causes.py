"""Why a frozen tensor moved, or a trainable one did not: the most telling of what was seen, in one sentence."""

from __future__ import annotations

from torch import nn
from torch.optim import LBFGS

from ..compare.difference import Difference
from ..records import dataclass
from ..rules.base import shape_text
from ..rules.verdicts import Cause, Standstill, is_statistic
from ..words import plural
from .names import NamedTensor
from .watch import Member, Moved, Watch

POWER_ITERATION = ("weight_u", "weight_v", "_u", "_v")


def is_observer(named: NamedTensor) -> bool:
    """Tell an observer of quantization by the type's name, as there are many, in torch and elsewhere."""
    return any("Observer" in kind or "FakeQuant" in kind for kind in (type(one).__name__ for one in named.modules))


def why_moved(name: str, moved: Moved, watch: Watch, difference: Difference | None, *, blamed: bool) -> Cause:
    """Say why a frozen tensor moved; ``blamed`` says that the operation that wrote it is known."""
    named = watch.tensors.get(name)
    if named is None or moved.gone:
        return Cause("gone", "the model has no tensor of this name any more")
    first, last = watch.first[name], watch.last.get(name)
    if last is not None and (first.dtype, first.shape) != (last.dtype, last.shape):
        kinds = [str(print_.dtype).removeprefix("torch.") for print_ in (first, last)]
        was, now = kinds if kinds[0] != kinds[1] else (shape_text(first.shape), shape_text(last.shape))
        return Cause("converted", f"it went from {was} to {now}")
    if moved.step == 0:
        return Cause("before", "it was different when the audit began")
    if named.kind != "parameter":
        return _of_buffer(named, moved)
    found = _by_optimizer(name, moved, watch) or _by_another_name(name, watch)
    return found or _by_hand(named, moved, difference, blamed=blamed)


def _of_buffer(named: NamedTensor, moved: Moved) -> Cause:
    kind = type(named.module).__name__
    if is_statistic(named.name):
        if moved.training:
            return Cause("statistics", f"{kind} was in train mode, where each forward pass updates its statistics")
        how = "was for a while in train mode, or its statistics were written: update_bn, a broadcast of DDP, a load"
        return Cause("statistics", f"{kind} {how}")
    if named.attribute in POWER_ITERATION:
        return Cause("power-iteration", "spectral_norm was in train mode, where each forward pass iterates u and v")
    if is_observer(named):
        return Cause("observer", f"{kind} observes ranges in each forward pass, in train and eval mode")
    if named.kind == "attribute":
        return Cause("attribute", f"it is a plain attribute of {kind}, no buffer: flags and state dicts pass over it")
    what = "buffer" if named.persistent else "buffer that no state dict has"
    return Cause("buffer", f"it is a {what}: {kind}, or what uses it, wrote it")


def _by_optimizer(name: str, moved: Moved, watch: Watch) -> Cause | None:
    member = watch.members.get(name)
    if member is None or not member.steps:
        return None
    who = type(member.optimizer).__name__
    shared = [other for other in watch.aliases(name) if other not in watch.frozen]
    if shared and moved.gradients - {"none"}:
        return Cause("tied", f"it is the same tensor as {shared[0]}, which {who} trains")
    if not moved.gradients - {"none"}:
        if isinstance(member.optimizer, LBFGS):
            return Cause("history", f"{who} steps along a history that was made before it was frozen")
        return None
    if member.first_lr == 0:
        return _by_lr_zero(who, member, moved)
    if moved.flag:
        return Cause("trained", f"requires_grad is True, and {who} trains it")
    if moved.gradients & {"finite", "non-finite"}:
        return Cause("stale-gradient", f"{who} applied a gradient left from before it was frozen, or set by hand")
    return Cause("zero-gradient", f"its gradient is zeros, not None: {who} still applied {_inertia(member)}")


def _by_lr_zero(who: str, member: Member, moved: Moved) -> Cause:
    if member.max_lr > 0:
        return Cause(
            "lr-raised", f"the learning rate of its group went from 0 to {member.max_lr:.3g}: {who} trained it"
        )
    if "non-finite" in moved.gradients:
        return Cause("lr-zero", f"lr=0 is no freeze: {who} multiplied a gradient that is not finite by 0, which is NaN")
    return Cause("lr-zero", f"lr=0 is no freeze: {who} wrote it, and that flips -0.0 to 0.0")


def _inertia(member: Member) -> str:
    """Name what moves a tensor whose gradient is zeros."""
    parts = ["weight decay"] if member.group.get("weight_decay") else []
    if member.group.get("momentum") or "betas" in member.group or member.optimizer.state:
        parts.append("momentum")
    return " and ".join(parts) or "an update"


def _by_another_name(name: str, watch: Watch) -> Cause | None:
    for other in watch.aliases(name):
        if other not in watch.frozen:
            return Cause("tied", f"it is the same tensor as {other}, which is not frozen")
    for other in watch.neighbours(name):
        if other not in watch.frozen:
            return Cause("shared-memory", f"it shares its memory with {other}, which is not frozen")
    return None


def _by_hand(named: NamedTensor, moved: Moved, difference: Difference | None, *, blamed: bool) -> Cause:
    module = named.module
    if isinstance(module, (nn.Embedding, nn.EmbeddingBag)) and module.max_norm is not None:
        return Cause("max-norm", f"{type(module).__name__}(max_norm=...) renormalises its rows in each forward pass")
    if moved.replaced:
        return Cause("replaced", "another tensor took its place: a new layer, or load_state_dict(assign=True)")
    if moved.relocated:
        return Cause(
            "relocated", "its memory was replaced outside the optimizer: p.data = ..., set_(), .half().float()"
        )
    if difference is not None and difference.is_rounding(_dtype(named)):
        return Cause("rounding", "it is off by rounding: averaged with itself (EMA), or added to and taken back")
    if blamed:
        return Cause("written", "it was written outside the optimizer")
    if moved.noticed:
        return Cause("in-place", "it was written in place outside the optimizer (copy_, mul_, init, load_state_dict)")
    return Cause("unseen", "it was written where autograd does not look: .data, NumPy, an averaged copy, a merge")


@dataclass(frozen=True)
class Stuck:
    """Why a trainable tensor did not move."""

    verdict: Standstill
    cause: Cause


# An exact zero is expected once, of a LoRA matrix behind zeros or of zero-initialised residuals: not twice.
_MEANT_ZEROS = 2


def why_stuck(name: str, watch: Watch) -> Stuck:
    """Say why a trainable tensor has the bits it had."""
    named, member = watch.tensors[name], watch.current(name)
    if not named.tensor.requires_grad and named.kind == "parameter":
        return Stuck("no gradient", Cause("flag", "requires_grad is False"))
    if member is None:
        return _outside(watch)
    who = type(member.optimizer).__name__
    if not member.steps:
        reason = f"{who} made no step (gradient accumulation, or a gradient scaler that skipped)"
        return Stuck("inconclusive", Cause("no-step", reason))
    seen = member.gradients
    if "finite" in seen:
        if member.max_lr == 0:
            return Stuck("rounded away", Cause("lr-zero", f"the learning rate of its group is 0 in {who}"))
        return Stuck("rounded away", Cause("rounding", f"{who}'s updates are too small for {_dtype(named)} to hold"))
    if "non-finite" in seen:
        return Stuck("inconclusive", Cause("non-finite", "its gradients were not finite, and the steps left out"))
    if "zero" not in seen:
        reason = (
            "no gradient when the optimizer stepped: not in the graph, or zero_grad() between backward() and step()"
        )
        return Stuck("no gradient", Cause("no-gradient", reason))
    if member.steps < _MEANT_ZEROS:
        return Stuck("inconclusive", Cause("zero-once", "its gradient was zeros in the only step, which may be meant"))
    return Stuck(
        "zero gradient", Cause("zero-gradient", "its gradients were all exactly zero: a dead ReLU, a zero factor")
    )


def _outside(watch: Watch) -> Stuck:
    if not watch.optimizers:
        return Stuck("inconclusive", Cause("no-optimizer", "no optimizer was given, and none stepped"))
    stale = watch.stale()
    if stale:
        reason = f"no optimizer has it, and they hold {plural(stale, 'tensor')} that the model has no longer"
        return Stuck("not in optimizer", Cause("stale", reason))
    return Stuck("not in optimizer", Cause("absent", "no optimizer has it in a group"))


def _dtype(named: NamedTensor) -> str:
    return str(named.tensor.dtype).removeprefix("torch.")
