"""Area 9: what a project's configuration and committed files owe."""

from __future__ import annotations

from collections.abc import Iterator

from ..manifest import Manifest, TensorSpec
from .base import Finding, Fix, Rule, shape_text

UNUSED_ACCEPT = Rule(
    code="CKPT901",
    name="unused-accept",
    fixed="warning",
    summary="an exception in the configuration that no finding needs",
    messages={"": "{count} accept{s} without a finding"},
    details={"": "what it accepted is gone; left there, it will hide the next finding of its kind"},
    columns=("accept", "where", "reason"),
    why="An exception that nobody needs any more will accept a fault that nobody has seen.",
    fix="Remove it from the configuration.",
    example='[[tool.ckptaudit.accept]] for "fc.*", and the shapes of fc are equal again',
)
STALE_BASELINE = Rule(
    code="CKPT902",
    name="stale-baseline",
    fixed="warning",
    summary="the baseline holds findings that are gone",
    messages={"": "{file} holds {count} finding{s} no longer there"},
    details={"": "a baseline only shrinks: what was mended stays mended"},
    columns=("finding", "target", "checkpoint"),
    why="An entry that is left in the baseline lets a mended fault come back unseen.",
    fix="ckptaudit check --update-baseline takes what is gone out of the file.",
    example="a baseline written before the checkpoint was repaired",
)
MANIFEST_OUTDATED = Rule(
    code="CKPT904",
    name="manifest-outdated",
    fixed="warning",
    summary="the committed manifest is no longer that of the model",
    messages={"": "the manifest is not the model's any more ({count} difference{s})"},
    details={"": "the next comparison should be with the model as it is"},
    columns=("what", "manifest", "model"),
    why="A manifest that is not kept up judges later changes by a model that nobody has any more.",
    fix="ckptaudit manifest write writes it anew; commit it with the change.",
    example="a buffer with persistent=False was added",
)
EXPIRED_ACCEPT = Rule(
    code="CKPT907",
    name="expired-accept",
    fixed="error",
    summary="an exception in the configuration whose day has passed",
    messages={"": "{count} accept{s} past the last day"},
    details={"": "it accepts nothing any more"},
    columns=("accept", "where", "expired"),
    why="Somebody set a date for it, and meant it.",
    fix="Mend what it accepted and remove it, or set a new date and say why.",
    example="expires = 2020-01-01",
)
BASELINE_GREW = Rule(
    code="CKPT908",
    name="baseline-grew",
    fixed="error",
    summary="the baseline gained findings since the revision it is compared with",
    messages={"": "{file} holds {count} finding{s} more than at {against}"},
    details={"": "a baseline is for what was there when it was made; accept what is meant, with a reason"},
    columns=("finding", "target", "checkpoint"),
    why="A baseline that grows is a way to pass every check.",
    fix="Take the entries out, and accept what is intended in the configuration, with a reason.",
    example="check --against origin/main after an entry was added by hand",
)
TARGET_REMOVED = Rule(
    code="CKPT909",
    name="target-removed",
    fixed="warning",
    summary="something was checked at the other revision and is not any more",
    messages={"": "no longer checked: {count} target{s} of {against}"},
    details={"": "nothing in this check says whether its checkpoints still load"},
    columns=("target", "gone"),
    why="A check that is taken away passes in silence.",
    fix="Name the target and its manifest again, or be sure that nobody has its checkpoints.",
    example="check --against origin/main after a target was deleted from pyproject.toml",
)


def check_outdated(manifest: Manifest, model: Manifest) -> Iterator[Finding]:
    """Yield that a committed manifest is not what the model's would be; where it came from does not count."""
    rows = tuple(_differences(manifest, model))
    if rows:
        fix = Fix("display", "write it anew and commit it with the change: ckptaudit manifest write")
        yield Finding(MANIFEST_OUTDATED, tuple(row[0] for row in rows), rows=rows, fixes=(fix,))


def _differences(old: Manifest, new: Manifest) -> Iterator[tuple[str, str, str, str]]:
    sections = [(old.tensors, new.tensors, ""), (old.non_persistent, new.non_persistent, " persistent=False")]
    for before, after, note in sections:
        for key in dict.fromkeys([*before, *after]):
            was, now = _facts(before.get(key)), _facts(after.get(key))
            if was != now:
                yield key, _cell(was, now, note), _cell(now, was, note), "1"
    for key in dict.fromkeys([*old.entries, *new.entries]):
        if old.entries.get(key) != new.entries.get(key):
            yield key, old.entries.get(key, "-"), new.entries.get(key, "-"), "1"
    if old.versions != new.versions:
        yield "module versions", *_versions(old, new), "1"
    if old.ties() != new.ties():
        yield "tied weights", f"{len(old.ties())} groups", f"{len(new.ties())} groups", "1"
    if old.tensors.keys() == new.tensors.keys() and list(old) != list(new):
        key, other = next((a, b) for a, b in zip(old, new, strict=True) if a != b)
        yield "order of the keys", f"{key} first", f"{other} first", "1"


def _versions(old: Manifest, new: Manifest) -> tuple[str, str]:
    before, after = old.versions, new.versions
    if before is None or after is None:
        return "none" if before is None else "recorded", "none" if after is None else "recorded"
    path = next(path for path in [*before, *after] if before.get(path, "-") != after.get(path, "-"))
    return f"{path or 'the model'}: {before.get(path, '-')}", f"{path or 'the model'}: {after.get(path, '-')}"


def _facts(spec: TensorSpec | None) -> dict[str, str]:
    """Return what a manifest promises of a tensor; where its memory lies is no promise."""
    if spec is None:
        return {}
    facts = {"shape": shape_text(spec.shape), "dtype": spec.dtype, "kind": spec.kind, "layout": spec.layout}
    return facts | ({} if spec.requires_grad is None else {"grad": f"requires_grad={spec.requires_grad}"})


def _cell(facts: dict[str, str], others: dict[str, str], note: str) -> str:
    """Write what differs; all of a tensor that the other side has not."""
    if not facts:
        return "-"
    if not others:
        return f"{facts['shape']} {facts['dtype']} {facts['kind']}{note}"
    return " ".join(value for name, value in facts.items() if others.get(name) != value) or "-"
