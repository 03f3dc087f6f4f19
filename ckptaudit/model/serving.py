"""What the child process does: build the model that the first request names, then answer for it."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from ..errors import ModelError, first_line
from ..records import replace
from .spec import ModelSpec

if TYPE_CHECKING:
    from .build import BuiltModel

Answer = Callable[[dict[str, Any]], None]


def serve(requests: Iterable[str], answer: Answer) -> None:
    """Describe the model, then try loads of it, or perform them, one request a line."""
    lines = iter(requests)
    spec = spec_of(json.loads(next(lines)))
    built = build_for(spec)
    answer({"facts": built.facts.to_json(), "manifest": _describe(built, spec).to_json()})
    for line in lines:
        request = json.loads(line)
        if "really_load" in request:
            answer(_really_load(built, *request["really_load"]))
        elif "places" in request:
            answer({"places": {key: place.to_json() for key, place in built.places(request["places"]).items()}})
        else:
            answer(_try_load(built.module, request))


def spec_of(request: list[Any]) -> ModelSpec:
    """Return the model spec of the first request of a ``ChildProcess``; what follows it there is left out."""
    from ast import literal_eval

    text, file, module, attribute, arguments, usage = request[:6]
    values = {name: literal_eval(value) for name, value in arguments.items()}
    return ModelSpec(text, file, module, attribute, values, usage)


def build_for(spec: ModelSpec) -> BuiltModel:
    """Import torch and build the model. Raises ModelError."""
    try:
        _import_torch()
    except (ImportError, OSError) as error:
        hint = "pip install 'ckptaudit[torch]'"
        raise ModelError(spec.text, f"needs torch: {first_line(error)}", hint) from error
    from .build import build

    return build(spec)


def _describe(built: BuiltModel, spec: ModelSpec) -> Any:
    from .describe import manifest_of
    from .usercode import traceback_hint

    try:
        manifest = manifest_of(built.module)
    except Exception as error:
        reason = f"its state_dict() raised {first_line(error)}"
        raise ModelError(built.facts.name, reason, traceback_hint(spec)) from error
    return replace(manifest, source=built.facts.name)


def _import_torch() -> None:
    """Import torch without the garbage collector, which spends a fifth of that time and finds nothing."""
    gc.disable()
    import torch  # noqa: F401

    gc.freeze()  # nor need it look through torch again while the user's code is imported
    gc.enable()


def _try_load(module: Any, request: Any) -> dict[str, Any]:
    from ..manifest import Manifest
    from .trial import try_load

    outcome = try_load(module, Manifest.from_json(request))
    return {"undecided": outcome} if isinstance(outcome, str) else {"outcome": outcome.to_json()}


def _really_load(built: BuiltModel, path: str, limits: dict[str, int], mappings: list[list[str]]) -> dict[str, Any]:
    from ..formats import Limits
    from .live import LiveModel

    try:
        module = built.with_values()
    except (Exception, SystemExit) as error:
        return {"undecided": f"the model cannot be built on the CPU: {first_line(error)}"}
    testimony = LiveModel(module).really_load(path, Limits(**limits), mappings)
    return {"undecided": testimony} if isinstance(testimony, str) else {"testimony": testimony.to_json()}
