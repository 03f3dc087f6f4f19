"""Checkpoints from one format into another, as fast as they can be copied, and whole or not at all.

The source is read by the package's own readers: the bytes that were judged are the bytes that are converted. Storages
are streamed from file to file; torch is imported for casts and operations on tensors alone.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from ..errors import UsageError
from ..formats import DEFAULT_LIMITS, Limits, open_checkpoint
from ..formats.base import Checkpoint
from ..newfile import NewFile, remove, sweep
from ..records import dataclass, field, replace
from .assembly import Assembled, assemble
from .plan import make_plan
from .target import Target, is_one_of, refuse_inputs, sources_of, target_of

if TYPE_CHECKING:
    from ..mapping.mapping import KeyMapping
    from ..mapping.rules import Rule
    from .outputs import Output

__all__ = ["SCHEMA", "Conversion", "convert"]

SCHEMA = "ckptaudit.convert/1"
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Row:
    """One tensor of a result: the keys of the source that it comes from, and what is done to their values.

    ``alias_of`` names the tensor that it shares memory with, where the format keeps memory once.
    """

    key: str
    shape: tuple[int, ...]
    dtype: str
    sources: tuple[str, ...]
    operation: str = ""
    alias_of: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form, without what is empty."""
        row = {"key": self.key, "shape": list(self.shape), "dtype": self.dtype, "from": list(self.sources)}
        told = {"operation": self.operation, "alias_of": self.alias_of}
        return {**row, **{name: text for name, text in told.items() if text}}


@dataclass(frozen=True)
class Conversion:
    """What was converted, or would be. ``nbytes`` counts the bytes of the files, ``seconds`` the time to write them.

    ``copied`` are tensors that are written apart though their memory overlaps, ``dropped`` the keys that the mapping
    leaves out. ``kept`` and ``left_out`` name what is no tensor, with its type.
    """

    source: str
    source_format: str
    destination: str
    format: str
    nbytes: int
    files: tuple[str, ...]
    tensors: tuple[Row, ...]
    copied: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    kept: Mapping[str, str] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)
    written: bool = False
    verified: bool = False
    seconds: float = 0.0

    @property
    def aliases(self) -> dict[str, str]:
        """The names that share memory with another tensor, and that one's."""
        return {row.key: row.alias_of for row in self.tensors if row.alias_of}

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form (schema ``ckptaudit.convert/1``), without the time, which differs from run to run."""
        return {
            "schema": SCHEMA,
            "source": {"path": self.source, "format": self.source_format},
            "destination": {"path": self.destination, "format": self.format, "files": list(self.files)},
            "written": self.written,
            "verified": self.verified,
            "nbytes": self.nbytes,
            "copied": list(self.copied),
            "dropped": list(self.dropped),
            "kept": dict(self.kept),
            "left_out": dict(self.left_out),
            "tensors": [row.to_json() for row in self.tensors],
        }


def convert(  # noqa: PLR0913  (options, each given by its name)
    source: str | os.PathLike[str],
    destination: str | os.PathLike[str],
    *,
    mapping: KeyMapping | str | os.PathLike[str] | Iterable[str | os.PathLike[str]] | None = None,
    drop: str | Iterable[str] = (),
    dtype: str | None = None,
    shard_size: int | str | None = None,
    verify: bool = True,
    drop_non_tensors: bool = False,
    dry_run: bool = False,
    limits: Limits = DEFAULT_LIMITS,
    progress: Progress | None = None,
) -> Conversion:
    """Convert the state dict of a checkpoint; the name of the destination says into which format.

    ``source`` is what ``open_checkpoint`` takes. ``drop`` are patterns of keys of the source, which come before
    ``mapping``; ``dtype`` casts all floats (or all integers) at last, and a value that it cannot hold is an error.
    ``shard_size``, in bytes or as in ``5GB``, writes shards of at most that size and their index. ``verify`` reads the
    result back, safetensors through the library of that name, and compares every byte. What is no tensor is kept,
    or refused where the result cannot keep it, or left out with ``drop_non_tensors``. ``dry_run`` only plans.
    ``progress(done, total)`` is told bytes.

    The files appear under their names in one step, an index last; the source is never written. Raises
    CkptauditError, and then the destination is as it was.
    """
    target = target_of(os.fspath(destination), shard_size)
    checkpoint = open_checkpoint(source, limits=limits, with_payload=True)
    picked = os.fspath(source).startswith(f"{checkpoint.path}#")
    rules = _rules(mapping, drop, dtype)
    plan = make_plan(checkpoint, rules, picked=picked, drop_non_tensors=drop_non_tensors)
    sources = sources_of(checkpoint)
    refuse_inputs([target.path], sources)
    assembled = assemble(checkpoint, plan, target, limits)
    result = _described(checkpoint, target, assembled)
    if dry_run:
        return result
    start = time.perf_counter()
    _execute(target, checkpoint, assembled.outputs, _Counter(assembled.outputs, verify, progress))
    return replace(result, written=True, verified=verify, seconds=time.perf_counter() - start)


def _rules(mapping: Any, drop: str | Iterable[str], dtype: str | None) -> KeyMapping | None:
    """Join what is asked for into one mapping: drops, then the rules given, then the cast of everything."""
    drops = (drop,) if isinstance(drop, str) else tuple(drop)
    if mapping is None and not drops and dtype is None:
        return None
    from ..keys import KeyPattern
    from ..mapping.mapping import KeyMapping
    from ..mapping.rules import Drop

    rules = [Drop(KeyPattern.parse(pattern)) for pattern in drops]
    given = KeyMapping.of(mapping).rules if mapping is not None else ()
    cast = [_cast(dtype)] if dtype is not None else []
    return KeyMapping((*rules, *given, *cast))


def _cast(dtype: str) -> Rule:
    from ..mapping.ops.values import CASTABLE
    from ..mapping.rules import parse_rule

    if dtype not in CASTABLE:
        raise UsageError(f"--dtype {dtype}", "is no dtype that tensors are cast to", "as in --dtype float16")
    return parse_rule(f"cast * dtype={dtype}")


def _described(checkpoint: Checkpoint, target: Target, assembled: Assembled) -> Conversion:
    plan, outputs = assembled.plan, assembled.outputs
    programs = {"the program": checkpoint.format} if checkpoint.format in ("torchscript", "torch-export") else {}
    rows = [
        Row(i.key, i.spec.shape, i.spec.dtype, i.sources, i.operation, assembled.aliases.get(i.key, ""))
        for i in plan.items
    ]
    return Conversion(
        source=checkpoint.path + (f"#{checkpoint.chosen.path}" if checkpoint.chosen.path else ""),
        source_format=checkpoint.format,
        destination=target.path,
        format=target.format,
        nbytes=sum(output.size for output in outputs),
        files=tuple(output.path for output in outputs),
        tensors=tuple(rows),
        copied=assembled.copied,
        dropped=plan.dropped,
        kept=plan.kept,
        left_out={**plan.left_out, **programs},
    )


class _Counter:
    """Adds up the bytes that were written and compared."""

    def __init__(self, outputs: Iterable[Output], verify: bool, progress: Progress | None) -> None:
        self.verify = verify
        self._progress = progress
        self._done = 0
        self._total = sum(output.work for output in outputs) * (2 if verify else 1)

    def __call__(self, count: int) -> None:
        """Count bytes."""
        self._done += count
        if self._progress is not None:
            self._progress(min(self._done, self._total), self._total)


def _execute(target: Target, checkpoint: Checkpoint, outputs: Iterable[Output], counter: _Counter) -> None:
    """Write every file beside its name, verify it there, and move them into place, the last one last."""
    inputs = {source.identity for source in sources_of(checkpoint)}
    old = target.old_shards() if target.shard_size else []
    if target.shard_size:
        sweep(os.path.dirname(os.path.realpath(target.path)), target.is_shard)
    with ExitStack() as stack:
        files = []
        for output in outputs:
            file = stack.enter_context(NewFile(output.path, output.size))
            output.write(file, counter)
            file.finish()
            files.append(file)
            if counter.verify:
                output.verify(file.temporary, counter)
        for source in sources_of(checkpoint):
            source.check_unchanged()
        for file in files:
            file.publish()
    kept = {output.path for output in outputs}
    for path in old:
        if path not in kept and not is_one_of(path, inputs):
            remove(path)
