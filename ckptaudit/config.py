"""``[tool.ckptaudit]``: what a project wants checked. Found, read whole, and refused where a name is misspelt."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from datetime import date
from typing import TYPE_CHECKING, Any, TypeVar, cast

from .errors import CkptauditError, UsageError
from .keys import KeyPattern
from .records import dataclass, field
from .rules import UNCHECKED_CODES, Contract, Level, find_rule
from .textfile import read_text
from .tomlfile import Step, TomlLines, parse_toml
from .words import did_you_mean

if TYPE_CHECKING:
    from .mapping.mapping import KeyMapping
    from .mapping.rules import Rule

Read = TypeVar("Read")
PYPROJECT = "pyproject.toml"
OWN_FILE = "ckptaudit.toml"
LEVELS = ("error", "warning", "note", "off")
EXAMPLE = f"""[tool.ckptaudit.targets.net] with model = "model.py:Net" and checkpoint = "net.pth" in {PYPROJECT}"""


@dataclass(frozen=True)
class Target:
    """One model and the committed files that have to fit it.

    ``checkpoints`` are paths, patterns of paths or ``FILE#inner``; ``manifest`` is the path of the committed
    description, or None. ``arguments`` are ``NAME=VALUE`` texts for the constructor. Paths are relative to the
    configuration's folder. ``place`` is where it was written: ``FILE:LINE``.
    """

    name: str
    model: str
    checkpoints: tuple[str, ...] = ()
    manifest: str | None = None
    arguments: tuple[str, ...] = ()
    mapping: KeyMapping | None = None
    contract: Contract = Contract.strict
    place: str = ""


@dataclass(frozen=True)
class Accept:
    """A decision to live with a finding: which rule, which keys, why, and until when (that day included).

    ``target`` is None where it is for all of them.
    """

    rule: str
    key: KeyPattern
    reason: str
    target: str | None = None
    expires: date | None = None
    place: str = ""

    def expired(self, today: date) -> bool:
        """Tell whether its last day has passed."""
        return self.expires is not None and today > self.expires

    def __str__(self) -> str:
        return f"{self.rule} {self.key}" + (f" of {self.target}" if self.target else "")


@dataclass(frozen=True)
class Config:
    """The configuration of a project. ``path`` is the file, ``folder`` what its paths are relative to."""

    path: str
    targets: tuple[Target, ...]
    accepts: tuple[Accept, ...] = ()
    levels: Mapping[str, Level | None] = field(default_factory=dict)
    baseline: str | None = None
    contract: Contract = Contract.strict

    @property
    def folder(self) -> str:
        """The folder of the file."""
        return os.path.dirname(self.path)

    def choose(self, names: Iterable[str]) -> tuple[Target, ...]:
        """Return the targets of these names, all where none is given. Raises UsageError with the closest name."""
        known = {target.name: target for target in self.targets}
        for name in names:
            if name not in known:
                reason = f"is no target{did_you_mean(name, known)}"
                raise UsageError(name, reason, f"the targets of {self.path}: {', '.join(known) or 'none'}")
        chosen = set(names)
        return tuple(target for target in self.targets if not chosen or target.name in chosen)


def find_config(start: str | os.PathLike[str] = ".") -> str | None:
    """Return the nearest ``ckptaudit.toml``, or ``pyproject.toml`` that has [tool.ckptaudit], upwards of a folder.

    The path is relative to the working directory where it can be short.
    """
    folder = os.path.abspath(start)
    while True:
        for name in (OWN_FILE, PYPROJECT):
            path = os.path.join(folder, name)
            if os.path.isfile(path) and (name == OWN_FILE or "ckptaudit" in _tools(read_text(path), path)):
                return os.path.relpath(path)
        above = os.path.dirname(folder)
        if above == folder:
            return None
        folder = above


def _tools(text: str, path: str) -> Mapping[str, Any]:
    found = parse_toml(text, path).get("tool", {}) if "ckptaudit" in text else {}
    return found if isinstance(found, dict) else {}


def load_config(path: str | os.PathLike[str] | None = None) -> Config:
    """Read the configuration, the nearest one where no path is given. Raises UsageError, with the line of a fault."""
    found = os.fspath(path) if path is not None else find_config()
    if found is None:
        raise UsageError(os.getcwd(), f"neither it nor a folder above has a {PYPROJECT} with [tool.ckptaudit]", EXAMPLE)
    return parse_config(read_text(found), found)


def parse_config(text: str, path: str) -> Config:
    """Read the text of a configuration; ``path`` decides by its name whether its tables lie below [tool.ckptaudit]."""
    data = parse_toml(text, path, EXAMPLE)
    steps: tuple[Step, ...] = ()
    if os.path.basename(path) == PYPROJECT:
        steps = ("tool", "ckptaudit")
        data = _tools(text, path).get("ckptaudit", {})
    return _Reader(path, TomlLines(text), steps).read(data)


class _Reader:
    """Takes the tables apart; every fault is told with its line."""

    def __init__(self, path: str, lines: TomlLines, steps: tuple[Step, ...]) -> None:
        self._path = path
        self._lines = lines
        self._steps = steps

    def read(self, data: Any) -> Config:
        table = self._table(data, (), ("accept", "baseline", "contract", "rules", "targets"))
        contract = self._contract(table, (), Contract.strict)
        named = self._table(table.get("targets", {}), ("targets",))
        targets = tuple(self._target(name, value, contract) for name, value in named.items())
        accepts = self._list(table.get("accept", []), ("accept",), dict, "is no array of tables, [[...accept]]")
        levels = self._table(table.get("rules", {}), ("rules",))
        return Config(
            self._path,
            targets,
            tuple(self._accept(value, number, targets) for number, value in enumerate(accepts)),
            dict(self._level(name, value) for name, value in levels.items()),
            self._text(table, "baseline", ()),
            contract,
        )

    def _target(self, name: str, value: Any, contract: Contract) -> Target:
        steps = ("targets", name)
        table = self._table(value, steps, ("args", "checkpoint", "contract", "drop", "manifest", "map", "model"))
        model = self._text(table, "model", steps)
        if model is None:
            raise self._fault(steps, "names no model", 'model = "model.py:Net"')
        checkpoints = self._texts(table, "checkpoint", steps)
        manifest = self._text(table, "manifest", steps)
        if not checkpoints and manifest is None:
            reason = "names neither a checkpoint nor a manifest: there is nothing to check the model against"
            raise self._fault(steps, reason, f'manifest = "{name}.manifest.json", and then: ckptaudit manifest write')
        return Target(
            name,
            model,
            checkpoints,
            manifest,
            tuple(self._argument(n, v) for n, v in self._table(table.get("args", {}), (*steps, "args")).items()),
            self._mapping(table, steps),
            self._contract(table, steps, contract),
            self._lines.place(self._path, *self._steps, *steps),
        )

    def _argument(self, name: str, value: Any) -> str:
        return f"{name}={value!r}"

    def _mapping(self, table: Mapping[str, Any], steps: tuple[Step, ...]) -> KeyMapping | None:
        """Read ``map``, lines or TOML files, and then ``drop``."""
        lines, drops = self._texts(table, "map", steps), self._texts(table, "drop", steps)
        if not lines and not drops:
            return None
        from .mapping.mapping import KeyMapping, is_toml_path
        from .mapping.rules import Drop

        def rules(line: str) -> Iterable[Rule]:
            beside = os.path.join(os.path.dirname(self._path), line)
            return KeyMapping.of(beside if is_toml_path(line) else [line]).rules

        given = [rule for line in lines for rule in self._told((*steps, "map"), rules, line)]
        dropped = [Drop(self._told((*steps, "drop"), KeyPattern.parse, text)) for text in drops]
        return KeyMapping((*given, *dropped))

    def _accept(self, value: Any, number: int, targets: Iterable[Target]) -> Accept:
        steps: tuple[Step, ...] = ("accept", number)
        table = self._table(value, steps, ("expires", "key", "reason", "rule", "target"))
        found = {name: self._text(table, name, steps) for name in ("rule", "key", "reason", "target")}
        for name in ("rule", "key", "reason"):
            if found[name] is None:
                hint = 'an accept names a rule, a key pattern and a reason: reason = "head for 10 classes, #42"'
                raise self._fault(steps, f"has no {name}", hint)
        rule = self._rule((*steps, "rule"), found["rule"] or "")
        if rule in UNCHECKED_CODES:
            raise self._fault((*steps, "rule"), f"is {rule}: what was not checked cannot be accepted")
        target, known = found["target"], [one.name for one in targets]
        if target is not None and target not in known:
            raise self._fault((*steps, "target"), f"is {target!r}, which is no target{did_you_mean(target, known)}")
        expires = table.get("expires")
        if expires is not None and type(expires) is not date:
            raise self._fault((*steps, "expires"), f"is {expires!r}, which is no date", "expires = 2027-01-01")
        pattern = self._told((*steps, "key"), KeyPattern.parse, found["key"] or "")
        place = self._lines.place(self._path, *self._steps, *steps)
        return Accept(rule, pattern, found["reason"] or "", target, expires, place)

    def _level(self, name: str, value: Any) -> tuple[str, Level | None]:
        steps = ("rules", name)
        code = self._rule(steps, name)
        if value not in LEVELS:
            raise self._fault(steps, f"is {value!r}, which is no level", f"one of {', '.join(LEVELS)}")
        if code in UNCHECKED_CODES and value != "error":
            raise self._fault(steps, f"grades {code}, but what was not checked has not passed")
        return code, None if value == "off" else cast("Level", value)

    def _rule(self, steps: tuple[Step, ...], text: str) -> str:
        return self._told(steps, find_rule, text).code

    def _contract(self, table: Mapping[str, Any], steps: tuple[Step, ...], default: Contract) -> Contract:
        text = self._text(table, "contract", steps)
        if text is None:
            return default
        if text not in Contract.__members__:
            reason = f"is {text!r}, which is no contract{did_you_mean(text, Contract.__members__)}"
            raise self._fault((*steps, "contract"), reason, f"one of {', '.join(Contract.__members__)}")
        return Contract[text]

    def _table(self, value: Any, steps: tuple[Step, ...], known: Iterable[str] | None = None) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise self._fault(steps, f"is {value!r}, which is no table")
        for key in value:
            if known is not None and key not in known:
                reason = f"has the unknown key {key!r}{did_you_mean(key, known)}"
                raise self._fault((*steps, key), reason, f"the keys are {', '.join(known)}", within=steps)
        return value

    def _text(self, table: Mapping[str, Any], name: str, steps: tuple[Step, ...]) -> str | None:
        value = table.get(name)
        if value is not None and not (isinstance(value, str) and value.strip()):
            raise self._fault((*steps, name), f"is {value!r}, which is no text")
        return value

    def _texts(self, table: Mapping[str, Any], name: str, steps: tuple[Step, ...]) -> tuple[str, ...]:
        value = table.get(name, [])
        values = [value] if isinstance(value, str) else value
        return tuple(self._list(values, (*steps, name), str, "is no text, and no list of texts"))

    def _list(self, value: Any, steps: tuple[Step, ...], kind: type, reason: str) -> list[Any]:
        if not isinstance(value, list) or not all(isinstance(item, kind) and item for item in value):
            raise self._fault(steps, reason)
        return value

    def _told(self, steps: tuple[Step, ...], read: Callable[[str], Read], text: str) -> Read:
        """Give an error from below its place in the file."""
        try:
            return read(text)
        except CkptauditError as error:
            raise self._fault(steps, f"{error.subject}: {error.reason}", error.hint, within=()) from None

    def _fault(
        self, steps: tuple[Step, ...], reason: str, hint: str | None = None, *, within: tuple[Step, ...] | None = None
    ) -> UsageError:
        """Word a fault: ``FILE:LINE: targets.net.model is ...``."""
        named = steps if within is None else within
        words = ".".join(str(step) for step in named if isinstance(step, str))
        place = self._lines.place(self._path, *self._steps, *steps)
        return UsageError(place, f"{words} {reason}" if words else reason, hint)
