"""``ckptaudit manifest``: the description of a model or checkpoint that projects commit."""

from __future__ import annotations

import argparse

from ..json_text import to_lines
from ..manifest import Manifest, TensorSpec
from ..sources import open_source
from ..textfile import refuse_input
from ..words import plural, visible
from .streams import write_report


def run(options: argparse.Namespace) -> int:
    """Write or show the manifest of a model, a checkpoint or a manifest file."""
    usage = f"ckptaudit manifest {options.action} {{model}}"
    if options.action == "write":
        from shlex import quote

        refuse_input(options.output, [options.source])
        usage += f" -o {quote(options.output)}"
    with open_source(options.source, options.arg, usage) as source:
        manifest = source.manifest
    if options.action == "write":
        manifest.save(options.output)
        write_report(visible(f"{options.output}: {plural(len(manifest), 'tensor')} of {options.source}") + "\n")
    else:
        write_report(to_lines(manifest.to_json()) if options.format == "json" else _text(manifest))
    return 0


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
