"""Model specs: ``model.py``, ``model.py:Net``, ``package.module:factory``, and their arguments."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import UsageError
from ..records import dataclass, field, replace

_FORMS = "write it as model.py, model.py:Net or package.module:factory"
_USAGE = "ckptaudit diff {model} CHECKPOINT"


@dataclass(frozen=True)
class ModelSpec:
    """What the user wrote to name a model, in its parts.

    Exactly one of ``file`` (a path ending in ``.py``) and ``module`` (a dotted name) is set. ``attribute`` is
    the dotted name of the class, function or instance inside it; None leaves the choice to the file.
    ``arguments`` go to the constructor by name. ``usage`` is the command that the spec was part of, with
    ``{model}`` in the spec's place: hints are made from it.
    """

    text: str
    file: str | None = None
    module: str | None = None
    attribute: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    usage: str = _USAGE

    @property
    def location(self) -> str:
        """The file or module as the user wrote it, without the attribute."""
        return self.file or self.module or self.text

    def command(self, attribute: str | None = None, **examples: str) -> str:
        """Return the user's command with ``attribute`` named and the ``examples`` as further arguments."""
        import shlex

        attribute = attribute or self.attribute
        model = f"{self.location}:{attribute}" if attribute else self.location
        given = {name: _written(value) for name, value in self.arguments.items()} | examples
        parts = [self.usage.replace("{model}", shlex.quote(model))]
        parts += [f"--arg {shlex.quote(f'{name}={value}')}" for name, value in given.items()]
        return " ".join(parts)


def looks_like_model_spec(text: str) -> bool:
    """Tell a model spec from a path by its form; an existing file that does not end in ``.py`` is none."""
    parts = _split(text)
    if parts is None:
        return False
    return parts[0].endswith(".py") or not os.path.exists(text)


def parse_model_spec(text: str, arguments: Sequence[str] = (), usage: str = _USAGE) -> ModelSpec:
    """Take a model spec apart. Nothing is opened or imported.

    ``arguments`` are ``NAME=VALUE`` texts: a value that is a Python literal is that literal, any other is a
    string. Raises UsageError for a text that is no spec, and for a malformed or repeated argument.
    """
    parts = _split(text)
    if parts is None:
        raise UsageError(text, "is no model spec", _FORMS)
    location, attribute = parts
    spec = ModelSpec(
        text,
        file=location if location.endswith(".py") else None,
        module=None if location.endswith(".py") else location,
        attribute=attribute,
        usage=usage,
    )
    return replace(spec, arguments=_parse_arguments(arguments, spec))


def _split(text: str) -> tuple[str, str | None] | None:
    """Return the location and the attribute, or None where the text has not the form of a spec."""
    if text.endswith(".py"):
        return text, None
    location, colon, attribute = text.rpartition(":")
    if not colon or not _is_dotted_name(attribute):
        return None
    if location.endswith(".py"):
        return location, attribute
    is_drive = len(location) == 1  # C:weights
    return None if is_drive or not _is_dotted_name(location) else (location, attribute)


def _is_dotted_name(text: str) -> bool:
    return all(part.isidentifier() for part in text.split("."))


def _parse_arguments(arguments: Sequence[str], spec: ModelSpec) -> dict[str, Any]:
    from keyword import iskeyword

    parsed: dict[str, Any] = {}
    for argument in arguments:
        name, equals, value = argument.partition("=")
        fault = None
        if not equals or not name:
            fault = "is not of the form NAME=VALUE"
        elif not name.isidentifier() or iskeyword(name):
            fault = f"{name!r} is no argument name"
        elif name in parsed:
            fault = f"{name!r} was given before"
        if fault:
            raise UsageError(f"--arg {argument}", fault, spec.command(num_classes="10"))
        parsed[name] = _value(value)
    return parsed


def _value(text: str) -> Any:
    from ast import literal_eval

    try:
        return literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text


def _written(value: Any) -> str:
    """Return the shortest text that ``_value`` reads back as ``value``."""
    return value if isinstance(value, str) and _value(value) == value else repr(value)
