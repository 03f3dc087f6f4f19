"""The process that imports torch and the user's code. Run as a script by ``process.py``; imported by nobody.

Only light modules are imported before the streams and ``sys.path`` are in order.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from typing import IO, Any


def main() -> None:
    """Serve what the parent asks for, until the requests end."""
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
    """Have the module that the parent named do the work; what it raises on purpose is its last answer."""
    from importlib import import_module

    from ckptaudit.errors import CkptauditError

    def answer(message: dict[str, Any]) -> None:
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    try:
        import_module(sys.argv[1]).serve(requests, answer)
    except CkptauditError as error:
        answer(_error(error))


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
