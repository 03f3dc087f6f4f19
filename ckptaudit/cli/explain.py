"""``ckptaudit explain``."""

from __future__ import annotations

import argparse

from ..report.rule_page import render_rule, render_rule_list
from ..rules import RULES, find_rule
from .streams import terminal_width, write_report


def run(options: argparse.Namespace) -> int:
    """Print one rule's page, or the list of all rules."""
    width = terminal_width(options.width)
    if options.rule is None:
        write_report(render_rule_list(RULES.values(), width))
    else:
        write_report(render_rule(find_rule(options.rule), width))
    return 0
