"""Which of a file's candidates is the state dict, or why none can be chosen."""

from __future__ import annotations

import re

from ..errors import FormatError
from .base import Candidate

_WELL_KNOWN = frozenset({"state_dict", "model_state_dict", "model", "module", "net", "network", "weights", "params"})
# Averaged copies and training state lie beside the weights; nobody means them unless asked.
_SECONDARY = r"(?i)(?:^|[._])(?:ema|swa|optim\w*|callbacks)(?:[._]|$)|averag"


def choose(candidates: tuple[Candidate, ...], *, wanted: str, subject: str) -> Candidate | FormatError:
    """Return the candidate at the path ``wanted``; where that is empty, the one that is meant.

    Optimizer states, loose tensors and averaged copies yield to the others. The top level wins where most of
    its values are tensors, then a candidate that is alone, then one of the usual names (``state_dict``,
    ``model``, ...) that holds more tensors than each of its rivals. Everything else is a FormatError
    CKPT006, returned and not raised, because a file without a choice can still be listed.
    """
    if wanted:
        named = [candidate for candidate in candidates if candidate.path == wanted]
        return named[0] if named else _not_there(candidates, wanted, subject)
    pool = [c for c in candidates if c.kind in ("state_dict", "module")]
    if not pool:
        return _none(candidates, subject)
    if len(pool) == 1:
        return pool[0]
    pool = [c for c in pool if not re.search(_SECONDARY, c.path)] or pool
    pool = [c for c in pool if not any(_inside(c, other) for other in pool)]
    top = next((c for c in pool if not c.path), None)
    if top and _mainly_tensors(top) and all(_count(top) >= _count(c) for c in pool):
        return top
    pool = [c for c in pool if c is not top] or pool
    if len(pool) == 1:
        return pool[0]
    usual = [c for c in pool if c.path.rpartition(".")[2] in _WELL_KNOWN]
    if len(usual) == 1 and all(_count(usual[0]) > _count(c) for c in pool if c is not usual[0]):
        return usual[0]
    return _several(pool, subject)


def _count(candidate: Candidate) -> int:
    return len(candidate.manifest)


def _mainly_tensors(candidate: Candidate) -> bool:
    return _count(candidate) >= len(candidate.manifest.entries)


def _inside(inner: Candidate, outer: Candidate) -> bool:
    """Tell whether a candidate is a value in a larger state dict, as extra states of modules are."""
    below = inner is not outer and inner.path.startswith(f"{outer.path}." if outer.path else "")
    return below and _mainly_tensors(outer) and _count(outer) >= _count(inner)


def _described(candidates: list[Candidate]) -> str:
    names = [f"{c.path or 'the top level'} ({_count(c)} tensor{'s' if _count(c) != 1 else ''})" for c in candidates[:5]]
    more = f" and {len(candidates) - 5} more" if len(candidates) > 5 else ""
    return ", ".join(names) + more


def _pick(subject: str, candidate: Candidate) -> str:
    from shlex import quote

    return f"pick one: ckptaudit inspect {quote(f'{subject}#{candidate.path}')}"


def _several(pool: list[Candidate], subject: str) -> FormatError:
    reason = f"holds {len(pool)} state dicts and no choice: {_described(pool)}"
    named = next(c for c in pool if c.path)
    return FormatError(subject, reason, _pick(subject, named), code="CKPT006")


def _not_there(candidates: tuple[Candidate, ...], wanted: str, subject: str) -> FormatError:
    named = [c for c in candidates if c.path]
    if not named:
        reason = f"has no state dict at {wanted!r}; it has none below its top level"
        return FormatError(subject, reason, f"leave out '#{wanted}'", code="CKPT006")
    reason = f"has no state dict at {wanted!r}; it has {_described(list(candidates))}"
    return FormatError(subject, reason, _pick(subject, named[0]), code="CKPT006")


def _none(candidates: tuple[Candidate, ...], subject: str) -> FormatError:
    tensors = sum(_count(c) for c in candidates if c.kind == "tensors")
    if tensors:
        plural = "s" if tensors != 1 else ""
        reason = f"holds no state dict: {tensors} tensor{plural}, but no mapping of names to tensors"
        hint = "save a dict of names and tensors, as model.state_dict() returns it"
    elif candidates:
        reason = "holds the state of an optimizer, but no state dict of a model"
        hint = "name the checkpoint of the model; this one belongs beside it"
    else:
        reason = "holds no tensors"
        hint = "name the file that holds the weights"
    return FormatError(subject, reason, hint, code="CKPT006")
