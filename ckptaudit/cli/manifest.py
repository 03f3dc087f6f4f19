"""``ckptaudit manifest``: the description of a model or checkpoint that projects commit."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ..errors import CkptauditError, UsageError
from ..json_text import to_lines
from ..manifest import Manifest, TensorSpec
from ..sources import Source, open_source
from ..textfile import refuse_input
from ..words import plural, visible
from .streams import terminal_width, write_error, write_report


def run(options: argparse.Namespace) -> int:
    """Write, show or check the manifest of a model, a checkpoint, or of every target of the project."""
    return _ACTIONS[options.action](options)


def _write(options: argparse.Namespace) -> int:
    if options.source is None:
        return _for_targets(options, _write_target)
    from shlex import quote

    if options.output is None:
        raise UsageError("-o", "is missing: where is the manifest to go?", f"-o {_name_for(options.source)}")
    refuse_input(options.output, [options.source])
    with _opened(options, f"ckptaudit manifest write {{model}} -o {quote(options.output)}") as source:
        manifest = source.manifest
    manifest.save(options.output)
    write_report(_written(options.output, manifest, options.source))
    return 0


def _show(options: argparse.Namespace) -> int:
    try:
        with _opened(options, "ckptaudit manifest show {model}") as source:
            manifest = source.manifest
    except CkptauditError as error:
        if not options.textconv:
            raise
        write_report(f"{visible(error.reason)}\n")  # without the name: git calls it by another one each time
        return 0
    write_report(to_lines(manifest.to_json()) if options.format == "json" else _text(manifest))
    return 0


def _check(options: argparse.Namespace) -> int:
    if options.source is None:
        return _for_targets(options, _check_target)
    if options.manifest is None:
        raise UsageError("MANIFEST", "is missing: with what is the source to be compared?", _CHECK_USAGE)
    with _opened(options, _CHECK_USAGE.replace("SOURCE", "{model}")) as source:
        return _compare(Manifest.load(options.manifest), source, options.manifest, options)


_CHECK_USAGE = "ckptaudit manifest check SOURCE MANIFEST"
_ACTIONS: dict[str, Callable[[argparse.Namespace], int]] = {"write": _write, "show": _show, "check": _check}


@contextmanager
def _opened(options: argparse.Namespace, usage: str) -> Iterator[Source]:
    with open_source(options.source, options.arg, usage) as source:
        yield source


def _name_for(source: str) -> str:
    stem = os.path.basename(source.rpartition(":")[0] or source).partition(".")[0] or "model"
    return f"{stem}.manifest.json"


def _for_targets(options: argparse.Namespace, act: Callable[[Source, str, argparse.Namespace], int]) -> int:
    """Do it for each target of the project that has a manifest; one that fails hides no other."""
    from ..targets import open_targets, path_of
    from .project import enter_project

    config = enter_project(options.config)
    named = [target.name for target in config.choose(options.target) if target.manifest or options.target]
    if not named:
        raise UsageError(config.path, "has no target with a manifest", 'manifest = "net.manifest.json" in a target')
    status = 0
    for target, model in open_targets(config, named):
        try:
            if target.manifest is None:
                hint = f'manifest = "{target.name}.manifest.json"'
                raise UsageError(target.place, f"targets.{target.name} has no manifest", hint)
            if isinstance(model, CkptauditError):
                raise model
            status = max(status, act(model, path_of(config, target.manifest), options))
        except CkptauditError as error:
            write_error(error, debug=options.debug)
            status = 2
    return status


def _write_target(model: Source, path: str, _options: argparse.Namespace) -> int:
    manifest = model.manifest
    if os.path.exists(path) and Manifest.load(path) == manifest:
        write_report(visible(f"{path}: already that of {model.name}") + "\n")
        return 0
    manifest.save(path)
    write_report(_written(path, manifest, model.name))
    return 0


def _check_target(model: Source, path: str, options: argparse.Namespace) -> int:
    if not os.path.exists(path):
        raise UsageError(path, "no such file", "ckptaudit manifest write")
    return _compare(Manifest.load(path), model, path, options)


def _compare(manifest: Manifest, source: Source, path: str, options: argparse.Namespace) -> int:
    """Say what a committed manifest says otherwise than its source; return 1 where it does."""
    from ..rules.upkeep import check_outdated

    findings = list(check_outdated(manifest, source.manifest))
    if not findings:
        write_report(visible(f"{path}: is that of {source.name}, {plural(len(manifest), 'tensor')}") + "\n")
        return 0
    from ..policy import Graded
    from ..report.table import finding_lines

    width = terminal_width(options.width)
    lines = [visible(f"{path}: is not that of {source.name}")]
    lines += [line for one in findings for line in finding_lines(Graded("error", one), width, options.verbose)]
    write_report("".join(f"{line.rstrip()}\n" for line in lines), options.color)
    return 1


def _written(path: str, manifest: Manifest, source: str) -> str:
    return visible(f"{path}: {plural(len(manifest), 'tensor')} of {source}") + "\n"


def _text(manifest: Manifest) -> str:
    """One line a tensor, so that a line-based diff of two manifests reads as a diff of two models."""
    lines = [_line(key, spec) for key, spec in manifest.tensors.items()]
    lines += [f"{key}  {kind}" for key, kind in manifest.entries.items()]
    lines += [f"{_line(key, spec)} persistent=False" for key, spec in manifest.non_persistent.items()]
    lines += [f"{' = '.join(group)}  tied" for group in manifest.ties()]
    return "".join(f"{visible(line)}\n" for line in lines)


def _line(key: str, spec: TensorSpec) -> str:
    shape = "" if spec.layout == "uninitialized" else f"{spec.shape} "  # a lazy parameter has none yet
    layout = "" if spec.layout == "strided" else f" {spec.layout}"
    return f"{key}  {shape}{spec.dtype}{layout} {spec.kind}"
