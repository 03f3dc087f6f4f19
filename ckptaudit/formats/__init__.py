"""Checkpoint files of every format behind one call. Readers are imported when a file of theirs is opened."""

from __future__ import annotations

import os

from ..errors import FormatError, UsageError
from ..records import replace
from .base import DEFAULT_LIMITS, ByteSource, Candidate, Checkpoint, Limits, RawTensor

__all__ = [
    "DEFAULT_LIMITS",
    "Candidate",
    "Checkpoint",
    "Limits",
    "RawTensor",
    "open_checkpoint",
]

_SUFFIXES = (".safetensors", ".bin", ".ckpt", ".pt", ".pth")


def open_checkpoint(
    path: str | os.PathLike[str], *, limits: Limits = DEFAULT_LIMITS, allow_refused: bool = False
) -> Checkpoint:
    """Open a checkpoint file, an index of shards, or the folder that holds one.

    ``FILE#inner.path`` picks one state dict inside the file; a file whose own name contains ``#`` comes
    first. What the file is, its content tells. ``allow_refused`` reads on where a pickle names globals
    that are refused. Raises UsageError where there is no such file, FormatError where it is no checkpoint.
    """
    name, wanted = _split(os.fspath(path))
    if os.path.isdir(name):
        from .folder import checkpoint_in

        name = checkpoint_in(name)
    elif not os.path.exists(name):
        raise _missing(name)
    return _with_name_fact(_read(ByteSource(name), wanted, limits, allow_refused))


def _read(source: ByteSource, wanted: str, limits: Limits, allow_refused: bool) -> Checkpoint:
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
    if kind == "torch-zip":
        from .torch_zip import read_torch_zip as read
    elif kind == "torch-legacy":
        from .torch_legacy import read_torch_legacy as read
    else:
        from .torch_tar import read_torch_tar as read
    return read(source, wanted=wanted, limits=limits, allow_refused=allow_refused)


def _with_name_fact(checkpoint: Checkpoint) -> Checkpoint:
    """Record where name and content disagree on whether it is safetensors: loaders go by the name."""
    suffix = os.path.splitext(checkpoint.path)[1].lower()
    if suffix not in _SUFFIXES or (suffix == ".safetensors") == (checkpoint.format == "safetensors"):
        return checkpoint
    fact = f"a {checkpoint.format} file under the name *{suffix}"
    return replace(checkpoint, details={**checkpoint.details, "misnamed": fact})


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
