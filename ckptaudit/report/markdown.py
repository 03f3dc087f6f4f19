"""Markdown as GitHub renders it, short enough for a comment on a pull request."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from ..policy import Side
from ..records import dataclass
from ..rules import Finding
from ..words import plural, value_count, visible
from .layout import folded_rows
from .parts import Judged, Located, Part, counted, parts_of

MOST = 65_536  # characters of a comment
MAX_ROWS = 20
_ICONS = {0: "\N{WHITE HEAVY CHECK MARK}", 1: "\N{CROSS MARK}", 2: "\N{WARNING SIGN}\N{VARIATION SELECTOR-16}"}
_SHOWN = ("error", "warning")


def render_markdown(judged: Judged, most: int = MOST) -> str:
    """Return a text of at most ``most`` characters; what does not fit is left out, and counted.

    Blocks are first shown short. What room is left goes to the rows that this hides, from the first block on.
    """
    parts = parts_of(judged)
    many = len(parts) > 1
    head, blocks = (
        _title(parts),
        [block for part in parts if not many or _speaks(part) for block in _blocks(part, many)],
    )
    blocks += _quiet([part for part in parts if many and not _speaks(part)])
    room = most - len(head) - _CLOSING
    kept: list[str] = []
    for block in blocks:
        if len(block.short) > room:
            break
        room -= len(block.short)
        kept.append(block.short)
    for number, block in enumerate(blocks[: len(kept)]):
        if (more := len(block.text) - len(block.short)) <= room:
            room -= more
            kept[number] = block.text
    return head + "".join(kept) + _closing(blocks[len(kept) :], most)


_CLOSING = 120  # room for the sentence that counts what is left out


def _closing(hidden: Sequence[_Block], most: int) -> str:
    if not hidden:
        return ""
    findings = sum(block.findings for block in hidden)
    what = f"{plural(findings, 'more finding')} not shown" if findings else "not all parts are shown"
    return f"\n**{what}**: a comment holds {most:,} characters.\n"


@dataclass(frozen=True)
class _Block:
    """A piece of text, the same with fewer rows, and how many findings are in it."""

    text: str
    short: str
    findings: int = 0


def _title(parts: Sequence[Part]) -> str:
    status = max((part.exit_status for part in parts), default=0)
    if len(parts) == 1:
        return f"### {_ICONS[status]} ckptaudit: {_headline(parts[0])}\n\n{counted(parts)}\n"
    bad, total = sum(part.exit_status != 0 for part in parts), plural(len(parts), _noun(parts))
    what = f"{bad:,} of {total} did not pass" if bad else f"all of {total} passed"
    return f"### {_ICONS[status]} ckptaudit: {what}\n\n{counted(parts)}\n"


def _noun(parts: Sequence[Part]) -> str:
    return "file" if all(not part.contract for part in parts) else "comparison"


def _headline(part: Part) -> str:
    return f"contract `{part.contract}` {part.verdict}" if part.contract else f"{code(part.subject)} {part.verdict}"


def _speaks(part: Part) -> bool:
    return bool(part.findings or part.accepted or part.exit_status)


def _blocks(part: Part, many: bool) -> Iterator[_Block]:
    head = f"\n### {_ICONS[part.exit_status]} {code(part.subject)}: {part.verdict}\n" if many else ""
    head += _sides(part.sides) if part.sides else ""
    yield _Block(head, head)
    for one in part.findings:
        if one.graded.level in _SHOWN:
            yield _Block(_finding(one), _finding(one, short=True), 1)
    notes = [one for one in part.findings if one.graded.level not in _SHOWN]
    for title, found in (("note", notes), ("accepted finding", list(part.accepted))):
        if found:
            text, short = ("".join(_finding(one, short=few) for one in found) for few in (False, True))
            summary = plural(len(found), title)
            yield _Block(_folded(summary, text), _folded(summary, short), len(found))


def _quiet(parts: Sequence[Part]) -> Iterator[_Block]:
    """Yield the names of the parts of which there is nothing to say."""
    if parts:
        count = plural(len(parts), _noun(parts))
        names = "".join(f"- {code(part.subject)}: {part.verdict}\n" for part in parts)
        yield _Block(_folded(f"{count} without findings", f"\n{names}"), f"\n{count} without findings\n")


def _folded(summary: str, text: str) -> str:
    return f"\n<details><summary>{summary}</summary>\n{text}\n</details>\n"


def _sides(sides: Sequence[Side]) -> str:
    rows = []
    for side in sides:
        counts = (plural(side.tensors, "tensor"), value_count(side.elements))
        rows.append((side.role, code(side.name), *counts, escape(", ".join(side.facts))))
    return "\n" + _table(("", "", "", "", ""), rows)


def _finding(one: Located, *, short: bool = False) -> str:
    """Return a finding: headline, rows (those after the first twenty folded away, or counted), detail, fixes."""
    finding, rule = one.graded.finding, one.graded.finding.rule
    text = f"\n#### {one.graded.level}: {rule.name} ({rule.code})\n\n{escape(finding.message)}\n"
    text += _rows(finding, short)
    text += "".join(f"\n{escape(line)}\n" for line in finding.detail.splitlines() if line)
    if one.graded.reason:
        text += f"\naccepted: {escape(one.graded.reason)}\n"
    if one.line:
        text += f"\nat {code(one.line)}\n"
    for fix in finding.fixes:
        then = f" ({escape(fix.then)})" if fix.then else ""
        words = escape(fix.do) if fix.safety == "display" else code(fix.do)
        text += f"\n- fix ({fix.safety}): {words}{then}"
    return text + ("\n" if finding.fixes else "")


def _rows(finding: Finding, short: bool) -> str:
    rows = folded_rows(finding) if finding.rule.columns else []
    if not rows:
        return ""
    headers: tuple[str, ...] = (*finding.rule.columns, "tensors")
    cells = [[*map(code, row[:-1]), row[-1]] for row in rows]
    if all(row[-1] == "1" for row in rows):
        headers, cells = headers[:-1], [row[:-1] for row in cells]
    text = "\n" + _table(headers, cells[:MAX_ROWS])
    rest = cells[MAX_ROWS:]
    if rest and short:
        text += f"\n{plural(len(rest), 'more row')} not shown\n"
    elif rest:
        text += _folded(plural(len(rest), "more row"), f"\n{_table(headers, rest)}")
    return text


def _table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [headers, ["---"] * len(headers), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def code(text: str) -> str:
    """Set text as code, in which nothing is markup; as entities where backticks or the pipes of a table are in it."""
    text = visible(text)
    if not text or not ({"`", "|"} & set(text) or text != text.strip()):
        return f"`{text}`" if text else ""
    letters = (letter if letter.isalnum() else f"&#{ord(letter)};" for letter in text)
    return f"<code>{''.join(letters)}</code>"


_MARKUP = re.compile(r"([\\`*_\[\]<>#!|~&]|^[+-])")
# What GitHub makes links of without any markup: a comment in between is not shown, and keeps it from that.
_LINKS = re.compile(r"(?<=@)(?=\w)|(?<=:)(?=//)|(?<=\\#)(?=\w)|(?i:(?<=www)(?=\.))")


def escape(text: str) -> str:
    """Set text as text, with none of its characters as markup, and no mentions or links."""
    return _LINKS.sub("<!-- -->", _MARKUP.sub(r"\\\1", visible(text)))
