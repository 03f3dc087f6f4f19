"""KeyMapping: ordered rules over a checkpoint's keys, and what becomes of a manifest under them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..manifest import Manifest, TensorSpec
from ..records import dataclass, replace
from .rules import Rule, parse_rule


@dataclass(frozen=True)
class Mapped:
    """A manifest under a mapping, and the account of every key.

    ``origin`` maps new keys to those of the checkpoint. ``collisions`` lists the targets that several keys land
    on, with their sources; the manifest keeps the first. ``unused`` are the rules that no key met.
    """

    manifest: Manifest
    origin: Mapping[str, str]
    dropped: tuple[str, ...]
    collisions: tuple[tuple[str, tuple[str, ...]], ...]
    unused: tuple[Rule, ...]


@dataclass(frozen=True)
class KeyMapping:
    """Rules in order: each key goes through all of them, each rule sees the names the earlier ones made."""

    rules: tuple[Rule, ...] = ()

    @classmethod
    def parse(cls, lines: Iterable[str]) -> KeyMapping:
        """Read one rule a line. Raises UsageError naming the line."""
        return cls(tuple(parse_rule(line) for line in lines))

    def __str__(self) -> str:
        return "\n".join(self.to_json())

    def to_json(self) -> list[str]:
        """Return the rules in their one-line syntax; ``parse`` is the inverse."""
        return [str(rule) for rule in self.rules]

    def key(self, key: str) -> str | None:
        """Return where one key ends up, or None where it is dropped."""
        current: str | None = key
        for rule in self.rules:
            if current is not None:
                current = rule.apply(current)
        return current

    def apply(self, manifest: Manifest) -> Mapped:
        """Rename a manifest's keys and its module versions along with them. The input is not changed."""
        sources: dict[str, list[str]] = {}
        dropped = []
        used = [False] * len(self.rules)
        for key in manifest.all_keys:
            target = self._follow(key, used)
            if target is None:
                dropped.append(key)
            else:
                sources.setdefault(target, []).append(key)
        origin = {target: keys[0] for target, keys in sources.items()}
        return Mapped(
            manifest=replace(
                manifest,
                tensors=_renamed(manifest.tensors, origin),
                entries={new: manifest.entries[old] for new, old in origin.items() if old in manifest.entries},
                versions=None if manifest.versions is None else self._versions(manifest, origin),
            ),
            origin=origin,
            dropped=tuple(dropped),
            collisions=tuple((target, tuple(keys)) for target, keys in sources.items() if len(keys) > 1),
            unused=tuple(rule for rule, met in zip(self.rules, used, strict=True) if not met),
        )

    def _follow(self, key: str, used: list[bool]) -> str | None:
        current: str | None = key
        for index, rule in enumerate(self.rules):
            if current is not None and rule.matches(current):
                used[index] = True
                current = rule.apply(current)
        return current

    def _versions(self, manifest: Manifest, origin: Mapping[str, str]) -> dict[str, int | None]:
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
        return moved


def _renamed(tensors: Mapping[str, TensorSpec], origin: Mapping[str, str]) -> dict[str, TensorSpec]:
    return {new: tensors[old] for new, old in origin.items() if old in tensors}
