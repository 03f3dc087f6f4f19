"""``--map`` and ``--drop``: what is to be done to a checkpoint's keys and tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..errors import UsageError
from ..words import shell_word

if TYPE_CHECKING:
    from ..mapping.mapping import KeyMapping
    from ..mapping.rules import Rule


def parse_mapping(rules: Sequence[tuple[str, str]]) -> KeyMapping | None:
    """Read --map, a line or a TOML file, and --drop in their order; an error names the option as it was written."""
    if not rules:
        return None
    from ..keys import KeyPattern
    from ..mapping.mapping import KeyMapping, is_toml_path
    from ..mapping.rules import Drop, parse_rule

    parsed: list[Rule] = []
    for option, text in rules:
        if option == "--map" and is_toml_path(text):
            parsed += KeyMapping.load(text).rules
            continue
        try:
            parsed.append(Drop(KeyPattern.parse(text)) if option == "--drop" else parse_rule(text))
        except UsageError as error:
            raise UsageError(f"{option} {shell_word(text)}", error.reason, error.hint) from None
    return KeyMapping(tuple(parsed))
