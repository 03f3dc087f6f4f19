"""The targets of a configuration, opened: their models in processes of their own, a few ahead, and their files."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator

from .config import Config, Target
from .errors import CkptauditError, UsageError
from .manifest import Manifest
from .model.spec import looks_like_model_spec, parse_model_spec
from .sources import Source, open_source

_USAGE = "ckptaudit manifest show {model}"


def open_targets(config: Config, targets: Iterable[str]) -> Iterator[tuple[Target, Source | CkptauditError]]:
    """Yield each target of these names with its open model, or with what went wrong; all targets where none is named.

    As many models are built at a time as there are processors: importing torch takes longer than all comparisons. A
    model is closed when the next one is asked for.
    """
    rest = iter(config.choose(targets))
    ahead: deque[tuple[Target, Source | CkptauditError]] = deque()
    try:
        while True:
            while len(ahead) < _processors() and (target := next(rest, None)) is not None:
                ahead.append((target, _open_model(config, target)))
            if not ahead:
                return
            yield ahead[0]
            _close(ahead.popleft()[1])
    finally:
        for _, model in ahead:
            _close(model)


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _open_model(config: Config, target: Target) -> Source | CkptauditError:
    try:
        return open_source(_model_path(config, target.model), target.arguments, _USAGE)
    except CkptauditError as error:
        return error


def _close(model: Source | CkptauditError) -> None:
    if isinstance(model, Source):
        model.close()


def _model_path(config: Config, text: str) -> str:
    """Return a model's spec or path as it is from the working directory; modules are imported from there anyway."""
    is_module = looks_like_model_spec(text) and parse_model_spec(text).module is not None
    return text if is_module else path_of(config, text)


def path_of(config: Config, path: str) -> str:
    """Return a path of the configuration as it is from the working directory."""
    return os.path.normpath(os.path.join(config.folder, path)) if config.folder else path


def files_of(config: Config, target: Target) -> list[str]:
    """Return the checkpoints of a target in the order of its patterns, each once; what matches nothing as it is."""
    found: dict[str, None] = {}
    for given in target.checkpoints:
        path, hash_sign, inner = given.partition("#")
        path = path_of(config, path)
        matches = [path]
        if has_signs(path) and not os.path.exists(path):
            from glob import glob

            matches = sorted(glob(path, recursive=True)) or [path]
        found |= dict.fromkeys(f"{match}{hash_sign}{inner}" for match in matches)
    return list(found)


def has_signs(path: str) -> bool:
    """Tell whether a path is a pattern of paths."""
    return any(sign in path for sign in "*?[")


def manifest_of(config: Config, target: Target) -> Source:
    """Open the committed manifest of a target. Raises UsageError, with the command that writes it."""
    path = path_of(config, target.manifest or "")
    if not os.path.exists(path):
        raise UsageError(path, "no such file", f"ckptaudit manifest write --target {target.name}")
    return Source(path, "manifest", Manifest.load(path))
