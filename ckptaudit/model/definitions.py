"""Which names a piece of source code gives to submodules, parameters and buffers, and on which lines."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator, Sequence
from typing import TypeGuard

from ..records import dataclass

_REGISTER = {"register_buffer", "register_parameter", "register_module", "add_module"}
_GROW = {"append", "extend", "insert"}
Scope = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Definition:
    """A statement that sets, or deletes, what lies at ``path`` below a module.

    Each part of the path is a regular expression, as a name may be an f-string. ``value`` is the expression that
    makes it, where there is one.
    """

    path: tuple[str, ...]
    line: int
    value: ast.expr | None = None

    def matches(self, parts: Sequence[str]) -> bool:
        """Tell whether ``parts``, or the first of them, are this path."""
        return len(self.path) <= len(parts) and all(map(re.fullmatch, self.path, parts))


@functools.lru_cache(maxsize=64)
def parsed(file: str) -> ast.Module | None:
    """Return the syntax tree of a source file, or None where it cannot be read."""
    try:
        with open(file, "rb") as source:
            return ast.parse(source.read())
    except (OSError, SyntaxError, ValueError, RecursionError):
        return None


@functools.lru_cache(maxsize=1024)
def scope_of(file: str, qualified: str) -> Scope | None:
    """Return the class or function of that qualified name in a file; the file itself for the empty name."""
    scope: ast.AST | None = parsed(file)
    for part in filter(None, qualified.replace("<locals>.", "").split(".")):
        found = [node for node in ast.walk(scope) if _is_scope(node) and node.name == part] if scope else []
        scope = found[-1] if found else None
    return scope if isinstance(scope, Scope) else None


def _is_scope(node: ast.AST) -> TypeGuard[ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]:
    return isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))


@functools.lru_cache(maxsize=1024)
def definitions(scope: Scope, base: str = "") -> tuple[Definition, ...]:
    """Return what a class sets on ``self``, or a function or a file on the variable ``base``, in the order of lines."""
    bodies: list[tuple[ast.AST, str]] = [(scope, base)] if base else []
    if isinstance(scope, ast.ClassDef):
        methods = [node for node in scope.body if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
        bodies = [(method, method.args.args[0].arg) for method in methods if method.args.args]
    found = [one for body, name in bodies for one in _in_body(body, name)]
    return tuple(sorted(found, key=lambda one: one.line))


def longest(found: Sequence[Definition], parts: Sequence[str]) -> Definition | None:
    """Return the definition that reaches deepest into ``parts``; of equally deep ones the last, which wins."""
    matching = [one for one in found if one.matches(parts)]
    return max(reversed(matching), key=lambda one: len(one.path), default=None)


def returned(scope: Scope) -> tuple[str, Definition | None]:
    """Return the variable that a function returns (""), and the call that makes what it returns, if it is one."""
    name, made = "", None
    for node in ast.walk(scope):
        if isinstance(node, ast.Return) and isinstance(node.value, ast.Name):
            name = node.value.id
        elif isinstance(node, ast.Return) and isinstance(node.value, ast.Call):
            made = Definition((), node.lineno, node.value)
    return (name, assigned(scope, name)) if name else ("", made)


def assigned(scope: Scope, name: str) -> Definition | None:
    """Return the first statement that assigns a call to the variable ``name``."""
    for node in ast.walk(scope):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) and name in map(_name, node.targets):
            return Definition((), node.lineno, node.value)
    return None


def _name(node: ast.expr) -> str | None:
    return node.id if isinstance(node, ast.Name) else None


def called_by(scope: Scope) -> dict[str, None]:
    """Return the plain names that a function calls, in order: helpers of the same file, perhaps."""
    calls = [node.func for node in ast.walk(scope) if isinstance(node, ast.Call)]
    return {function.id: None for function in calls if isinstance(function, ast.Name)}


def entry(value: ast.expr | None, name: str) -> ast.expr | None:
    """Return the part of a container's expression that makes the child ``name``: ``nn.Sequential(a, b)``, a dict."""
    if isinstance(value, ast.Call):
        if len(value.args) == 1 and isinstance(value.args[0], (ast.List, ast.Tuple, ast.Dict, ast.Call)):
            inner = entry(value.args[0], name)
            return value.args[0] if inner is None and name == "0" and not _is_literal(value.args[0]) else inner
        return _at(value.args, name)
    if isinstance(value, ast.Dict):
        return next((v for k, v in zip(value.keys, value.values, strict=True) if _constant(k) == name), None)
    if isinstance(value, (ast.List, ast.Tuple)):
        return _pair(value.elts, name) or _at(value.elts, name)
    return None


def _is_literal(value: ast.expr) -> bool:
    return isinstance(value, (ast.List, ast.Tuple, ast.Dict))


def _at(items: Sequence[ast.expr], name: str) -> ast.expr | None:
    index = int(name) if name.isdecimal() and len(name) < 7 else len(items)
    if index >= len(items) or any(isinstance(item, ast.Starred) for item in items[: index + 1]):
        return None
    return items[index]


def _pair(items: Sequence[ast.expr], name: str) -> ast.expr | None:
    """Find ``("name", module)`` among the pairs of an OrderedDict."""
    for item in items:
        if isinstance(item, ast.Tuple) and len(item.elts) == 2 and _constant(item.elts[0]) == name:
            return item.elts[1]
    return None


def _in_body(scope: ast.AST, base: str) -> Iterator[Definition]:
    for node in ast.walk(scope):
        if isinstance(node, (ast.Assign, ast.Delete)):
            value = node.value if isinstance(node, ast.Assign) else None
            for target in _flat(node.targets):
                yield from _made(_chain(target, base), node.lineno, value)
        elif isinstance(node, ast.AnnAssign):
            yield from _made(_chain(node.target, base), node.lineno, node.value)
        elif isinstance(node, ast.Call):
            yield from _by_call(node, base)


def _flat(targets: Sequence[ast.expr]) -> Iterator[ast.expr]:
    for target in targets:
        if isinstance(target, (ast.Tuple, ast.List)):
            yield from _flat(target.elts)
        else:
            yield target


def _made(path: tuple[str, ...] | None, line: int, value: ast.expr | None) -> Iterator[Definition]:
    if path:
        yield Definition(path, line, value)


def _by_call(call: ast.Call, base: str) -> Iterator[Definition]:
    """Yield what ``add_module``, ``register_buffer``, ``append`` and ``setattr`` set."""
    function, arguments = call.func, [*call.args, *(keyword.value for keyword in call.keywords)]
    if isinstance(function, ast.Attribute) and function.attr in _REGISTER | _GROW:
        path = _chain(function.value, base)
        if path is not None and function.attr in _GROW:
            yield Definition((*path, r"\d+"), call.lineno, arguments[-1] if arguments else None)
        elif path is not None and arguments and (name := _pattern(arguments[0])):
            yield Definition((*path, name), call.lineno, arguments[1] if len(arguments) > 1 else None)
    elif isinstance(function, ast.Name) and function.id == "setattr" and len(arguments) == 3:
        path, name = _chain(arguments[0], base), _pattern(arguments[1])
        if path is not None and name:
            yield Definition((*path, name), call.lineno, arguments[2])


def _chain(node: ast.expr, base: str) -> tuple[str, ...] | None:
    """Return the path that ``base.a[0].b`` names below it, or None."""
    path: list[str] = []
    while not isinstance(node, ast.Name):
        if isinstance(node, ast.Attribute):
            path.append("" if node.attr in ("_modules", "_parameters", "_buffers") else re.escape(node.attr))
            node = node.value
        elif isinstance(node, ast.Subscript) and (name := _pattern(node.slice)):
            path.append(name)
            node = node.value
        else:
            return None
    return tuple(filter(None, reversed(path))) if base == node.id else None


def _pattern(node: ast.expr) -> str:
    """Return the regular expression of a name: of a constant, of an f-string; "" for anything else."""
    if isinstance(node, ast.JoinedStr):
        return "".join(map(_pattern, node.values))
    if isinstance(node, ast.FormattedValue):
        return ".+"
    constant = _constant(node)
    return "" if constant is None else re.escape(constant)


def _constant(node: ast.expr | None) -> str | None:
    return str(node.value) if isinstance(node, ast.Constant) and isinstance(node.value, (str, int)) else None
