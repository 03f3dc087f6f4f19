"""``ckptaudit map``."""

from __future__ import annotations

import argparse

from ..errors import UsageError
from ..inferring import InferredMapping, infer_mapping
from ..sources import is_model_like
from ..textfile import refuse_input, write_text
from ..words import plural, shell_word
from .limits import parse_limits
from .streams import terminal_width, write_report


def run(options: argparse.Namespace) -> int:
    """Infer a mapping, write it where that is asked for, and say how sure it is."""
    if options.output:
        refuse_input(options.output, [options.source, options.target])
        _check_name(options.output)
    found = infer_mapping(options.source, options.target, arguments=options.arg, limits=parse_limits(options.limit))
    if options.output and found.assignments:
        write_text(options.output, found.to_toml())
    write_report(_page(found, options), options.color)
    return found.exit_status


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
    if is_model_like(source) and not is_model_like(target):
        source, target = target, source
    file = options.output or "mapping.toml"
    given = "".join(f" --arg {shell_word(text)}" for text in options.arg)
    lines = []
    if not options.output:
        lines.append(f"ckptaudit map {shell_word(source)} {shell_word(target)}{given} -o {file}")
    lines.append(f"ckptaudit diff {shell_word(target)} {shell_word(source)}{given} --map {shell_word(file)}")
    if found.checkpoint.kind == "checkpoint":
        lines.append(f'ckptaudit.load(model, "{source}", mapping="{file}")')
    return lines
