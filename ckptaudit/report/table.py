"""The terminal report: plain text of a given width. The only importer of tabulate."""

from __future__ import annotations

from collections.abc import Sequence

from tabulate import tabulate

from ..policy import Graded, Report, Side
from ..rules import Finding
from ..words import plural, value_count, visible
from .fates import fate_table
from .layout import break_word, folded_rows, load_rows, witness_words, wrap, wrap_command
from .values import value_sentences, value_table

MAX_ROWS = 20
_MIN_COLUMN = 4


def render_table(report: Report, width: int, verbose: bool) -> str:
    """Return the report for people: head, findings, what the load does, and one sentence of verdict."""
    shown = [graded for graded in report.findings if verbose or graded.level != "note"]
    lines = _head(report, width)
    if table := _tensor_table(report, verbose):
        headers, *rows = table
        first = rows if verbose else rows[:MAX_ROWS]
        lines += ["", *grid(first, headers, width), *hidden_rows(len(rows) - len(first))]
    as_is = [graded for graded in shown if not graded.finding.mapped]
    mapped = [graded for graded in shown if graded.finding.mapped]
    for graded in as_is:
        lines += ["", *finding_lines(graded, width, verbose)]
    if mapped:
        lines += ["", "With that fix:"]
    for graded in mapped:
        lines += ["", *finding_lines(graded, width, verbose)]
    if shown and (loads := _loads(report, width)):
        lines += ["", *loads]
    lines += ["", *_verdict(report, width, verbose)]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _tensor_table(report: Report, every: bool) -> list[tuple[str, ...]]:
    if report.fates is not None:
        return fate_table(report.fates, every)
    return value_table(report.values, every) if report.values is not None else []


def grid(
    rows: Sequence[Sequence[str]], headers: Sequence[str], width: int, indent: str = "  ", *, figures: bool = False
) -> list[str]:
    """Lay cells out in columns of at most ``width`` in all. Cells too wide are wrapped, never cut.

    ``figures`` sets all columns but the first flush right.
    """
    columns = len(headers) or max(map(len, rows))
    table = [[visible(cell) for cell in row] for row in (headers, *rows)]
    widths = [max((len(row[i]) for row in table if i < len(row)), default=0) for i in range(columns)]
    room = width - len(indent) - 2 * (columns - 1)
    while sum(widths) > room and max(widths) > _MIN_COLUMN:
        widths[widths.index(max(widths))] -= 1
    wrapped = [["\n".join(_cell(cell, widths[i])) for i, cell in enumerate(row)] for row in table if row]
    sides = ("left", *["right" if figures else "left"] * (columns - 1))
    text = tabulate(
        wrapped, tablefmt="plain", disable_numparse=True, colalign=sides
    )  # its headers would be two columns wider
    return [indent + line for line in text.splitlines()]


def _cell(text: str, width: int) -> list[str]:
    if " " in text:
        return wrap(text, width)
    return list(break_word(text, width))


def _head(report: Report, width: int) -> list[str]:
    lines = head_lines([report.checkpoint, report.model], width)
    if report.hearing is not None:
        lines += wrap(witness_words(report.hearing), width, "  ", "  ")
    return lines


def head_lines(sides: Sequence[Side], width: int) -> list[str]:
    """Say what was looked at: a row for each side, two where they are long."""
    rows = [
        [side.role, side.name, plural(side.tensors, "tensor"), value_count(side.elements), ", ".join(side.facts)]
        for side in sides
    ]
    lines = grid(rows, (), width=10_000)
    if max(map(len, lines)) > width:
        two_lines = [row for full in rows for row in (full[:2], ["", "   ".join(filter(None, full[2:]))])]
        lines = grid(two_lines, (), width)
    for side in sides:
        if remark := _remark(side):
            lines += wrap(remark, width, "  ", "  ")
    return lines


def _remark(side: Side) -> str:
    where = "".join(f'["{part}"]' for part in side.choice.split(".")) if side.choice else ""
    parts = [f"the {side.role}'s state dict was read at {where}"] if where else []
    if side.siblings:
        parts.append(f"the file also holds {', '.join(side.siblings)}")
    return "; ".join(parts)


def finding_lines(graded: Graded, width: int, verbose: bool) -> list[str]:
    """Lay one finding out: headline, folded rows, detail, fixes."""
    finding, rule = graded.finding, graded.finding.rule
    lines = wrap(f"{graded.level}[{rule.code}] {rule.name}: {finding.message}", width, hanging="  ")
    if rule.columns and finding.rows:
        lines += ["", *_rows(finding, width, verbose), ""]
    for sentence in filter(None, finding.detail.splitlines()):
        lines += wrap(sentence, width, "  ", "  ")
    for fix in finding.fixes:
        label = f"  fix [{fix.safety}]  "
        lines += wrap_command(fix.do, width, label, " " * len(label))
        lines += wrap(fix.then, width, " " * len(label), " " * len(label)) if fix.then else []
    return lines


def _rows(finding: Finding, width: int, verbose: bool) -> list[str]:
    rows = folded_rows(finding)
    shown = rows if verbose else rows[:MAX_ROWS]
    headers: tuple[str, ...] = (*finding.rule.columns, "tensors")
    if all(row[-1] == "1" for row in rows):
        headers, shown = headers[:-1], [row[:-1] for row in shown]
    used = [column for column in range(len(headers)) if any(row[column] for row in shown)]
    lines = grid([[row[at] for at in used] for row in shown], [headers[at] for at in used], width)
    return lines + hidden_rows(len(rows) - len(shown))


def hidden_rows(count: int) -> list[str]:
    """Say how many rows are not shown, if any."""
    return [f"  and {plural(count, 'more row')}: add -v"] if count else []


def _loads(report: Report, width: int) -> list[str]:
    headers, *rows = load_rows(report) or [[]]
    return grid(rows, headers, width) if rows else []


def _verdict(report: Report, width: int, verbose: bool) -> list[str]:
    counts = {level: report.count(level) for level in ("error", "warning", "note")}
    sentences = [*report.remarks, *(value_sentences(report.values) if report.values is not None else ())]
    if not counts["error"] and not counts["warning"]:
        sentences += _agreement(report)
    if any(counts.values()):
        hidden = " (-v shows notes)" if counts["note"] and not verbose else ""
        sentences.append(", ".join(plural(count, level) for level, count in counts.items() if count) + f"{hidden}.")
    verdict = f'Contract "{report.contract.name}": {report.verdict}.'
    lines = wrap(" ".join([*sentences, verdict]), width)
    if len(lines) > 1:  # the verdict stays whole, for grep
        lines = [*wrap(" ".join(sentences), width), verdict]
    if report.verdict == "kept" and report.outcome is not None and report.values is None:
        arrived = "Every value arrives, as a real load shows. " if report.hearing and report.hearing.agrees else ""
        lines.append(f"{arrived}Not checked: {'the values themselves' if arrived else 'values'}.")
    worst = next((graded for graded in report.findings if graded.level == "error"), None)
    if worst is not None:
        lines.append(f"next: ckptaudit explain {worst.finding.rule.code}")
    return lines


def _agreement(report: Report) -> list[str]:
    """Say what fits, where nothing worse than a note was found."""
    if report.alignment is None or report.outcome is None:
        return []
    outcome, total = report.outcome, len(report.alignment.model.all_keys)
    foreseen = report.mapping.expected_missing if report.mapping else ()
    if not outcome.strict and not (outcome.missing_keys == foreseen and outcome.non_strict):
        return []
    cast = len(report.alignment.dtype_mismatches)
    how = "name and shape" if cast or report.mapping else "name, shape and dtype"
    under = " under the mapping" if report.mapping else ""
    share = f"All {total:,}" if outcome.loaded == total else f"{outcome.loaded:,} of {total:,}"
    match = "The only tensor matches" if total == 1 else f"{share} tensors match"
    sentences = [f"{match} by {how}{under}."]
    if foreseen:
        sentences.append(f"The mapping leaves {len(foreseen):,} to the model's initial values.")
    if cast:
        sentences.append(f"The load casts {cast:,} to the model's dtype.")
    return sentences
