"""Further rules over keys, imported where one is written: prefixes, ties, and keys that the model may go without."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING

from ..errors import UsageError
from ..keys import KeyPattern
from ..records import dataclass
from .pattern import Template, check_sides, cut, escape
from .rules import PatternRule, Rule

if TYPE_CHECKING:
    from .rules import Phase


@dataclass(frozen=True)
class Init(PatternRule):
    """``init PATTERN``: leave the keys out and expect them to be missing: the model keeps its initial values."""

    pattern: KeyPattern
    word = "init"
    expecting = True

    def apply(self, key: str) -> str | None:
        """Return None where the key fits, else the key."""
        return None if self.matches(key) else key


@dataclass(frozen=True)
class ExpectMissing(PatternRule):
    """``expect_missing PATTERN``: keys of the model that the checkpoint need not have."""

    pattern: KeyPattern
    word = "expect_missing"
    expecting = True

    @property
    def phase(self) -> Phase:
        """Never on the checkpoint."""
        return "model"

    def inverse(self) -> Rule | None:
        """Return the rule: it does nothing to a checkpoint."""
        return self


class _PrefixRule(Rule):
    """A rule about how keys begin; the prefix is literal text, its dot included."""

    prefix: str

    def __post_init__(self) -> None:
        if not self.prefix:
            raise UsageError(self.word, "has an empty prefix", f"as in: {self.word} module.")

    @property
    def text(self) -> str:
        """The prefix, escaped."""
        return escape(self.prefix)

    def matches(self, key: str) -> bool:
        """Tell whether the key begins so."""
        return key.startswith(self.prefix)


@dataclass(frozen=True)
class StripPrefix(_PrefixRule):
    """``strip_prefix PREFIX``: remove it where a key has it."""

    prefix: str
    word = "strip_prefix"

    def apply(self, key: str) -> str | None:
        """Return the key without the prefix."""
        return key.removeprefix(self.prefix)

    def inverse(self) -> Rule | None:
        """Add it."""
        return AddPrefix(self.prefix)


@dataclass(frozen=True)
class AddPrefix(_PrefixRule):
    """``add_prefix PREFIX``: put it before every key."""

    prefix: str
    word = "add_prefix"

    def matches(self, _key: str) -> bool:
        """Tell that every key gets it."""
        return True

    def apply(self, key: str) -> str | None:
        """Return the key with the prefix."""
        return self.prefix + key

    def inverse(self) -> Rule | None:
        """Strip it."""
        return StripPrefix(self.prefix)


@dataclass(frozen=True)
class SelectPrefix(_PrefixRule):
    """``select_prefix PREFIX``: keep the keys that begin so, without the prefix, and leave all others out."""

    prefix: str
    word = "select_prefix"

    def apply(self, key: str) -> str | None:
        """Return the key without the prefix, or None."""
        return key.removeprefix(self.prefix) if self.matches(key) else None

    def inverse(self) -> Rule | None:
        """Add it, to what was kept."""
        return AddPrefix(self.prefix)


@dataclass(frozen=True)
class Tie(Rule):
    """``tie ALIAS = KEY``: a tensor under a second name, both sides in the syntax of a rename."""

    alias: str
    source: str
    word = "tie"

    def __post_init__(self) -> None:
        if cut(self.text, "=") != [self.alias, self.source] or not (self.alias and self.source):
            raise UsageError(str(self), "is not 'tie ALIAS = KEY'", _TIE)
        check_sides(str(self), (self._from,), (Template(self.alias),))

    @property
    def phase(self) -> Phase:
        """After all others."""
        return "tie"

    @property
    def text(self) -> str:
        """ALIAS = KEY."""
        return f"{self.alias} = {self.source}"

    def matches(self, key: str) -> bool:
        """Tell whether the key gets a second name."""
        return self.alias_of(key) is not None

    def alias_of(self, key: str) -> str | None:
        """Return the second name of a key, or None."""
        binding = self._from.bind(key)
        return None if binding is None else Template(self.alias).fill(binding)

    @cached_property
    def _from(self) -> Template:
        return Template(self.source)


_TIE = "as in: tie lm_head.weight = embed.weight"


def _read_tie(text: str) -> Rule:
    sides = cut(text, "=")
    if len(sides) != 2:
        raise UsageError(text, "is not 'tie ALIAS = KEY'", _TIE)
    return Tie(*sides)


def _prefix_of(text: str) -> str:
    literal = Template(text).literal
    if literal is None:
        raise UsageError(text, "is a pattern, and a prefix is literal text", "as in: strip_prefix module.")
    return literal


READERS: dict[str, Callable[[str], Rule]] = {
    "init": lambda text: Init(KeyPattern.parse(text)),
    "expect_missing": lambda text: ExpectMissing(KeyPattern.parse(text)),
    "strip_prefix": lambda text: StripPrefix(_prefix_of(text)),
    "add_prefix": lambda text: AddPrefix(_prefix_of(text)),
    "select_prefix": lambda text: SelectPrefix(_prefix_of(text)),
    "tie": _read_tie,
}
