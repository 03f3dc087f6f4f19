"""Area 1: names. Root causes first, so that a lost prefix is one finding and not one per key."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from .base import Contract, Evidence, Finding, Fix, Rule, drop_options, mapping_fix, shape_text, then_matching

if TYPE_CHECKING:
    from ..manifest import Manifest
    from ..mapping.causes import Cause

MISSING_KEY = Rule(
    code="CKPT101",
    name="missing-key",
    breaks=Contract.strict,
    silent="under strict=False",
    summary="a tensor of the model is not in the checkpoint",
    messages={"": "{count} {tensors} of the model {are} not in the checkpoint"},
    details={"": "strict=True raises; strict=False leaves {them} at the model's initial values"},
    columns=("key", "model"),
    why="A layer that was never loaded keeps its random values, and strict=False says so only in a return value.",
    fix="If the layer is new (a changed head, an added module), say so with --contract partial; otherwise map it.",
    example='model.add_module("extra", nn.Linear(8, 8)); model.load_state_dict(old_state)',
)
UNEXPECTED_KEY = Rule(
    code="CKPT102",
    name="unexpected-key",
    breaks=Contract.strict,
    silent="under strict=False",
    summary="a key of the checkpoint has no place in the model",
    messages={"": "{count} key{s} of the checkpoint {have} no place in the model"},
    details={"": "strict=True raises; strict=False ignores {them}"},
    columns=("key", "checkpoint"),
    why="Weights that go nowhere are right after a layer was deleted, and a mistake after it was renamed.",
    fix="Drop them by name if the layer is gone; map them if it has another name.",
    example="del model.layer4; model.load_state_dict(old_state)",
)
PREFIX_MISMATCH = Rule(
    code="CKPT103",
    name="prefix-mismatch",
    breaks=Contract.strict,
    silent="under strict=False",
    summary="one prefix or wrapper (module., _orig_mod., model.) keeps the names of the two sides apart",
    messages={
        "strip": 'checkpoint keys carry "{prefix}", model keys do not ({count} {tensors})',
        "add": 'model keys carry "{prefix}", checkpoint keys do not ({count} {tensors})',
        "replace": '"{checkpoint}" in the checkpoint is "{model}" in the model ({count} {tensors})',
        "inside": 'checkpoint keys carry "{wrappers}" inside, model keys do not ({count} {tensors})',
    },
    details=dict.fromkeys(
        ("strip", "add", "replace", "inside"), "{origin}strict=True raises; strict=False {non_strict}"
    ),
    columns=("checkpoint", "model"),
    why="strict=False accepts the file and loads nothing: the model trains from its random values.",
    fix="Map the prefix once: --map 'module.* -> *', or the same line in your loading code.",
    example="torch.save(nn.DataParallel(model).state_dict(), path)",
)
RENAMED_KEY = Rule(
    code="CKPT104",
    name="renamed-key",
    breaks=Contract.strict,
    silent="under strict=False",
    summary="tensors have another name in the model, one to one",
    messages={
        "": "{count} {tensors} {have} another name in the model, with the same shapes",
        "operation": "{count} {tensors} {have} another name in the model, some of them another layout",
    },
    details=dict.fromkeys(
        ("", "operation"), "strict=True raises; strict=False leaves {them} at the model's initial values"
    ),
    columns=("checkpoint", "model"),
    why="Extraction by index, a renamed attribute or another library's names lose weights that are all there.",
    fix="Apply the mapping that is shown, after checking that it pairs what belongs together.",
    example="nn.Sequential(*list(resnet.children())[:-2])   # conv1 is now 0, layer1 is 4",
)
NOTHING_LOADED = Rule(
    code="CKPT105",
    name="nothing-loaded",
    breaks=Contract.partial,
    silent="yes",
    summary="strict=False would return and load nothing",
    messages={"": "no tensor of the checkpoint reaches the model ({total} in the model)"},
    details={"": "strict=False returns normally all the same"},
    columns=(),
    why="This is the silent accident of strict=False: a successful load of nothing.",
    fix="Check that the file belongs to the model, and whether its state dict lies deeper: ckptaudit inspect FILE.",
    example='model.load_state_dict(torch.load("other_network.pth"), strict=False)',
)
NESTED_STATE_DICT = Rule(
    code="CKPT106",
    name="nested-state-dict",
    fixed="note",
    summary='the state dict lies inside the saved object: at ["state_dict"], ["model"], ...',
    messages={"": "the state dict lies at {where}; the file as a whole is not one"},
    columns=(),
    silent="yes",
    why="load_state_dict(torch.load(path), strict=False) with the outer dict loads nothing and says nothing.",
    fix='Pass the inner dict: torch.load(path)["state_dict"]. ckptaudit has read it there.',
    example='torch.save({"epoch": 3, "state_dict": model.state_dict()}, path)',
)
AMBIGUOUS_MAPPING = Rule(
    code="CKPT107",
    name="ambiguous-mapping",
    fixed="error",
    summary="two checkpoint keys land on one key under the mapping",
    messages={"": "{count} key{s} would receive several checkpoint keys under the mapping"},
    details={"": "one of them would be lost"},
    columns=("key", "checkpoint"),
    why="One of the tensors would be lost, and which one would depend on the order of the file.",
    fix="Drop or rename one of the sources before the rule that collides.",
    example="--map 'module.* -> *' on a file that holds both module.fc.weight and fc.weight",
)

_PLAIN = r"(?s)\\(.)"  # what mapping.rules.escape adds
_ORIGINS = {
    "module.": "The file was saved from DataParallel or DistributedDataParallel.\n",
    "_orig_mod.": "The file was saved from a compiled model (torch.compile).\n",
    "_fsdp_wrapped_module.": "The file was saved from FullyShardedDataParallel.\n",
    "_checkpoint_wrapped_module.": "The file was saved from an activation-checkpoint wrapper.\n",
}


def check_nesting(evidence: Evidence) -> Iterator[Finding]:
    """Say where the state dict lies, if not at the top of the file."""
    if evidence.checkpoint is not None and (path := evidence.checkpoint.chosen.path):
        where = "".join(f'["{part}"]' for part in path.split("."))
        yield Finding(NESTED_STATE_DICT, data={"where": where, "path": path}, rows=((path,),))


def check_mapping(evidence: Evidence) -> Iterator[Finding]:
    """Yield the collisions of the mapping that was given."""
    if evidence.given is not None and evidence.given.collisions:
        collisions = evidence.given.collisions
        rows = tuple((target, ", ".join(sources)) for target, sources in collisions)
        fix = Fix("display", "drop all but one of the sources with a --drop before the --map")
        yield Finding(AMBIGUOUS_MAPPING, tuple(target for target, _ in collisions), rows=rows, fixes=(fix,))


def check_causes(evidence: Evidence) -> Iterator[Finding]:
    """Yield one finding per root cause of missing and unexpected keys; the fix is the proposed mapping.

    The rules of a mapping have an order, and prefixes are reported before renames: only the causes after the
    last prefix are renames.
    """
    if evidence.proposal is None or evidence.proposal.keeps_names:
        return
    causes = list(evidence.proposal.causes)
    renames: list[Cause] = []
    while causes and _is_rename(causes[-1], evidence.as_is.checkpoint):
        renames.insert(0, causes.pop())
    then = then_matching(evidence, several=len(causes) + bool(renames) > 1)
    for cause in causes:
        yield _prefix_finding(cause, evidence, then)
    if renames:
        yield _rename_finding(renames, evidence, then)


def _is_rename(cause: Cause, checkpoint: Manifest) -> bool:
    """Tell a renamed module from a prefix that the whole file has in exchange for the model's."""
    if cause.kind in ("rename", "operation"):
        return True
    case, words = _prefix_words(cause)
    return case == "replace" and not all(key.startswith(str(words["checkpoint"])) for key in checkpoint)


def _breaks(evidence: Evidence) -> Contract | None:
    """Return what a cause breaks beyond its rule: one that keeps every tensor out breaks ``partial`` too."""
    return None if evidence.outcome_as_is.loaded else Contract.partial


def _prefix_finding(cause: Cause, evidence: Evidence, then: str) -> Finding:
    case, data = _prefix_words(cause)
    outcome, total = evidence.outcome_as_is, len(evidence.as_is.model.all_keys)
    returns = f"returns, and loads {outcome.loaded:,} of {total:,} tensors"
    data |= {"loaded": outcome.loaded, "total": total, "non_strict": returns if outcome.non_strict else "raises too"}
    keys = tuple(source for source, _ in cause.explained)
    return Finding(
        PREFIX_MISMATCH,
        keys,
        case=case,
        data={**data, "rule": str(cause.rule)},
        rows=tuple((source, target, str(count)) for source, target, count in cause.rows),
        fixes=(mapping_fix(evidence, [cause], then),),
        breaks=_breaks(evidence),
    )


def _prefix_words(cause: Cause) -> tuple[str, dict[str, object]]:
    """Return the case of a prefix cause and the words for it."""
    from ..mapping.rules import Rename

    if not isinstance(cause.rule, Rename):
        names = " ".join(str(cause.rule).split()[1:])
        return "inside", {"wrappers": names, "origin": ""}
    before, after = (re.sub(_PLAIN, r"\1", side.removesuffix("*")) for side in (cause.rule.source, cause.rule.target))
    if not after:
        return "strip", {"prefix": before, "origin": _ORIGINS.get(before, "")}
    if not before:
        return "add", {"prefix": after, "origin": ""}
    return "replace", {"checkpoint": before, "model": after, "origin": ""}


def _rename_finding(causes: list[Cause], evidence: Evidence, then: str) -> Finding:
    keys = dict.fromkeys(source for cause in causes for source, _ in cause.explained)
    rows = [(source, target, str(count)) for cause in causes for source, target, count in cause.rows]
    return Finding(
        RENAMED_KEY,
        tuple(keys),
        case="operation" if any(cause.kind == "operation" for cause in causes) else "",
        data={"rules": [str(cause.rule) for cause in causes]},
        rows=tuple(rows),
        fixes=(mapping_fix(evidence, causes, then),),
        breaks=_breaks(evidence),
    )


def check_leftovers(evidence: Evidence) -> Iterator[Finding]:
    """Yield what no cause explains: nothing loaded at all, else the missing and the unexpected keys."""
    total = len(evidence.alignment.model.all_keys)
    if total and not evidence.outcome.loaded and evidence.outcome.non_strict:
        yield Finding(NOTHING_LOADED, data={"total": total}, mapped=evidence.mapped)
    if evidence.unexpected:
        keys = evidence.unexpected
        drops = drop_options(keys, evidence.alignment.checkpoint.all_keys)
        fix = Fix("unsafe", drops, "if the model is not meant to have them")
        if not evidence.can_drop(keys):
            fix = Fix("display", "make no tensor that the model lacks", "the mapping makes some of these")
        yield _leftover(UNEXPECTED_KEY, keys, evidence.alignment.checkpoint, evidence, fix)
    if evidence.missing:
        keys, model = evidence.missing, evidence.alignment.model
        values = sum(model[key].numel for key in keys if key in model)
        fix = Fix("unsafe", "--contract partial", f"if these {values:,} values are meant to be new")
        yield _leftover(MISSING_KEY, keys, model, evidence, fix)


def _leftover(rule: Rule, keys: tuple[str, ...], manifest: Manifest, evidence: Evidence, fix: Fix) -> Finding:
    """Show each key with its shape; where nothing at all is loaded there is no fix that would help."""
    rows = tuple(
        (key, shape_text(manifest[key].shape) if key in manifest else manifest.entries.get(key, "")) for key in keys
    )
    return Finding(rule, keys, rows=rows, fixes=(fix,) if evidence.outcome.loaded else (), mapped=evidence.mapped)


ROOT_CAUSES = (check_nesting, check_mapping, check_causes)
CHECKS = (check_leftovers,)
