"""Area 4: what modules add to names and shapes: ties, buffers, extra state, versions, load hooks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..compare.align import is_extra_state
from ..compare.values import compare, incomparable
from ..outcome import key_of_error
from .base import Contract, Evidence, Finding, Fix, Rule, drop_options, shape_text
from .tensors import differs_in_layout

if TYPE_CHECKING:
    from ..formats.base import RawTensor
    from ..manifest import Manifest

TIED_VALUES_DIFFER = Rule(
    code="CKPT401",
    name="tied-values-differ",
    breaks=Contract.exact,
    silent="yes",
    summary="two names share one parameter in the model and hold different values in the checkpoint",
    messages={
        "": "{count} {tensors} tied in the model, with different values in the checkpoint",
        "undecided": "{count} {tensors} tied in the model, stored apart in the checkpoint: equal values not checked",
    },
    details={
        "": "load_state_dict copies one after the other; the last one wins without a word",
        "undecided": "if the values differ, the last one that is copied wins without a word",
    },
    columns=("key", "tied to"),
    why="One of the two trained tensors is lost, and the outputs are those of neither.",
    fix="Build the model without the tie, or decide which of the two the checkpoint means.",
    example="lm_head and embed_tokens saved apart, loaded into a model with tie_word_embeddings=True",
)
TIE_MISSING = Rule(
    code="CKPT402",
    name="tie-missing",
    breaks=Contract.strict,
    silent="under strict=False",
    summary="the checkpoint keeps one name of a tie (as safetensors' save_model does)",
    messages={"": "{count} {tensors} of the model {are} missing, but tied to one that is there"},
    details={"": "strict=True raises; strict=False loads all values through the other name"},
    columns=("key", "tied to"),
    why="Nothing is lost, but a strict load fails on the name.",
    fix="Give the state dict both names before loading: state[alias] = state[kept].",
    example="safetensors.torch.save_model(language_model, path)",
)
BUFFER_PERSISTENCE_CHANGED = Rule(
    code="CKPT403",
    name="buffer-persistence-changed",
    breaks=Contract.strict,
    silent="under strict=False",
    summary="a buffer entered or left the state dict",
    messages={
        "left": "{count} buffer{s} of the checkpoint that the model does not save (persistent=False)",
        "entered": "{count} buffer{s} of the model {are} not in the checkpoint",
    },
    details={
        "left": "strict=True raises; strict=False keeps the model's own value",
        "entered": "strict=True raises; strict=False keeps the model's own value",
    },
    why="Every checkpoint saved before the change fails a strict load.",
    fix="Keep the buffer as it was, or drop the key (left) or accept its initial value (entered).",
    example='self.register_buffer("position_ids", torch.arange(512), persistent=False)',
)
EXTRA_STATE_MISSING = Rule(
    code="CKPT404",
    name="extra-state-missing",
    breaks=Contract.strict,
    silent="under strict=False",
    summary="the _extra_state of a module is on one side alone",
    messages={
        "missing": "{count} extra state{s} of the model {are} not in the checkpoint",
        "unexpected": "{count} extra state{s} of the checkpoint {have} no module to go to",
    },
    details=dict.fromkeys(("missing", "unexpected"), "strict=True raises; strict=False goes on without"),
    columns=("key",),
    why="A module that gained get_extra_state refuses every older checkpoint.",
    fix="Drop the key, or let set_extra_state cope with its absence through a load hook.",
    example="def get_extra_state(self): return {'scale': self.scale}",
)
METADATA_LOST = Rule(
    code="CKPT405",
    name="metadata-lost",
    breaks=Contract.exact,
    silent="yes",
    summary="the checkpoint has no module versions (_metadata), and load code for older ones fills in what is missing",
    messages={"": "{count} {tensors} of the model {are} not in the checkpoint, and torch does not say so"},
    details={
        "": "the module versions (_metadata) are gone: torch takes the file for one of an older version of the modules"
    },
    columns=("key", "version of its module"),
    why="A state dict rebuilt as a plain dict has no versions, and strict=True then lets through what it lacks.",
    fix="Save what state_dict() returns, not a dict made from it; keep its _metadata where keys have to be changed.",
    example='torch.save({k: v for k, v in model.state_dict().items() if "running" in k}, path)',
)
MODULE_VERSION_NEWER = Rule(
    code="CKPT406",
    name="module-version-newer",
    breaks=Contract.exact,
    silent="yes",
    summary="saved by a newer version of a module than the model's",
    messages={"": "{count} module{s} saved in a newer version than the model's"},
    details={"": "torch reads the state as if it were of the model's own version"},
    columns=("module", "checkpoint", "model"),
    why="Modules upgrade old state dicts; none of them can downgrade a new one.",
    fix="Load with the version of the library that wrote the file, or a newer one.",
    example="a module with _version = 3 read by code where it is 2",
)
PARAMETRIZATION_CHANGED = Rule(
    code="CKPT407",
    name="parametrization-changed",
    breaks=Contract.strict,
    silent="under strict=False",
    summary="one weight in two forms: weight, weight_g and weight_v, parametrizations.weight.original*",
    messages={"": "{count} {tensors} of the checkpoint saved under another parametrization than the model's"},
    details={"": "strict=True raises; strict=False leaves the parametrized tensors at their initial values"},
    columns=("checkpoint", "model"),
    why="weight_norm, spectral_norm and their removal change the names under which one weight is saved.",
    fix="Put the model into the form of the checkpoint before loading, then apply or remove the parametrization.",
    example="torch.nn.utils.parametrizations.weight_norm(model.conv)",
)
LOAD_HOOK_RENAMES = Rule(
    code="CKPT408",
    name="load-hook-renames",
    fixed="note",
    summary="names or shapes differ, and the model's own load code bridges the difference",
    messages={"": "{count} key{s} on one side only or of another shape, bridged by the model's own load code"},
    details={"": "torch loads them; there is nothing to do"},
    columns=("key",),
    why="A comparison of names alone would call this checkpoint broken; torch loads it.",
    fix="Nothing to do.",
    example="weight_g and weight_v of the old weight_norm into the new parametrization",
)
LOAD_HOOK_ERROR = Rule(
    code="CKPT409",
    name="load-hook-error",
    breaks=Contract.partial,
    summary="load_state_dict raises for a reason of the module's own",
    messages={"": "the model's own load code refuses the checkpoint: {reason}"},
    details={"": "strict=True and strict=False both raise"},
    columns=(),
    why="Modules may check more than names and shapes while they load.",
    fix="Read the message: it is the module's.",
    example="an InstanceNorm without running statistics refusing those of an old file",
)


def check_hooks(evidence: Evidence) -> Iterator[Finding]:
    """Say which differences load hooks bridge, and pass on what the model's own load code raises."""
    outcome, alignment = evidence.outcome, evidence.alignment
    if outcome.judge != "torch":
        return
    layouts = {key for key, *specs in alignment.pairs(alignment.matched_keys) if differs_in_layout(*specs)}
    known = {*alignment.mismatched_keys, *alignment.non_tensor_keys, *layouts}
    own = [message for message in outcome.errors if key_of_error(message) not in known]
    for message in own:
        key = key_of_error(message)
        yield Finding(LOAD_HOOK_ERROR, (key,) if key else (), data={"reason": message}, mapped=evidence.mapped)
    said = {*outcome.missing_keys, *outcome.unexpected_keys, *evidence.refused}
    differing = (*alignment.missing_keys, *alignment.unexpected_keys, *alignment.mismatched_keys)
    said.update(key for key, _ in _filled_in(evidence))
    bridged = tuple(key for key in differing if key not in said)
    if bridged and not own:  # load code that complains may have swallowed the keys it complains of
        yield Finding(LOAD_HOOK_RENAMES, bridged, rows=tuple((key,) for key in bridged), mapped=evidence.mapped)


def check_parametrizations(evidence: Evidence) -> Iterator[Finding]:
    """Pair the forms of one weight: plain, old hooks (weight_g, weight_orig), new parametrizations."""
    saved = _forms(evidence.unexpected, evidence.alignment.checkpoint)
    wanted = _forms(evidence.missing, evidence.alignment.model)
    weights = [weight for weight in saved if weight in wanted]
    if weights:
        keys = tuple(key for weight in weights for key in saved[weight])
        fix = Fix("display", "load into the model in the checkpoint's form, then apply or remove the parametrization")
        yield Finding(
            PARAMETRIZATION_CHANGED,
            keys,
            rows=tuple((", ".join(saved[weight]), ", ".join(wanted[weight])) for weight in weights),
            fixes=(fix,),
            explains=frozenset(keys).union(*(wanted[weight] for weight in weights)),
            mapped=evidence.mapped,
        )


# What one weight is saved as by the hooks of torch.nn.utils: weight_norm, spectral_norm, prune.
_OLD_FORMS = (("_g", "_v"), ("_orig", "_u"), ("_orig", "_mask"))
_PARAMETRIZED = ".parametrizations."
_SUFFIXES = ("_g", "_v", "_u", "_orig", "_mask")


def _forms(keys: tuple[str, ...], side: Manifest) -> dict[str, list[str]]:
    """Group the keys by the weight that they are a form of, as ``module.name``; ``side`` has the whole form."""
    groups: dict[str, dict[str, None]] = {}
    for key in keys:
        for weight in _weights_of(key):
            groups.setdefault(weight, {})[key] = None
    return {weight: list(members) for weight, members in groups.items() if _has_form(weight, side)}


def _weights_of(key: str) -> Iterator[str]:
    """Yield the weights that a key may belong to; more than one where it only ends like a part of another."""
    owner, found, rest = f".{key}".partition(_PARAMETRIZED)
    if found:
        yield f"{owner}.{rest.partition('.')[0]}"[1:]
        return
    yield key
    for suffix in _SUFFIXES:
        if key.endswith(suffix):
            yield key.removesuffix(suffix)


def _has_form(weight: str, side: Manifest) -> bool:
    owner, _, name = f".{weight}".rpartition(".")
    originals = (f"{owner}{_PARAMETRIZED}{name}.original{number}"[1:] for number in ("", "0"))
    if weight in side or any(key in side for key in originals):
        return True
    return any(all(weight + part in side for part in form) for form in _OLD_FORMS)


def check_extra_state(evidence: Evidence) -> Iterator[Finding]:
    """Yield extra states that are on one side only."""
    for case, keys in (("missing", evidence.missing), ("unexpected", evidence.unexpected)):
        found = tuple(filter(is_extra_state, keys))
        if found:
            fix = Fix("unsafe", "--contract partial", "the modules keep the state they have")
            if case == "unexpected":
                drops = drop_options(found, evidence.alignment.checkpoint.all_keys)
                fix = Fix("unsafe", drops, "if the model is not meant to have them")
            yield Finding(
                EXTRA_STATE_MISSING,
                found,
                case=case,
                rows=tuple((key,) for key in found),
                fixes=(fix,),
                explains=frozenset(found),
                mapped=evidence.mapped,
            )


def check_missing_ties(evidence: Evidence) -> Iterator[Finding]:
    """Yield missing keys whose values the checkpoint holds under a tied name."""
    missing = set(evidence.missing)
    rows = []
    for group in evidence.alignment.model.ties():
        present = [key for key in group if key in evidence.alignment.checkpoint]
        rows += [(key, present[0]) for key in group if key in missing and present]
    if rows:
        keys = tuple(key for key, _ in rows)
        advice = "; ".join(f'state["{key}"] = state["{kept}"]' for key, kept in rows[:3])
        yield Finding(
            TIE_MISSING,
            keys,
            rows=tuple(rows),
            fixes=(Fix("display", advice, "before load_state_dict"),),
            explains=frozenset(keys),
            mapped=evidence.mapped,
        )


def check_buffers(evidence: Evidence) -> Iterator[Finding]:
    """Yield buffers that only one side keeps in its state dict."""
    model, checkpoint = evidence.alignment.model, evidence.alignment.checkpoint
    left = tuple(key for key in evidence.unexpected if key in model.non_persistent)
    if left:
        rows = tuple(
            (key, shape_text(checkpoint[key].shape) if key in checkpoint else "", "persistent=False") for key in left
        )
        drops = drop_options(left, evidence.alignment.checkpoint.all_keys)
        yield Finding(
            BUFFER_PERSISTENCE_CHANGED,
            left,
            case="left",
            rows=rows,
            fixes=(Fix("unsafe", drops, "the model keeps its own values"),),
            explains=frozenset(left),
            mapped=evidence.mapped,
        )
    entered = _entered(evidence)
    if entered:
        yield Finding(
            BUFFER_PERSISTENCE_CHANGED,
            entered,
            case="entered",
            rows=tuple((key, "not in the checkpoint", shape_text(model[key].shape)) for key in entered),
            fixes=(Fix("unsafe", "--contract partial", "the model keeps its own values"),),
            explains=frozenset(entered),
            mapped=evidence.mapped,
        )


def _entered(evidence: Evidence) -> tuple[str, ...]:
    """Return the missing buffers that are new: the checkpoint has every parameter around them.

    Around means in the nearest enclosing module that has any parameter; a module that is missing as a whole
    is no buffer's fault.
    """
    model, checkpoint = evidence.alignment.model, evidence.alignment.checkpoint
    known: dict[str, bool] = {}
    for key, spec in model.tensors.items():
        if spec.kind == "parameter":
            for module in _enclosing(key):
                known[module] = known.get(module, True) and key in checkpoint
    buffers = [key for key in evidence.missing if key in model and model[key].kind == "buffer"]
    return tuple(key for key in buffers if next((known[m] for m in _enclosing(key) if m in known), False))


def _enclosing(key: str) -> Iterator[str]:
    """Yield the paths of the modules around a key, the innermost first and the model itself ("") last."""
    while key:
        key = key.rpartition(".")[0]
        yield key


def check_tied_values(evidence: Evidence) -> Iterator[Finding]:
    """Compare what the checkpoint stores under the names of each tie; only those bytes are read."""
    found: dict[str, list[tuple[str, str]]] = {"": [], "undecided": []}
    saved, matched = evidence.alignment.checkpoint, set(evidence.alignment.matched_keys)
    for group in evidence.alignment.model.ties():
        present = [key for key in group if key in saved and key in matched]
        for key in present[1:]:
            if not saved[key].same_view(saved[present[0]]):
                equal = _equal_bytes(evidence, present[0], key)
                if equal is not True:
                    found["undecided" if equal is None else ""].append((key, present[0]))
    for case, rows in found.items():
        if rows:
            keys = tuple(key for key, _ in rows)
            yield Finding(TIED_VALUES_DIFFER, keys, case=case, rows=tuple(rows), mapped=evidence.mapped)


def _equal_bytes(evidence: Evidence, first: str, second: str) -> bool | None:
    """Tell whether two tensors of the file hold the same bits; None where the file cannot say."""
    a, b = _raw(evidence, first), _raw(evidence, second)
    if a is None or b is None or a.spec.dtype != b.spec.dtype or incomparable(a, b):
        return None
    return compare(a, b, measure=False) is None


def _raw(evidence: Evidence, key: str) -> RawTensor | None:
    source = evidence.source_key(key)
    if evidence.checkpoint is None or source is None:
        return None
    return evidence.checkpoint.raw.get(evidence.checkpoint.chosen.path, {}).get(source)


def check_metadata(evidence: Evidence) -> Iterator[Finding]:
    """Yield what load code filled in because the checkpoint has no module versions, and so looks older than it may be.

    Of the modules of torch that is counters of batches alone, which matter to no output in eval mode.
    """
    if rows := _filled_in(evidence):
        counters = all(key.endswith("num_batches_tracked") for key, _ in rows)
        breaks = Contract.resume if counters else None
        yield Finding(METADATA_LOST, tuple(k for k, _ in rows), rows=rows, breaks=breaks, mapped=evidence.mapped)


def _filled_in(evidence: Evidence) -> tuple[tuple[str, str], ...]:
    """Return the missing keys that torch does not call so, with the versions of their modules; the file has none."""
    alignment, outcome = evidence.alignment, evidence.outcome
    if outcome.judge != "torch" or outcome.errors or alignment.checkpoint.versions is not None:
        return ()
    versions = alignment.model.versions or {}
    silent = [key for key in alignment.missing_keys if key not in outcome.missing_keys]
    known = ((key, versions.get(alignment.model.module_of(key)) or 1) for key in silent)
    return tuple((key, str(version)) for key, version in known if version > 1)


def check_versions(evidence: Evidence) -> Iterator[Finding]:
    """Yield modules that the checkpoint saved in a newer version."""
    saved, wanted = evidence.alignment.checkpoint.versions or {}, evidence.alignment.model.versions or {}
    rows = tuple(
        (module or "(the model itself)", str(version), str(wanted[module]))
        for module, version in saved.items()
        if version is not None and (mine := wanted.get(module)) is not None and version > mine
    )
    if rows:
        yield Finding(MODULE_VERSION_NEWER, tuple(row[0] for row in rows), rows=rows, mapped=evidence.mapped)


CHECKS = (
    check_hooks,
    check_metadata,
    check_parametrizations,
    check_extra_state,
    check_missing_ties,
    check_buffers,
    check_tied_values,
    check_versions,
)
