"""The command line: arguments -> one command -> an exit status. A command's code is imported when it is chosen."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from ..errors import UsageError
from .streams import MIN_WIDTH, terminal_width, write, write_error

CONTRACTS = ("open", "partial", "strict", "exact", "resume")
SCAN_FORMATS = ("table", "concise", "json", "github", "sarif", "junit", "markdown")
FORMATS = (*SCAN_FORMATS, "html")

_EXIT = """exit status: 0 the contract is kept, 1 it is broken,
             2 it could not be (fully) checked"""

_MAIN = """examples:
  ckptaudit diff model.py resnet50.pth    does this file load into that model?
  ckptaudit inspect resnet50.pth          what is in this file?
  ckptaudit check                         does all that is committed still load?
  ckptaudit scan weights/                 may these files be loaded?
  ckptaudit map old.pth model.py:Net      which tensor becomes which?
  ckptaudit convert x.pth x.safetensors   as fast as a copy, and verified
  ckptaudit frozen base.pth tuned.pth     what did fine-tuning change?
  ckptaudit explain CKPT201               what does this finding mean?
"""
_DIFF = """examples:
  ckptaudit diff model.py resnet50.pth
  ckptaudit diff model.py:Net run/last.ckpt --arg num_classes=10
  ckptaudit diff torchvision.models:resnet50 'x.pth#net' --map 'module.* -> *'
  ckptaudit diff old.safetensors new.safetensors --values --rtol 1e-6

A model is FILE.py, FILE.py:NAME or PACKAGE.MODULE:NAME; a checkpoint is a file,
a folder with an index, or FILE#PATH for a state dict inside it; a manifest
stands for either.
"""
_SCAN = """examples:
  ckptaudit scan weights/
  ckptaudit scan model.safetensors.index.json --integrity
  ckptaudit scan . --exclude '*.bin' --format json

verdicts: safe, unsafe (would run code, or hides something), malformed (readers
could differ on what it holds, or it is no checkpoint), incomplete
exit status: 0 every file is safe, 1 one is unsafe or malformed, 2 one could not
             be checked to its end
"""
_INSPECT = """examples:
  ckptaudit inspect resnet50.pth
  ckptaudit inspect 'last.ckpt#optimizer' --format json
"""
_MAP = """examples:
  ckptaudit map old.pth model.py:Net
  ckptaudit map old.pth model.py:Net -o mapping.toml
  ckptaudit map hf.safetensors timm.models:deit_tiny_patch16_224 --explain
  ckptaudit map old.pth model.py:Net --verify --reference old_model.py:Net --input 1,3,224,224
  ckptaudit map old.json new.json --format json

exit status: 0 all of it is sure, 1 something is to be checked, or open, or nothing
             was found, 2 a side could not be read
"""
_CONVERT = """examples:
  ckptaudit convert resnet50.pth resnet50.safetensors
  ckptaudit convert 'last.ckpt#state_dict' weights/ --shard-size 5GB
  ckptaudit convert model.safetensors half.pth --dtype float16
  ckptaudit convert old.pth new.safetensors --map 'module.* -> *' --dry-run

The name of OUT says the format: .safetensors; .safetensors.index.json or a
folder, for shards; .pth, .pt, .bin or .ckpt for that of torch.save.
exit status: 0 it is written, and is the same as its source, bit for bit
             2 nothing was written; what was there before still is
"""
_BENCH = """examples:
  ckptaudit bench torchvision.models:resnet50 --input 8,3,224,224 --plan
  ckptaudit bench model.py:Net --input 8,3,224,224 --freeze 'backbone.*'
  ckptaudit bench model.py --step train.py:make_step --seconds 60 --format json

make_step(model, parameters) returns a ckptaudit.TrainStep.
exit status: 0 measured, 1 a --min-speedup is missed, 2 nothing could be measured:
             a step failed, or the machine is too noisy
"""
_CHECK = """examples:
  ckptaudit check
  ckptaudit check classifier --against origin/main
  ckptaudit check --format concise --output json=ckptaudit.json
  ckptaudit check --add-to-baseline shape-mismatch

What is checked is in pyproject.toml:

  [tool.ckptaudit.targets.classifier]
  model = "models.py:Net"
  checkpoint = "weights/v*.pth"
"""
_FROZEN = """examples:
  ckptaudit frozen resnet50.pth run/last.ckpt
  ckptaudit frozen base.safetensors tuned.safetensors 'backbone.*' --trainable 'fc.*'
  ckptaudit frozen base.pth 'last.ckpt#state_dict' '!fc.*' --map '* -> model.*'

A pattern is a name with * in it, a name for all below it, re:REGEX, or rows:NAME[0:100];
! takes out again, and the last one that matches decides. --map and --drop are
applied to BASE. Without a pattern the report says what did not change.
exit status: 0 frozen tensors are equal bit for bit, 1 one is not, or a trainable
             one is, 2 something could not be compared, or a pattern matches nothing
"""
_MANIFEST = """examples:
  ckptaudit manifest write model.py:Net -o net.manifest.json
  ckptaudit manifest write
  ckptaudit manifest show resnet50.pth
  git config diff.ckptaudit.textconv 'ckptaudit manifest show --textconv'
  ckptaudit manifest check model.py:Net net.manifest.json

Without a SOURCE, write and check go through the targets of pyproject.toml.
"""
_COMPLETION = """examples:
  ckptaudit completion bash > ~/.local/share/bash-completion/completions/ckptaudit
  ckptaudit completion zsh > ~/.zfunc/_ckptaudit
  ckptaudit completion fish > ~/.config/fish/completions/ckptaudit.fish

A folder for zsh has to be in its fpath, before compinit runs.
"""


class _Help(argparse.RawDescriptionHelpFormatter):
    """Help as wide as the reports; argparse's own way to the width imports shutil on every run."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=terminal_width(None))


class _Parser(argparse.ArgumentParser):
    """argparse with this program's error sentence, and without abbreviated options."""

    def __init__(self, **options: Any) -> None:
        options.setdefault("allow_abbrev", False)
        options.setdefault("formatter_class", _Help)
        super().__init__(**options)

    def print_help(self, file: Any = None) -> None:
        """Print the help to a stream that may be closed, or hold ASCII alone."""
        write(file or sys.stdout, self.format_help())

    def error(self, message: str) -> NoReturn:
        """End with the sentence of every other error."""
        write_error(UsageError("arguments", message, f"{self.prog} --help"))
        raise SystemExit(2)


class _Rule(argparse.Action):
    """Collect --map and --drop in the order in which they were written: later rules see the earlier ones' names."""

    def __call__(self, _parser: Any, namespace: Any, values: Any, option: str | None = None) -> None:
        setattr(namespace, self.dest, [*(getattr(namespace, self.dest) or []), (option, values)])


def build_parser(alone: str = "") -> argparse.ArgumentParser:
    """Return the parser of every command, or of one alone, which takes a fifth of the time."""
    parser = _Parser(
        prog="ckptaudit",
        description="Know what a checkpoint does to your model before you load it.\n"
        "Nothing in a file is ever executed.",
        epilog=f"{_MAIN}\n{_EXIT}",
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser, prog="ckptaudit")
    for name, add in _COMMANDS.items():
        if alone in ("", name):
            add(commands)
    return parser


def _add(
    commands: Any, name: str, summary: str, epilog: str, formats: Sequence[str] = (), *, status: str = f"\n{_EXIT}"
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.", epilog=f"{epilog}{status}"
    )
    if formats:
        words = f"{', '.join(formats)}; default: {formats[0]}"
        parser.add_argument("--format", choices=formats, default=formats[0], metavar="FORMAT", help=words)
    parser.add_argument("--width", type=_width, metavar="N", help="columns; default: the terminal's, at most 100")
    parser.add_argument("--color", choices=("auto", "always", "never"), default="auto", help="default: auto")
    parser.add_argument("-v", "--verbose", action="store_true", help="show notes and every row")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def _width(text: str) -> int:
    if not text.isdecimal() or len(text) > 9 or int(text) < MIN_WIDTH:
        raise argparse.ArgumentTypeError(f"{text} is no number of columns from {MIN_WIDTH} up")
    return int(text)


def _tolerance(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 <= (value := float(text)) < float("inf"):
            return value
    raise argparse.ArgumentTypeError(f"{text} is no tolerance, as 1e-6 is")


def _add_diff(commands: Any) -> None:
    parser = _add(commands, "diff", "compare a checkpoint with a model, or any two of them", _DIFF, FORMATS)
    parser.add_argument("model", metavar="MODEL", help="a model, a manifest, or a checkpoint")
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="a checkpoint, or a manifest")
    parser.add_argument(
        "--contract", choices=CONTRACTS, help="what has to hold; default: strict, or exact with --values"
    )
    _add_rules(parser)
    _add_arguments(parser)
    parser.add_argument("--values", action="store_true", help="compare the values too, bit for bit; without torch")
    parser.add_argument(
        "--rtol", type=_tolerance, default=0.0, metavar="X", help="let values differ by X of the checkpoint's"
    )
    parser.add_argument("--atol", type=_tolerance, default=0.0, metavar="X", help="let values differ by X")
    _add_output(parser)
    _add_limits(parser)
    parser.add_argument(
        "--witness", action="store_true", help="also perform the load, on a throw-away copy, and compare"
    )
    parser.add_argument("--exit-zero", action="store_true", help="exit 0 where the contract is broken")


def _add_check(commands: Any) -> None:
    parser = _add(
        commands, "check", "check all that pyproject.toml names; for the time before a merge", _CHECK, FORMATS
    )
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="targets of the configuration; default: all")
    parser.add_argument(
        "--against", metavar="REV", help="compare with what is committed at a revision, or in a folder (old/)"
    )
    _add_config(parser)
    parser.add_argument("--baseline", metavar="FILE", help="the baseline, in place of the configuration's")
    parser.add_argument("--update-baseline", action="store_true", help="take what is gone out of the baseline")
    parser.add_argument(
        "--add-to-baseline",
        action="append",
        default=[],
        metavar="RULE",
        help="put the present findings of a rule into the baseline; repeatable",
    )
    _add_output(parser)
    parser.add_argument("--exit-zero", action="store_true", help="exit 0 where a contract is broken")


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", metavar="FILE", help="the configuration; default: the nearest one upwards")


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--arg", action="append", default=[], metavar="NAME=VALUE", help="an argument of the model's constructor"
    )


def _add_inspect(commands: Any) -> None:
    parser = _add(commands, "inspect", "show what is in a checkpoint file", _INSPECT, ("table", "json"))
    parser.add_argument("files", nargs="+", metavar="FILE")
    _add_limits(parser)


def _add_scan(commands: Any) -> None:
    summary = "tell which checkpoints may be loaded; nothing in them is executed"
    parser = _add(commands, "scan", summary, _SCAN, SCAN_FORMATS, status="")
    parser.add_argument("paths", nargs="+", metavar="PATH", help="a file, or a folder to be searched to its ground")
    parser.add_argument("--integrity", action="store_true", help="read every byte: checksums, NaN, unwritten weights")
    parser.add_argument(
        "--exclude", action="append", default=[], metavar="PATTERN", help="pass over such names in folders; repeatable"
    )
    _add_output(parser)
    _add_limits(parser)


def _add_map(commands: Any) -> None:
    summary = "find which tensor of a checkpoint becomes which of a model, and how sure it is"
    parser = _add(commands, "map", summary, _MAP, ("table", "json", "toml"), status="")
    parser.add_argument("source", metavar="SOURCE", help="a checkpoint, or a manifest")
    parser.add_argument("target", metavar="TARGET", help="a model, a manifest, or a checkpoint")
    parser.add_argument("-o", "--output", metavar="FILE", help="write the rules to a TOML file, for --map")
    parser.add_argument("--explain", action="store_true", help="say why, for every decision")
    _add_arguments(parser)
    parser.add_argument("--verify", action="store_true", help="load through the mapping, and say what was loaded")
    parser.add_argument(
        "--reference", metavar="MODEL", help="with --verify: the code that SOURCE comes from; outputs are compared"
    )
    parser.add_argument(
        "--reference-arg", action="append", default=[], metavar="NAME=VALUE", help="an argument of its constructor"
    )
    parser.add_argument(
        "--input", action="append", default=[], metavar="SHAPE", help="1,3,224,224 or 1,128:int64, or a file of tensors"
    )
    parser.add_argument(
        "--rtol", type=_tolerance, default=1e-4, metavar="X", help="how far outputs may differ, of the greatest; 1e-4"
    )
    parser.add_argument("--atol", type=_tolerance, default=0.0, metavar="X", help="and how far beyond that")
    _add_limits(parser)


def _add_convert(commands: Any) -> None:
    summary = "convert a checkpoint to safetensors, shards of it, or .pth; verified, whole or not at all"
    parser = _add(commands, "convert", summary, _CONVERT, ("table", "json"), status="")
    parser.add_argument("source", metavar="IN", help="a checkpoint; FILE#PATH for a state dict inside it")
    parser.add_argument("destination", metavar="OUT", help="the file or folder to write, replaced in one step")
    _add_rules(parser)
    parser.add_argument(
        "--dtype", metavar="DTYPE", help="cast floats (or integers) to it; what does not fit is an error"
    )
    parser.add_argument("--shard-size", metavar="SIZE", help="write shards of at most 5GB, 512MiB, ...")
    parser.add_argument("--dry-run", action="store_true", help="print the plan and write nothing")
    parser.add_argument("--no-verify", dest="verify", action="store_false", help="do not read the result back")
    parser.add_argument("--drop-non-tensors", action="store_true", help="leave out what is no tensor")
    _add_limits(parser)


def _add_frozen(commands: Any) -> None:
    summary = "prove from two checkpoints that what is frozen did not change"
    parser = _add(commands, "frozen", summary, _FROZEN, FORMATS, status="")
    parser.add_argument("base", metavar="BASE", help="the checkpoint that the run began with")
    parser.add_argument("tuned", metavar="TUNED", help="one that it wrote")
    parser.add_argument("patterns", nargs="*", metavar="PATTERN", help="what is frozen, statistics included")
    parser.add_argument(
        "--trainable", action="append", default=[], metavar="PATTERN", help="what has to have changed; repeatable"
    )
    _add_rules(parser)
    _add_output(parser)
    _add_limits(parser)


def _add_rules(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--map", dest="rules", action=_Rule, metavar="RULE", help="'FROM -> TO' or FILE.toml, applied first; repeatable"
    )
    parser.add_argument("--drop", dest="rules", action=_Rule, metavar="PATTERN", help="leave checkpoint keys out")


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        *("-o", "--output"),
        action="append",
        default=[],
        metavar="FORMAT=PATH",
        help="write another format to a file as well; repeatable",
    )


def _add_limits(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--limit", action="append", default=[], metavar="NAME=N", help="how much a file may ask for; repeatable"
    )


def _add_bench(commands: Any) -> None:
    summary = "measure what freezing buys: training steps of a model, frozen and not, in time and memory"
    parser = _add(commands, "bench", summary, _BENCH, ("table", "json", "markdown"), status="")
    parser.add_argument("model", metavar="MODEL", help="a model")
    parser.add_argument(
        "--input", action="append", default=[], metavar="SHAPE", help="8,3,224,224 or 8,128:int64; one per argument"
    )
    parser.add_argument(
        "--freeze",
        action="append",
        default=[],
        metavar="PATTERN",
        help="what is frozen; default: all but the head",
    )
    parser.add_argument("--plan", action="store_true", help="only work it out: FLOPs and memory, nothing is run")
    parser.add_argument("--timed", action="store_true", help="with --plan: time each operation on its own as well")
    parser.add_argument("--step", metavar="FILE:NAME", help="a function of yours that makes the step of each variant")
    parser.add_argument("--optimizer", choices=("adamw", "adam", "sgd"), default="adamw", help="default: adamw")
    parser.add_argument("--variants", metavar="NAMES", help="only these, with commas between them")
    parser.add_argument("--depths", type=_count, metavar="N", help="freeze depths to measure; default: 3, to plan: all")
    parser.add_argument("--rounds", type=_count, metavar="N", help="default: until the noise is small")
    parser.add_argument("--seconds", type=_seconds, metavar="N", help="measure for as long")
    parser.add_argument("--min-speedup", action="append", default=[], metavar="[VARIANT=]N", help="exit 1 below it")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="default: wall")
    parser.add_argument("--threads", type=_count, metavar="N", help="of torch; default: as torch has it")
    parser.add_argument("--device", metavar="DEVICE", help="default: an accelerator, else cpu")
    parser.add_argument("--dtype", metavar="DTYPE", help="of the model and its batch; default: its own")
    parser.add_argument("--plot", metavar="FILE", help="draw the figures: .png, .svg or .pdf (needs matplotlib)")
    _add_arguments(parser)


def _count(text: str) -> int:
    if not (text.isdecimal() and 0 < int(text) < 10**6):
        raise argparse.ArgumentTypeError(f"{text} is no number from 1 up")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 10**6:
        raise argparse.ArgumentTypeError(f"{text} is no number of seconds")
    return seconds


def _add_manifest(commands: Any) -> None:
    parser = commands.add_parser(
        "manifest",
        help="write, show or check the committed description of a model or checkpoint",
        description="A manifest describes a state dict without its values: names, shapes, dtypes.",
        epilog=_MANIFEST,
    )
    actions = parser.add_subparsers(
        dest="action", metavar="ACTION", required=True, parser_class=_Parser, prog="ckptaudit manifest"
    )
    write_parser = _add(actions, "write", "write the manifest of a model or checkpoint", _MANIFEST)
    _add_project_source(write_parser)
    write_parser.add_argument("-o", "--output", metavar="FILE", help="the file to write")
    check = _add(actions, "check", "tell whether committed manifests are still those of their models", _MANIFEST)
    _add_project_source(check)
    check.add_argument("manifest", nargs="?", metavar="MANIFEST")
    show = _add(actions, "show", "show a manifest, one tensor a line", _MANIFEST, ("text", "json"))
    show.add_argument("source", metavar="SOURCE")
    show.add_argument("--textconv", action="store_true", help="for git diff: say in a line what cannot be read, exit 0")
    _add_arguments(show)


def _add_project_source(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", nargs="?", metavar="SOURCE", help="default: each target of pyproject.toml")
    parser.add_argument("--target", action="append", default=[], metavar="NAME", help="one target alone; repeatable")
    _add_config(parser)
    _add_arguments(parser)


def _add_explain(commands: Any) -> None:
    parser = _add(commands, "explain", "explain a rule, or list all rules", "examples:\n  ckptaudit explain CKPT103\n")
    parser.add_argument("rule", nargs="?", metavar="RULE", help="a code (CKPT201) or a name (shape-mismatch)")


def _add_completion(commands: Any) -> None:
    parser = _add(commands, "completion", "print what a shell needs to complete these commands", _COMPLETION, status="")
    parser.add_argument("shell", metavar="SHELL", choices=("bash", "zsh", "fish"), help="bash, zsh or fish")


_COMMANDS: dict[str, Callable[[Any], None]] = {
    "diff": _add_diff,
    "check": _add_check,
    "inspect": _add_inspect,
    "scan": _add_scan,
    "map": _add_map,
    "convert": _add_convert,
    "bench": _add_bench,
    "frozen": _add_frozen,
    "manifest": _add_manifest,
    "explain": _add_explain,
    "completion": _add_completion,
}


def command() -> NoReturn:
    """Run as the console script does: ``main``, and then no teardown.

    Collecting garbage and taking the interpreter apart are an eighth of a short command's time, and nothing is left
    that would need them.
    """
    import gc
    import os

    gc.set_threshold(100_000)
    status = main()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit(status)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status; every failure ends as a sentence on standard error."""
    options = argparse.Namespace(debug=False)
    try:
        words = sys.argv[1:] if argv is None else argv
        parser = build_parser(words[0] if words and words[0] in _COMMANDS else "")
        options = parser.parse_args(argv, options)
        return _run(parser, options)
    except KeyboardInterrupt:
        write(sys.stderr, "ckptaudit: interrupted\n")
        return 130
    except Exception as error:
        write_error(error, debug=options.debug)
        return 2


def _run(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    if options.version:
        from .. import __version__

        write(sys.stdout, f"ckptaudit {__version__}\n")
        return 0
    if options.command is None:
        parser.print_help(sys.stderr)
        return 2
    from importlib import import_module

    status: int = import_module(f".{options.command}", __name__).run(options)
    return status
