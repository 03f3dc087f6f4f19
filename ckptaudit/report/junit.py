"""JUnit XML, as GitLab, Jenkins and others read it: a suite per comparison, a test per contract.

A test per contract has the same name in every run, so that these tools can tell what broke and when. A broken
contract is a failure, one that could not be checked an error.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from xml.sax.saxutils import escape, quoteattr

from ..records import dataclass
from ..rules import Contract
from ..words import visible
from .parts import Judged, Located, Part, parts_of, plain_lines

MAX_ROWS = 50
_ELEMENTS = {1: "failure", 2: "error"}


@dataclass(frozen=True)
class _Test:
    """A test case: ``status`` is that of the exit, 0 to 2; ``text`` is what there is to say of findings that pass.

    ``weaker`` is the weakest contract that is broken, where it is another one.
    """

    name: str
    status: int
    broken: tuple[Located, ...]
    text: str = ""
    weaker: str = ""


def render_junit(judged: Judged) -> str:
    """Return an XML document in ASCII."""
    suites = [(part, list(_tests(part))) for part in parts_of(judged)]
    every = [test for _, tests in suites for test in tests]
    lines = ['<?xml version="1.0" encoding="UTF-8"?>', f'<testsuites name="ckptaudit" {_counts(every)}>']
    for part, tests in suites:
        lines.append(f"  <testsuite name={_attribute(part.subject)} {_counts(tests)}>")
        lines += [line for test in tests for line in _test_lines(test, f"ckptaudit.{part.command}")]
        lines.append("  </testsuite>")
    return "\n".join([*lines, "</testsuites>", ""]).encode("ascii", "xmlcharrefreplace").decode()


def _counts(tests: Sequence[_Test]) -> str:
    failures, errors = (sum(test.status == status for test in tests) for status in (1, 2))
    return f'tests="{len(tests)}" failures="{failures}" errors="{errors}"'


def _tests(part: Part) -> Iterator[_Test]:
    """Yield a test per contract up to the one that was asked for; a scan, or a training, is one test.

    A contract includes the weaker ones: where one of those is broken it is, too. What was not compared has not passed.
    """
    errors = part.of_level("error")
    if not part.contract or part.command not in _OF_LOADS:
        name = f"{part.subject}: {part.contract}" if part.contract else part.subject
        yield _Test(name, part.exit_status, tuple(errors), _passing(part))
        return
    asked, status, weaker = Contract[part.contract], 0, ""
    for contract in Contract:
        if contract > asked:
            break
        broken = tuple(one for one in errors if _broken_contract(one, asked) == contract)
        status = part.exit_status if contract == asked else max(status, int(bool(broken)))
        if not part.compared and not broken:
            status = 2
        text = _passing(part) if contract == asked else ""
        yield _Test(f"{part.subject}: {contract.name}", status, broken, text, weaker)
        weaker = weaker or (contract.name if broken else "")


_OF_LOADS = {"diff", "check"}


def _broken_contract(one: Located, asked: Contract) -> Contract:
    finding = one.graded.finding
    breaks = finding.rule.breaks if finding.breaks is None else finding.breaks
    return asked if breaks is None else min(breaks, asked)


def _passing(part: Part) -> str:
    """Return the lines on what breaks nothing: warnings, notes, and what was accepted."""
    lines = []
    for level, found in (("warning", part.of_level("warning")), ("note", part.of_level("note"))):
        lines += [f"{level} {_headline(one)}" for one in found]
    for one in part.accepted:
        reason = f" ({visible(one.graded.reason)})" if one.graded.reason else ""
        lines.append(f"accepted {_headline(one)}{reason}")
    return "\n".join(lines)


def _headline(one: Located) -> str:
    rule = one.graded.finding.rule
    return visible(f"{rule.code} {rule.name}: {one.graded.finding.message}")


def _test_lines(test: _Test, group: str) -> Iterator[str]:
    start = f"    <testcase classname={_attribute(group)} name={_attribute(test.name)}"
    if not test.status and not test.text:
        yield f"{start}/>"
        return
    yield f"{start}>"
    if test.status:
        element = _ELEMENTS[test.status]
        first = test.broken[0].graded.finding.rule if test.broken else None
        kind = f"{first.code} {first.name}" if first else "contract"
        message = "; ".join(map(_headline, test.broken)) or _without_finding(test)
        text = escape("\n\n".join("\n".join(_finding_lines(one)) for one in test.broken))
        yield f"      <{element} type={_attribute(kind)} message={_attribute(message)}>{text}</{element}>"
    if test.text:
        yield f"      <system-out>{escape(test.text)}</system-out>"
    yield "    </testcase>"


def _without_finding(test: _Test) -> str:
    return f"the weaker contract {test.weaker} is broken" if test.weaker else "it could not be fully checked"


def _finding_lines(one: Located) -> list[str]:
    rule = one.graded.finding.rule
    message, *rest = plain_lines(one.graded, MAX_ROWS)
    at = [visible(f"at {one.line}")] if one.line else []
    return [f"{one.graded.level}[{rule.code}] {rule.name}: {message}", *at, *rest]


def _attribute(text: str) -> str:
    return quoteattr(visible(text))
