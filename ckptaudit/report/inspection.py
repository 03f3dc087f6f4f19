"""The terminal page of ``ckptaudit inspect``."""

from __future__ import annotations

from collections import Counter

from ..inspection import Inspection
from ..keys import fold
from ..manifest import Manifest
from ..words import binary_size, plural, value_count
from .layout import wrap
from .table import finding_lines, grid, hidden_rows

MAX_ROWS = 40


def render_inspection(inspection: Inspection, width: int, verbose: bool) -> str:
    """Return what the file holds: head, candidates, folded keys with shapes, ties, findings."""
    checkpoint = inspection.checkpoint
    lines = wrap(f"{checkpoint.path}   {checkpoint.format}, {binary_size(checkpoint.size)}", width)
    lines += _candidates(inspection, width)
    if checkpoint.siblings:
        beside = ", ".join(f"{name} ({kind})" for name, kind in checkpoint.siblings.items())
        lines += wrap(f"{'beside it' if inspection.chosen else 'top level'}: {beside}", width, "  ", "  ")
    if verbose and checkpoint.details:
        facts = ", ".join(f"{name} {value}" for name, value in checkpoint.details.items())
        lines += wrap(f"container: {facts}", width, "  ", "  ")
    if inspection.chosen is not None:
        lines += [
            "",
            *_summary(inspection.chosen.manifest, width),
            "",
            *_keys(inspection.chosen.manifest, width, verbose),
        ]
    for graded in inspection.findings:
        if verbose or graded.level != "note":
            lines += ["", *finding_lines(graded, width, verbose)]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _candidates(inspection: Inspection, width: int) -> list[str]:
    candidates = inspection.checkpoint.candidates
    if not candidates or (len(candidates) == 1 and not candidates[0].path):
        return []
    rows = [
        (
            "*" if candidate is inspection.chosen else "",
            f"#{candidate.path}" if candidate.path else "(top level)",
            candidate.kind.replace("_", " "),
            plural(len(candidate.manifest), "tensor"),
            value_count(candidate.manifest.numel),
        )
        for candidate in candidates
    ]
    return grid(rows, (), width)


def _summary(manifest: Manifest, width: int) -> list[str]:
    dtypes = Counter(spec.dtype for spec in manifest.tensors.values())
    parts = [
        plural(len(manifest), "tensor"),
        value_count(manifest.numel),
        binary_size(manifest.nbytes),
        ", ".join(f"{name} ({count:,})" for name, count in dtypes.most_common()),
    ]
    lines = wrap("   ".join(part for part in parts if part), width, "  ", "  ")
    facts = []
    if ties := manifest.ties():
        facts.append(f"tied: {'; '.join(' = '.join(group) for group in ties[:3])}{_more(len(ties) - 3)}")
    views = [group for group in manifest.shared_storages() if group not in ties]
    if views:
        facts.append(f"views of one storage: {plural(len(views), 'group')}, first {', '.join(views[0][:3])}")
    if manifest.entries:
        facts.append(f"not tensors: {', '.join(f'{key} ({kind})' for key, kind in manifest.entries.items())}")
    facts.append("module versions recorded" if manifest.versions is not None else "no module versions (_metadata)")
    for fact in facts:
        lines += wrap(fact, width, "  ", "    ")
    return lines


def _more(count: int) -> str:
    return f"; and {count:,} more" if count > 0 else ""


def _keys(manifest: Manifest, width: int, verbose: bool) -> list[str]:
    groups: dict[tuple[str, str], list[str]] = {}
    for key, spec in manifest.tensors.items():
        shape = str(tuple(spec.shape)) + ("" if spec.layout == "strided" else f" {spec.layout}")
        groups.setdefault((shape, spec.dtype), []).append(key)
    rows = [
        (str(pattern), shape, dtype, f"{pattern.count:,}")
        for (shape, dtype), keys in groups.items()
        for pattern in fold(keys)
    ]
    shown = rows if verbose else rows[:MAX_ROWS]
    return grid(shown, ("key", "shape", "dtype", "tensors"), width) + hidden_rows(len(rows) - len(shown))
