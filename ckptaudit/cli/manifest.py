"""``ckptaudit manifest``: the description of a model or checkpoint that projects commit."""

from __future__ import annotations

import argparse

from ..manifest import Manifest, TensorSpec
from ..sources import open_source
from .streams import write_report


def run(options: argparse.Namespace) -> int:
    """Write or show the manifest of a model, a checkpoint or a manifest file."""
    usage = f"ckptaudit manifest {options.action} {{model}}"
    if options.action == "write":
        usage += f" -o {options.output}"
    with open_source(options.source, options.arg, usage) as source:
        manifest = source.manifest
    if options.action == "write":
        manifest.save(options.output)
        write_report(f"{options.output}: {len(manifest):,} tensors of {options.source}\n")
    else:
        write_report(manifest.dumps() if options.format == "json" else _text(manifest))
    return 0


def _text(manifest: Manifest) -> str:
    """One line a tensor, so that a line-based diff of two manifests reads as a diff of two models."""
    lines = [_line(key, spec) for key, spec in manifest.tensors.items()]
    lines += [f"{key}  {kind}" for key, kind in manifest.entries.items()]
    lines += [f"{_line(key, spec)} persistent=False" for key, spec in manifest.non_persistent.items()]
    lines += [f"{' = '.join(group)}  tied" for group in manifest.ties()]
    return "".join(f"{line}\n" for line in lines)


def _line(key: str, spec: TensorSpec) -> str:
    extra = "" if spec.layout == "strided" else f" {spec.layout}"
    return f"{key}  {spec.shape} {spec.dtype}{extra} {spec.kind}"
