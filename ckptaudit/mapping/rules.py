"""The rule vocabulary: one small value per rule, each with a one-line syntax that reads back to the same rule."""

from __future__ import annotations

import re
from functools import cached_property
from typing import Protocol

from ..errors import UsageError
from ..keys import KeyPattern
from ..records import dataclass

WRAPPERS = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")


class Rule(Protocol):
    """What every rule can do. ``str(rule)`` is its one-line syntax."""

    def matches(self, key: str) -> bool:
        """Tell whether the rule has something to say about a key."""
        ...

    def apply(self, key: str) -> str | None:
        """Return the new key, the same key where the rule does not match, or None for a key that is dropped."""
        ...


_TOKEN = re.compile(
    r"\\(?P<escaped>.)|(?P<star>\*)|\{(?P<name>[a-z])(?P<offset>[+-]\d{1,9})?\}|(?P<brace>[{}])", re.DOTALL
)
_EXAMPLE = "write FROM -> TO, as in 'module.* -> *' or 'blocks.{i}.* -> layers.{i+1}.*'"


@dataclass(frozen=True)
class Rename:
    """``FROM -> TO`` over whole keys: ``*`` is any text, ``{i}`` one integer, which TO may shift (``{i+1}``).

    The stars of TO take the texts of the stars of FROM in order; each star takes as little as it can. A backslash
    takes the meaning from ``* { }``.
    """

    source: str
    target: str

    def __post_init__(self) -> None:
        stars = [sum(1 for token in _tokens(side, str(self)) if token == "*") for side in (self.source, self.target)]
        if stars[0] != stars[1]:
            raise UsageError(str(self), f"has {stars[0]} stars on the left and {stars[1]} on the right", _EXAMPLE)
        names = {token[1] for token in _tokens(self.source, str(self)) if _is_index(token)}
        for token in _tokens(self.target, str(self)):
            if _is_index(token) and token[1] not in names:
                raise UsageError(str(self), f"uses {token} on the right alone", _EXAMPLE)

    def __str__(self) -> str:
        return f"{self.source} -> {self.target}"

    def matches(self, key: str) -> bool:
        """Tell whether the whole key fits FROM and every index stays at or above zero."""
        return self._renamed(key) is not None

    def apply(self, key: str) -> str | None:
        """Return the renamed key, or the same one where FROM does not fit."""
        renamed = self._renamed(key)
        return key if renamed is None else renamed

    def _renamed(self, key: str) -> str | None:
        match = self._regex.fullmatch(key)
        if match is None:
            return None
        texts = iter([value for name, value in match.groupdict().items() if name.startswith("star")])
        pieces = []
        for token in self._target_tokens:
            if token == "*":
                pieces.append(next(texts))
            elif _is_index(token):
                index = int(match[token[1]]) + int(token[2:-1] or 0)
                if index < 0:
                    return None
                pieces.append(str(index))
            else:
                pieces.append(_literal(token))
        return "".join(pieces)

    @cached_property
    def _target_tokens(self) -> list[str]:
        return _tokens(self.target, str(self))

    @cached_property
    def _regex(self) -> re.Pattern[str]:
        pieces, seen = [], set()
        for number, token in enumerate(_tokens(self.source, str(self))):
            if token == "*":
                pieces.append(f"(?P<star{number}>.*?)")
            elif _is_index(token):
                name = token[1]
                pieces.append(f"(?P={name})" if name in seen else f"(?P<{name}>0|[1-9][0-9]{{0,17}})")
                seen.add(name)
            else:
                pieces.append(re.escape(_literal(token)))
        return re.compile("".join(pieces), re.DOTALL)


def _tokens(side: str, rule: str) -> list[str]:
    """Split one side into literals (backslashes kept), ``*`` and ``{i+1}``."""
    tokens, end = [], 0
    for match in _TOKEN.finditer(side):
        if match["brace"]:
            raise UsageError(rule, f"has a brace that is no {{i}} at {match.start()}", _EXAMPLE)
        tokens += [side[end : match.start()]] if match.start() > end else []
        tokens.append(match[0])
        end = match.end()
    return tokens + ([side[end:]] if end < len(side) else [])


def _is_index(token: str) -> bool:
    return token.startswith("{") and len(token) > 2


def _literal(token: str) -> str:
    return token[1:] if token.startswith("\\") and len(token) == 2 else token


def escape(text: str) -> str:
    """Write literal text for one side of a rename."""
    return re.sub(r"[\\*{}]", lambda match: "\\" + match[0], text)


@dataclass(frozen=True)
class Drop:
    """``drop PATTERN``: leave the keys out."""

    pattern: KeyPattern

    def __str__(self) -> str:
        return f"drop {self.pattern}"

    def matches(self, key: str) -> bool:
        """Tell whether the key fits the pattern."""
        return self.pattern.matches(key)

    def apply(self, key: str) -> str | None:
        """Return None where the key fits, else the key."""
        return None if self.matches(key) else key


@dataclass(frozen=True)
class StripWrappers:
    """``strip_wrappers NAME...``: remove whole segments of these names, at any depth."""

    names: tuple[str, ...] = WRAPPERS

    def __str__(self) -> str:
        return " ".join(("strip_wrappers", *(self.names if self.names != WRAPPERS else ())))

    def matches(self, key: str) -> bool:
        """Tell whether a segment before the last one is a wrapper's name."""
        return any(segment in self.names for segment in key.split(".")[:-1])

    def apply(self, key: str) -> str | None:
        """Return the key without the wrappers' segments."""
        return self.strip(key)

    def strip(self, key: str) -> str:
        """As ``apply``: no key is ever dropped."""
        *modules, leaf = key.split(".")
        return ".".join([*(name for name in modules if name not in self.names), leaf])


def parse_rule(line: str) -> Rule:
    """Read one line. Raises UsageError, whose subject is the line."""
    text = line.strip()
    if text == "strip_wrappers" or text.startswith("strip_wrappers "):
        return StripWrappers(tuple(text.split()[1:]) or WRAPPERS)
    if text.startswith("drop ") and "->" not in text:
        return Drop(KeyPattern.parse(text.removeprefix("drop ").strip()))
    source, arrow, target = text.partition("->")
    if not arrow or "->" in target:
        raise UsageError(line, "is no mapping rule", _EXAMPLE)
    return Rename(source.strip(), target.strip())
