"""A model in a process of its own: started at once, asked later, ended for certain.

The child (``child.py``) imports torch and the user's code, so that their prints, seeds and crashes stay
out of this process. Requests and answers are lines of JSON.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ..errors import CkptauditError, ModelError, UsageError
from ..manifest import Manifest
from ..outcome import LoadOutcome
from ..place import Place
from .spec import ModelSpec
from .witness import Lines, LoadWitness, ModelFacts, Testimony

if TYPE_CHECKING:
    from ..formats import Limits

__all__ = ["ChildError", "ChildProcess", "LoadWitness", "ModelProcess", "open_model"]

_CHILD = os.path.join(os.path.dirname(os.path.abspath(__file__)), "child.py")
_ONE_PROCESS = "for a witness, build the model in Python and pass it, or save the state dict and pass its path"
_ERRORS = {"ModelError": ModelError, "UsageError": UsageError}


def open_model(spec: ModelSpec) -> ModelProcess:
    """Start building the model and return without waiting for it."""
    return ModelProcess(spec)


class ChildError(Exception):
    """The traceback of the user's code in the child, as text: the cause of the error that is raised here."""


class ChildProcess:
    """A child that serves a model: started at once with its first request, ended for certain.

    ``server`` names the module of this package whose ``serve(requests, answer)`` does the work.
    """

    def __init__(self, spec: ModelSpec, server: str, *further: Any) -> None:
        import subprocess  # 3 ms that a comparison of two files can do without

        self._spec = spec
        command = [sys.executable, _CHILD, server]
        self._child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        arguments = {name: repr(value) for name, value in spec.arguments.items()}
        self.send([spec.text, spec.file, spec.module, spec.attribute, arguments, spec.usage, *further])

    def send(self, request: Any) -> None:
        """Send a request, which a child that is gone does not get; reading its answer tells how it ended."""
        with suppress(OSError):
            self._child.stdin.write(json.dumps(request).encode() + b"\n")  # type: ignore[union-attr]
            self._child.stdin.flush()  # type: ignore[union-attr]

    def receive(self) -> dict[str, Any]:
        """Wait for an answer. Raises ModelError or UsageError, as the child says."""
        try:
            line = self._child.stdout.readline()  # type: ignore[union-attr]
        except BaseException:  # Ctrl-C above all: nobody is left to wait for the child
            self.close()
            raise
        if not line.endswith(b"\n"):
            raise self._death()
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            error = _ERRORS[answer["error"]](answer["subject"], answer["reason"], answer["hint"])
            error.__cause__ = ChildError("\n" + answer["traceback"])
            raise error
        return answer

    def close(self) -> None:
        """End the child, whatever it does, and wait until it is gone."""
        self._child.kill()
        self._child.wait()
        with suppress(OSError):  # what was still to be sent goes nowhere
            self._child.stdin.close()  # type: ignore[union-attr]
        self._child.stdout.close()  # type: ignore[union-attr]

    def _death(self) -> ModelError:
        """Say how a child that closed its end without an answer came to its end."""
        from subprocess import TimeoutExpired

        try:
            status = self._child.wait(timeout=5)
        except TimeoutExpired:  # it closed its end and lives on
            self.close()
            status = self._child.returncode
        alone = self._spec.file or f'-c "import {self._spec.module}"'
        return ModelError(
            self._spec.text,
            f"the process that builds the model {_ending(status)}",
            f"run its code on its own to see why: python -X faulthandler {alone}",
        )


class ModelProcess:
    """The witness of a spec. The first question waits for the child, and raises what building raised."""

    def __init__(self, spec: ModelSpec) -> None:
        self._spec = spec
        self._built: tuple[Manifest, ModelFacts] | CkptauditError | None = None
        self._process = ChildProcess(spec, "ckptaudit.model.serving")

    @property
    def manifest(self) -> Manifest:
        """The description of the model's state dict. Raises ModelError or UsageError, every time."""
        return self._answer()[0]

    @property
    def facts(self) -> ModelFacts:
        """Where the model came from. Raises as ``manifest`` does."""
        return self._answer()[1]

    def try_load(self, checkpoint: Manifest) -> LoadOutcome | str:
        """Return what torch says to such a load, or why it cannot say: see ``trial.try_load``."""
        self._answer()
        self._process.send(checkpoint.to_json())
        answer = self._process.receive()
        return LoadOutcome.from_json(answer["outcome"]) if "outcome" in answer else str(answer["undecided"])

    def really_load(self, given: Any, limits: Limits, mappings: Sequence[Lines]) -> Testimony | str:
        """Return what real loads do, or why there can be none: see ``real_load.really_load``.

        Raises UsageError for a state dict in memory, which the other process cannot see.
        """
        if not isinstance(given, str):
            raise UsageError(self._spec.text, "is built in another process than the state dict", _ONE_PROCESS)
        self._answer()
        bounds = {name: getattr(limits, name) for name in type(limits).__match_args__}
        self._process.send({"really_load": [given, bounds, [list(lines) for lines in mappings]]})
        answer = self._process.receive()
        return Testimony.from_json(answer["testimony"]) if "testimony" in answer else str(answer["undecided"])

    def places(self, keys: Sequence[str]) -> dict[str, Place]:
        """Return where the user's code defines these keys, as far as known."""
        self._answer()
        self._process.send({"places": list(keys)})
        return {key: Place(**place) for key, place in self._process.receive()["places"].items()}

    def close(self) -> None:
        """End the child, whatever it does, and wait until it is gone."""
        self._process.close()

    def __enter__(self) -> ModelProcess:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _answer(self) -> tuple[Manifest, ModelFacts]:
        if self._built is None:
            try:
                answer = self._process.receive()
                self._built = Manifest.from_json(answer["manifest"]), ModelFacts(**answer["facts"])
            except CkptauditError as error:
                self._built = error
        if isinstance(self._built, CkptauditError):
            raise self._built
        return self._built


def _ending(status: int) -> str:
    """Say how a process ended, from its return code."""
    if status >= 0:
        return f"ended with exit status {status}"
    import signal

    names = {number.value: number.name for number in signal.Signals}
    return f"was killed by {names.get(-status, f'signal {-status}')}"
