"""What a rule is, and the common ones over keys; each has a one-line syntax that reads back to the same rule."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from ..errors import UsageError
from ..keys import KeyPattern
from ..records import dataclass
from .pattern import EXAMPLE, Template, check_sides, cut, escape, first_word, masked, strip

__all__ = ["WRAPPERS", "Drop", "Rename", "Rule", "StripWrappers", "escape", "parse_rule"]

WRAPPERS = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
TENSOR_WORDS = (
    *("split", "chunk", "concat", "stack", "unstack", "interleave", "deinterleave"),
    *("copy", "transpose", "permute", "reshape", "rope_permute", "chain"),
    *("cast", "slice", "part", "pad", "adapt_input_conv", "resample_pos_embed"),
)

if TYPE_CHECKING:
    # The order in which rules act: every key through all rules over keys, then tensors, then casts, then ties. Rules of
    # the phase "model" speak of the model's keys.
    Phase = Literal["keys", "tensors", "cast", "tie", "model"]


class Rule:
    """What every rule can do. ``str(rule)`` is its one-line syntax: word, text and options."""

    word = ""  # names its kind, and is its key in a TOML file
    expecting = False  # whether it names keys that the model may go without

    @property
    def phase(self) -> Phase:
        """When it acts."""
        return "keys"

    @property
    def text(self) -> str:
        """What follows the word, without options."""
        return ""

    @property
    def options(self) -> Mapping[str, Any]:
        """Its options, without those that have their default."""
        return {}

    def __str__(self) -> str:
        return f"{self.word} {self.text}" if self.text else self.word

    def matches(self, key: str) -> bool:
        """Tell whether the rule has something to say about a key."""
        raise NotImplementedError

    def apply(self, key: str) -> str | None:
        """Return the new key, the same key where the rule does not match, or None for a key that is dropped."""
        return key

    def inverse(self) -> Rule | None:
        """Return a rule that takes the new keys back, as far as the text alone can tell, or None."""
        return None


@dataclass(frozen=True)
class Rename(Rule):
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
        return f"rename {self.text}" if rest and word in WORDS else self.text

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


class PatternRule(Rule):
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
class Drop(PatternRule):
    """``drop PATTERN``: leave the keys out."""

    pattern: KeyPattern
    word = "drop"

    def apply(self, key: str) -> str | None:
        """Return None where the key fits, else the key."""
        return None if self.matches(key) else key


@dataclass(frozen=True)
class StripWrappers(Rule):
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


# Reading ---------------------------------------------------------------------------------------------------


def _read_rename(text: str) -> Rule:
    sides = cut(text, "->")
    if len(sides) != 2:
        raise UsageError(text, "is no mapping rule", EXAMPLE)
    return Rename(*sides)


_READERS: dict[str, Callable[[str], Rule]] = {
    "rename": _read_rename,
    "drop": lambda text: Drop(KeyPattern.parse(text)),
    "strip_wrappers": lambda text: StripWrappers(tuple(text.split()) or WRAPPERS),
}
RARE_WORDS = ("init", "expect_missing", "strip_prefix", "add_prefix", "select_prefix", "tie")
WORDS = (*_READERS, *RARE_WORDS, *TENSOR_WORDS)


def read_rule(word: str, text: str) -> Rule:
    """Read the rule of a word over keys from what follows it."""
    if word in _READERS:
        return _READERS[word](text)
    from .keyrules import READERS

    return READERS[word](text)


def parse_rule(line: str) -> Rule:
    """Read one line. Raises UsageError, whose subject is the line."""
    text = strip(line)
    word, rest = first_word(text)
    try:
        if rest.startswith("->") or word not in WORDS or not (rest or word == "strip_wrappers"):
            return _read_rename(text)
        if word not in TENSOR_WORDS:
            return read_rule(word, rest)
        from .tensors import parse_tensor_rule

        return parse_tensor_rule(word, rest)
    except UsageError as error:
        raise UsageError(line, error.reason, error.hint) from None
