"""What a user may name for either side of a diff, opened: a checkpoint, a manifest, a model, live objects."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .errors import UsageError
from .formats import DEFAULT_LIMITS, Checkpoint, Limits, open_checkpoint
from .manifest import Manifest
from .model.spec import looks_like_model_spec, parse_model_spec
from .place import Place
from .policy import Side
from .records import dataclass, field
from .words import binary_size, shell_word

if TYPE_CHECKING:
    from .formats import RawTensor
    from .model.witness import LoadWitness


@dataclass
class Source:
    """One opened side. ``checkpoint`` and ``witness`` are None where the source is no file, or no model.

    The manifest of a model is awaited on first use: the process that builds it runs while a file is read.
    ``values`` is where the values of a checkpoint are: a path as ``open_checkpoint`` takes it, with ``limits``, or a
    state dict in memory; None where there are none. ``state`` gives the state dict of what is in memory. ``typed`` is
    the source as on a command line, empty for what is in memory.
    """

    name: str
    kind: str
    known: Manifest | None = None
    checkpoint: Checkpoint | None = None
    witness: LoadWitness | None = None
    facts: tuple[str, ...] = field(default_factory=tuple)
    limits: Limits = DEFAULT_LIMITS
    values: Any = None
    state: Callable[[], Mapping[str, Any]] | None = None
    typed: str = ""
    _raws: Mapping[str, RawTensor | str] | None = None

    @property
    def manifest(self) -> Manifest:
        """The description of the state dict; raises what building the model raised."""
        if self.known is None:
            assert self.witness is not None
            self.known = self.witness.manifest
        return self.known

    def side(self, role: str) -> Side:
        """Describe the source for the head of a report."""
        manifest, checkpoint = self.manifest, self.checkpoint
        if self.witness is not None:
            built = self.witness.facts
            line = f" (line {built.line})" if built.line else ""
            self.name, self.facts = built.name + line, (f"built on {built.device}", built.note)
        return Side(
            role=role,
            kind=self.kind,
            name=self.name,
            tensors=len(manifest),
            elements=manifest.numel,
            nbytes=manifest.nbytes,
            facts=tuple(fact for fact in self.facts if fact),
            choice=checkpoint.chosen.path if checkpoint else "",
            siblings=checkpoint.siblings if checkpoint else {},
            format=checkpoint.format if checkpoint else "",
            place=self._place(),
        )

    def _place(self) -> Place | None:
        """Return the file that is meant, and the line of it where the model is defined."""
        if self.witness is not None:
            built = self.witness.facts
            return Place(built.file, built.line or 1) if built.file else None
        path = self.checkpoint.path if self.checkpoint else self.name
        return Place(path, 1) if os.path.exists(path) else None  # what is given in memory has a name all the same

    @property
    def has_values(self) -> bool:
        """True for checkpoints, state dicts and live models."""
        return self.checkpoint is not None or self.state is not None

    def raw(self, key: str) -> RawTensor | str:
        """Return where the bytes of a tensor lie, or why they do not, as the end of a sentence."""
        if self._raws is None:
            self._raws = {}
            if self.checkpoint is not None:
                self._raws = self.checkpoint.raw.get(self.checkpoint.chosen.path, {})
            elif self.state is not None:
                from .model.memory import raw_tensors

                self._raws = raw_tensors(self.state(), self.name)
        return self._raws.get(key, "does not lie in one piece")

    def check_unchanged(self) -> None:
        """Raise FormatError where a file was written to since it was opened."""
        for part in (self.checkpoint, *self.checkpoint.parts) if self.checkpoint is not None else ():
            if part.source is not None:
                part.source.check_unchanged()

    def close(self) -> None:
        """End the process of a model."""
        if self.witness is not None:
            self.witness.close()

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def open_source(
    given: Any,
    arguments: Sequence[str] = (),
    usage: str = "ckptaudit diff {model} CHECKPOINT",
    *,
    limits: Limits = DEFAULT_LIMITS,
) -> Source:
    """Open whatever was given: a path, a model spec, a Manifest, a Checkpoint, an ``nn.Module``, a state dict.

    ``arguments`` are ``NAME=VALUE`` texts for the constructor of a model spec. Raises CkptauditError.
    """
    if isinstance(given, (str, os.PathLike)):
        text = os.fspath(given)
        source = _open_text(text, arguments, usage, limits)
        source.typed = " ".join([shell_word(text), *(f"--arg {shell_word(one)}" for one in arguments)])
        return source
    if arguments:
        given = type(given).__name__
        raise UsageError("--arg", f"is for a model spec, and a {given} is none", "build the model with it")
    if isinstance(given, Manifest):
        return Source(given.source or "manifest", "manifest", given)
    if isinstance(given, Checkpoint):
        return _of_checkpoint(given, limits)
    return _of_live(given)


def check_can_testify(checkpoint: Source, model: Source) -> None:
    """Check that there is a model to load into and something to load. Raises UsageError."""
    if model.witness is None:
        raise UsageError(model.name, f"is a {model.kind}, into which no witness can load", "name the model's code")
    if checkpoint.values is None:
        reason = f"is a {checkpoint.kind} and holds no values that a witness could load"
        raise UsageError(checkpoint.name, reason, "name the checkpoint itself")


def is_model_like(given: Any) -> bool:
    """Tell whether ``given`` names or is a model rather than a file or a state dict."""
    if isinstance(given, (str, os.PathLike)):
        return looks_like_model_spec(os.fspath(given))
    return _is_module(given)


def _open_text(text: str, arguments: Sequence[str], usage: str, limits: Limits) -> Source:
    if looks_like_model_spec(text):
        from .model.process import open_model

        return Source(text, "model", witness=open_model(parse_model_spec(text, arguments, usage)))
    if arguments:
        raise UsageError("--arg", f"is for a model spec, and {text} is none", "leave it out, or name the model's code")
    if is_manifest_file(text):
        return Source(text, "manifest", Manifest.load(text))
    return _of_checkpoint(open_checkpoint(text, limits=limits), limits)


def is_manifest_file(path: str) -> bool:
    """Tell a manifest of whatever version by its schema, wherever a tool that sorts names has put it."""
    if not os.path.isfile(path):  # opening a pipe would wait for its writer
        return False
    try:
        with open(path, "rb") as file:
            head = file.read(256).removeprefix(b"\xef\xbb\xbf").lstrip()
            if not head.startswith(b"{"):
                return False
            return _MANIFEST in head + file.read(DEFAULT_LIMITS.index_bytes)
    except OSError:
        return False


_MANIFEST = b'"ckptaudit.manifest/'


def _of_checkpoint(checkpoint: Checkpoint, limits: Limits) -> Source:
    facts = (checkpoint.format, binary_size(checkpoint.size))
    inner = checkpoint.chosen.path
    path = f"{checkpoint.path}#{inner}" if inner else checkpoint.path
    return Source(
        checkpoint.path, "checkpoint", checkpoint.manifest, checkpoint, facts=facts, limits=limits, values=path
    )


def _of_live(given: Any) -> Source:
    if _is_module(given):
        from .model.live import LiveModel

        return Source(type(given).__name__, "model", witness=LiveModel(given), state=given.state_dict)
    if isinstance(given, Mapping):
        return Source("state dict", "state dict", Manifest.of(given), values=given, state=lambda: given)
    raise UsageError(type(given).__name__, "is neither a path, a model, a state dict, a Checkpoint nor a Manifest")


def _is_module(given: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(given, torch.nn.Module)
