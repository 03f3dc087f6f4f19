"""Pickles that torch.save did not write: no checkpoint, but what they would run is worth a word."""

from __future__ import annotations

from typing import NoReturn

from ...errors import FormatError
from ..base import ByteSource, Limits
from ..pickles.globals import refuse_globals
from ..pickles.machine import Spent, run

_WHAT = "is a pickle that torch.save did not write, not a checkpoint"
_HINT = "if you wrote it and trust it, load it with pickle and save its state dict with torch.save"


def refuse_plain_pickle(source: ByteSource, limits: Limits) -> NoReturn:
    """Refuse a bare pickle, for the worst reason there is.

    Raises FormatError: CKPT702 or CKPT701 where it names globals that are not plain data, CKPT001 otherwise.
    """
    data = source.read(0, min(source.size, limits.pickle_bytes))
    spent, end = Spent(), 0
    try:
        while end < len(data):  # several pickles may follow each other in one file
            result = run(data, subject=source.path, member="its pickle", limits=limits, start=end, spent=spent)
            refuse_globals(source.path, result.globals)
            end = result.end
    except FormatError as error:
        if error.code in ("CKPT701", "CKPT702"):
            raise FormatError(source.path, f"{_WHAT}; it {error.reason}", "do not load it", code=error.code) from None
    raise FormatError(source.path, _WHAT, _HINT)
