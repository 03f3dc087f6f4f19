"""Which file of a folder is its checkpoint."""

from __future__ import annotations

import os

from ..errors import FormatError

_INDEX = ".index.json"
_METADATA = ".metadata"
_WHOLE = ("model.safetensors", "pytorch_model.bin")
_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt")
_SHOWN = 10


def checkpoint_in(folder: str) -> str:
    """Return the path of the folder's one checkpoint: its index of shards, else the file that holds it whole.

    Raises FormatError (CKPT001) where there is none, or a choice, which the error lists.
    """
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise FormatError(folder, f"cannot be listed: {error.strerror}") from None
    distributed = [name for name in names if name == _METADATA and not os.path.isdir(os.path.join(folder, name))]
    if not distributed and any(name.endswith(_METADATA) and name.startswith("__") for name in names):
        raise _of_single_ranks(folder)
    found = (
        distributed + [name for name in names if name.endswith(_INDEX)]
        or [name for name in names if name in _WHOLE]
        or [name for name in names if name.endswith(_SUFFIXES)]
    )
    if len(found) == 1:
        return os.path.join(folder, found[0])
    if not found and any(name.endswith(".distcp") for name in names):
        reason = "is a distributed checkpoint without the .metadata that says what it holds"
        raise FormatError(folder, reason, "get .metadata from where the checkpoint comes from", code="CKPT501")
    if not found:
        raise FormatError(folder, "is a folder without a checkpoint", "name the checkpoint file itself")
    listed = ", ".join(found[:_SHOWN]) + (f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else "")
    reason = f"is a folder with {len(found)} checkpoints: {listed}"
    raise FormatError(folder, reason, f"name one of them: {os.path.join(folder, found[0])}")


def _of_single_ranks(folder: str) -> FormatError:
    reason = "is a distributed checkpoint with a .metadata for each rank (use_collectives=False), which is not read"
    hint = "save it with collectives, as torch.distributed.checkpoint.save does by itself"
    return FormatError(folder, reason, hint, code="CKPT703")
