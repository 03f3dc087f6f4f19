"""Watching a model through somebody else's training loop: what moved and when, and which gradients came.

Steps are counted by torch's global optimizer hooks, which wrap ``Optimizer.step`` where learning-rate schedulers and
gradient scalers expect it; the loop itself is not touched. Step k is all that happens after the k-th step of the
optimizer that steps most, up to and including that step.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from ..model.memory import why_not
from ..records import dataclass, field
from .difference import sample
from .fingerprint import Fingerprint, take
from .gradients import Gradient, gradients
from .names import NamedTensor, named_tensors
from .select import Rows, Selection

# Full checks without ``every``: each of the first steps, then at 8, 16, 32 ..., so that their cost does not grow.
_EACH = 4


@dataclass
class Member:
    """A tensor's place in an optimizer: its group, the learning rates and gradients that were seen, steps taken."""

    optimizer: Optimizer
    group: dict[str, Any]
    first_lr: float
    max_lr: float
    steps: int = 0
    gradients: set[Gradient] = field(default_factory=set)


@dataclass(frozen=True)
class Moved:
    """When a frozen tensor was first seen changed, and what else was true then.

    It moved after step ``since``, by step ``step``; ``step`` is None for what came after the last one.
    ``noticed`` says that autograd's version counter saw a write; ``relocated`` that the tensor's memory is another,
    ``replaced`` that the tensor is. ``training`` is the mode of its module, ``flag`` its requires_grad.
    """

    since: int
    step: int | None
    training: bool
    flag: bool
    noticed: bool
    relocated: bool
    replaced: bool
    gradients: frozenset[Gradient] = frozenset()
    gone: bool = False


_State = tuple[int, int, int]  # a tensor as it was last seen: object, memory, version


class Watch:
    """What is known of a model between ``start`` and ``stop``. Nothing of the model is changed, and no copy kept.

    ``kept`` are samples of the frozen tensors (see ``difference``); ``first`` the fingerprints to be held against,
    ``last`` those at the end; ``untrained`` and ``trained`` are those of the trainable tensors at both ends.
    ``unread`` names what could not be read, with the reason; ``absent`` what there is nothing to hold against.
    """

    def __init__(
        self,
        model: nn.Module,
        frozen: Selection,
        trainable: Selection,
        optimizers: Iterable[Optimizer],
        every: int | None,
    ) -> None:
        self.model, self.frozen, self.trainable, self.every = model, frozen, trainable, every
        self.optimizers = list(optimizers)
        self.counts: dict[int, int] = {}
        self.step = 0
        self.checked = 0  # the last step at which every fingerprint was taken
        self.members: dict[str, Member] = {}
        self.moved: dict[str, Moved] = {}
        self.first: dict[str, Fingerprint] = {}
        self.last: dict[str, Fingerprint] = {}
        self.untrained: dict[str, Fingerprint] = {}
        self.trained: dict[str, Fingerprint] = {}
        self.unread: dict[str, str] = {}
        self.absent: dict[str, str] = {}
        self.kept: dict[str, Tensor] = {}
        self._states: dict[str, _State] = {}
        self._foreign: set[int] = set()
        self._handles: list[Any] = []
        self._walk()

    # The window -----------------------------------------------------------------------------------------

    def start(self, before: Mapping[str, Fingerprint]) -> None:
        """Take the fingerprints and hook the optimizers; ``before`` are fingerprints to hold against instead."""
        now, self.unread = self._take(self.frozen)
        self.untrained, unread = take(self._chosen(self.trainable))
        self.unread |= unread
        self.first = {**now, **before}
        self._keep(name for name in self.frozen if name in now and name not in before)
        for name in self.frozen:
            self._remember(name)
        self._compare({name: now[name] for name in before if name in now}, 0)
        for optimizer in self.optimizers:
            self._enrol(optimizer)
        self._handles = [
            register_optimizer_step_pre_hook(self._before_step),
            register_optimizer_step_post_hook(self._after_step),
        ]

    def stop(self) -> None:
        """Take the hooks away and look at everything once more."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._walk()
        self.last, unread = self._take(self.frozen)
        self.trained, _ = take(self._chosen(self.trainable), self.untrained)
        self.unread = {name: reason for name, reason in {**self.unread, **unread}.items() if name not in self.first}
        self.unread |= self.absent
        self._compare({name: self.last.get(name) for name in self.frozen}, None)
        for optimizer in self.optimizers:
            self._enrol(optimizer)

    def current(self, name: str) -> Member | None:
        """Return the place that a tensor has in an optimizer now, if any."""
        member = self.members.get(name)
        if member is None or name not in self.tensors:
            return None
        tensor = self.tensors[name].tensor
        held = any(tensor is other for group in member.optimizer.param_groups for other in group["params"])
        return member if held else None

    def changed(self, names: Iterable[str]) -> Iterator[str]:
        """Yield those frozen tensors that have other bits than they should have, now."""
        now, _ = self._take(names)
        yield from (name for name, print_ in now.items() if print_ != self.first.get(name, print_))

    def took(self, optimizer: Optimizer) -> bool:
        """Tell whether an optimizer made a step."""
        return id(optimizer) in self.counts

    def aliases(self, name: str) -> list[str]:
        """Return the other names of the same tensor (tied weights)."""
        return [other for other in self._names.get(id(self.tensors[name].tensor), ()) if other != name]

    def neighbours(self, name: str) -> list[str]:
        """Return the names of other tensors whose memory overlaps with this one's."""
        tensor = self.tensors[name].tensor
        first, last = extent(tensor)
        return [
            other
            for other, named in self.tensors.items()
            if named.tensor is not tensor and not why_not(named.tensor)
            for start, stop in [extent(named.tensor)]
            if named.tensor.device == tensor.device and start < last and first < stop
        ]

    def stale(self) -> int:
        """Count the tensors that the optimizers hold and the model does not have."""
        held = {id(p) for optimizer in self.optimizers for group in optimizer.param_groups for p in group["params"]}
        return len(held - set(self._names))

    # Steps ----------------------------------------------------------------------------------------------

    def _before_step(self, optimizer: Optimizer, _arguments: Any, _keywords: Any) -> None:
        if not self._enrol(optimizer):
            return
        self._see_gradients(optimizer)
        late = [name for name, reason in self.unread.items() if "lazy" in reason and not why_not(self._tensor(name))]
        if late:  # materialised by the first forward pass: this is where they begin
            self.first.update(self._take(name for name in late if name in self.frozen)[0])
            self.untrained.update(take(self._chosen(self.trainable, late))[0])
            self.unread = {name: reason for name, reason in self.unread.items() if name not in late}
            self._keep(name for name in late if name in self.frozen)

    def _after_step(self, optimizer: Optimizer, arguments: Any, keywords: Any) -> None:
        if not any(optimizer is other for other in self.optimizers):
            return
        if len(arguments) > 1 or keywords:
            self._see_gradients(optimizer)  # those that a closure made
        for name in self._held_by(optimizer):
            self.members[name].steps += 1
        self.counts[id(optimizer)] = self.counts.get(id(optimizer), 0) + 1
        if self.counts[id(optimizer)] > self.step:
            self.step += 1
            self._check()

    def _check(self) -> None:
        """Look at a step: at every tensor where it is due, at those that show signs of a write otherwise."""
        step = self.step
        due = step % self.every == 0 if self.every else step <= _EACH or step & (step - 1) == 0
        if due:
            self._walk()
        still = [name for name in self.frozen if name not in self.moved]
        names = still if due else [name for name in still if self._signs(name)]
        if names:
            now, _ = self._take(names)
            self._compare({name: now.get(name) for name in names}, step)
        if due:
            self.checked = step

    def _compare(self, now: Mapping[str, Fingerprint | None], step: int | None) -> None:
        for name, print_ in now.items():
            if name in self.first and name not in self.moved and print_ != self.first[name]:
                self.moved[name] = self._describe(name, step)
            if name in self.tensors:
                self._remember(name)

    def _describe(self, name: str, step: int | None) -> Moved:
        named, old = self.tensors.get(name), self._states[name]
        member = self.members.get(name)
        seen = frozenset(member.gradients) if member else frozenset()
        if named is None:
            return Moved(*self._when(step, exact=False), False, False, False, False, True, seen, gone=True)
        new = _state(self._tensor(name))
        replaced, relocated, noticed = (was != now for was, now in zip(old, new, strict=True))
        signs = (noticed, relocated, replaced)
        when = self._when(step, exact=any(signs))
        return Moved(*when, named.module.training, named.tensor.requires_grad, *signs, seen)

    def _when(self, step: int | None, *, exact: bool) -> tuple[int, int | None]:
        """Return the step after which, and that by which; signs of a write are looked for at every step."""
        if step is None and (exact or self.checked == self.step):
            return self.step, None
        last = self.step if step is None else step
        return (max(last - 1, 0) if exact else self.checked), last

    # Tensors --------------------------------------------------------------------------------------------

    def _walk(self) -> None:
        self.tensors: dict[str, NamedTensor] = named_tensors(self.model)
        self._names: dict[int, list[str]] = {}
        self._places: dict[str, tuple[Mapping[str, Any], str]] = {}
        for name, named in self.tensors.items():
            self._names.setdefault(id(named.tensor), []).append(name)
            self._places[name] = (named.place, named.attribute)

    def _tensor(self, name: str) -> Tensor:
        """Return the tensor that has the name now, without walking the model."""
        place, attribute = self._places[name]
        tensor = place.get(attribute)
        return tensor if isinstance(tensor, Tensor) else self.tensors[name].tensor

    def _signs(self, name: str) -> bool:
        return name in self.tensors and _state(self._tensor(name)) != self._states[name]

    def _remember(self, name: str) -> None:
        self._states[name] = _state(self._tensor(name))

    def _chosen(
        self, selection: Selection, names: Iterable[str] | None = None
    ) -> dict[str, tuple[Tensor, Rows | None]]:
        """Return the tensors of a selection with their rows; all of one that has another shape now."""
        chosen: dict[str, tuple[Tensor, Rows | None]] = {}
        for name in selection if names is None else names:
            if name in self.tensors and name in selection:
                tensor, rows = self._tensor(name), selection.tensors[name]
                whole = rows is None or not tensor.dim() or tensor.shape[0] < rows[-1][1]
                chosen[name] = (tensor, None if whole else rows)
        return chosen

    def _take(self, names: Iterable[str]) -> tuple[dict[str, Fingerprint], dict[str, str]]:
        """Take fingerprints of frozen tensors like the first ones; of one with two names only once."""
        chosen = self._chosen(self.frozen, names)
        same: dict[tuple[int, Rows | None], str] = {}
        twins = {name: same.setdefault((id(tensor), rows), name) for name, (tensor, rows) in chosen.items()}
        found, unread = take({name: chosen[name] for name, twin in twins.items() if name == twin}, self.first)
        found = {name: found[twin] for name, twin in twins.items() if twin in found}
        return found, {name: unread[twin] for name, twin in twins.items() if twin in unread}

    def _keep(self, names: Iterable[str]) -> None:
        with torch.no_grad():
            self.kept |= {name: sample(self._tensor(name), self.frozen.tensors[name]) for name in names}

    # Optimizers -----------------------------------------------------------------------------------------

    def _held_by(self, optimizer: Optimizer) -> Iterator[str]:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                yield from self._names.get(id(parameter), ())

    def _enrol(self, optimizer: Optimizer) -> bool:
        """Note the groups of an optimizer that holds something of the model; tell whether it does."""
        held = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
        if any(one not in self._names and one not in self._foreign for one in held):
            self._walk()
            self._foreign.update(one for one in held if one not in self._names)
        ours = False
        for group in optimizer.param_groups:
            rate = float(group.get("lr", 0.0))
            for parameter in group["params"]:
                for name in self._names.get(id(parameter), ()):
                    member = self.members.get(name)
                    if member is None or member.optimizer is not optimizer:
                        member = self.members[name] = Member(optimizer, group, rate, rate)
                    member.group, member.max_lr = group, max(member.max_lr, rate)
                    ours = True
        if ours and not any(optimizer is other for other in self.optimizers):
            self.optimizers.append(optimizer)
        return ours

    def _see_gradients(self, optimizer: Optimizer) -> None:
        """Sort the gradients that are still of interest: any of a frozen tensor, the first finite one of another."""
        wanted: dict[str, Tensor] = {}
        for name in self._held_by(optimizer):
            seen, gradient = self.members[name].gradients, self._tensor(name).grad
            if gradient is None:
                seen.add("none")
            elif "finite" not in seen:
                wanted[name] = gradient
        for name, kind in gradients(wanted, thorough=self.frozen).items():
            self.members[name].gradients.add(kind)


def _state(tensor: Tensor) -> _State:
    try:
        return id(tensor), tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version  # which counts none
    except (RuntimeError, ValueError):  # lazy, sparse, or without memory of its own
        return id(tensor), 0, 0


def extent(tensor: Tensor) -> tuple[int, int]:
    """Return the addresses between which a tensor's values lie."""
    reach = sum((size - 1) * step for size, step in zip(tensor.shape, tensor.stride(), strict=True))
    start = tensor.data_ptr()
    return start, start + (reach + 1) * tensor.element_size() if tensor.numel() else start
