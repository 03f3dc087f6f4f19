"""Area 7: what a pickle would run. Readers refuse such files with a FormatError that carries the code."""

from __future__ import annotations

from .base import Rule

UNSAFE_GLOBAL = Rule(
    code="CKPT701",
    name="unsafe-global",
    fixed="error",
    summary="imports a callable outside the allow list",
    messages={"": "{reason}"},
    why="Unpickling would import and call it with arguments the file chooses. Nobody can list all that are harmful.",
    fix="Get the weights as safetensors, or as a state dict saved on its own, from a source you trust.",
    example="torch.save(model, path)   # the whole module: its class is imported on load",
)
CODE_EXECUTION = Rule(
    code="CKPT702",
    name="code-execution",
    fixed="error",
    summary="calls os, subprocess, builtins.exec, ...",
    messages={"": "{reason}"},
    why="No checkpoint needs it: the file runs a command as soon as it is unpickled.",
    fix="Delete the file, and look at where it came from.",
    example="cposix\nsystem\n(S'curl ...'\ntR.".replace("\n", " "),
)
SCAN_INCOMPLETE = Rule(
    code="CKPT703",
    name="scan-incomplete",
    fixed="error",
    summary="part of the file could not be checked",
    messages={"": "{reason}"},
    why="What was not read was not judged: a limit was reached, or the format is not one that is known.",
    fix="Raise the limit that is named if the file is legitimate.",
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
    example="cat best.pth payload.zip > best2.pth",
)
