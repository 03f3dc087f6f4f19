"""Area 7: what a file would run or hides. Readers raise the worst as a FormatError, and remark on the rest."""

from __future__ import annotations

from collections.abc import Iterator

from .base import Evidence, Finding, Rule

UNSAFE_GLOBAL = Rule(
    code="CKPT701",
    name="unsafe-global",
    fixed="error",
    summary="the pickle imports what is neither torch's nor plain data",
    messages={"": "{reason}", "named": "the pickle names what is neither torch's nor plain data: {names}"},
    details={"named": "to unpickle it is to import and call what the file chooses; torch's weights_only refuses it"},
    columns=("imports", "where", "calls"),
    why="Unpickling would import and call it with arguments the file chooses. Nobody can list all that are harmful.",
    fix="Get the weights as safetensors, or as a state dict saved on its own, from a source you trust.",
    example="torch.save(model, path)   # the whole module: its class is imported on load",
)
CODE_EXECUTION = Rule(
    code="CKPT702",
    name="code-execution",
    fixed="error",
    summary="the pickle runs code as soon as it is loaded: os, subprocess, builtins.exec, ...",
    messages={"": "{reason}", "named": "the pickle names what runs code when it is unpickled: {names}"},
    details={"named": "no state dict needs it; a full unpickling would run it"},
    columns=("imports", "where", "calls"),
    why="No checkpoint needs it: the file runs a command as soon as it is unpickled.",
    fix="Delete the file, and look at where it came from.",
    example="def __reduce__(self): return os.system, ('curl ...',)",
)
SCAN_INCOMPLETE = Rule(
    code="CKPT703",
    name="scan-incomplete",
    fixed="error",
    summary="part of the file could not be checked",
    messages={"": "{reason}"},
    why="What was not read was not judged: a limit was reached, or the format is not one that is known.",
    fix="Check where the file comes from. If it is right, raise the limit that the hint names.",
    example="a pickle of 30 MB, over the limit of 24 MiB",
)
HIDDEN_PAYLOAD = Rule(
    code="CKPT704",
    name="hidden-payload",
    fixed="error",
    summary="bytes that no tensor and no record accounts for",
    messages={"": "{reason}"},
    why="Torch does not look at them; another program may read the same file as something else, or run them.",
    fix="Get the file again from its source: nothing that saves a checkpoint leaves bytes behind its end.",
    example="a second pickle behind the first one in data.pkl",
)
OUTSIDE_PATH = Rule(
    code="CKPT705",
    name="outside-path",
    fixed="error",
    summary="an index or a distributed checkpoint names a file outside of its folder",
    messages={"": "{reason}"},
    why="Loaders join the name to the folder and open whatever it leads to; no writer makes such names.",
    fix="Do not load it; ask where it comes from.",
    example='{"weight_map": {"fc.weight": "../../other/model.safetensors"}}',
)
SUSPICIOUS_KEY = Rule(
    code="CKPT706",
    name="suspicious-key",
    fixed="warning",
    summary="a key that a terminal, a file system or another format would take for something else",
    messages={"": "{reason}"},
    why="Tools print keys, join them to paths and write them into other formats; few of them expect such a key.",
    fix="Rename the key where the file is made, or drop it: --drop KEY.",
    example='torch.save({"../../etc/passwd": tensor}, path)',
)
UNACCOUNTED_CONTENT = Rule(
    code="CKPT707",
    name="unaccounted-content",
    fixed="warning",
    summary="the file holds what no tensor refers to, or what torch.save does not write",
    messages={"": "{reason}"},
    why="torch does not look at it, but it is shipped with the weights, and another program may read it.",
    fix="Save the state dict again; what is left behind is what nothing needs.",
    example="a record data/7 in the archive, and no storage 7 in its pickle",
)
DISGUISED_FILE = Rule(
    code="CKPT708",
    name="disguised-file",
    fixed="error",
    summary="a pickle under the name of a safetensors file",
    messages={"": "{reason}"},
    why="The name says that nothing can run; programs that go by the content would unpickle it.",
    fix="Convert it to safetensors for real, or give it the name of what it is (.pth).",
    example="torch.save(state, 'model.safetensors')",
)
HOLDS_PROGRAM = Rule(
    code="CKPT709",
    name="holds-program",
    fixed="warning",
    summary="the file is a program with its weights: TorchScript code or an exported graph",
    messages={"": "{reason}"},
    why="Its weights are listed without running it. Calling it after torch.jit.load runs its code, unjudged here.",
    fix="Take the weights alone: save module.state_dict() with torch.save or safetensors.",
    example="torch.jit.save(torch.jit.script(model), 'model.pt')",
)

_SHOWN = 3  # names in a headline


def check_refused(evidence: Evidence) -> Iterator[Finding]:
    """Name what a pickle would import that is refused, where the file was opened all the same."""
    if evidence.checkpoint is None:
        return
    for verdict, rule in (("dangerous", CODE_EXECUTION), ("refused", UNSAFE_GLOBAL)):
        found = {item.name: item for item in evidence.checkpoint.globals if item.verdict == verdict}
        if found:
            names = sorted(found)
            more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
            yield Finding(
                rule,
                case="named",
                data={"names": ", ".join(names[:_SHOWN]) + more},
                rows=tuple(
                    (name, f"{found[name].member}, byte {found[name].offset:,}", found[name].call or "nothing")
                    for name in names
                ),
            )


CHECKS = (check_refused,)
