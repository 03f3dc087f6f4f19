"""The process that imports torch and the user's code. Run as a script by ``process.py``; imported by nobody.

Only light modules are imported before the streams and ``sys.path`` are in order.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import sys
from typing import IO, Any


def main() -> None:
    """Build the model that the first request names, then answer for it until the requests end."""
    requests, answers = _take_streams()
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C reaches parent and child; the parent speaks
    _import_ckptaudit()
    with contextlib.suppress(BrokenPipeError):  # the parent lost interest
        _serve(requests, answers)
    os._exit(0)  # leave out torch's and the user's exit handlers: nothing of value is held here


def _take_streams() -> tuple[IO[str], IO[str]]:
    """Keep stdin and stdout for the protocol; the user's code reads nothing, and prints to stderr."""
    requests = os.fdopen(os.dup(0), encoding="utf-8")
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.close(empty)
    os.dup2(2, 1)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # the parent ends us by a signal
    return requests, answers


def _import_ckptaudit() -> None:
    """Import the very package this file belongs to, installed or not, and keep ``sys.path`` free of us."""
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry) != here]
    sys.path.insert(0, os.path.dirname(os.path.dirname(here)))
    import ckptaudit.model  # noqa: F401

    del sys.path[0]


def _serve(requests: IO[str], answers: IO[str]) -> None:
    from ckptaudit.errors import CkptauditError

    def answer(message: dict[str, Any]) -> None:
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    try:
        first = json.loads(requests.readline())
        built, manifest = _build(first)
    except CkptauditError as error:
        answer(_error(error))
        return
    answer({"facts": built.facts.to_json(), "manifest": manifest.to_json()})
    for line in requests:
        request = json.loads(line)
        if "really_load" in request:
            answer(_really_load(built, *request["really_load"]))
        elif "places" in request:
            answer(_places(built, request["places"]))
        else:
            answer(_try_load(built.module, request))


def _build(request: list[Any]) -> tuple[Any, Any]:
    from ast import literal_eval

    from ckptaudit.errors import ModelError, first_line
    from ckptaudit.model.spec import ModelSpec
    from ckptaudit.records import replace

    text, file, module, attribute, arguments, usage = request
    values = {name: literal_eval(value) for name, value in arguments.items()}
    spec = ModelSpec(text, file, module, attribute, values, usage)
    try:
        _import_torch()
    except (ImportError, OSError) as error:
        hint = "pip install 'ckptaudit[torch]'"
        raise ModelError(text, f"needs torch: {first_line(error)}", hint) from error
    from ckptaudit.model.build import build
    from ckptaudit.model.describe import manifest_of
    from ckptaudit.model.usercode import traceback_hint

    built = build(spec)
    try:
        manifest = manifest_of(built.module)
    except Exception as error:
        reason = f"its state_dict() raised {first_line(error)}"
        raise ModelError(built.facts.name, reason, traceback_hint(spec)) from error
    return built, replace(manifest, source=built.facts.name)


def _import_torch() -> None:
    """Import torch without the garbage collector, which spends a fifth of that time and finds nothing."""
    gc.disable()
    import torch  # noqa: F401

    gc.freeze()  # nor need it look through torch again while the user's code is imported
    gc.enable()


def _try_load(module: Any, request: Any) -> dict[str, Any]:
    from ckptaudit.manifest import Manifest
    from ckptaudit.model.trial import try_load

    outcome = try_load(module, Manifest.from_json(request))
    return {"undecided": outcome} if isinstance(outcome, str) else {"outcome": outcome.to_json()}


def _really_load(built: Any, path: str, limits: dict[str, int], mappings: list[list[str]]) -> dict[str, Any]:
    from ckptaudit.errors import first_line
    from ckptaudit.formats import Limits
    from ckptaudit.model.live import LiveModel

    try:
        module = built.with_values()
    except (Exception, SystemExit) as error:
        return {"undecided": f"the model cannot be built on the CPU: {first_line(error)}"}
    testimony = LiveModel(module).really_load(path, Limits(**limits), mappings)
    return {"undecided": testimony} if isinstance(testimony, str) else {"testimony": testimony.to_json()}


def _places(built: Any, keys: list[str]) -> dict[str, Any]:
    return {"places": {key: place.to_json() for key, place in built.places(keys).items()}}


def _error(error: Any) -> dict[str, Any]:
    import traceback

    return {
        "error": type(error).__name__,
        "subject": error.subject,
        "reason": error.reason,
        "hint": error.hint,
        "traceback": "".join(traceback.format_exception(error.__cause__ or error)),
    }


if __name__ == "__main__":
    main()
