"""Failures as sentences: who failed, what happened, and one command that helps."""

from __future__ import annotations


class CkptauditError(Exception):
    """Base of every error this package raises on purpose.

    ``subject`` is what failed (a path, a model spec, an option), ``reason`` what happened, and
    ``hint`` one command or step that helps, or None.
    """

    def __init__(self, subject: str, reason: str, hint: str | None = None) -> None:
        super().__init__(f"{subject}: {reason}")
        self.subject = subject
        self.reason = reason
        self.hint = hint

    def to_json(self) -> dict[str, str | None]:
        """Return the ``error`` section of a report."""
        return {"subject": self.subject, "reason": self.reason, "hint": self.hint}


class UsageError(CkptauditError):
    """What the user wrote (arguments, a pattern, a mapping) cannot be carried out."""


class ModelError(CkptauditError):
    """A model spec does not lead to a built ``nn.Module``."""


class FormatError(CkptauditError):
    """A file cannot be read as a checkpoint, or is refused; ``code`` is the rule it breaks (``CKPT0xx``...)."""

    def __init__(self, subject: str, reason: str, hint: str | None = None, *, code: str = "CKPT001") -> None:
        super().__init__(subject, reason, hint)
        self.code = code


def first_line(error: BaseException) -> str:
    """Return somebody else's exception as one line: its type and the first line of its message."""
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
