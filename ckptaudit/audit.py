"""The one place that runs the steps: open both sides, align, look for causes, apply the rules, judge."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from . import rules
from .compare.align import Alignment, align
from .compare.hearing import Hearing, hear
from .compare.predict import predict
from .errors import UsageError
from .formats import DEFAULT_LIMITS, Limits
from .manifest import Manifest
from .outcome import LoadOutcome
from .pairing import Comparison, Progress, Tolerance
from .place import Place
from .policy import Graded, MappingUse, Report, grade, verdict_of
from .records import replace
from .rules import Contract, Evidence
from .sources import Source, check_can_testify, is_model_like, open_source
from .words import shell_word

if TYPE_CHECKING:
    from .mapping.causes import Proposal
    from .mapping.mapping import KeyMapping, Mapped


def diff(  # noqa: PLR0913  (options, each given by its name)
    model: Any,
    checkpoint: Any,
    *,
    contract: str | None = None,
    mapping: KeyMapping | str | os.PathLike[str] | Iterable[str | os.PathLike[str]] | None = None,
    arguments: Sequence[str] = (),
    limits: Limits = DEFAULT_LIMITS,
    witness: bool = False,
    values: bool = False,
    rtol: float = 0.0,
    atol: float = 0.0,
    progress: Progress | None = None,
) -> Report:
    """Compare a checkpoint with a model, or any two of model, checkpoint and manifest.

    ``model`` and ``checkpoint`` are each a path (a checkpoint, ``FILE#inner``, a manifest), a model spec
    (``model.py:Net``), an ``nn.Module``, a state dict, a Manifest or an open Checkpoint; given in the wrong order
    they are swapped. ``mapping`` is applied to the checkpoint first: a KeyMapping, lines, or the path of a
    TOML file. ``limits`` say how much a file may ask for before it is refused. Nothing is loaded into a live
    model: torch's own load is tried on a twin on the meta device, and its word is the verdict.

    ``witness`` performs the load as well, with values, on throw-away copies of the model on the CPU, and holds what
    it did against the report: a disagreement is CKPT906. It takes the time of a load and the memory of two models.

    ``values`` compares values too, under the mapping in force, without torch and in memory that does not depend on
    their size; the report's ``values`` say what is equal bit for bit, and how far apart the rest is. Two values are
    close where ``|model - checkpoint| <= atol + rtol * |checkpoint|``; without a tolerance bits decide. A model that is
    not live has no values: that is CKPT905. ``progress(done, total)`` is told the bytes so far.

    The contract is ``strict`` where none is named, and ``exact`` where values are compared.

    Raises CkptauditError where a side cannot be opened, or a witness is asked for where nothing can be loaded.
    """
    if is_model_like(checkpoint) and not is_model_like(model):
        model, checkpoint = checkpoint, model
    chosen = parse_contract(contract or ("exact" if values else "strict"))
    compared = Comparison(_tolerance(rtol, atol), progress) if values else None
    given = _mapping(mapping)
    with ExitStack() as stack:
        usage = f"ckptaudit diff {{model}} {_word(checkpoint)}"
        target = stack.enter_context(open_source(model, arguments, usage, limits=limits))
        usage = f"ckptaudit diff {_word(model)} {{model}}"
        source = stack.enter_context(open_source(checkpoint, usage=usage, limits=limits))
        if witness:
            check_can_testify(source, target)
        return compare(source, target, given, chosen, witness=witness, compared=compared)


def _word(given: Any) -> str:
    """Write an input as a word of a command line, for hints; a live object has none."""
    return shell_word(os.fspath(given)) if isinstance(given, (str, os.PathLike)) else "CHECKPOINT"


def _mapping(given: Any) -> KeyMapping | None:
    """Read the mapping that was given; None where it has no rules, which needs none of the mapping code."""
    if not given:
        return None
    from .mapping.mapping import KeyMapping

    mapping = KeyMapping.of(given)
    return mapping if mapping.rules else None


def parse_contract(text: str) -> Contract:
    """Return the contract of that name. Raises UsageError."""
    try:
        return Contract[text]
    except KeyError:
        raise UsageError(text, f"is no contract; choose one of {', '.join(Contract.__members__)}") from None


def _tolerance(rtol: float, atol: float) -> Tolerance:
    for name, value in (("rtol", rtol), ("atol", atol)):
        if not 0 <= value < float("inf"):
            raise UsageError(name, f"is {value}; it is a tolerance, and not below 0", f"leave it out, or {name}=1e-6")
    return Tolerance(rtol, atol)


def compare(
    source: Source,
    target: Source,
    given: KeyMapping | None,
    contract: Contract,
    *,
    witness: bool = False,
    compared: Comparison | None = None,
) -> Report:
    """Compare an open checkpoint with an open model, as ``diff`` does."""
    raw, wanted = source.manifest, target.manifest
    as_is = align(raw, wanted)
    outcome_as_is, undecided = _judge(target, as_is)
    evidence = replace(_gather(source, target, given, (as_is, outcome_as_is, undecided)), contract=contract)
    proposed = evidence.proposal.mapping.to_json() if evidence.proposal else []
    used = given.to_json() if given else []
    if witness:
        loads = [(as_is, outcome_as_is), (evidence.alignment, evidence.outcome)]
        evidence = replace(evidence, hearing=_hear(source, target, evidence.given, loads, [used, proposed]))
    if compared is not None:
        evidence = replace(evidence, values=compared.of(source, target, evidence))
    findings = grade(rules.run(evidence), contract)
    foreseen = tuple(key for key in evidence.outcome.missing_keys if evidence.given and evidence.given.expects(key))
    use = None
    if used or proposed:
        fix = "the rules found" if evidence.proposal and evidence.proposal.as_file else "the safe fix"
        use = MappingUse(tuple(used), tuple(proposed), foreseen, evidence.alignment, evidence.origin, fix)
    return Report(
        command="diff",
        contract=contract,
        verdict=verdict_of(findings),
        checkpoint=source.side("checkpoint"),
        model=target.side("model"),
        alignment=as_is,
        outcome_as_is=outcome_as_is,
        outcome=evidence.outcome,
        mapping=use,
        findings=findings,
        skipped_rules=_skipped(source, target),
        hearing=evidence.hearing,
        places=_places(target, findings, evidence.origin),
        values=evidence.values,
    )


def _gather(
    source: Source, target: Source, given: KeyMapping | None, first: tuple[Alignment, LoadOutcome, str]
) -> Evidence:
    """Apply the given mapping, look for a cause of what is left, and let the load judge each step."""
    alignment, outcome, undecided = first
    mapped: Mapped | None = None
    if given is not None:
        mapped = given.apply(alignment.checkpoint)
        alignment = align(mapped.manifest, target.manifest)
        outcome, undecided = _judge(target, alignment)
        mapped = mapped.settled(outcome.missing_keys)
    proposal = _propose(alignment, outcome, mapped)
    if proposal is not None and given is not None and not _adds_up(given, proposal, first[0].checkpoint, alignment):
        proposal = None
    final, final_outcome = alignment, outcome
    origin = dict(mapped.origin) if mapped else {}
    if proposal is not None:
        step = proposal.mapping.apply(alignment.checkpoint)
        final = align(step.manifest, target.manifest)
        final_outcome, undecided = _judge(target, final)
        origin = {key: origin.get(old, old) for key, old in step.origin.items() if mapped is None or old in origin}
    return Evidence(
        as_is=alignment,
        alignment=final,
        outcome_as_is=outcome,
        outcome=final_outcome,
        missing=_unforeseen(final_outcome.missing_keys, mapped),
        unexpected=final_outcome.unexpected_keys,
        checkpoint=source.checkpoint,
        given=mapped,
        proposal=proposal,
        origin=origin,
        undecided=undecided,
        typed=(source.typed or "CHECKPOINT", target.typed or "MODEL"),
    )


def _propose(alignment: Alignment, outcome: LoadOutcome, mapped: Mapped | None) -> Proposal | None:
    """Look for what explains missing and unexpected keys, and shapes; nothing goes where a key is expected to miss."""
    both = bool(_unforeseen(outcome.missing_keys, mapped) and outcome.unexpected_keys)
    if not both and not alignment.mismatched_keys:
        return None
    from .mapping.causes import propose
    from .mapping.propose import laid_out_otherwise, propose_best

    if mapped is None and (both or laid_out_otherwise(alignment.checkpoint, alignment.model)):
        return propose_best(alignment.checkpoint, alignment.model)
    if both and mapped is not None:
        wanted = alignment.model
        if mapped.expected:
            wanted = wanted.select(key for key in wanted.all_keys if not mapped.expects(key))
        return propose(alignment.checkpoint, wanted)
    return None


def _adds_up(given: KeyMapping, proposal: Proposal, raw: Manifest, alignment: Alignment) -> bool:
    """Tell whether proposed rules, written after those given, do what they do to the result of those.

    They need not where operations on tensors come between: rules over keys act before these.
    """
    if all(rule.phase == "keys" for rule in given.rules):
        return True
    try:
        together = replace(given, rules=(*given.rules, *proposal.mapping.rules)).apply(raw)
    except UsageError:
        return False
    step = proposal.mapping.apply(alignment.checkpoint)
    return not together.unused and together.manifest.tensors == step.manifest.tensors


def _unforeseen(missing: tuple[str, ...], mapped: Mapped | None) -> tuple[str, ...]:
    """Leave out the keys that the mapping says the checkpoint need not have."""
    if mapped is None or not mapped.expected:
        return missing
    return tuple(key for key in missing if not mapped.expects(key))


def _judge(target: Source, alignment: Alignment) -> tuple[LoadOutcome, str]:
    """Ask torch where there is a model; otherwise, or where torch cannot say, predict."""
    if target.witness is None:
        return predict(alignment), ""
    answer = target.witness.try_load(alignment.checkpoint)
    return (predict(alignment), answer) if isinstance(answer, str) else (answer, "")


def _hear(
    source: Source,
    target: Source,
    given: Mapped | None,
    loads: list[tuple[Alignment, LoadOutcome]],
    rules: list[list[str]],
) -> Hearing:
    """Have the load performed, as is and with the mapping in force, and compare it with what was said.

    A mapping that has findings of its own (collisions, rules without effect) cannot be carried out.
    """
    assert target.witness is not None
    sound = given is None or not (given.collisions or given.unused)
    mappings = [lines for lines in rules if lines] if sound else []
    testimony = target.witness.really_load(source.values, source.limits, mappings)
    predicted = [predict(alignment) for alignment, _ in loads]
    return hear(testimony, [outcome for _, outcome in loads], predicted, partly=not sound)


def _places(target: Source, findings: Iterable[Graded], origin: Mapping[str, str]) -> dict[str, Place]:
    """Ask for the lines of the model's code behind the keys of findings on it; those on the file have none.

    ``origin`` leads from the model's names, under the mapping, to the checkpoint's.
    """
    if target.witness is None:
        return {}
    renamed = {old: key for key, old in origin.items()}
    keys = [key for one in findings if one.finding.rule.about == "model" for key in one.finding.keys]
    names = {key: key if key in target.manifest else renamed.get(key, key) for key in keys}
    found = target.witness.places(list(dict.fromkeys(names.values()))) if names else {}
    return {key: found[name] for key, name in names.items() if name in found}


def _skipped(source: Source, target: Source) -> tuple[str, ...]:
    """Name the rules that this pair of inputs gives no evidence for."""
    skipped = []
    if source.checkpoint is None:
        skipped += ["CKPT004", "CKPT005", "CKPT106"]
    if target.witness is None:
        skipped += ["CKPT408", "CKPT409"]
    return tuple(sorted(skipped))
