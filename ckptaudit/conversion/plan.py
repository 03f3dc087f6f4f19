"""What a conversion will write: every tensor of the result and where its bytes come from, or the reason why not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ..dtypes import DTYPES
from ..errors import UsageError
from ..formats.base import Checkpoint, Payload, RawTensor
from ..formats.payload import in_places, names_around
from ..manifest import Manifest, TensorSpec
from ..records import dataclass, field, replace
from ..words import plural, shell_word

if TYPE_CHECKING:
    from ..mapping.effect import Recipe
    from ..mapping.mapping import KeyMapping, Mapped
    from ..mapping.ops import Op

_SHOWN = 3  # tensors or values in a sentence


@dataclass(frozen=True)
class Item:
    """One tensor of the result: a view of bytes of the source, or what a recipe makes of tensors there.

    ``sources`` are the keys of those in the source.
    """

    key: str
    spec: TensorSpec
    raw: RawTensor | None = None
    recipe: Recipe | None = None
    sources: tuple[str, ...] = ()

    @property
    def operation(self) -> str:
        """What is done to the values: ``cast dtype=float16``; empty where they are moved as they are."""
        if self.recipe is None:
            return ""
        steps = (self.recipe.op, self.recipe.cast)
        return ", ".join(_said(step) for step in steps if step is not None)


def _said(op: Op) -> str:
    kind = type(op)
    given = {name: value for name, value in vars(op).items() if value != getattr(kind, name, None)}
    texts = {name: ",".join(map(str, value)) if isinstance(value, tuple) else value for name, value in given.items()}
    return " ".join([op.word, *(f"{name}={text}" for name, text in texts.items())])


@dataclass(frozen=True)
class Plan:
    """The state dict to be written. ``order`` has the keys of ``items`` and ``entries``.

    ``entries``, ``around`` and ``metadata`` are as in Payload; ``kept`` names what goes with the tensors and is none,
    ``left_out`` what does not, each with its type. ``dropped`` are the keys that the mapping leaves out.
    """

    items: tuple[Item, ...]
    order: tuple[str, ...]
    entries: Mapping[str, Any]
    around: Any
    versions: Mapping[str, int | None] | None
    metadata: Mapping[str, str]
    kept: Mapping[str, str] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)
    dropped: tuple[str, ...] = ()


def make_plan(checkpoint: Checkpoint, mapping: KeyMapping | None, *, picked: bool, drop_non_tensors: bool) -> Plan:
    """Plan the conversion of the chosen state dict of a checkpoint that was opened with its payload.

    ``picked`` tells that it was named (``FILE#state_dict``), so that what lies around it is not meant;
    ``drop_non_tensors`` that nothing but tensors is. Raises UsageError where a tensor cannot be converted, nothing
    would be left, or something would be lost that nobody said may be.
    """
    manifest = _state_dict_of(checkpoint)
    mapped = mapping.apply(manifest) if mapping is not None else None
    if mapped is not None:
        mapped.check()
    items = _items(checkpoint, manifest, mapped)
    if not items:
        raise UsageError(checkpoint.path, "would be left without a single tensor", "drop fewer keys")
    payload = checkpoint.read_payload() if checkpoint.read_payload is not None else Payload()
    result = manifest if mapped is None else mapped.manifest
    origin = {key: key for key in manifest.entries} if mapped is None else mapped.origin
    return _with_payload(
        Plan(
            items,
            tuple(item.key for item in items),
            {},
            None,
            result.versions,
            payload.metadata,
            dropped=mapped.dropped if mapped is not None else (),
        ),
        checkpoint,
        payload,
        {key: origin[key] for key in result.entries},
        (picked, drop_non_tensors),
    )


def _state_dict_of(checkpoint: Checkpoint) -> Manifest:
    candidate = checkpoint.chosen
    if candidate.kind not in ("state_dict", "module"):
        what = "the state of an optimizer" if candidate.kind == "optimizer" else "tensors without a mapping of names"
        reason = f"has at {candidate.path or 'its top level'!r} {what}, and no state dict"
        raise UsageError(checkpoint.path, reason, f"see what it holds: ckptaudit inspect {shell_word(checkpoint.path)}")
    return candidate.manifest


def _items(checkpoint: Checkpoint, manifest: Manifest, mapped: Mapped | None) -> tuple[Item, ...]:
    raw = checkpoint.raw[checkpoint.chosen.path]
    if mapped is None:
        return tuple(Item(key, spec, raw.get(key), sources=(key,)) for key, spec in manifest.tensors.items())
    first = {key: group[0] for group in manifest.ties() for key in group}
    names: dict[Recipe, str] = {}
    items = []
    for key, spec in mapped.manifest.tensors.items():
        recipe = mapped.recipes.get(key)
        if recipe is None:
            origin = mapped.origin[key]
            items.append(Item(key, spec, raw.get(origin), sources=(origin,)))
            continue
        # Tied tensors stay tied where the same is done to them.
        recipe = replace(recipe, sources=tuple(first.get(source, source) for source in recipe.sources))
        storage = names.setdefault(recipe, f"made: {len(names)}")
        made = replace(spec, storage=storage, storage_nbytes=spec.nbytes)
        items.append(Item(key, made, recipe=recipe, sources=recipe.sources))
    return tuple(items)


def _with_payload(
    plan: Plan, checkpoint: Checkpoint, payload: Payload, origins: Mapping[str, str], wishes: tuple[bool, bool]
) -> Plan:
    """Add what is no tensor; ``origins`` are the keys of the entries that the mapping keeps, with the old ones."""
    picked, drop_non_tensors = wishes
    entries = {key: payload.entries[old] for key, old in origins.items() if old in payload.entries}
    kinds = {key: checkpoint.manifest.entries[old] for key, old in origins.items()}
    lost = {key: payload.unfit.get(old, kinds[key]) for key, old in origins.items() if key not in entries}
    below = set(checkpoint.manifest.entries)
    siblings = {path: kind for path, kind in checkpoint.siblings.items() if path not in payload.unfit}
    outside = {path: kind for path, kind in payload.unfit.items() if path not in below}
    around = payload.around
    siblings = siblings or names_around(around)
    if picked:
        lost_outside, around = {}, None
        left_out = {**siblings, **outside}
    else:
        lost_outside, left_out = outside, {}
    if drop_non_tensors:
        left_out = {**kinds, **siblings, **outside}
        return replace(plan, left_out=left_out)
    if lost or lost_outside:
        raise _would_be_lost(checkpoint.path, {**lost, **lost_outside})
    places = {key: payload.places.get(old, len(plan.order)) for key, old in origins.items()}
    kept = kinds if picked else {**kinds, **siblings}
    order = tuple(in_places(plan.order, places))
    return replace(plan, order=order, entries=entries, around=around, kept=kept, left_out=left_out)


def _would_be_lost(subject: str, lost: Mapping[str, str]) -> UsageError:
    named = [f"{key} ({kind})" for key, kind in lost.items()]
    more = f" and {len(named) - _SHOWN:,} more" if len(named) > _SHOWN else ""
    reason = f"holds what the result cannot keep: {', '.join(named[:_SHOWN])}{more}"
    return UsageError(subject, reason, "leave out everything that is no tensor: --drop-non-tensors")


def refuse_items(subject: str, form: str, faults: Iterable[tuple[str, str]]) -> None:
    """Raise UsageError that names the tensors which a format cannot hold, where there are any."""
    named = [f"{key} {fault}" for key, fault in faults]
    if named:
        more = f"; and {plural(len(named) - _SHOWN, 'more tensor')}" if len(named) > _SHOWN else ""
        key = named[0].partition(" ")[0]
        reason = f"cannot be converted to {form}: {'; '.join(named[:_SHOWN])}{more}"
        raise UsageError(subject, reason, f"leave it out: --drop {shell_word(key)}")


def fault_of(item: Item) -> str | None:
    """Return why no format can take a tensor, as the end of a sentence that its key begins, or None."""
    spec = item.spec
    if item.recipe is not None:
        return None
    if spec.layout == "uninitialized":
        return "is a lazy parameter that was never initialized"
    if spec.layout != "strided":
        return f"is {spec.layout}, not dense"
    if DTYPES[spec.dtype].kind == "quantized":
        return f"is quantized ({spec.dtype})"
    if spec.location == "meta":
        return "is on the meta device and has no values"
    if item.raw is None:
        return "does not lie in the file in one piece"
    if spec.neg and (DTYPES[spec.dtype].kind not in ("float", "complex") or spec.dtype == "float8_e8m0fnu"):
        return f"has its negative bit set, with values of {spec.dtype}"
    return None
