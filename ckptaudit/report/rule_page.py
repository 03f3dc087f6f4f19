"""A rule's page, for the terminal and for docs/rules/; both from the one Rule object."""

from __future__ import annotations

from collections.abc import Iterable

from ..rules import Contract, Rule
from .layout import wrap

_SECTIONS = (("meaning", "summary"), ("why", "why"), ("example", "example"), ("fix", "fix"))
_GENERATED = "<!-- Generated from the rule: python docs/generate.py -->"


def breaks_words(rule: Rule) -> str:
    """Say which contract the rule breaks, or its fixed level."""
    return f"breaks contract: {rule.breaks.name}" if rule.breaks is not None else f"always: {rule.fixed}"


def silent_words(rule: Rule) -> str:
    """Say when torch loads such a checkpoint without a word, or the empty string."""
    if not rule.silent:
        return ""
    return "torch says nothing" + ("" if rule.silent == "yes" else f" {rule.silent}")


def render_rule(rule: Rule, width: int) -> str:
    """Return one rule's page for a terminal of ``width`` columns."""
    facts = filter(None, (breaks_words(rule), silent_words(rule), f"since {rule.since}"))
    lines = [f"{rule.code} {rule.name}", *wrap("   ".join(facts), width, "  ", "  ")]
    for title, attribute in _SECTIONS:
        lines += ["", *wrap(getattr(rule, attribute), width, f"  {title:<9}", " " * 11)]
    if rule.breaks is not None:
        lines += ["", *wrap(f"{rule.breaks.name}: {rule.breaks.promise}", width, "  contract ", " " * 11)]
    lines += ["", f"docs: docs/rules/{rule.code}.md"]
    return "\n".join(lines) + "\n"


def render_rule_list(rules: Iterable[Rule], width: int) -> str:
    """Return one row per rule, or two where one is too narrow, and what the contracts mean."""
    lines = []
    for rule in rules:
        level = rule.breaks.name if rule.breaks is not None else f"({rule.fixed})"
        label = f"{rule.code}  {rule.name:<27}  {level:<9}  "
        if width < _ONE_ROW:
            lines += [*wrap(label.rstrip(), width, hanging=" " * 9), *wrap(rule.summary, width, " " * 9, " " * 9)]
        else:
            lines += wrap(rule.summary, width, label, " " * len(label))
    lines += ["", "Contracts, each with all before it:"]
    lines += [line for c in Contract for line in wrap(c.promise, width, f"  {c.name:<8} ", " " * 11)]
    lines += ["", *wrap("ckptaudit explain CKPT201   shows one rule", width)]
    return "\n".join(line.rstrip() for line in lines) + "\n"


_ONE_ROW = 90


def render_rule_markdown(rule: Rule, command: str, output: str) -> str:
    """Return the page that lies in docs/rules/; ``output`` is what ``command`` says to the rule's fixture."""
    facts = [breaks_words(rule), silent_words(rule), f"since {rule.since}"]
    if rule.breaks is not None:
        facts[0] = f"breaks the contract `{rule.breaks.name}`: {rule.breaks.promise}"
    sections = {
        "Why it matters": rule.why,
        "Example": f"```text\n{rule.example}\n```",
        "What ckptaudit says": f"```text\n$ {command}\n{output.rstrip()}\n```",
        "Fix": rule.fix,
    }
    head = f"# {rule.code} {rule.name}\n\n{_GENERATED}\n\n{rule.summary[0].upper()}{rule.summary[1:]}.\n\n"
    head += "".join(f"- {fact}\n" for fact in facts if fact)
    fixture = f"[fixtures/rules/{rule.code}](../../fixtures/rules/{rule.code})"
    tail = f"\nThe files behind this output, and a pair that is clean, lie in {fixture}.\n"
    return head + "".join(f"\n## {title}\n\n{text}\n" for title, text in sections.items()) + tail


def render_rules_markdown(rules: Iterable[Rule]) -> str:
    """Return the table of all rules that lies in docs/rules/README.md."""
    lines = ["# Rules", "", _GENERATED, "", "| code | name | breaks | torch | what it finds |", "|---|---|---|---|---|"]
    for rule in rules:
        level = rule.breaks.name if rule.breaks is not None else f"({rule.fixed})"
        silent = silent_words(rule).removeprefix("torch ")
        cells = (f"[{rule.code}]({rule.code}.md)", rule.name, level, silent, rule.summary.replace("|", "\\|"))
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", *_CONTRACTS.splitlines(), ""]
    lines += [f"- `{contract.name}`: {contract.promise}" for contract in Contract]
    return "\n".join(lines) + "\n"


_CONTRACTS = """\
"breaks" names the weakest contract that a finding breaks. Under the contract that was chosen (`--contract`, `strict`
where none is), a finding that breaks it or a weaker one is an error, one that breaks the next stronger one a warning,
all others are notes. Some rules have a fixed level, in brackets. Each contract includes those before it:"""
