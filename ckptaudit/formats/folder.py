"""Which file of a folder is its checkpoint."""

from __future__ import annotations

import os

from ..errors import FormatError

_INDEX = ".index.json"
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
    if ".metadata" in names and any(name.startswith("__") and name.endswith(".distcp") for name in names):
        raise _distributed(folder)
    found = (
        [name for name in names if name.endswith(_INDEX)]
        or [name for name in names if name in _WHOLE]
        or [name for name in names if name.endswith(_SUFFIXES)]
    )
    if len(found) == 1:
        return os.path.join(folder, found[0])
    if not found:
        raise FormatError(folder, "is a folder without a checkpoint", "name the checkpoint file itself")
    listed = ", ".join(found[:_SHOWN]) + (f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else "")
    reason = f"is a folder with {len(found)} checkpoints: {listed}"
    raise FormatError(folder, reason, f"name one of them: {os.path.join(folder, found[0])}")


def _distributed(folder: str) -> FormatError:
    reason = "is a torch.distributed.checkpoint folder, which ckptaudit cannot read yet"
    convert = "python -m torch.distributed.checkpoint.format_utils dcp_to_torch"
    return FormatError(folder, reason, f"if you trust it: {convert} {folder} checkpoint.pth")
