"""Where a conversion goes: the format that a name asks for, the files that come to be, and what they replace."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches

from ..errors import UsageError
from ..formats.base import ByteSource, Checkpoint
from ..records import dataclass
from ..textfile import read_text

INDEX = ".index.json"
_TORCH = (".pth", ".pt", ".bin", ".ckpt")
_SAFETENSORS = ".safetensors"
_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
_UNITS |= {"kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40}
_DEFAULT_SHARD = 5 * 10**9  # of huggingface_hub


@dataclass(frozen=True)
class Target:
    """``format`` is safetensors, sharded-safetensors or torch-zip; ``path`` the file to open, an index for shards."""

    path: str
    format: str
    shard_size: int = 0

    def shard_names(self, count: int, taken: Iterable[str]) -> list[str]:
        """Return names for shards, none of which is taken: an older set stays whole until its index is replaced."""
        stem = os.path.basename(self.path).removesuffix(INDEX).removesuffix(_SAFETENSORS)
        there = set(taken)
        for generation in range(1, len(there) + 2):
            mark = "" if generation == 1 else f".{generation}"
            names = [f"{stem}{mark}-{number:05d}-of-{count:05d}{_SAFETENSORS}" for number in range(1, count + 1)]
            if not there.intersection(names):
                break
        return names

    def old_shards(self) -> list[str]:
        """Return the files of an older set of shards of this name, as its index lists them."""
        try:
            listed = set(json.loads(read_text(self.path))["weight_map"].values())
        except (UsageError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return []
        names = sorted(name for name in listed if isinstance(name, str) and self.is_shard(name))
        return [os.path.join(os.path.dirname(self.path), name) for name in names]

    def is_shard(self, name: str) -> bool:
        """Tell whether a name is one that ``shard_names`` may give, for any count."""
        stem = re.escape(os.path.basename(self.path).removesuffix(INDEX).removesuffix(_SAFETENSORS))
        return re.fullmatch(rf"{stem}(\.\d+)?-\d{{5}}-of-\d{{5}}\.safetensors", name) is not None


def target_of(destination: str, shard_size: int | str | None) -> Target:
    """Return what a destination asks for. Raises UsageError where it names no format."""
    size = None if shard_size is None else parse_size(shard_size)
    path = destination
    if os.path.isdir(path) or path.endswith(os.sep):
        path = os.path.join(path, f"model{_SAFETENSORS}")
    if path.endswith(f"{_SAFETENSORS}{INDEX}"):
        return Target(path, "sharded-safetensors", size or _DEFAULT_SHARD)
    suffix = os.path.splitext(path)[1].lower()
    if suffix == _SAFETENSORS:
        return Target(path, "safetensors") if size is None else Target(path + INDEX, "sharded-safetensors", size)
    if suffix in _TORCH:
        if size is not None:
            raise UsageError(destination, "is no name for shards", "name a .safetensors file, or a folder")
        return Target(path, "torch-zip")
    close = get_close_matches(suffix, (_SAFETENSORS, *_TORCH), n=1)
    wanted = f"{os.path.splitext(path)[0]}{close[0] if close else _SAFETENSORS}"
    reason = f"says no format by its name; formats are {_SAFETENSORS}, {_SAFETENSORS}{INDEX}, {', '.join(_TORCH)}"
    raise UsageError(destination, reason, f"name it {wanted}")


def parse_size(text: int | str) -> int:
    """Read ``5GB`` (5 * 10**9 bytes), ``512MiB`` or a number of bytes. Raises UsageError."""
    match = re.fullmatch(r"([0-9]{1,18})\s*([A-Za-z]*)", str(text).strip())
    unit = _UNITS.get(match[2].lower()) if match else None
    if match is None or unit is None or int(match[1]) * unit < 1:
        raise UsageError(f"--shard-size {text}", "is no size", "write it as 5GB, 512MiB or a number of bytes")
    return int(match[1]) * unit


def sources_of(checkpoint: Checkpoint) -> list[ByteSource]:
    """Return every file that a checkpoint is read from, once."""
    found: dict[tuple[int, int], ByteSource] = {}
    for part in (checkpoint, *checkpoint.parts):
        raws = [raw.source for tensors in part.raw.values() for raw in tensors.values()]
        for source in (*raws, *([part.source] if part.source is not None else [])):
            found.setdefault(source.identity, source)
    return list(found.values())


def refuse_inputs(paths: Sequence[str], sources: Iterable[ByteSource]) -> None:
    """Raise UsageError where one of the files to be written is one that is read, under whatever name."""
    inputs = {source.identity for source in sources}
    for path in paths:
        if is_one_of(path, inputs):
            raise UsageError(path, "is an input of this conversion and would be overwritten", "name another file")


def is_one_of(path: str, inputs: set[tuple[int, int]]) -> bool:
    """Tell whether a path leads to one of the files."""
    try:
        status = os.stat(path)
    except OSError:
        return False
    return (status.st_dev, status.st_ino) in inputs
