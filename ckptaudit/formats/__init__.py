"""Checkpoint files of every format behind one call. Readers are imported when a file of theirs is opened."""

from __future__ import annotations

import os

from ..collector import CollectorPaused
from ..errors import CkptauditError, FormatError, UsageError
from ..records import replace
from .base import DEFAULT_LIMITS, ByteSource, Candidate, Checkpoint, Limits, RawTensor
from .oddities import disguise, odd_keys

__all__ = [
    "DEFAULT_LIMITS",
    "Candidate",
    "Checkpoint",
    "Limits",
    "RawTensor",
    "kind_of",
    "open_checkpoint",
]

_SUFFIXES = (".safetensors", ".bin", ".ckpt", ".pt", ".pth")


def open_checkpoint(
    path: str | os.PathLike[str],
    *,
    limits: Limits = DEFAULT_LIMITS,
    allow_refused: bool = False,
    with_payload: bool = False,
) -> Checkpoint:
    """Open a checkpoint file, an index of shards, or the folder that holds one.

    ``FILE#inner.path`` picks one state dict inside the file; a file whose own name contains ``#`` comes
    first. What the file is, its content tells. ``allow_refused`` reads on where a pickle names globals
    that are refused; ``with_payload`` keeps what lies beside the tensors within reach. Raises UsageError where there
    is no such file, FormatError where it is no checkpoint.
    """
    name, wanted = _split(os.fspath(path))
    if os.path.isdir(name):
        from .folder import checkpoint_in

        name = checkpoint_in(name)
    elif not os.path.exists(name):
        raise _missing(name)
    with CollectorPaused():
        checkpoint = _read(ByteSource(name), wanted, limits, allow_refused)
        for part in (checkpoint, *checkpoint.parts):
            if part.source is not None:
                part.source.check_unchanged()
        if not with_payload:
            checkpoint = replace(checkpoint, read_payload=None)  # it holds on to all that a pickle built
        return _with_remarks(checkpoint)


def _read(source: ByteSource, wanted: str, limits: Limits, allow_refused: bool) -> Checkpoint:
    if os.path.basename(source.path) == ".metadata":
        from .dcp.reader import read_dcp

        folder = os.path.dirname(source.path) or "."
        return read_dcp(folder, wanted=wanted, limits=limits, allow_refused=allow_refused)
    from .identify import identify

    kind = identify(source, limits)
    if kind == "safetensors":
        from .safetensors import read_safetensors

        return read_safetensors(source, wanted=wanted, limits=limits)
    if kind == "index":
        from .sharded import read_sharded

        return read_sharded(source, read_shard=_read, wanted=wanted, limits=limits, allow_refused=allow_refused)
    if kind == "manifest":
        reason = "is a manifest: it describes a state dict and holds no tensors"
        raise FormatError(source.path, reason, f"ckptaudit manifest show {source.path}")
    if kind == "pickle":
        from .torch_files.plain_pickle import refuse_plain_pickle

        refuse_plain_pickle(source, limits)
    if kind == "torch-zip":
        from .torch_files.zip import read_torch_zip as read
    elif kind == "torch-legacy":
        from .torch_files.legacy import read_torch_legacy as read
    else:
        from .torch_files.tar import read_torch_tar as read
    return read(source, wanted=wanted, limits=limits, allow_refused=allow_refused)


def kind_of(path: str | os.PathLike[str], limits: Limits = DEFAULT_LIMITS) -> str:
    """Return the format that the first bytes of a file announce, or the empty string. The file may be broken."""
    from .identify import identify

    if os.path.exists(os.path.join(path, ".metadata")):
        return "dcp"
    try:
        return identify(ByteSource(path), limits)
    except CkptauditError:
        return ""


def _with_remarks(checkpoint: Checkpoint) -> Checkpoint:
    """Add what is odd about its keys and its name, whatever the format."""
    chosen = (checkpoint.choice,) if isinstance(checkpoint.choice, Candidate) else checkpoint.candidates
    remarks = (*checkpoint.remarks, *disguise(checkpoint.path, checkpoint.format), *odd_keys(chosen))
    return replace(checkpoint, remarks=remarks, details={**checkpoint.details, **_name_fact(checkpoint)})


def _name_fact(checkpoint: Checkpoint) -> dict[str, str]:
    """Record where name and content disagree on whether it is safetensors: loaders go by the name."""
    suffix = os.path.splitext(checkpoint.path)[1].lower()
    if suffix not in _SUFFIXES or (suffix == ".safetensors") == (checkpoint.format == "safetensors"):
        return {}
    return {"misnamed": f"a {checkpoint.format} file under the name *{suffix}"}


def _split(text: str) -> tuple[str, str]:
    """Split ``FILE#inner.path``; the longest beginning that exists is the file."""
    end = len(text)
    while end >= 0:
        if os.path.exists(text[:end]):
            return text[:end], text[end + 1 :]
        end = text.rfind("#", 0, end)
    file, _, inner = text.partition("#")
    return file, inner


def _missing(name: str) -> UsageError:
    from difflib import get_close_matches

    folder, file = os.path.split(name)
    try:
        siblings = os.listdir(folder or ".")
    except OSError:
        return UsageError(name, "no such file", f"there is no folder {folder}")
    close = get_close_matches(file, siblings, n=3, cutoff=0.6)
    hint = "did you mean " + " or ".join(os.path.join(folder, match) for match in close) if close else None
    return UsageError(name, "no such file", hint)
