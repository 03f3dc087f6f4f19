"""``ckptaudit map``."""

from __future__ import annotations

import argparse
import os

from ..errors import UsageError
from ..inferring import InferredMapping, infer_mapping
from ..model import parse_model_spec
from ..records import replace
from ..sources import is_manifest_file, is_model_like
from ..textfile import refuse_input, write_text
from ..verification import Verification
from ..words import plural, shell_word
from .limits import parse_limits
from .streams import terminal_width, write_report


def run(options: argparse.Namespace) -> int:
    """Infer a mapping, verify and write it where that is asked for, and say how sure it is."""
    options.source, options.target = _in_order(options.source, options.target)
    _check_verify(options)
    if options.output:
        refuse_input(options.output, [options.source, options.target])
        _check_name(options.output)
    found = infer_mapping(options.source, options.target, arguments=options.arg, limits=parse_limits(options.limit))
    if options.verify and found.assignments:
        found = replace(found, verification=_verify(found, options))
    if options.output and found.assignments:
        write_text(options.output, found.to_toml())
    write_report(_page(found, options), options.color)
    return found.exit_status


def _in_order(source: str, target: str) -> tuple[str, str]:
    """Return the checkpoint first, whichever way they were typed."""
    return (target, source) if is_model_like(source) and not is_model_like(target) else (source, target)


def _check_verify(options: argparse.Namespace) -> None:
    """Raise UsageError where what --verify needs is not there, or there without it."""
    for name, given in (("--reference", options.reference), ("--input", options.input)):
        if given and not options.verify:
            raise UsageError(name, "is for --verify, which is not given", "add --verify")
    if options.verify and not is_model_like(options.target):
        raise UsageError(options.target, "is no code of a model, which --verify runs", "name the model's code")
    if options.verify and (is_model_like(options.source) or is_manifest_file(options.source)):
        raise UsageError(options.source, "has no values that could be loaded", "name the checkpoint itself")
    if bool(options.reference) != bool(options.input):
        missing = "--input" if options.reference else "--reference"
        hint = "--reference old_model.py:Net --input 1,3,224,224"
        raise UsageError(missing, "is not given, and outputs are compared of two models on one input", hint)


def _verify(found: InferredMapping, options: argparse.Namespace) -> Verification:
    from ..verifying import Trial, verify

    model = parse_model_spec(
        options.target, options.arg, f"ckptaudit map {shell_word(options.source)} {{model}} --verify"
    )
    limits = parse_limits(options.limit)
    if not options.reference:
        return verify(model, options.source, found.mapping, limits)
    reference = parse_model_spec(options.reference, options.reference_arg, "ckptaudit map ... --reference {model}")
    files = [text for text in options.input if os.path.exists(text)]
    if files and len(options.input) > 1:
        raise UsageError(f"--input {files[0]}", "is a file, which has every input in it", "name it alone")
    trial = Trial(() if files else tuple(options.input), "".join(files), options.rtol, options.atol)
    return verify(model, options.source, found.mapping, limits, reference, trial)


def _check_name(path: str) -> None:
    """Raise UsageError for a name under which --map would not know the file."""
    if not path.endswith(".toml"):
        raise UsageError(path, "does not end in .toml, by which --map knows such a file", f"-o {shell_word(path)}.toml")


def _page(found: InferredMapping, options: argparse.Namespace) -> str:
    if options.format == "json":
        from ..report.json import render_json

        return render_json(found.to_json())
    if options.format == "toml":
        return found.to_toml()
    from ..report.inferred import render_inferred

    width = terminal_width(options.width)
    return render_inferred(
        found,
        width,
        options.verbose,
        explain=options.explain,
        closing=_closing(found, options),
        commands=_commands(found, options),
    )


def _closing(found: InferredMapping, options: argparse.Namespace) -> list[str]:
    if not found.assignments:
        return ["Nothing was found, and nothing is written." if options.output else "Nothing was found."]
    return [f"{plural(len(found.mapping.rules), 'rule')} written to {options.output}."] if options.output else []


def _commands(found: InferredMapping, options: argparse.Namespace) -> list[str]:
    """Return what to type next: the file written, the comparison under it, and the load."""
    if not found.assignments:
        return []
    source, target = options.source, options.target
    file = options.output or "mapping.toml"
    given = "".join(f" --arg {shell_word(text)}" for text in options.arg)
    lines = []
    if not options.output:
        lines.append(f"ckptaudit map {shell_word(source)} {shell_word(target)}{given} -o {file}")
    lines.append(f"ckptaudit diff {shell_word(target)} {shell_word(source)}{given} --map {shell_word(file)}")
    if found.checkpoint.kind == "checkpoint":
        lines.append(f'ckptaudit.load(model, "{source}", mapping="{file}")')
    return lines
