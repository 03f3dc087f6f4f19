"""From a model spec to a built module, on the meta device wherever the constructor allows it."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import nn

from ..errors import ModelError, first_line
from ..place import Place
from ..records import dataclass, replace
from .describe import device_of
from .spec import ModelSpec
from .usercode import choose, closest, import_code, locate, resolve, traceback_hint
from .witness import ModelFacts

_ALONE = "write a function that returns the model alone, and name it:"


@dataclass(frozen=True)
class BuiltModel:
    """A module and where it came from."""

    module: nn.Module
    facts: ModelFacts
    make: Callable[[], Any] | None = None
    attribute: str = ""

    def places(self, keys: Iterable[str]) -> dict[str, Place]:
        """Return where the user's code defines these keys: see ``SourcePlaces.of``."""
        from .places import SourcePlaces

        return SourcePlaces(self.module, self.facts.file, self.attribute, self.facts.line).of(keys)

    def with_values(self) -> nn.Module:
        """Return the model with its tensors on the CPU, built again if it is on the meta device."""
        if self.make is None or self.facts.device != "meta":
            return self.module
        result = self.make()
        assert isinstance(result, nn.Module)
        return result


def build(spec: ModelSpec) -> BuiltModel:
    """Import the user's code and build the model that the spec names.

    Raises ModelError, with the command that works where there is one, for everything that can go wrong in it.
    """
    code = import_code(spec)
    name = spec.attribute or choose(code, spec)
    value = resolve(code, name, spec)
    spec = replace(spec, text=f"{spec.location}:{name}", attribute=name)
    if isinstance(value, nn.Module):
        module, device, note, make = _built_already(value, spec), device_of(value), "", None
    elif callable(value):
        module, device, note, make = _construct(value, spec)
    else:
        raise ModelError(
            spec.text,
            f"is of type {type(value).__name__}, neither a torch.nn.Module nor a function that builds one",
            f"name a class, a function or an instance: {spec.command('NAME')}",
        )
    file, line = locate(code, name, value)
    if spec.file and file == code.__file__:
        file = spec.file
    return BuiltModel(module, ModelFacts(spec.text, file, line, device, note), make, name)


def _built_already(module: nn.Module, spec: ModelSpec) -> nn.Module:
    if spec.arguments:
        names = ", ".join(spec.arguments)
        hint = replace(spec, arguments={}).command()
        raise ModelError(spec.text, f"is built already, so --arg {names} has nothing to set", hint)
    return module


def _construct(make: Callable[..., Any], spec: ModelSpec) -> tuple[nn.Module, str, str, Callable[[], Any]]:
    """Call a class or a function; return the module, the device it was built on, why not on meta, and the call."""
    label = f"{(spec.attribute or '').rpartition('.')[2]}()"
    positional, named = _arguments(make, label, spec)
    device, note = "meta", ""
    try:
        with warnings.catch_warnings(), torch.device("meta"):
            # Weights that a constructor loads cannot arrive on meta, and need not.
            warnings.filterwarnings("ignore", "for .*: copying from a non-meta parameter")
            result = make(*positional, **named)
    except (Exception, SystemExit) as refused:
        device, note = "cpu", f"the constructor needs values: {first_line(refused)}"
        try:
            result = make(*positional, **named)
        except (Exception, SystemExit) as error:
            reason = f"{label} raised {first_line(error)}"
            raise ModelError(spec.text, reason, traceback_hint(spec)) from error
    if not isinstance(result, nn.Module):
        raise ModelError(spec.text, f"{label} returned {_described(result)}", f"{_ALONE} {spec.command('build')}")
    return result, device, note, partial(make, *positional, **named)


def _described(result: Any) -> str:
    """Say what a function returned instead of a module."""
    name = type(result).__name__
    if result is None:
        return "nothing"
    if isinstance(result, type):
        return f"the class {result.__name__} and no instance of it"
    if isinstance(result, (tuple, list)):
        for index, item in enumerate(result):
            if isinstance(item, nn.Module):
                return f"a {name} of {len(result)} with the model at index {index}"
    return f"a {name}, which is no torch.nn.Module"


def _arguments(make: Callable[..., Any], label: str, spec: ModelSpec) -> tuple[list[Any], dict[str, Any]]:
    """Check the user's arguments against the signature; return the positional and the named ones."""
    named = dict(spec.arguments)
    try:
        parameters = inspect.signature(make).parameters.values()
    except (TypeError, ValueError):  # some callables have none
        return [], named
    kinds = inspect.Parameter
    given = [p for p in parameters if p.kind not in (kinds.VAR_POSITIONAL, kinds.VAR_KEYWORD)]
    missing = [p for p in given if p.default is kinds.empty and p.name not in named]
    if not any(p.kind is kinds.VAR_KEYWORD for p in parameters):
        _refuse_unknown([p.name for p in given], label, spec)
    if missing:
        names = ", ".join(p.name for p in missing)
        count = f"{len(missing)} argument{'s' if len(missing) > 1 else ''}"
        raise ModelError(spec.text, f"{label} needs {count}: {names}", _hint_for(missing, label, spec))
    positional = [named.pop(p.name) for p in given if p.kind is kinds.POSITIONAL_ONLY and p.name in named]
    return positional, named


def _refuse_unknown(known: list[str], label: str, spec: ModelSpec) -> None:
    for name in spec.arguments:
        if name not in known:
            near = closest(name, [other for other in known if other not in spec.arguments])
            corrected = {key: value for key, value in spec.arguments.items() if key != name}
            if near is not None:
                corrected[near] = spec.arguments[name]
            reason = f"{label} has no argument {name!r}; it takes {', '.join(known) or 'none'}"
            raise ModelError(spec.text, reason, replace(spec, arguments=corrected).command())


def _hint_for(missing: list[inspect.Parameter], label: str, spec: ModelSpec) -> str:
    examples = {parameter.name: _example(parameter) for parameter in missing}
    if None in examples.values():
        function = replace(spec, arguments={}).command("build")
        return f"write a function without arguments that returns {label[:-1]}...), and name it: {function}"
    return spec.command(**{name: example for name, example in examples.items() if example is not None})


_BY_NAME = (  # the first word found in an argument's name gives the example
    (("class", "label"), "10"),
    (("channel", "chans", "in_"), "3"),
    (("drop", "rate", "prob"), "0.1"),
    (("layer", "depth", "block", "head"), "2"),
)
_OBJECTS = ("config", "cfg", "args", "opt", "params", "backbone", "encoder", "decoder", "model", "module")


def _example(parameter: inspect.Parameter) -> str | None:
    """Return a value to show for an argument, or None where it is an object that no text can give."""
    annotation = parameter.annotation
    kind = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", str(annotation))
    if annotation is not inspect.Parameter.empty and kind != "int":
        sequence = "[2, 2]" if kind.startswith(("list", "tuple", "Sequence")) else None
        return {"float": "0.1", "bool": "True", "str": "base"}.get(kind, sequence)
    name = parameter.name.lower()
    if annotation is inspect.Parameter.empty and any(word in name for word in _OBJECTS):
        return None
    return next((example for words, example in _BY_NAME if any(word in name for word in words)), "64")
