"""What a rule is, what a finding is, and what the checks look at."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Literal

from ..outcome import key_of_error
from ..records import dataclass, field, replace

if TYPE_CHECKING:
    from ..compare.align import Alignment
    from ..compare.hearing import Hearing
    from ..compare.summary import Values
    from ..formats.base import Checkpoint
    from ..mapping.causes import Cause, Proposal
    from ..mapping.mapping import Mapped
    from ..outcome import LoadOutcome

Level = Literal["error", "warning", "note"]
Safety = Literal["safe", "unsafe", "display"]
# What could not be checked has not passed, whoever would like it to: the exit status is 2.
UNCHECKED_CODES = frozenset({"CKPT703", "CKPT804", "CKPT905", "CKPT906"})


class Contract(IntEnum):
    """What the user of a checkpoint relies on; meeting one means meeting every weaker one."""

    open = 0
    partial = 1
    strict = 2
    exact = 3
    resume = 4

    @property
    def promise(self) -> str:
        """What the contract promises, in one sentence."""
        return _PROMISES[self]


_PROMISES = {
    Contract.open: "the file is whole and opens without running code",
    Contract.partial: "load_state_dict(strict=False) returns and loads something",
    Contract.strict: "load_state_dict(strict=True) returns",
    Contract.exact: "strict, and every tensor holds the saved value afterwards",
    Contract.resume: "exact, and the training state fits the parameters it belongs to",
}


@dataclass(frozen=True, eq=False)
class Rule:
    """One thing that can be wrong: its identity, what it breaks, and every word said about it.

    ``breaks`` is the weakest contract a finding breaks; ``fixed`` a level that no contract changes; exactly
    one of them is set. ``messages`` and ``details`` are templates over a finding's data, by its case.
    ``columns`` head the rows of a finding. ``silent`` says when torch keeps quiet about it.
    """

    code: str
    name: str
    summary: str
    why: str
    fix: str
    messages: Mapping[str, str]
    breaks: Contract | None = None
    fixed: Level | None = None
    details: Mapping[str, str] = field(default_factory=dict)
    columns: tuple[str, ...] = ("key", "checkpoint", "model")
    silent: str = ""
    example: str = ""
    since: str = "0.1"

    @property
    def about(self) -> Literal["file", "model", "audit"]:
        """What is at fault, or changed: the file, the code of the model, or the audit itself."""
        return _ABOUT.get(self.code, _ABOUT.get(self.code[4:5], "file"))


_ABOUT: dict[str, Literal["file", "model", "audit"]]
_ABOUT = {**dict.fromkeys("12348", "model"), "9": "audit", "CKPT106": "file"}


@dataclass(frozen=True)
class Fix:
    """What to do: options of the command that was run, or advice, and what is true afterwards.

    ``safe`` fixes keep every value: they rename, and put fused tensors together or take them apart; ``unsafe`` ones
    drop, cast or leave tensors at their initial values; ``display`` ones are advice.
    """

    safety: Safety
    do: str
    then: str = ""

    def to_json(self) -> dict[str, str]:
        """Return the JSON form."""
        return {"safety": self.safety, "do": self.do, "then": self.then}


@dataclass(frozen=True)
class Finding:
    """One cause, with its evidence; how it is worded is the rule's and the renderer's business.

    ``keys`` are the keys concerned (of the checkpoint where both sides have them under different names).
    ``rows`` are cells under the rule's columns, the first one a key. ``explains`` are the missing,
    unexpected and mismatched keys that need no finding of their own any more. ``mapped`` says that it holds under
    the proposed mapping. ``breaks`` is set where this finding breaks another contract than its rule does in general.
    """

    rule: Rule
    keys: tuple[str, ...] = ()
    case: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)
    rows: tuple[tuple[str, ...], ...] = ()
    fixes: tuple[Fix, ...] = ()
    explains: frozenset[str] = frozenset()
    mapped: bool = False
    breaks: Contract | None = None

    def level(self, contract: Contract) -> Level:
        """Grade it: what breaks the contract is an error, the next stronger one a warning, the rest notes."""
        breaks = self.rule.breaks if self.breaks is None else self.breaks
        if breaks is None:
            assert self.rule.fixed is not None
            return self.rule.fixed
        if breaks <= contract:
            return "error"
        return "warning" if breaks == contract + 1 else "note"

    @property
    def message(self) -> str:
        """The headline, one sentence without code or level."""
        return self.rule.messages[self.case].format_map(self._words())

    @property
    def detail(self) -> str:
        """What follows below the rows, or the empty string."""
        return self.rule.details.get(self.case, "").format_map(self._words())

    def _words(self) -> dict[str, Any]:
        count = len(self.keys)
        plural = count != 1
        words = {"count": f"{count:,}", "s": "s" if plural else "", "tensors": "tensors" if plural else "tensor"}
        words |= (
            {"have": "have", "are": "are", "them": "them", "v": ""}  # v ends a verb, as s does a noun
            if plural
            else {"have": "has", "are": "is", "them": "it", "v": "s"}
        )
        return words | {name: f"{v:,}" if type(v) is int else v for name, v in self.data.items()}

    @property
    def fingerprint(self) -> str:
        """Twelve hex digits over code, keys and the values on both sides: stable across wording and paths."""
        from hashlib import sha256

        parts = [self.rule.code, *sorted(self.keys), *sorted("\t".join(row) for row in self.rows)]
        return sha256("\n".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:12]

    def to_json(self, level: Level) -> dict[str, Any]:
        """Return the ``findings`` entry of a report."""
        return {
            "code": self.rule.code,
            "name": self.rule.name,
            "level": level,
            "message": self.message,
            "keys": list(self.keys),
            "data": {**self.data, "rows": [list(row) for row in self.rows]},
            "fixes": [fix.to_json() for fix in self.fixes],
            "with_mapping": self.mapped,
            "fingerprint": self.fingerprint,
        }


@dataclass(frozen=True)
class Evidence:
    """All that the checks of a diff may look at.

    ``as_is`` aligns the two sides as they are; ``alignment`` does so under the mapping in force: the one
    given, and the one proposed on top of it. ``outcome`` and ``outcome_as_is`` are what the load says to each.
    ``missing``, ``unexpected`` and ``mismatched`` are the keys that no finding explains yet, ``explained`` the
    others; checks run in order, root causes first.
    ``origin`` maps keys of ``alignment`` to those of the file. ``undecided`` says why torch could not be asked.
    ``contract`` is the one to be judged by. ``hearing`` is the witness's word, where one was asked. ``values`` are the
    comparisons of values, where these were asked for. ``typed`` are checkpoint and model as on a command line.
    """

    as_is: Alignment
    alignment: Alignment
    outcome_as_is: LoadOutcome
    outcome: LoadOutcome
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    checkpoint: Checkpoint | None = None
    given: Mapped | None = None
    proposal: Proposal | None = None
    origin: Mapping[str, str] = field(default_factory=dict)
    undecided: str = ""
    contract: Contract = Contract.strict
    hearing: Hearing | None = None
    values: Values | None = None
    typed: tuple[str, str] = ("CHECKPOINT", "MODEL")
    explained: frozenset[str] = frozenset()

    def source_key(self, key: str) -> str | None:
        """Return the key of the file for one of ``alignment``; None for what operations on tensors make."""
        if self.given is None:
            return self.origin.get(key, key if self.proposal is None else None)
        return self.origin.get(dict(self.given.ties).get(key, key))

    def without(self, explained: Iterable[str]) -> Evidence:
        """Return the evidence with these missing, unexpected and mismatched keys accounted for."""
        gone = frozenset(explained)
        if not gone:
            return self
        return replace(
            self,
            missing=tuple(key for key in self.missing if key not in gone),
            unexpected=tuple(key for key in self.unexpected if key not in gone),
            explained=self.explained | gone,
        )

    def can_drop(self, keys: Iterable[str]) -> bool:
        """Tell whether these keys can be left out by --drop, which acts before operations make new ones."""
        given = self.given
        return given is None or not (given.recipes or given.ties) or not any(map(given.makes, keys))

    @property
    def mapped(self) -> bool:
        """True where ``alignment`` is what the proposed mapping makes, and not what was given."""
        return self.proposal is not None

    @property
    def mismatched(self) -> tuple[str, ...]:
        """The keys whose shapes the load refuses; load hooks may have adapted some of those that differ."""
        keys = tuple(key for key in self.alignment.mismatched_keys if key not in self.explained)
        return keys if self.outcome.judge == "prediction" else tuple(key for key in keys if key in self.refused)

    @property
    def refused(self) -> frozenset[str]:
        """The keys that the load's error messages name."""
        return frozenset(key for key in map(key_of_error, self.outcome.errors) if key is not None)


def drop_options(keys: Iterable[str], universe: Iterable[str]) -> str:
    """Return the ``--drop`` options, quoted for a shell, that leave out exactly ``keys`` among ``universe``."""
    from shlex import quote

    from ..mapping.cover import cover
    from ..mapping.rules import escape

    names = set(keys)
    patterns = [escape(p) if p in names else f"{escape(p[:-1])}*" for p in cover(keys, universe)]
    return " ".join(f"--drop {quote(pattern)}" for pattern in patterns)


def drop_fix(evidence: Evidence, keys: tuple[str, ...]) -> tuple[Fix, ...]:
    """Offer to leave out what cannot be loaded; not where nothing at all would be loaded then."""
    if not evidence.outcome.loaded or not evidence.can_drop(keys):
        return ()
    model = evidence.alignment.model
    values = sum(model[key].numel for key in keys if key in model)
    drops = drop_options(keys, evidence.alignment.checkpoint.all_keys)
    return (Fix("unsafe", f"{drops} --contract partial", f"the model keeps its own {values:,} initial values"),)


def mapping_fix(evidence: Evidence, causes: Iterable[Cause], then: str) -> Fix:
    """Offer rules of the proposed mapping: as options, or as a file where they are too many to be typed."""
    from shlex import quote

    if evidence.proposal is not None and evidence.proposal.as_file:
        checkpoint, model = evidence.typed
        return Fix("display", f"ckptaudit map {checkpoint} {model} -o mapping.toml", f"with --map mapping.toml, {then}")
    return Fix("safe", " ".join(f"--map {quote(str(cause.rule))}" for cause in causes), then)


def then_matching(evidence: Evidence, *, several: bool = False) -> str:
    """Say how many tensors match under the proposed mapping; ``several`` findings offer parts of it."""
    matched, total = evidence.outcome.loaded, len(evidence.alignment.model.all_keys)
    return f"{'with every such --map here' if several else 'then'} {matched:,} of {total:,} tensors match"


def shape_text(shape: Iterable[int]) -> str:
    """Write a shape as Python writes a tuple."""
    return str(tuple(shape))
