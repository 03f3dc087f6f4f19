"""The rules over keys: one small value per rule, each with a one-line syntax that reads back to the same rule."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, Literal, Protocol

from ..errors import UsageError
from ..keys import KeyPattern
from ..records import dataclass
from .pattern import EXAMPLE, Template, check_sides, cut, escape, first_word, masked, strip

__all__ = ["WRAPPERS", "Drop", "Rename", "Rule", "StripWrappers", "escape", "parse_rule"]

WRAPPERS = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
TENSOR_WORDS = (
    *("split", "chunk", "concat", "stack", "unstack", "interleave", "deinterleave"),
    *("transpose", "permute", "reshape", "rope_permute"),
    *("cast", "slice", "pad", "adapt_input_conv", "resample_pos_embed"),
)

# The order in which rules act: every key through all rules of keys, then tensors, then casts, then ties. Rules of the
# phase "model" speak of the model's keys.
Phase = Literal["keys", "tensors", "cast", "tie", "model"]


class Rule(Protocol):
    """What every rule can do. ``str(rule)`` is its one-line syntax: word, text and options."""

    @property
    def phase(self) -> Phase:
        """When it acts."""
        ...

    @property
    def word(self) -> str:
        """The word that names its kind, and its key in a TOML file."""
        ...

    @property
    def text(self) -> str:
        """What follows the word, without options."""
        ...

    @property
    def options(self) -> Mapping[str, Any]:
        """Its options, without those that have their default."""
        ...

    def matches(self, key: str) -> bool:
        """Tell whether the rule has something to say about a key."""
        ...

    def apply(self, key: str) -> str | None:
        """Return the new key, the same key where the rule does not match, or None for a key that is dropped."""
        ...

    def inverse(self) -> Rule | None:
        """Return a rule that takes the new keys back, as far as the text alone can tell, or None."""
        ...


class _KeyRule:
    """What most rules over keys have in common."""

    phase: Phase = "keys"
    word = ""

    @property
    def text(self) -> str:
        """What follows the word."""
        return ""

    @property
    def options(self) -> Mapping[str, Any]:
        """Rules over keys have none."""
        return {}

    def __str__(self) -> str:
        return f"{self.word} {self.text}" if self.text else self.word

    def apply(self, key: str) -> str | None:
        """Leave the key as it is."""
        return key

    def inverse(self) -> Rule | None:
        """Return None: what was dropped is lost."""
        return None


@dataclass(frozen=True)
class Rename(_KeyRule):
    """``FROM -> TO`` over whole keys: ``*`` is any text, ``{i}`` one integer, which TO may shift (``{i+1}``).

    The stars of TO take the texts of the stars of FROM in order; each star takes as little as it can. A backslash
    takes the meaning from ``* { }``, from a blank and from the ``>`` of an arrow.
    """

    source: str
    target: str

    def __post_init__(self) -> None:
        if cut(self.text, "->") != [self.source, self.target]:
            raise UsageError(str(self), "is no mapping rule", EXAMPLE)
        check_sides(str(self), (self._from,), (self._to,))

    word = "rename"

    @property
    def text(self) -> str:
        """FROM -> TO."""
        return f"{self.source} -> {self.target}"

    def __str__(self) -> str:
        word, rest = first_word(self.source)
        return f"rename {self.text}" if rest and is_word(word) else self.text

    def matches(self, key: str) -> bool:
        """Tell whether the whole key fits FROM and every index stays at or above zero."""
        return self._renamed(key) is not None

    def apply(self, key: str) -> str | None:
        """Return the renamed key, or the same one where FROM does not fit."""
        renamed = self._renamed(key)
        return key if renamed is None else renamed

    def inverse(self) -> Rule | None:
        """Swap the sides, where TO still holds all that FROM binds."""
        lossless = set(self._from.indices) == set(self._to.indices)
        return Rename(self.target, self.source) if lossless else None

    def _renamed(self, key: str) -> str | None:
        binding = self._from.bind(key)
        return None if binding is None else self._to.fill(binding)

    @cached_property
    def _from(self) -> Template:
        return Template(self.source)

    @cached_property
    def _to(self) -> Template:
        return Template(self.target)


class _PatternRule(_KeyRule):
    """A rule over the keys that fit a KeyPattern."""

    pattern: KeyPattern

    @property
    def text(self) -> str:
        """The pattern, such that it reads back after the word."""
        text = str(self.pattern)
        if text.startswith("->") or text[:1].isspace():
            text = "\\" + text
        if text and masked(text)[-1].isspace():
            text = f"{text[:-1]}\\{text[-1]}"
        return text

    def matches(self, key: str) -> bool:
        """Tell whether the key fits the pattern."""
        return self.pattern.matches(key)


@dataclass(frozen=True)
class Drop(_PatternRule):
    """``drop PATTERN``: leave the keys out."""

    pattern: KeyPattern
    word = "drop"

    def apply(self, key: str) -> str | None:
        """Return None where the key fits, else the key."""
        return None if self.matches(key) else key


@dataclass(frozen=True)
class Init(_PatternRule):
    """``init PATTERN``: leave the keys out and expect them to be missing: the model keeps its initial values."""

    pattern: KeyPattern
    word = "init"

    def apply(self, key: str) -> str | None:
        """Return None where the key fits, else the key."""
        return None if self.matches(key) else key


@dataclass(frozen=True)
class ExpectMissing(_PatternRule):
    """``expect_missing PATTERN``: keys of the model that the checkpoint need not have."""

    pattern: KeyPattern
    phase = "model"
    word = "expect_missing"

    def inverse(self) -> Rule | None:
        """Return the rule: it does nothing to a checkpoint."""
        return self


@dataclass(frozen=True)
class StripWrappers(_KeyRule):
    """``strip_wrappers NAME...``: remove whole segments of these names, at any depth."""

    names: tuple[str, ...] = WRAPPERS
    word = "strip_wrappers"

    @property
    def text(self) -> str:
        """The names, where they are not the usual ones."""
        return " ".join(self.names) if self.names != WRAPPERS else ""

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


class _PrefixRule(_KeyRule):
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
class Tie(_KeyRule):
    """``tie ALIAS = KEY``: a tensor under a second name, both sides in the syntax of a rename."""

    alias: str
    source: str
    phase = "tie"
    word = "tie"

    def __post_init__(self) -> None:
        if cut(self.text, "=") != [self.alias, self.source] or not (self.alias and self.source):
            raise UsageError(str(self), "is not 'tie ALIAS = KEY'", "as in: tie lm_head.weight = embed.weight")
        check_sides(str(self), (self._from,), (Template(self.alias),))

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


# Reading ---------------------------------------------------------------------------------------------------


def _read_rename(text: str) -> Rule:
    sides = cut(text, "->")
    if len(sides) != 2:
        raise UsageError(text, "is no mapping rule", EXAMPLE)
    return Rename(*sides)


def _read_tie(text: str) -> Rule:
    sides = cut(text, "=")
    if len(sides) != 2:
        raise UsageError(text, "is not 'tie ALIAS = KEY'", "as in: tie lm_head.weight = embed.weight")
    return Tie(*sides)


def _prefix_of(text: str) -> str:
    literal = Template(text).literal
    if literal is None:
        raise UsageError(text, "is a pattern, and a prefix is literal text", "write: strip_prefix module.")
    return literal


_READERS: dict[str, Callable[[str], Rule]] = {
    "rename": _read_rename,
    "drop": lambda text: Drop(KeyPattern.parse(text)),
    "init": lambda text: Init(KeyPattern.parse(text)),
    "expect_missing": lambda text: ExpectMissing(KeyPattern.parse(text)),
    "strip_wrappers": lambda text: StripWrappers(tuple(text.split()) or WRAPPERS),
    "strip_prefix": lambda text: StripPrefix(_prefix_of(text)),
    "add_prefix": lambda text: AddPrefix(_prefix_of(text)),
    "select_prefix": lambda text: SelectPrefix(_prefix_of(text)),
    "tie": _read_tie,
}
WORDS = (*_READERS, *TENSOR_WORDS)


def is_word(text: str) -> bool:
    """Tell whether a text is the word of a rule."""
    return text in _READERS or text in TENSOR_WORDS


def read_rule(word: str, text: str) -> Rule:
    """Read the rule of a word over keys from what follows it."""
    return _READERS[word](text)


def parse_rule(line: str) -> Rule:
    """Read one line. Raises UsageError, whose subject is the line."""
    text = strip(line)
    word, rest = first_word(text)
    try:
        if rest.startswith("->") or not is_word(word) or not (rest or word == "strip_wrappers"):
            return _read_rename(text)
        if word in _READERS:
            return read_rule(word, rest)
        from .tensors import parse_tensor_rule

        return parse_tensor_rule(word, rest)
    except UsageError as error:
        raise UsageError(line, error.reason, error.hint) from None
