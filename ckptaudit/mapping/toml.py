"""Mappings as TOML files: one ``[[rule]]`` table a rule, whose keys are the words of the one-line syntax."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ..errors import UsageError
from ..textfile import read_text
from ..tomlfile import parse_toml, quoted
from ..words import did_you_mean
from .pattern import strip
from .rules import TENSOR_WORDS, WORDS, Rule, read_rule

_EXAMPLE = 'write each rule as a table: [[rule]] and below it, for instance, rename = "module.* -> *"'
_HEADER = re.compile(r"\s*\[\[\s*(?:[\w.-]+\.)?(?:rule|\"rule\"|'rule')\s*\]\]\s*(?:#.*)?")


def load(path: str | os.PathLike[str]) -> tuple[Rule, ...]:
    """Read the rules of a file. Raises UsageError, whose subject is ``FILE:LINE`` where a line is at fault."""
    name = os.fspath(path)
    text = read_text(path)
    return rules_of(parse_toml(text, name, _EXAMPLE), name, text)


def rules_of(data: Mapping[str, Any], source: str, text: str = "") -> tuple[Rule, ...]:
    """Read the rules of a parsed table, of a file or of a part of one; its ``text`` gives the lines of faults."""
    lines = _Lines(text)
    for key in data:
        if key != "rule":
            reason = f"has the unknown key {key!r}{did_you_mean(key, ('rule',))}"
            raise UsageError(_place(source, lines.of_key(key, 0)), reason, _EXAMPLE)
    tables = data.get("rule", [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise UsageError(_place(source, lines.of_key("rule", 0)), "has a rule that is no table", _EXAMPLE)
    lines.find_tables(len(tables))
    rules = []
    for number, table in enumerate(tables):
        try:
            rules.append(_rule(table))
        except _Fault as fault:
            raise UsageError(_place(source, lines.of(number, fault.key), number), str(fault), fault.hint) from None
        except UsageError as error:
            reason = f"{error.subject}: {error.reason}"
            raise UsageError(_place(source, lines.of(number), number), reason, error.hint) from None
    return tuple(rules)


class _Fault(Exception):  # noqa: N818
    """What is wrong with one table, and the key to blame."""

    def __init__(self, reason: str, key: str = "", hint: str | None = _EXAMPLE) -> None:
        super().__init__(reason)
        self.key, self.hint = key, hint


def _rule(table: Mapping[str, Any]) -> Rule:
    words = [key for key in table if key in WORDS]
    options = {key: value for key, value in table.items() if key not in WORDS}
    if not words:
        key = next(iter(table), "")
        raise _Fault(f"has the unknown key {key!r}{did_you_mean(key, WORDS)}" if table else "has an empty rule", key)
    if len(words) > 1:
        raise _Fault(f"has {words[0]} and {words[1]} in one rule", words[1])
    (word,) = words
    text = _text(word, table[word])
    if word in TENSOR_WORDS:
        from .tensors import build_tensor_rule

        return build_tensor_rule(word, text, {name: _option(name, value) for name, value in options.items()})
    for name in options:
        raise _Fault(f"has the unknown key {name!r}; {word} takes no options", name)
    return read_rule(word, text)


def _text(word: str, value: Any) -> str:
    if word == "strip_wrappers" and value is True:
        return ""
    if isinstance(value, list) and word == "strip_wrappers" and all(type(name) is str for name in value) and value:
        return " ".join(value)
    if not isinstance(value, str) or not value.strip():
        raise _Fault(f"has {word} = {value!r}, which is no text of a rule", word)
    return strip(value)


def _option(name: str, value: Any) -> str:
    if isinstance(value, list):
        return ",".join(_option(name, item) for item in value) or "()"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, str)):
        return str(value)
    raise _Fault(f"has {name} = {value!r}, which is no number, text, truth value or list of numbers", name)


def _place(source: str, line: int | None, number: int | None = None) -> str:
    if line is not None:
        return f"{source}:{line}"
    return source if number is None else f"{source}: rule {number + 1}"


class _Lines:
    """Where the tables of a text begin; None where that cannot be told, as of tables written inline."""

    def __init__(self, text: str) -> None:
        self._lines = text.split("\n")
        self._starts: list[int] = []

    def find_tables(self, count: int) -> None:
        """Find the headers, unless their number says that some are none, or some tables have none."""
        starts = [number for number, line in enumerate(self._lines, 1) if _HEADER.fullmatch(line)]
        self._starts = starts if len(starts) == count else []

    def of(self, table: int, key: str = "") -> int | None:
        """Return the line of a table, or of a key in it."""
        if not self._starts:
            return None
        start = self._starts[table]
        return (self.of_key(key, start) if key else None) or start

    def of_key(self, key: str, start: int) -> int | None:
        """Return the line of the first such key or table after a line."""
        pattern = re.compile(rf"\s*\[{{0,2}}\s*[\"']?{re.escape(key)}[\"']?\s*[=.\]].*")
        return next((n for n, line in enumerate(self._lines[start:], start + 1) if pattern.fullmatch(line)), None)


def dump(rules: Iterable[Rule], remarks: Sequence[str] = ()) -> str:
    """Write rules as TOML; ``load`` gives the same ones. ``remarks`` are comments, one before each rule."""
    tables = ["".join(f"{line}\n" for line in _table(rule)) for rule in rules]
    return "\n".join(f"{remark}{table}" for remark, table in zip(remarks or [""] * len(tables), tables, strict=True))


def _table(rule: Rule) -> Iterator[str]:
    yield "[[rule]]"
    if rule.word == "strip_wrappers":
        names = rule.text.split()
        yield f"strip_wrappers = {_value(names) if names else 'true'}"
    else:
        yield f"{rule.word} = {_value(rule.text)}"
    for name, value in rule.options.items():
        yield f"{name} = {_value(value)}"


def _value(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(value)
    return quoted(value)
