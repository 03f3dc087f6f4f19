"""SARIF 2.1.0, for code scanning: one run, a result per finding, rules with their help.

The standard: https://docs.oasis-open.org/sarif/sarif/v2.1.0/ ; what GitHub reads of it:
https://docs.github.com/code-security/code-scanning/integrating-with-code-scanning/sarif-support-for-code-scanning
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..json_text import to_lines
from ..place import Place
from ..rules import Rule
from ..words import visible
from .parts import Judged, Located, Part, parts_of, plain_lines, uri
from .rule_page import breaks_words, silent_words

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
MAX_ROWS = 20
MAX_PLACES = 20
_ROOT = "%SRCROOT%"
# Severities of GitHub, from 0 to 10: code that would run; files that readers disagree on, or that hide something.
_SEVERITY = {"CKPT701": "9.3", "CKPT702": "9.3"}
_OTHER_SEVERITY = "6.5"


def render_sarif(judged: Judged, version: str, root: str) -> str:
    """Return a SARIF log as JSON text in ASCII; paths below the folder ``root`` are relative to it.

    ``version`` is that of ckptaudit. Accepted findings are results with a suppression.
    """
    parts = parts_of(judged)
    located = [(part, one, False) for part in parts for one in part.findings]
    located += [(part, one, True) for part in parts for one in part.accepted]
    rules = list({one.graded.finding.rule.code: one.graded.finding.rule for _, one, _ in located}.values())
    rules.sort(key=lambda rule: rule.code)
    numbers = {rule.code: number for number, rule in enumerate(rules)}
    seen: dict[str, int] = {}
    results = [_result(part, one, accepted, numbers, seen, root) for part, one, accepted in located]
    driver = {"name": "ckptaudit", "version": version, "rules": [_rule(rule) for rule in rules]}
    status = max((part.exit_status for part in parts), default=0)
    run = {
        "tool": {"driver": driver},
        "invocations": [{"executionSuccessful": status != 2, "exitCode": status}],
        "columnKind": "utf16CodeUnits",
        "results": results,
    }
    return to_lines({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]})


def _rule(rule: Rule) -> dict[str, Any]:
    summary = f"{rule.summary[0].upper()}{rule.summary[1:]}."
    facts = [fact for fact in (breaks_words(rule), silent_words(rule)) if fact]
    markdown = f"{summary}\n\n" + "".join(f"- {fact}\n" for fact in facts)
    markdown += f"\n**Why it matters.** {rule.why}\n\n**Fix.** {rule.fix}\n\n```text\n{rule.example}\n```\n"
    properties: dict[str, Any] = {"tags": ["pytorch", "checkpoint"], "precision": "very-high"}
    if rule.code.startswith("CKPT7"):
        properties["tags"] = [*properties["tags"], "security"]
        properties["security-severity"] = _SEVERITY.get(rule.code, _OTHER_SEVERITY)
    return {
        "id": rule.code,
        "name": rule.name,
        "shortDescription": {"text": summary},
        "fullDescription": {"text": f"{summary} {rule.why}"},
        "help": {"text": f"{rule.why} {rule.fix}", "markdown": markdown},
        "properties": properties,
    }


def _result(
    part: Part, one: Located, accepted: bool, numbers: dict[str, int], seen: dict[str, int], root: str
) -> dict[str, Any]:
    finding, level = one.graded.finding, one.graded.level
    code, fingerprint = finding.rule.code, finding.fingerprint
    seen[fingerprint] = seen.get(fingerprint, 0) + 1
    first, others = _locations(one, root)
    result: dict[str, Any] = {
        "ruleId": code,
        "ruleIndex": numbers[code],
        "level": level,
        "message": {"text": _message([*plain_lines(one.graded, MAX_ROWS), visible(f"in {part.subject}")])},
        "locations": [first | _logical(one)] if first else [],
        "relatedLocations": others,
        "partialFingerprints": {
            "ckptaudit/v1": fingerprint,
            "primaryLocationLineHash": f"{fingerprint}:{seen[fingerprint]}",  # the name that GitHub goes by
        },
        "properties": {"subject": part.subject, "fixes": [fix.to_json() for fix in finding.fixes]},
    }
    if accepted:
        reason = {"justification": visible(one.graded.reason)} if one.graded.reason else {}
        result["suppressions"] = [{"kind": "external", "status": "accepted", **reason}]
    return result


def _message(lines: list[str]) -> str:
    """Join the lines; a name that reads as a link of SARIF's own (3.11.6) is not to become one."""
    text = "\n".join(lines)
    return text.replace("[", "\\[") if "](" in text else text


def _logical(one: Located) -> dict[str, Any]:
    keys = one.graded.finding.keys[:MAX_PLACES]
    found = [{"fullyQualifiedName": visible(key), "kind": "member"} for key in keys]
    return {"logicalLocations": found} if found else {}


def _locations(one: Located, root: str) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
    """Return the place of a result, below ``root`` if any is, and the further ones."""
    pairs = list(_physical(one.places, root))
    pairs.sort(key=lambda pair: not pair[0])  # stable: the best place comes first among those below the root
    locations = [location for _, location in pairs]
    related = [{"id": number, **location} for number, location in enumerate(locations[1:MAX_PLACES], 1)]
    return (locations[0] if locations else None), related


def _physical(places: tuple[Place, ...], root: str) -> Iterator[tuple[bool, dict[str, Any]]]:
    for place in places:
        text, relative = uri(place, root)
        artifact = {"uri": text} | ({"uriBaseId": _ROOT} if relative else {})
        yield relative, {"physicalLocation": {"artifactLocation": artifact, "region": {"startLine": place.line}}}
