"""The user's own code: imported, searched for models, and its failures as sentences."""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any, NoReturn

from torch import nn

from ..errors import ModelError, first_line
from ..records import dataclass
from .spec import ModelSpec

_ABSENT = object()
_COUNTS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def import_code(spec: ModelSpec) -> ModuleType:
    """Import the file or the module that a spec names, as if run from its folder or from the current one.

    Raises ModelError for a file that is not there and for whatever its code raises.
    """
    sys.argv = [spec.location]
    try:
        return _import_file(spec) if spec.file else _import_module(spec)
    except (Exception, SystemExit) as error:
        if isinstance(error, ModelError):
            raise
        _explain_import(spec, error)


def choose(code: ModuleType, spec: ModelSpec) -> str:
    """Return the name of the one model in ``code``. Raises ModelError where there is none, or a choice."""
    candidates = list(_candidates(code))
    if len(candidates) == 1:
        return candidates[0].name
    if not candidates:
        raise ModelError(
            spec.text,
            "holds no model: no torch.nn.Module class, no function that builds one, no instance",
            f"define one there, or name what builds it: {spec.command('NAME')}",
        )
    count = _COUNTS[len(candidates)] if len(candidates) < len(_COUNTS) else str(len(candidates))
    listed = ", ".join(f"{candidate.label} (line {candidate.line})" for candidate in candidates)
    # Models are defined after their parts.
    classes = [candidate for candidate in candidates if candidate.is_class]
    example = (classes or candidates)[-1]
    raise ModelError(spec.text, f"{count} candidates and no choice: {listed}", spec.command(example.name))


def resolve(code: ModuleType, name: str, spec: ModelSpec) -> Any:
    """Return the attribute of that dotted name. Raises ModelError with the closest one."""
    value: Any = code
    for part in name.split("."):
        found = _attribute(value, part, spec)
        if found is _ABSENT:
            owner = spec.location if value is code else getattr(value, "__qualname__", spec.location)
            reason = f"{owner} has no attribute {part!r}"
            near = closest(part, [name for name in dir(value) if not name.startswith("_")])
            if near is None:
                raise ModelError(spec.text, reason, _without_attribute(spec))
            corrected = ".".join(near if known == part else known for known in name.split("."))
            raise ModelError(spec.text, f"{reason}; the closest is {near!r}", spec.command(corrected))
        value = found
    return value


def _attribute(owner: Any, name: str, spec: ModelSpec) -> Any:
    try:
        return getattr(owner, name, _ABSENT)
    except Exception as error:  # modules may import lazily, in a ``__getattr__`` of theirs
        _explain_import(spec, error)


def locate(code: ModuleType, name: str, value: Any) -> tuple[str | None, int | None]:
    """Return the file and the line (from 1) where ``name`` of ``code`` is defined, as far as known."""
    if isinstance(value, (nn.Module, functools.partial)):
        return code.__file__, _definitions(code.__file__).get(name)
    value = inspect.unwrap(value)
    try:
        file = inspect.getsourcefile(value)
    except TypeError:
        return None, None
    return file, _definitions(file).get(getattr(value, "__qualname__", name))


def closest(name: str, known: list[str]) -> str | None:
    """Return the known name most like ``name``, or None where none is like it."""
    from difflib import get_close_matches

    return next(iter(get_close_matches(name, known, n=1)), None)


def traceback_hint(spec: ModelSpec, attribute: str | None = None) -> str:
    """Return the hint for a failure of the user's code that a traceback explains best."""
    return f"for the traceback: {spec.command(attribute)} --debug"


def _import_file(spec: ModelSpec) -> ModuleType:
    assert spec.file is not None
    path = os.path.abspath(spec.file)
    if not os.path.isfile(path):
        _no_such_file(spec, path)
    folder, name = os.path.split(path)
    name = name.removesuffix(".py")
    root = folder
    while os.path.exists(os.path.join(root, "__init__.py")) and os.path.basename(root).isidentifier():
        root, package = os.path.split(root)
        name = f"{package}.{name}"
    sys.path[:0] = list(dict.fromkeys([folder, root, os.getcwd()]))
    if root != folder and name.partition(".")[0] not in sys.modules:
        return importlib.import_module(name.removesuffix(".__init__"))
    return _execute_file(path, name.rpartition(".")[2])


def _execute_file(path: str, name: str) -> ModuleType:
    while name in sys.modules:  # a file may be called torch.py or json.py
        name += "_"
    found = importlib.util.spec_from_file_location(name, path)
    assert found is not None
    assert found.loader is not None
    code = importlib.util.module_from_spec(found)
    sys.modules[name] = code  # dataclasses and pickle look modules up by name
    found.loader.exec_module(code)
    return code


def _import_module(spec: ModelSpec) -> ModuleType:
    assert spec.module is not None
    sys.path.insert(0, os.getcwd())
    return importlib.import_module(spec.module)


def _no_such_file(spec: ModelSpec, path: str) -> NoReturn:
    folder, name = os.path.split(path)
    there = [entry for entry in os.listdir(folder) if entry.endswith(".py")] if os.path.isdir(folder) else []
    near = closest(name, there)
    reason = f"there is no file {spec.file}"
    if near is None:
        hint = "give the path of the file that defines the model, from the current folder"
        raise ModelError(spec.text, reason, hint)
    near = os.path.join(os.path.dirname(spec.location), near)
    corrected = ModelSpec(near, file=near, attribute=spec.attribute, arguments=spec.arguments, usage=spec.usage)
    raise ModelError(spec.text, f"{reason}; the closest is {near}", corrected.command())


def _explain_import(spec: ModelSpec, error: BaseException) -> NoReturn:
    if isinstance(error, SystemExit):
        reason = f"ends the program when it is imported (SystemExit: {error.code})"
        hint = "put what it runs as a script under: if __name__ == '__main__':"
    elif isinstance(error, SyntaxError) and error.filename:
        own = spec.file and os.path.abspath(spec.file) == os.path.abspath(error.filename)
        file = spec.file if own else error.filename
        reason = f"line {error.lineno} of {file} is not valid Python: {error.msg}"
        hint = f"python -m py_compile {file}"
    elif isinstance(error, ModuleNotFoundError) and error.name:
        name = error.name
        own = spec.module is not None and f"{spec.module}.".startswith(f"{name}.")
        name = name if own else name.partition(".")[0]
        reason = f"there is no module {name!r}" if own else f"imports {name!r}, which was not found"
        hint = f"pip install {name}, or run from the folder that holds it"
    else:
        reason, hint = f"cannot be imported: {first_line(error)}", traceback_hint(spec)
    raise ModelError(spec.text, reason, hint) from error


def _without_attribute(spec: ModelSpec) -> str:
    return ModelSpec(spec.location, spec.file, spec.module, None, spec.arguments, spec.usage).command()


@dataclass(frozen=True)
class _Candidate:
    """Something in a file that may be the model: its name, how to show it, the line where it is defined."""

    name: str
    label: str
    line: int | None
    is_class: bool = False


def _candidates(code: ModuleType) -> Iterator[_Candidate]:
    """Yield what a file defines itself, in its order: module classes, functions that build one, instances."""
    lines = _definitions(code.__file__)
    seen: set[int] = set()
    for name, value in vars(code).items():
        if name.startswith("_") or id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, nn.Module):
            yield _Candidate(name, name, lines.get(name))
        elif getattr(value, "__module__", None) != code.__name__:
            continue
        elif isinstance(value, type):
            if issubclass(value, nn.Module) and not inspect.isabstract(value):
                yield _Candidate(name, name, lines.get(name), is_class=True)
        elif callable(value) and hasattr(value, "__name__") and _builds_a_model(name, value):
            yield _Candidate(name, f"{name}()", lines.get(name))


def _builds_a_model(name: str, function: Callable[..., Any]) -> bool:
    """Tell by the return annotation of a function, and by its name where there is none that helps."""
    try:
        result = inspect.signature(function, eval_str=True).return_annotation
    except Exception:  # whatever evaluating the user's annotations raises
        result = inspect.Signature.empty
    if result is None or (isinstance(result, type) and result is not inspect.Signature.empty):
        return isinstance(result, type) and issubclass(result, nn.Module)
    by_verb = name.startswith(("build", "make", "create")) or name == "model"
    return by_verb or (name.startswith("get_") and "model" in name)


@functools.lru_cache(maxsize=8)
def _definitions(file: str | None) -> dict[str, int]:
    """Map the qualified names a source file defines to their lines; empty where it cannot be read."""
    lines: dict[str, int] = {}
    try:
        with open(file or "", "rb") as source:
            _collect(ast.parse(source.read()).body, "", lines)
    except (OSError, SyntaxError, ValueError, RecursionError):
        return {}
    return lines


def _collect(body: list[ast.stmt], prefix: str, lines: dict[str, int]) -> None:
    for node in body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            lines[prefix + node.name] = node.lineno
            if isinstance(node, ast.ClassDef):
                _collect(node.body, f"{prefix}{node.name}.", lines)
            continue
        for target in getattr(node, "targets", [getattr(node, "target", None)]):
            if isinstance(target, ast.Name):
                lines[prefix + target.id] = node.lineno
        for block in (node, *getattr(node, "handlers", ())):  # if, for, while, with, try
            for part in ("body", "orelse", "finalbody"):
                _collect(getattr(block, part, []), prefix, lines)
