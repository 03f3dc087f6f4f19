"""One page of HTML that needs nothing else: what was found, and every tensor in a tree. The only importer of jinja2."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator, Sequence
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from ..policy import CheckReport, Report, Side
from ..words import plural, value_count, visible
from .layout import folded_rows, load_rows
from .page_data import tree_of
from .parts import Located, Part, counted, parts_of

if TYPE_CHECKING:
    from jinja2 import Environment

MAX_ROWS = 50


def render_html(judged: Report | CheckReport, version: str) -> str:
    """Return the page; ``version`` is that of ckptaudit.

    Its content security policy forbids every request, and all code but its own, which it names by its digest.
    """
    environment = _environment()
    style, script = (_source(environment, name) for name in ("page.css", "page.js"))
    parts = parts_of(judged)
    tree = tree_of(judged.reports if isinstance(judged, CheckReport) else [judged])
    return environment.get_template("page.html.jinja").render(
        _head(judged, parts),
        version=version,
        counted=counted(parts),
        groups=list(_groups(parts, _numbers(tree))),
        tree=tree,
        style=style,
        script=script,
        style_hash=_digest(style),
        script_hash=_digest(script),
    )


def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader

    environment = Environment(
        loader=PackageLoader(__package__ or "", "page"), autoescape=True, trim_blocks=True, keep_trailing_newline=True
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
    return environment


def _source(environment: Environment, name: str) -> Any:
    """Return a file of the page, to be set as it is."""
    from markupsafe import Markup

    assert environment.loader is not None
    return Markup(environment.loader.get_source(environment, name)[0])


def _digest(text: str) -> str:
    return f"sha256-{b64encode(sha256(text.encode()).digest()).decode()}"


def _head(judged: Report | CheckReport, parts: Sequence[Part]) -> dict[str, Any]:
    """Return what stands above the findings."""
    if isinstance(judged, CheckReport):
        against = f"the measure is what is committed at {judged.against}" if judged.against else ""
        title, subject = plural(len(judged.reports), "comparison"), judged.config
        return {
            "command": "check",
            "verdict": judged.verdict,
            "title": title,
            "subject": visible(subject),
            "promise": against,
        }
    return {
        "command": judged.command,
        "verdict": judged.verdict,
        "title": f"contract {judged.contract.name}",
        "subject": visible(parts[0].subject),
        "promise": f"what it asks: {judged.contract.promise}",
        "sides": [_side(side) for side in parts[0].sides],
        "loads": load_rows(judged),
        "remarks": list(map(visible, judged.remarks)),
    }


def _side(side: Side) -> dict[str, str]:
    return {
        "role": side.role,
        "name": visible(side.name),
        "tensors": plural(side.tensors, "tensor"),
        "elements": value_count(side.elements),
        "facts": visible(", ".join(side.facts)),
    }


def _numbers(tree: dict[str, Any] | None) -> set[int]:
    """Return the numbers of the findings that the tree can show."""
    views = tree["views"] if tree else []
    return {number for view in views for found in view["findings"].values() for number in found}


def _groups(parts: Sequence[Part], in_tree: set[int]) -> Iterator[dict[str, Any]]:
    """Yield the findings of each part, numbered through as in the data of the tree."""
    number = 0
    for part in parts:
        found = [(one, False) for one in part.findings] + [(one, True) for one in part.accepted]
        findings = [_finding(one, accepted) for one, accepted in found]
        for finding in findings:
            finding["number"] = number if number in in_tree else None
            number += 1
        title = "" if len(parts) == 1 else visible(part.subject)
        if findings or part.sides:
            yield {"title": title, "verdict": part.verdict, "findings": findings}


def _finding(one: Located, accepted: bool) -> dict[str, Any]:
    finding, rule = one.graded.finding, one.graded.finding.rule
    rows = folded_rows(finding) if rule.columns else []
    headers: Sequence[str] = (*rule.columns, "tensors")
    if all(row[-1] == "1" for row in rows):
        headers, rows = headers[:-1], [row[:-1] for row in rows]
    return {
        "code": rule.code,
        "name": rule.name,
        "level": one.graded.level,
        "accepted": accepted,
        "reason": visible(one.graded.reason),
        "mapped": finding.mapped,
        "message": visible(finding.message),
        "headers": headers,
        "rows": [list(map(visible, row)) for row in rows[:MAX_ROWS]],
        "hidden": plural(len(rows) - MAX_ROWS, "more row") if len(rows) > MAX_ROWS else "",
        "detail": [visible(line) for line in finding.detail.splitlines() if line],
        "line": visible(one.line),
        "fixes": [{"safety": fix.safety, "do": visible(fix.do), "then": visible(fix.then)} for fix in finding.fixes],
        "why": rule.why,
    }
