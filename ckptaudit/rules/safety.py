"""Area 7: what a pickle would run. Readers refuse such files with a FormatError that carries the code."""

from __future__ import annotations

from collections.abc import Iterator

from .base import Evidence, Finding, Rule

UNSAFE_GLOBAL = Rule(
    code="CKPT701",
    name="unsafe-global",
    fixed="error",
    summary="the pickle imports what is neither torch's nor plain data",
    messages={"": "{reason}"},
    why="Unpickling would import and call it with arguments the file chooses. Nobody can list all that are harmful.",
    fix="Get the weights as safetensors, or as a state dict saved on its own, from a source you trust.",
    example="torch.save(model, path)   # the whole module: its class is imported on load",
)
CODE_EXECUTION = Rule(
    code="CKPT702",
    name="code-execution",
    fixed="error",
    summary="the pickle runs code as soon as it is loaded: os, subprocess, builtins.exec, ...",
    messages={"": "{reason}"},
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
    fix="Check where the file comes from. If it is right, ckptaudit.open_checkpoint takes larger limits.",
    example="a pickle of 300 MB, over the limit of 256 MiB",
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


def check_refused(evidence: Evidence) -> Iterator[Finding]:
    """Name what a pickle would import that is refused, where the file was opened all the same."""
    if evidence.checkpoint is None:
        return
    for verdict, rule in (("dangerous", CODE_EXECUTION), ("refused", UNSAFE_GLOBAL)):
        found = {item.name: item for item in evidence.checkpoint.globals if item.verdict == verdict}
        if found:
            where = ", ".join(f"{name} ({item.member}, byte {item.offset:,})" for name, item in sorted(found.items()))
            yield Finding(rule, data={"reason": f"the pickle names {where}"})


CHECKS = (check_refused,)
