"""KeyMapping: ordered rules over a checkpoint, and what becomes of a manifest under them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from ..errors import UsageError
from ..manifest import Manifest, TensorSpec
from ..records import dataclass, field, replace
from .rules import Rule, parse_rule

if TYPE_CHECKING:
    from .effect import Effect, Recipe

    Names = tuple[str, ...]
    Path = str | os.PathLike[str]


@dataclass(frozen=True)
class Mapped:
    """A manifest under a mapping, and the account of every key.

    ``origin`` maps new keys to those of the checkpoint where a tensor or entry is only renamed; ``recipes`` says how
    every other tensor is made. ``ties`` are the second names, each with the first one. ``dropped`` are the keys left
    out. ``collisions`` lists the targets that several keys land on, with their sources; the manifest keeps the first.
    ``unused`` are the rules that no key met. ``expected`` are the rules that name keys the model may go without.
    """

    manifest: Manifest
    origin: Mapping[str, str]
    dropped: Names
    collisions: tuple[tuple[str, Names], ...]
    unused: tuple[Rule, ...]
    recipes: Mapping[str, Recipe] = field(default_factory=dict)
    ties: tuple[tuple[str, str], ...] = ()
    expected: tuple[Rule, ...] = ()

    def expects(self, key: str) -> bool:
        """Tell whether a rule says that the checkpoint need not have this key of the model."""
        return any(rule.matches(key) for rule in self.expected)

    def makes(self, key: str) -> bool:
        """Tell whether a name is there only because of an operation or a tie: no rule over keys can leave it out."""
        from .ops import Cast

        recipe = self.recipes.get(key)
        return (recipe is not None and not isinstance(recipe.op, Cast)) or any(key == alias for alias, _ in self.ties)

    def check(self) -> None:
        """Raise UsageError where a tensor would be lost, or a rule does nothing."""
        for target, sources in self.collisions:
            reason = f"would receive {' and '.join(sources)} under the mapping"
            raise UsageError(target, reason, "drop all but one of them")
        for rule in self.unused:
            raise UsageError(str(rule), "matches nothing", "correct the rule, or remove it")

    def settled(self, missing: Iterable[str]) -> Mapped:
        """Return the account once the model's missing keys are known: which expectations were met by none."""
        missing = tuple(missing)
        idle = [rule for rule in self.expected if not any(rule.matches(key) for key in missing)]
        kept = [rule for rule in self.unused if rule not in self.expected or rule in idle]
        return replace(self, unused=(*kept, *(rule for rule in idle if rule.phase == "model")))


@dataclass(frozen=True)
class KeyMapping:
    """Rules in order: each key goes through all rules over keys, each of which sees the names the earlier ones made.

    Then come the operations on tensors, at most one for each, then casts, then ties.
    """

    rules: tuple[Rule, ...] = ()

    @classmethod
    def parse(cls, lines: Iterable[str]) -> KeyMapping:
        """Read one rule a line. Raises UsageError naming the line."""
        return cls(tuple(parse_rule(line) for line in lines))

    @classmethod
    def of(cls, given: KeyMapping | Path | Iterable[Path]) -> KeyMapping:
        """Return a mapping from what a user may give: one, lines, paths of TOML files, or one of these alone."""
        if isinstance(given, KeyMapping):
            return given
        if isinstance(given, (str, os.PathLike)):
            given = [given]
        return cls(tuple(rule for item in given for rule in _rules_of(item)))

    @classmethod
    def load(cls, path: Path) -> KeyMapping:
        """Read a TOML file. Raises UsageError naming the line."""
        from .toml import load

        return cls(load(path))

    def save(self, path: Path) -> None:
        """Write a TOML file in one step. Raises UsageError."""
        from ..textfile import write_text

        write_text(path, self.to_toml())

    def to_toml(self) -> str:
        """Return the text of a TOML file; ``load`` is the inverse."""
        from .toml import dump

        return dump(self.rules)

    def __str__(self) -> str:
        return "\n".join(self.to_json())

    def to_json(self) -> list[str]:
        """Return the rules in their one-line syntax; ``parse`` is the inverse."""
        return [str(rule) for rule in self.rules]

    def key(self, key: str) -> str | None:
        """Return where the rules over keys take one key, or None where it is dropped."""
        current: str | None = key
        for rule in self.rules:
            if current is not None:
                current = rule.apply(current)
        return current

    def apply(self, manifest: Manifest) -> Mapped:
        """Foretell a manifest under the rules. The input is not changed.

        Raises UsageError, naming rule, key and shape, where an operation does not fit a tensor.
        """
        used: set[int] = set()
        sources, dropped = self._renamed(manifest, used)
        origin = {target: keys[0] for target, keys in sources.items()}
        collisions = {target: tuple(keys) for target, keys in sources.items() if len(keys) > 1}
        tensors = {new: manifest.tensors[old] for new, old in origin.items() if old in manifest.tensors}
        entries = {new: old for new, old in origin.items() if old in manifest.entries}
        recipes: Mapping[str, Recipe] = {}
        effect = self._effect(tensors, entries, sources)
        if effect is not None:
            used |= effect.used
            tensors, origin, recipes = effect.tensors, effect.origin, effect.recipes
            collisions |= effect.collisions
        versions = None if manifest.versions is None else self._versions(manifest, origin, recipes)
        kept = {new: manifest.entries[old] for new, old in entries.items() if new not in tensors}
        return Mapped(
            manifest=replace(manifest, tensors=tensors, entries=kept, versions=versions),
            origin=origin,
            dropped=tuple(dropped),
            collisions=tuple(collisions.items()),
            unused=tuple(r for n, r in enumerate(self.rules) if n not in used and r.phase != "model"),
            recipes=recipes,
            ties=tuple(effect.ties) if effect else (),
            expected=tuple(rule for rule in self.rules if rule.expecting),
        )

    def invert(self, manifest: Manifest) -> KeyMapping:
        """Return the mapping that takes what this one makes of ``manifest`` back to it, bit for bit.

        Raises UsageError naming the rule that cannot be inverted.
        """
        from .invert import invert

        return invert(self, manifest)

    def acting_again(self, manifest: Manifest) -> tuple[Rule, ...]:
        """Return the rules that would change a manifest they have made; where there are none, twice is once.

        A rule that refuses its own result with an error is none of them.
        """
        done = self.apply(manifest).manifest
        return tuple(rule for rule in self.rules if _acts(rule, done))

    def _renamed(self, manifest: Manifest, used: set[int]) -> tuple[dict[str, list[str]], list[str]]:
        """Take every key through the rules over keys: the sources of each new key, and the keys dropped."""
        sources: dict[str, list[str]] = {}
        dropped = []
        rules = [(number, rule) for number, rule in enumerate(self.rules) if rule.phase == "keys"]
        for key in manifest.all_keys:
            current = key
            for number, rule in rules:
                if number not in used and rule.matches(current):
                    used.add(number)
                renamed = rule.apply(current)
                if renamed is None:
                    dropped.append(key)
                    break
                current = renamed
            else:
                sources.setdefault(current, []).append(key)
        return sources, dropped

    def _effect(
        self, tensors: Mapping[str, TensorSpec], entries: Mapping[str, str], sources: Mapping[str, list[str]]
    ) -> Effect | None:
        """Run what comes after the rules over keys, where there is anything."""
        later = [(number, rule) for number, rule in enumerate(self.rules) if rule.phase not in ("keys", "model")]
        if not later:
            return None
        from .effect import act

        return act(later, tensors, entries, sources)

    def _versions(
        self, manifest: Manifest, origin: Mapping[str, str], recipes: Mapping[str, Recipe]
    ) -> dict[str, int | None]:
        """Move each module's version to where its own keys went; a module without keys moves as a key of it would."""
        versions = manifest.versions or {}
        moved: dict[str, int | None] = {}
        for module, version in versions.items():
            target = self.key(f"{module}._" if module else "_")
            if target is not None:
                renamed = target.rpartition(".")[0]
                if renamed != module or renamed not in moved:
                    moved[renamed] = version
        for new, old in origin.items():
            module = manifest.module_of(old)
            if module in versions and new.rpartition(".")[2] == old.rpartition(".")[2]:
                moved[manifest.module_of(new)] = versions[module]
        for new, recipe in recipes.items():
            module = manifest.module_of(recipe.sources[0])
            if module in versions:
                moved.setdefault(manifest.module_of(new), versions[module])
        return moved


def _rules_of(item: Path) -> Iterator[Rule]:
    """Yield the rules of a TOML file, or the one of a line."""
    if isinstance(item, str) and not is_toml_path(item):
        yield parse_rule(item)
    elif isinstance(item, (str, os.PathLike)):
        yield from KeyMapping.load(item).rules
    else:
        raise UsageError(type(item).__name__, "is no mapping rule", "give lines, a path of a TOML file or a KeyMapping")


def is_toml_path(text: str) -> bool:
    """Tell the path of a mapping file from a line that is a rule."""
    return text.endswith(".toml") and "->" not in text


def _acts(rule: Rule, manifest: Manifest) -> bool:
    try:
        step = KeyMapping((rule,)).apply(manifest)
    except UsageError:
        return False
    renames = any(new != old for new, old in step.origin.items())
    return renames or bool(step.dropped or step.recipes or step.ties)
