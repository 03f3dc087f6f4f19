"""Where, in the code of the model's user, a tensor of the model is defined."""

from __future__ import annotations

import ast
import functools
import inspect
import os
import sysconfig
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from ..place import Place
from .definitions import (
    Definition,
    Scope,
    assigned,
    called_by,
    definitions,
    entry,
    longest,
    returned,
    scope_of,
)

if TYPE_CHECKING:
    from torch import nn

_INSTALLED = {"site-packages", "dist-packages"}
_MOST_HELPERS = 20


class SourcePlaces:
    """Finds the line of the user's own code behind a key; installed packages are nobody's to change.

    ``file``, ``name`` and ``line`` are those of the function, class or instance that made ``module``, as far as known.
    """

    def __init__(self, module: nn.Module, file: str | None = None, name: str = "", line: int | None = None) -> None:
        self._module = module
        self._file = os.path.abspath(file) if file and _is_own(file) else ""
        self._name, self._line = name, line

    def of(self, keys: Iterable[str]) -> dict[str, Place]:
        """Return the places of those keys that have one.

        It is the line that sets the tensor or the deepest module around it: in a class, in the function that builds
        the model, or in the call that fills a container. Without one it is the line of the class or the function.
        """
        try:
            found = {key: self._of(tuple(key.split("."))) for key in keys}
        except Exception:  # source code may be anything; this is a service beside the verdict, which it must not end
            return {}
        return {key: Place(_shown(place.file), place.line) for key, place in found.items() if place is not None}

    def _of(self, parts: Sequence[str]) -> Place | None:
        if self._maker is not None and self._variable:
            found = longest(definitions(self._maker, self._variable), parts)
            if found is not None:
                return _inside(Place(self._file, found.line), found, parts)
        place, exact = self._by_classes(parts)
        return place if exact else self._by_helpers(parts) or place

    def _by_classes(self, parts: Sequence[str]) -> tuple[Place | None, bool]:
        """Follow the modules down; return the deepest place, and whether a definition says so."""
        best, exact = self._start, False
        made = self._made.value if self._made else None
        owner: nn.Module | None = self._module
        at = 0
        while owner is not None and at < len(parts):
            length = 1
            if best is not None and (item := entry(made, parts[at])) is not None:
                best, made, exact = Place(best.file, item.lineno), item, True
            elif (own := _set_by_class(type(owner), parts[at:])) is not None:
                best, made, length, exact = Place(own[0], own[1].line), own[1].value, len(own[1].path), True
            else:
                best, made = _class_place(type(owner)) or best, None
            for part in parts[at : at + length]:
                owner = owner._modules.get(part) if owner is not None else None
            at += length
        return best, exact

    def _by_helpers(self, parts: Sequence[str]) -> Place | None:
        """Look into the functions of the same file that the one that builds the model calls."""
        for scope, variable in self._helpers:
            found = longest(definitions(scope, variable), parts)
            if found is not None:
                return _inside(Place(self._file, found.line), found, parts)
        return None

    @functools.cached_property
    def _maker(self) -> Scope | None:
        """The function that built the model, or the file of an instance; None for a class."""
        scope = scope_of(self._file, self._name) or scope_of(self._file, "") if self._file else None
        return None if isinstance(scope, ast.ClassDef) else scope

    @functools.cached_property
    def _variable(self) -> str:
        """What the model is called there."""
        if self._maker is None or isinstance(self._maker, ast.Module):
            return self._name
        return returned(self._maker)[0]

    @functools.cached_property
    def _made(self) -> Definition | None:
        if self._maker is None:
            return None
        return assigned(self._maker, self._name) if isinstance(self._maker, ast.Module) else returned(self._maker)[1]

    @functools.cached_property
    def _start(self) -> Place | None:
        """The place of the model as a whole."""
        if (own := _class_place(type(self._module))) is not None:
            return own
        if self._made is not None:
            return Place(self._file, self._made.line)
        return Place(self._file, self._line) if self._file and self._line else None

    @functools.cached_property
    def _helpers(self) -> list[tuple[Scope, str]]:
        found: dict[str, tuple[Scope, str]] = {}
        maker = self._maker
        waiting = [] if maker is None or isinstance(maker, ast.Module) else list(called_by(maker))
        while waiting and len(found) < _MOST_HELPERS:
            name = waiting.pop(0)
            scope = scope_of(self._file, name)
            if name not in found and isinstance(scope, (ast.FunctionDef, ast.AsyncFunctionDef)):
                arguments = scope.args.args
                found[name] = (scope, returned(scope)[0] or (arguments[0].arg if arguments else ""))
                waiting += called_by(scope)
        return [one for one in found.values() if one[1]]


def _inside(place: Place, found: Definition, parts: Sequence[str]) -> Place:
    """Follow the rest of a path into the expression of its definition: ``model.head = nn.Sequential(...)``."""
    made = found.value
    for part in parts[len(found.path) :]:
        if (made := entry(made, part)) is None:
            break
        place = Place(place.file, made.lineno)
    return place


@functools.lru_cache(maxsize=4096)
def _sources(kind: type) -> tuple[tuple[str, Scope], ...]:
    """Return the files and definitions of a class and its bases, those that are the user's own."""
    found = []
    for base in kind.__mro__:
        try:
            file = inspect.getsourcefile(base)
        except (TypeError, OSError):  # built in, or typed at a prompt
            continue
        if file and _is_own(file) and (scope := scope_of(file, base.__qualname__)) is not None:
            found.append((os.path.abspath(file), scope))
    return tuple(found)


def _set_by_class(kind: type, parts: Sequence[str]) -> tuple[str, Definition] | None:
    for file, scope in _sources(kind):
        if (found := longest(definitions(scope), parts)) is not None:
            return file, found
    return None


def _class_place(kind: type) -> Place | None:
    return next((Place(file, scope.lineno) for file, scope in _sources(kind) if isinstance(scope, ast.ClassDef)), None)


@functools.lru_cache(maxsize=1024)
def _is_own(file: str) -> bool:
    """Tell whether a file is the user's, and none of Python or of an installed package."""
    path = os.path.abspath(file)
    library = sysconfig.get_path("stdlib") + os.sep
    return not _INSTALLED.intersection(path.split(os.sep)) and not path.startswith(library)


def _shown(file: str) -> str:
    """Write a path as people see it from the current folder."""
    here = os.getcwd() + os.sep
    return file.removeprefix(here)
