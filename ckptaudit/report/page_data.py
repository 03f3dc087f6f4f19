"""What the tree of the HTML page shows, as JSON: every tensor of both sides, its state, and the findings on it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from ..policy import Graded, Report
from ..records import dataclass, field
from ..words import visible
from .layout import mapping_words

if TYPE_CHECKING:
    from ..compare.align import Alignment
    from ..manifest import Manifest, TensorSpec

# In this order in the page's own code; a state is written as its number.
STATES = ("matched", "cast", "changed", "mismatched", "missing", "unexpected")
_MATCHED, _CAST, _CHANGED, _MISMATCHED, _MISSING, _UNEXPECTED = range(6)
_PLAIN_COLUMNS = {"key", "checkpoint", "model"}


@dataclass
class _Specs:
    """The descriptions that tensors share, each written once."""

    rows: list[list[Any]] = field(default_factory=list)
    numbers: dict[Any, int] = field(default_factory=dict)

    def number(self, manifest: Manifest, key: str) -> int:
        """Return the number of a tensor's description, -1 where the manifest has no such key."""
        spec = manifest.tensors.get(key)
        known = manifest.entries.get(key) if spec is None else _SHOWN(spec)
        if known is None:
            return -1
        if known not in self.numbers:
            self.numbers[known] = len(self.rows)
            self.rows.append(_row(spec) if spec is not None else [[], known, "no tensor", 0, []])
        return self.numbers[known]


_SHOWN = attrgetter("shape", "dtype", "kind", "layout", "stride", "location", "requires_grad")


def _row(spec: TensorSpec) -> list[Any]:
    return [list(spec.shape), spec.dtype, spec.kind, spec.nbytes, _further(spec)]


def _further(spec: TensorSpec) -> list[list[str]]:
    """Return what else is known of a tensor, where it is not the usual."""
    facts = {
        "kind": "" if spec.kind == "tensor" else spec.kind,
        "layout": "" if spec.layout == "strided" else spec.layout,
        "stride": "" if spec.contiguous else str(spec.stride),
        "device": spec.location or "",
        "requires_grad": str(spec.requires_grad) if spec.kind == "parameter" and spec.requires_grad is not None else "",
    }
    return [[name, visible(value)] for name, value in facts.items() if value]


def tree_of(reports: Sequence[Report]) -> dict[str, Any] | None:
    """Return the data of the tree, or None where the reports have no tensors.

    ``start`` is the view to begin with; ``specs`` are shape, dtype, kind, bytes and further facts. A view holds the
    names of one alignment: the keys in model order, the unexpected ones last, their states as digits, the numbers of
    their specs, and by row the name in the checkpoint where it is another, and the numbers of the findings, which
    count through all reports.
    """
    specs = _Specs()
    views: list[dict[str, Any]] = []
    findings: list[dict[str, Any]] = []
    for report in reports:
        graded = [*report.findings, *report.accepted]
        for title, view in _views(report, _Numbered(graded, len(findings)), specs):
            named = [visible(f"{report.target}: {report.checkpoint.name}")] if len(reports) > 1 else []
            views.append({"title": ", ".join([*named, title]), **view})
        findings += map(_finding, graded)
    if not views:
        return None
    return {"specs": specs.rows, "views": views, "findings": findings, "start": _start(views, len(reports))}


def _start(views: Sequence[dict[str, Any]], reports: int) -> int:
    """Return the view to begin with: the mapping of the one report, or the first view in which something differs."""
    if reports == 1:
        return len(views) - 1
    return next((number for number, view in enumerate(views) if set(view["states"]) - {str(_MATCHED)}), 0)


@dataclass(frozen=True)
class _Numbered:
    """The findings of a report, accepted ones last, and the number of the first one."""

    graded: Sequence[Graded]
    first: int

    def by_row(self, keys: Sequence[str], origin: Mapping[str, str], mapped: bool) -> dict[int, list[int]]:
        """Return the numbers of the findings on each row, under its name or the one that the checkpoint has for it.

        Without the mapping those are left out that hold only with it.
        """
        rows: dict[str, list[int]] = {}
        for row, key in enumerate(keys):
            for name in {key, origin.get(key, key)}:
                rows.setdefault(name, []).append(row)
        found: dict[int, list[int]] = {}
        for number, one in enumerate(self.graded, self.first):
            keys_of = one.finding.keys if mapped or not one.finding.mapped else ()
            for row in dict.fromkeys(row for key in keys_of for row in rows.get(key, ())):
                found.setdefault(row, []).append(number)
        return found

    @property
    def on_values(self) -> set[int]:
        """The numbers of those that say that values differ, beyond a cast."""
        codes = ((number, one.finding.rule.code) for number, one in enumerate(self.graded, self.first))
        return {number for number, code in codes if code.startswith(("CKPT3", "CKPT8")) and code != "CKPT301"}


def _views(report: Report, found: _Numbered, specs: _Specs) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the trees of a report: the names as they are, and under the mapping; else the keys of its findings."""
    if report.alignment is not None:
        yield "as is", _view(report.alignment, None, found, specs)
    elif keys := list(dict.fromkeys(key for one in found.graded for key in one.finding.keys)):
        yield "", _of_keys(keys, found)
    if report.mapping is not None and report.mapping.alignment is not None:
        yield mapping_words(report.mapping), _view(report.mapping.alignment, report.mapping.origin, found, specs)


def _view(alignment: Alignment, origin: Mapping[str, str] | None, found: _Numbered, specs: _Specs) -> dict[str, Any]:
    keys = [*alignment.model.all_keys, *alignment.unexpected_keys]
    states = dict.fromkeys(alignment.matched_keys, _MATCHED)
    states |= dict.fromkeys(alignment.dtype_mismatches, _CAST)
    states |= dict.fromkeys((*alignment.mismatched_keys, *alignment.non_tensor_keys), _MISMATCHED)
    states |= dict.fromkeys(alignment.missing_keys, _MISSING)
    states |= dict.fromkeys(alignment.unexpected_keys, _UNEXPECTED)
    known = origin or {}
    names = {key: known[key] for key in keys if known.get(key, key) != key and states[key] != _MISSING}
    findings, on_values = found.by_row(keys, names, origin is not None), found.on_values
    for row, numbers in findings.items():
        if states[keys[row]] in (_MATCHED, _CAST) and on_values.intersection(numbers):
            states[keys[row]] = _CHANGED
    return {
        "keys": keys,
        "states": "".join(str(states[key]) for key in keys),
        "checkpoint": [specs.number(alignment.checkpoint, key) for key in keys],
        "model": [specs.number(alignment.model, key) for key in keys],
        "origins": {row: names[key] for row, key in enumerate(keys) if key in names},
        "findings": findings,
    }


def _of_keys(keys: list[str], found: _Numbered) -> dict[str, Any]:
    """Return the view of a report that compared no state dicts: the keys that its findings name."""
    unknown = [-1] * len(keys)
    states = str(_CHANGED) * len(keys)
    view = {"keys": keys, "states": states, "checkpoint": unknown, "model": unknown, "origins": {}}
    return view | {"findings": found.by_row(keys, {}, False)}


def _finding(one: Graded) -> dict[str, Any]:
    """Return a finding, with the cells of its rows by key where they say more than shapes."""
    finding, rule = one.finding, one.finding.rule
    plain = set(rule.columns) <= _PLAIN_COLUMNS and not rule.code.startswith("CKPT3")
    cells = {} if plain else {row[0]: list(map(visible, row[1 : len(rule.columns)])) for row in finding.rows}
    return {
        "code": rule.code,
        "name": rule.name,
        "level": one.level,
        "message": visible(finding.message),
        "columns": list(rule.columns[1:]),
        "cells": cells,
    }
