"""``ckptaudit completion``: what a shell may offer, made from the parser itself."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator

from ..records import dataclass
from .streams import write_report


@dataclass(frozen=True)
class Words:
    """What may follow a command (``manifest write``; empty for the program): commands, options, values of options."""

    command: str
    summary: str
    commands: dict[str, str]
    options: dict[str, str]
    choices: dict[str, tuple[str, ...]]
    values: tuple[str, ...]


def run(options: argparse.Namespace) -> int:
    """Print the script of a shell."""
    from . import build_parser

    known = list(words_of(build_parser()))
    write_report({"bash": bash, "zsh": zsh, "fish": fish}[options.shell](known))
    return 0


def words_of(parser: argparse.ArgumentParser, command: str = "", summary: str = "") -> Iterator[Words]:
    """Yield what may follow the program and each of its commands."""
    nested: dict[str, argparse.ArgumentParser] = {}
    summaries: dict[str, str] = {}
    options: dict[str, str] = {}
    choices: dict[str, tuple[str, ...]] = {}
    values: tuple[str, ...] = ()
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            nested = dict(action.choices)
            summaries = {one.dest: one.help or "" for one in action._choices_actions}
        elif not action.option_strings:
            values = tuple(map(str, action.choices or values))
        for option in action.option_strings:
            options[option] = action.help or ""
            if action.nargs != 0:
                choices[option] = tuple(map(str, action.choices or ()))
    yield Words(command, summary, {name: summaries.get(name, "") for name in nested}, options, choices, values)
    for name, inner in nested.items():
        yield from words_of(inner, f"{command} {name}".strip(), summaries.get(name, ""))


def bash(known: Iterable[Words]) -> str:
    """Return a script that bash sources; where it offers nothing, bash offers files."""
    return _filled(known, _BASH, 'COMPREPLY=($(compgen -W "{}" -- "$cur"))', "")


def zsh(known: Iterable[Words]) -> str:
    """Return a script that zsh sources, or loads as ``_ckptaudit`` from its function path."""
    return _filled(known, _ZSH, "compadd -- {}", "_files")


def _filled(known: Iterable[Words], frame: str, offer: str, files: str) -> str:
    """Fill the frame of a shell: the words that are commands, what may follow an option, and what else may follow."""
    known = list(known)
    steps = "|".join(f'"{_step(one.command)}"' for one in known if one.command)
    after = [
        f'    "{one.command} {option}") {offer.format(" ".join(values)) if values else files or "true"}; return;;'
        for one in known
        for option, values in one.choices.items()
    ]
    then = [
        f'    "{one.command}") offered="{" ".join((*one.commands, *one.values))}"; options="{" ".join(one.options)}";;'
        for one in known
    ]
    filled = {"@STEPS@": steps, "@AFTER@": "\n".join(after), "@THEN@": "\n".join(then)}
    for mark, text in filled.items():
        frame = frame.replace(mark, text)
    return frame


def _step(command: str) -> str:
    """Return the command that was known before its last word, and that word."""
    before, _, last = command.rpartition(" ")
    return f"{before} {last}"


_BASH = """# bash completion for ckptaudit: source <(ckptaudit completion bash)
_ckptaudit() {
  local cur="${COMP_WORDS[COMP_CWORD]}" prev="${COMP_WORDS[COMP_CWORD-1]}" command="" offered="" options="" word
  COMPREPLY=()
  for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
    case "$command $word" in
    @STEPS@) command="${command:+$command }$word";;
    esac
  done
  case "$command $prev" in
@AFTER@
  esac
  case "$command" in
@THEN@
  esac
  if [[ $cur == -* ]]; then offered="$options"; fi
  COMPREPLY=($(compgen -W "$offered" -- "$cur"))
}
complete -o default -F _ckptaudit ckptaudit
"""
_ZSH = """#compdef ckptaudit
# zsh completion for ckptaudit: source <(ckptaudit completion zsh)
_ckptaudit() {
  local cur="${words[CURRENT]}" prev="${words[CURRENT-1]}" command="" offered="" options="" word
  for word in "${(@)words[2,CURRENT-1]}"; do
    case "$command $word" in
    @STEPS@) command="${command:+$command }$word";;
    esac
  done
  case "$command $prev" in
@AFTER@
  esac
  case "$command" in
@THEN@
  esac
  if [[ $cur == -* ]]; then offered="$options"; fi
  if [[ -n $offered ]]; then compadd -- ${=offered}; else _files; fi
}
compdef _ckptaudit ckptaudit
"""


def fish(known: Iterable[Words]) -> str:
    """Return a script that fish sources; what a command line begins with decides, as files may be named as commands."""
    lines = ["# fish completion for ckptaudit: ckptaudit completion fish | source"]
    for one in known:
        start = f"complete -c ckptaudit -n {_condition(one)}"
        lines += [f"{start} -f -a {name} -d {_quoted(summary)}" for name, summary in one.commands.items()]
        lines += [f"{start} -f -a {value}" for value in one.values]
        for option, summary in one.options.items():
            name = f"-l {option[2:]}" if option.startswith("--") else f"-s {option[1:]}"
            values = one.choices.get(option)
            takes = "" if values is None else f" -x -a {_quoted(' '.join(values))}" if values else " -r"
            lines.append(f"{start} {name}{takes} -d {_quoted(summary)}")
    return "".join(f"{line}\n" for line in lines)


def _condition(one: Words) -> str:
    """Return the test that this command has been typed, and where it has commands of its own, none of those."""
    typed = " ".join([r"^\S+", *one.command.split()])
    end = "$" if one.commands else "( |$)"
    return _quoted(f"commandline -opc | string join ' ' | string match -qr -- '{typed}{end}'")


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
