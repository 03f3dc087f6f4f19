"""The terminal page of ``ckptaudit map``: the rules, what to look at before they are used, and how to use them."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from ..inferring import InferredMapping
from ..keys import fold
from ..mapping.assignment import CONFIDENT, Assignment
from ..verification import Verification
from ..words import listed, plural, visible
from .layout import wrap, wrap_words
from .table import grid, head_lines, hidden_rows

MAX_RULES = 40
MAX_DECISIONS = 8
_FEW = 4  # sources of one tensor that are listed apart
_WORDS = re.compile(r"--?[a-z-]+ (?:'[^']*'|[^-'\s]\S*)|\S+")  # an option goes together with its value
_NUMBERS = re.compile(r"\d+(?:\.\d+)?")


def render_inferred(
    found: InferredMapping,
    width: int,
    verbose: bool,
    *,
    explain: bool = False,
    closing: Sequence[str] = (),
    commands: Sequence[str] = (),
) -> str:
    """Return what was inferred, for people.

    ``explain`` gives every decision with its reason, and not those alone that are to be checked. ``closing`` are
    further sentences at the end, ``commands`` what may be done next.
    """
    lines = head_lines([found.checkpoint, found.model], width)
    if found.assignments:
        lines += ["", *_rules(found, width, verbose)]
    shown = found.assignments if explain else found.to_check
    if shown:
        title = "Every decision, the least sure first:" if explain else "To be checked:"
        lines += ["", title, *_decisions(shown, width, verbose or explain)]
    if found.ambiguous:
        lines += ["", "Open: something could be meant, and nothing tells what.", "", *_open(found, width, verbose)]
    sentences = [*found.summary(), *_verified(found.verification), *closing]
    lines += ["", *(line for sentence in sentences for line in wrap(sentence, width))]
    for number, command in enumerate(commands):
        lines += _command(command, width, "      " if number else "next: ")
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _verified(verification: Verification | None) -> Iterator[str]:
    """Yield what a real load did, and how far apart the outputs are."""
    if verification is None:
        return
    if verification.verdict == "not loaded":
        yield f"Not verified: the load failed: {verification.reason}."
        return
    yield f"Loaded: {verification.loaded:,} of {verification.tensors:,} tensors, {verification.share:.1%} of the model."
    if verification.verdict == "loaded":
        return
    yield {
        "equal": "Verified: the model puts out what the reference does.",
        "differs": f"WRONG: {verification.reason}. The mapping is wrong, or the two do not compute the same.",
        "unclear": f"Not verified: {verification.reason}.",
    }[verification.verdict]
    for one in verification.outputs:
        if one.shape != one.reference_shape:
            yield f"output {one.shape}, that of the reference {one.reference_shape}"
        else:
            figures = [("greatest difference", one.difference), ("of", one.scale), ("cosine", one.cosine)]
            words = ", ".join(f"{word} {'no number' if n is None else f'{n:.6g}'}" for word, n in figures)
            yield f"output {one.shape}: {words.replace(', of', ' of')}"


def _command(command: str, width: int, label: str) -> list[str]:
    """Break a command where a shell takes it all the same; a line of Python breaks inside of its brackets."""
    end = " \\" if command.startswith("ckptaudit ") else ""
    lines = wrap_words(_WORDS.findall(visible(command)), width - len(end), label, " " * 8)
    return [f"{line}{end}" for line in lines[:-1]] + lines[-1:]


# Rules ------------------------------------------------------------------------------------------------------------


def _rules(found: InferredMapping, width: int, verbose: bool) -> list[str]:
    rows = [(str(use.rule), f"{use.tensors:,}", _sure(use.assigned)) for use in found.uses]
    if found.kept:
        rows.insert(0, ("(the same name)", f"{len(found.kept):,}", _sure(found.kept)))
    shown = rows if verbose else rows[:MAX_RULES]
    return grid(shown, ("rule", "tensors", "confidence"), width) + hidden_rows(len(rows) - len(shown))


def _sure(assigned: Sequence[Assignment]) -> str:
    """Return the lowest confidence, and how many are to be checked."""
    if not assigned:
        return ""
    doubtful = sum(one.confidence < CONFIDENT for one in assigned)
    return f"{min(one.confidence for one in assigned):.2f}" + (f"  check {doubtful:,}" if doubtful else "")


# Decisions --------------------------------------------------------------------------------------------------------


def _decisions(assignments: Iterable[Assignment], width: int, every: bool) -> list[str]:
    """Lay decisions out: those that were made alike, for the same reason, as one."""
    groups: defaultdict[tuple[object, ...], list[Assignment]] = defaultdict(list)
    for one in assignments:
        names = _form(one.target), _form(one.sources[0]), len(one.sources)
        groups[one.confidence, one.op, names, _NUMBERS.sub("0", one.reason)].append(one)
    ordered = sorted(groups.values(), key=lambda group: group[0].confidence)
    shown = ordered if every else ordered[:MAX_DECISIONS]
    lines = [line for group in shown for line in ("", *_decision(group, width))]
    hidden = len(ordered) - len(shown)
    return lines + (["", f"  and {plural(hidden, 'more decision')}: add -v"] if hidden else [])


def _form(key: str) -> str:
    """Return the module of a key without its numbers."""
    return _NUMBERS.sub("0", key.rpartition(".")[0] or key)


def _decision(group: Sequence[Assignment], width: int) -> list[str]:
    first, margin = group[0], " " * 8
    lines = wrap(_patterns([one.target for one in group]), width, f"  {first.confidence:.2f}  ", margin)
    if first.op != "copy" or any(one.sources != (one.target,) for one in group):
        op = "" if first.op == "copy" else f"   {first.op}"
        lines += wrap(f"{_sources(group)}{op}", width, f"{margin}<- ", f"{margin}   ")
    words = [*visible(_reason(group)).split(" "), f"({plural(len(group), 'tensor')})"]
    lines += wrap_words(words, width, margin, margin)
    if first.rivals:
        rivals = f"close to it for {first.target}: " if len(group) > 1 else "close to it: "
        lines += wrap(rivals + listed(first.rivals), width, margin, margin)
    return lines


def _reason(group: Sequence[Assignment]) -> str:
    """Return the reason that all give, with the range of each number in it."""
    texts = [_NUMBERS.split(one.reason) for one in group]
    columns = zip(*(_NUMBERS.findall(one.reason) for one in group), strict=True)
    ranges = [sorted(set(column), key=float) for column in columns]
    numbers = [low[0] if len(low) == 1 else f"{low[0]} to {low[-1]}" for low in ranges]
    return "".join(text + number for text, number in zip(texts[0], [*numbers, ""], strict=True))


def _sources(group: Sequence[Assignment]) -> str:
    """Return where the tensors come from: a few that are joined in their order, many as one pattern."""
    columns = list(zip(*(one.sources for one in group), strict=True))
    if len(columns) > _FEW:
        columns = [tuple(key for column in columns for key in column)]
    return ", ".join(_patterns(list(dict.fromkeys(column))) for column in columns)


def _patterns(keys: Sequence[str]) -> str:
    return ", ".join(map(str, fold(keys)))


# What is open -----------------------------------------------------------------------------------------------------


def _open(found: InferredMapping, width: int, verbose: bool) -> list[str]:
    """Fold the open tensors that the same kinds of tensors would fit."""
    groups: defaultdict[tuple[str, ...], list[str]] = defaultdict(list)
    for key, candidates in found.ambiguous.items():
        groups[candidates].append(key)
    rows = [(str(pattern), _could_be(candidates)) for candidates, keys in groups.items() for pattern in fold(keys)]
    shown = rows if verbose else rows[:MAX_DECISIONS]
    return grid(shown, ("model", "could be"), width) + hidden_rows(len(rows) - len(shown))


def _could_be(candidates: Sequence[str]) -> str:
    return listed([str(pattern) for pattern in fold(candidates)]) or "a part of a tensor, or several together"
