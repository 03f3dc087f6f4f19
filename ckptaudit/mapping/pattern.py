"""Templates of keys, ``blocks.{i}.*``: bound to a key and filled in again; and how names stand in a rule's line."""

from __future__ import annotations

import re
from functools import cached_property

from ..errors import UsageError
from ..records import dataclass

EXAMPLE = "write FROM -> TO, as in 'module.* -> *' or 'blocks.{i}.* -> layers.{i+1}.*'"

# What the stars of a template stand for, and its indices by name: (("a.b",), (("i", 3),)).
Binding = tuple[tuple[str, ...], tuple[tuple[str, int], ...]]

_TOKEN = re.compile(r"\\(?P<escaped>.)|(?P<star>\*)|\{(?P<name>[a-z])([+-]\d{1,9})?\}|(?P<brace>[{}])", re.DOTALL)


@dataclass(frozen=True)
class Template:
    """Whole keys: literal text, ``*`` for any text, ``{i}`` for one integer; ``{i+1}`` stands for i plus one.

    Each star takes as little as it can, and ``i`` is never below zero, so that ``{i+3}`` is any integer from 3 up. A
    backslash takes the meaning from what follows it.
    """

    text: str

    @cached_property
    def tokens(self) -> list[str]:
        """The text as literals (backslashes kept), ``*`` and ``{i+1}``. Raises UsageError for other braces."""
        tokens, end = [], 0
        for match in _TOKEN.finditer(self.text):
            if match["brace"]:
                raise UsageError(self.text, f"has a brace that is no {{i}} at {match.start()}", EXAMPLE)
            tokens += [self.text[end : match.start()]] if match.start() > end else []
            tokens.append(match[0])
            end = match.end()
        return tokens + ([self.text[end:]] if end < len(self.text) else [])

    @cached_property
    def stars(self) -> int:
        """Number of stars."""
        return self.tokens.count("*")

    @cached_property
    def indices(self) -> dict[str, str]:
        """The names of its integers, each as it is first written: ``{"i": "{i+1}"}``."""
        found: dict[str, str] = {}
        for token in self.tokens:
            if _is_index(token):
                found.setdefault(token[1], token)
        return found

    @cached_property
    def literal(self) -> str | None:
        """The one key it stands for, or None where there are stars or integers."""
        return None if self.stars or self.indices else "".join(map(_literal, self.tokens))

    def bind(self, key: str) -> Binding | None:
        """Return what stars and integers stand for in a key, or None where the whole key does not fit."""
        match = self._regex.fullmatch(key) if self._needle in key else None
        if match is None:
            return None
        if not self.indices:
            return match.groups(), ()
        stars: list[str] = []
        indices: dict[str, int] = {}
        for (name, offset), text in zip(self._variables, match.groups(), strict=True):
            if name == "*":
                stars.append(text)
            else:
                index = int(text) - offset
                if index < 0 or indices.setdefault(name, index) != index:
                    return None
        return tuple(stars), tuple(indices.items())

    def fill(self, binding: Binding) -> str | None:
        """Return the key for a binding, or None where an integer would be below zero."""
        stars, indices = iter(binding[0]), dict(binding[1])
        pieces = []
        for literal, name, offset in self._pieces:
            if not name:
                pieces.append(literal)
            elif name == "*":
                pieces.append(next(stars))
            else:
                index = indices[name] + offset
                if index < 0:
                    return None
                pieces.append(str(index))
        return "".join(pieces)

    @cached_property
    def _needle(self) -> str:
        """The longest literal text, which a key holds that fits: most keys are told from it at once."""
        return max((literal for literal, name, _ in self._pieces if not name), key=len, default="")

    @cached_property
    def _pieces(self) -> list[tuple[str, str, int]]:
        """Each token as a literal, or as the name and the offset of a variable."""
        return [
            ("", "*", 0)
            if token == "*"
            else ("", token[1], _offset(token))
            if _is_index(token)
            else (_literal(token), "", 0)
            for token in self.tokens
        ]

    @cached_property
    def _variables(self) -> list[tuple[str, int]]:
        return [(name, offset) for _, name, offset in self._pieces if name]

    @cached_property
    def _regex(self) -> re.Pattern[str]:
        pieces: list[str] = []
        groups: dict[str, int] = {}
        count = 0
        for token in self.tokens:
            if token != "*" and not _is_index(token):
                pieces.append(re.escape(_literal(token)))
                continue
            count += 1
            if token == "*":
                pieces.append("(.*?)")
            elif token in groups:
                pieces.append(f"(\\{groups[token]})")
            else:
                pieces.append("(0|[1-9][0-9]{0,17})")
                groups[token] = count
        return re.compile("".join(pieces), re.DOTALL)


def _is_index(token: str) -> bool:
    return token.startswith("{") and len(token) > 2


def _offset(token: str) -> int:
    return int(token[2:-1] or 0)


def _literal(token: str) -> str:
    return token[1:] if token.startswith("\\") and len(token) == 2 else token


def check_sides(rule: str, sources: tuple[Template, ...], targets: tuple[Template, ...], made: str = "") -> None:
    """Raise UsageError about ``rule`` where a target needs what no source binds; ``made`` are its own indices."""
    try:
        left = {template.stars for template in sources}
        known = {name for template in sources for name in template.indices} | set(made)
        for template in targets:
            if template.stars not in left:
                reason = f"has {max(left)} stars on the left and {template.stars} on the right"
                raise UsageError(rule, reason, EXAMPLE)
            for name, token in template.indices.items():
                if name not in known:
                    raise UsageError(rule, f"uses {token} on the right alone", EXAMPLE)
    except UsageError as error:
        raise UsageError(rule, error.reason, error.hint) from None


# Lines -----------------------------------------------------------------------------------------------------


def escape(text: str, also: str = "") -> str:
    """Write literal text for one side of a rename; ``also`` names further characters to be taken literally."""
    return re.sub(rf"[\\*{{}}\s{re.escape(also)}]|(?<=-)>", lambda match: "\\" + match[0], text)


def escape_name(text: str) -> str:
    """Write literal text as one of the names of a tensor rule."""
    return escape(text, ",=")


def masked(text: str) -> str:
    """Return text of the same length in which escaped characters are no characters of the syntax."""
    return re.sub(r"(?s)\\.", "\0\0", text) if "\\" in text else text


def strip(text: str) -> str:
    """Strip blanks that are not escaped."""
    mask = masked(text)
    return text[len(mask) - len(mask.lstrip()) : len(mask.rstrip())]


def cut(text: str, separator: str) -> list[str]:
    """Split at every separator that is not escaped, and strip the pieces."""
    pieces, start = [], 0
    mask = masked(text)
    while (end := mask.find(separator, start)) >= 0:
        pieces.append(strip(text[start:end]))
        start = end + len(separator)
    return [*pieces, strip(text[start:])]


def first_word(text: str) -> tuple[str, str]:
    """Split off the first word; the rest is stripped."""
    end = next((index for index, char in enumerate(masked(text)) if char.isspace()), len(text))
    return text[:end], strip(text[end:])
