"""``ckptaudit.infer_mapping``: two sides opened, an inference made of them, and a mapping of that."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from functools import cached_property
from typing import TYPE_CHECKING, Any

from .formats import DEFAULT_LIMITS, Limits
from .manifest import Manifest
from .mapping.account import Account, account
from .mapping.assignment import CONFIDENT, Assignment, Assignments
from .mapping.mapping import KeyMapping
from .policy import Side
from .records import dataclass
from .sources import Source, is_model_like, open_source
from .verification import Verification
from .words import plural, shell_word, visible

if TYPE_CHECKING:
    from .mapping.rules import Rule

SCHEMA = "ckptaudit.mapping/1"
_LISTED = 20  # candidates of one tensor in the JSON


@dataclass(frozen=True)
class RuleUse:
    """One rule of an inferred mapping, and the assignments that it has a part in.

    ``left`` are the keys of a rule that assigns nothing: of the checkpoint where it drops them, of the model where it
    expects them to be missing.
    """

    rule: Rule
    assigned: tuple[Assignment, ...] = ()
    left: tuple[str, ...] = ()

    @property
    def tensors(self) -> int:
        """How many tensors it speaks of."""
        return len(self.assigned) + len(self.left)

    @property
    def confidence(self) -> float | None:
        """The lowest confidence among its tensors; None where it assigns nothing."""
        return min((one.confidence for one in self.assigned), default=None)

    @property
    def to_check(self) -> tuple[Assignment, ...]:
        """Those that a person should look at before the rule is used."""
        return tuple(one for one in self.assigned if one.confidence < CONFIDENT)


@dataclass(frozen=True)
class InferredMapping:
    """What was inferred of a checkpoint and a model. Nothing was loaded.

    ``mapping`` makes exactly the ``assignments``. ``ambiguous`` are keys of the model that something could be meant
    for, with the keys of the checkpoint that would fit; the mapping says nothing of them, so that a strict load
    refuses. ``init`` are those that nothing is meant for; ``dropped`` the checkpoint's keys that nothing uses.
    ``parts`` says which rules make which tensor, and ``verification`` what became of a real load, where there was one.
    """

    checkpoint: Side
    model: Side
    mapping: KeyMapping
    assignments: tuple[Assignment, ...]
    ambiguous: Mapping[str, tuple[str, ...]]
    dropped: tuple[str, ...]
    init: tuple[str, ...]
    parts: Account
    verification: Verification | None = None

    @cached_property
    def to_check(self) -> tuple[Assignment, ...]:
        """The assignments that are less sure than 0.9."""
        return tuple(one for one in self.assignments if one.confidence < CONFIDENT)

    @property
    def ok(self) -> bool:
        """True where something was found, all of it is sure or was proved by equal outputs, and nothing is open."""
        return self.exit_status == 0

    @property
    def exit_status(self) -> int:
        """0 where a person need not look, else 1; 2 where what was to be verified could not be."""
        if self.verification is not None and self.verification.exit_status:
            return self.verification.exit_status
        proved = self.verification is not None and self.verification.verdict == "equal"
        return 0 if self.assignments and not self.ambiguous and (proved or not self.to_check) else 1

    @cached_property
    def kept(self) -> tuple[Assignment, ...]:
        """The assignments that no rule speaks of: these tensors fit under their own names."""
        return tuple(one for one in self.assignments if not self.parts.made[one.target])

    @cached_property
    def uses(self) -> tuple[RuleUse, ...]:
        """Every rule of the mapping, in order, with what it does."""
        assigned: defaultdict[int, list[Assignment]] = defaultdict(list)
        for one in self.assignments:
            for number in self.parts.made[one.target]:
                assigned[number].append(one)
        left: defaultdict[int, list[str]] = defaultdict(list)
        for key, number in self.parts.dropped.items():
            left[number].append(key)
        for number, rule in enumerate(self.mapping.rules):
            if rule.phase == "model":
                left[number] += [key for key in self.init if rule.matches(key)]
        return tuple(RuleUse(rule, tuple(assigned[n]), tuple(left[n])) for n, rule in enumerate(self.mapping.rules))

    def to_toml(self) -> str:
        """Return the mapping as the text of a TOML file; comments say how sure each rule is, and what to look at."""
        from .mapping.toml import dump

        head = [
            f"What becomes of {self.checkpoint.name} in {self.model.name}, inferred by ckptaudit.",
            *self.summary(),
        ]
        return _commented(head) + "\n" + dump(self.mapping.rules, [_remark(use) for use in self.uses])

    def summary(self) -> list[str]:
        """Return what was found, in one sentence each for the two sides."""
        total, sure = self.model.tensors, len(self.assignments) - len(self.to_check)
        parts = [f"{sure:,} with a confidence of {CONFIDENT} or more" if sure else "none with confidence"]
        parts += [f"{len(self.to_check):,} to be checked"] if self.to_check else []
        parts += [f"{len(self.ambiguous):,} open"] if self.ambiguous else []
        parts += [f"{len(self.init):,} left at initial values"] if self.init else []
        unused = [f"{len(self.dropped):,} of {plural(self.checkpoint.tensors, 'tensor')} of the checkpoint"]
        return [
            f"Of {plural(total, 'tensor')} of the model: {', '.join(parts)}.",
            *([f"Not used: {unused[0]}."] if self.dropped else []),
        ]

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form (schema ``ckptaudit.mapping/1``)."""
        return {
            "schema": SCHEMA,
            "exit_status": self.exit_status,
            "inputs": {"checkpoint": self.checkpoint.to_json(), "model": self.model.to_json()},
            "assignments": [self._assignment(one) for one in self.assignments],
            "dropped_source": list(self.dropped),
            "uninitialised_target": list(self.init),
            "ambiguous": [
                {"target": key, "candidates": list(found[:_LISTED]), "further": max(0, len(found) - _LISTED)}
                for key, found in self.ambiguous.items()
            ],
            "rules": self.mapping.to_json(),
            **({"verification": self.verification.to_json()} if self.verification else {}),
        }

    def _assignment(self, one: Assignment) -> dict[str, Any]:
        row: dict[str, Any] = {"target": one.target, "sources": list(one.sources), "op": one.op}
        row |= {"confidence": one.confidence, "reason": one.reason, "rivals": list(one.rivals)}
        return row | {"rules": list(self.parts.made[one.target])}


def infer_mapping(
    source: Any, target: Any, *, arguments: Sequence[str] = (), limits: Limits = DEFAULT_LIMITS
) -> InferredMapping:
    """Find out which tensors of ``source``, a checkpoint, become which tensor of ``target``, a model.

    Each is a path (a checkpoint, ``FILE#inner``, a manifest), a model spec (``model.py:Net``, with ``arguments`` for
    its constructor), an ``nn.Module``, a state dict, a Manifest or an open Checkpoint; a model and a checkpoint
    that are given in the wrong order are swapped. Names, shapes and the order of the keys are looked at, and no
    value: what they cannot tell is left open. Raises CkptauditError where a side cannot be opened.
    """
    if is_model_like(source) and not is_model_like(target):
        source, target = target, source
    with ExitStack() as stack:
        model = stack.enter_context(
            open_source(target, arguments, f"ckptaudit map {_word(source)} {{model}}", limits=limits)
        )
        checkpoint = stack.enter_context(
            open_source(source, usage=f"ckptaudit map {{model}} {_word(target)}", limits=limits)
        )
        return infer_between(checkpoint, model)


def infer_between(checkpoint: Source, model: Source) -> InferredMapping:
    """Infer the mapping between two opened sides."""
    from .mapping.generalise import generalise
    from .mapping.inference import infer

    saved, wanted = checkpoint.manifest, model.manifest
    found = infer(saved, wanted)
    mapping = generalise(found, saved, wanted)
    return InferredMapping(
        checkpoint=checkpoint.side("checkpoint"),
        model=model.side("model"),
        mapping=mapping,
        assignments=found.assigned,
        ambiguous=_candidates(found, saved, wanted),
        dropped=found.dropped,
        init=found.uninitialised,
        parts=account(mapping, saved),
    )


def _candidates(found: Assignments, saved: Manifest, wanted: Manifest) -> dict[str, tuple[str, ...]]:
    """Return the unused tensors that would fit each open one: of its leaf's name and shape, else of its shape alone."""
    close: defaultdict[tuple[object, ...], list[str]] = defaultdict(list)
    for key in found.dropped:
        if key in saved.tensors:
            close[_leaf(key), saved[key].shape].append(key)
            close[(saved[key].shape,)].append(key)
    fixed = {place: tuple(keys) for place, keys in close.items()}
    return {
        key: fixed.get((_leaf(key), wanted[key].shape)) or fixed.get((wanted[key].shape,), ())
        for key in found.ambiguous
    }


def _leaf(key: str) -> str:
    return key.rpartition(".")[2]


def _word(given: Any) -> str:
    """Write an input as a word of a command line, for hints; a live object has none."""
    return shell_word(os.fspath(given)) if isinstance(given, (str, os.PathLike)) else "CHECKPOINT"


def _remark(use: RuleUse) -> str:
    """Return the comment above a rule."""
    tensors = plural(use.tensors, "tensor")
    if use.confidence is None:
        return _commented([tensors])
    if not use.to_check:
        return _commented([f"{tensors}, confidence {use.confidence:.2f} or more"])
    reasons = dict.fromkeys(f"{one.target}: {one.reason}" for one in use.to_check)
    head = f"TO BE CHECKED: {len(use.to_check):,} of {tensors}, confidence down to {use.confidence:.2f}; the first is"
    return _commented([head, *list(reasons)[:1]])


def _commented(lines: Iterable[str]) -> str:
    return "".join(f"# {visible(line)}\n" for line in lines)
