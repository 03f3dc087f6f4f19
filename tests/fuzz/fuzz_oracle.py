"""What torch and safetensors make of a file, told by a process that may crash, hang or run out of memory.

Only files that the reader accepted come here, and torch reads them with its weights_only unpickler alone.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pickle
import resource
import signal
import struct
import subprocess
import sys
import warnings
from collections import OrderedDict
from collections.abc import Callable
from typing import Any
from zlib import crc32

SECONDS = 20
MEMORY = 2 << 30  # bytes above what the process has when it starts


class RefusedError(Exception):
    """The library raised; the message is its own."""


class CrashedError(Exception):
    """The library ended the process, or had to be stopped."""


class Oracle:
    """A process that loads files on request. It is started when it is first needed, and again after a crash."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None

    def ask(self, how: str, path: str) -> Any:
        """Return what ``READERS[how]`` says of a file. Raises RefusedError or CrashedError."""
        if self._child is None:
            # Not a fork: this process has used torch, whose threads and locks do not survive one.
            self._child = subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._child.stdin and self._child.stdout
        _send(self._child.stdin.fileno(), (how, path))
        answer = _receive(self._child.stdout.fileno())
        if answer is None:
            raise CrashedError(f"{how}: the process ended with {self.close()}")
        if answer[0] == "refused":
            raise RefusedError(answer[1])
        return answer[1]

    def close(self) -> int:
        """Let the child end; return how it ended (-14: its time was over)."""
        child, self._child = self._child, None
        if child is None:
            return 0
        with child:
            assert child.stdin
            child.stdin.close()
        return child.returncode


def _send(pipe: int, value: object) -> None:
    data = pickle.dumps(value)
    data = struct.pack("<I", len(data)) + data
    with contextlib.suppress(BrokenPipeError):
        while data:
            data = data[os.write(pipe, data) :]


def _receive(pipe: int) -> Any:
    """Return the next value, or None where the other end is gone."""
    data, needed = b"", 4
    while len(data) < needed:
        part = os.read(pipe, needed - len(data))
        if not part:
            return None
        data += part
        if needed == 4 == len(data):
            needed += struct.unpack("<I", data)[0]
    return pickle.loads(data[4:])


def serve() -> None:
    """Answer until nobody asks any more. What the libraries print goes nowhere."""
    import torch

    torch.set_num_threads(1)
    pages = int(open("/proc/self/statm").read().split()[0])
    limit = pages * os.sysconf("SC_PAGE_SIZE") + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    telling, null = os.dup(1), os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 1)
    os.dup2(null, 2)
    warnings.simplefilter("ignore")
    while (question := _receive(0)) is not None:
        how, path = question
        signal.alarm(SECONDS)  # which ends the process
        try:
            answer = ("loaded", READERS[how](path))
        except Exception as error:  # whatever the library raises
            answer = ("refused", f"{type(error).__name__}: {error}")
        signal.alarm(0)
        _send(telling, answer)


# What a library loaded, as plain data ------------------------------------------------------------------------


def facts_of(tensor: Any) -> dict[str, Any]:
    """Describe a tensor in the words of TensorSpec; ``crc`` is that of its whole storage, ``memory`` its address."""
    import torch

    parameter = isinstance(tensor, torch.nn.Parameter)
    buffer = isinstance(tensor, torch.nn.Buffer) or getattr(tensor, "_is_buffer", False) is True
    facts: dict[str, Any] = {
        "shape": tuple(tensor.shape),
        "dtype": str(tensor.dtype).removeprefix("torch."),
        "layout": str(tensor.layout).removeprefix("torch."),
        "requires_grad": tensor.requires_grad,
        "kind": "parameter" if parameter else "buffer" if buffer else "tensor",
    }
    if tensor.layout is not torch.strided:
        return facts
    facts |= {"stride": tensor.stride(), "conj": tensor.is_conj(), "neg": tensor.is_neg()}
    facts["storage_offset"] = tensor.storage_offset()
    if tensor.device.type != "meta":
        storage = tensor.untyped_storage()
        data = ctypes.string_at(storage.data_ptr(), storage.nbytes()) if storage.nbytes() else b""
        facts |= {"storage_nbytes": len(data), "crc": crc32(data), "memory": storage.data_ptr()}
    return facts


Path = tuple["str | None", ...]


def part(key: object) -> str | None:
    """Write a key as a part of a path, as the reader does; None where the two may differ."""
    if isinstance(key, str):
        return key if key.isprintable() else key.encode("unicode_escape").decode()
    if type(key) is int and key.bit_length() <= 64:
        return str(key)
    return None


def tree_of(root: object, part: Callable[[object], str | None] = part) -> list[tuple[Path, str, Any]]:
    """List tensors and mappings in the order of the file: (path, "tensor", facts) and (path, "mapping", keys)."""
    import torch

    found: list[tuple[Path, str, Any]] = []
    seen: set[int] = set()
    todo: list[tuple[Path, object]] = [((), root)]
    while todo:
        path, node = todo.pop()
        if isinstance(node, torch.Tensor):
            found.append((path, "tensor", facts_of(node)))
            continue
        if id(node) in seen or not isinstance(node, (dict, list, tuple, set)) or len(path) > 100:
            continue
        seen.add(id(node))
        pairs = list(node.items()) if isinstance(node, dict) else list(enumerate(node))
        if isinstance(node, dict):
            keys = [(part(key), type(key) is str, isinstance(value, torch.Tensor)) for key, value in pairs]
            versions = getattr(node, "_metadata", None)
            known = isinstance(versions, dict)
            found.append((path, "mapping", (keys, [part(name) for name in versions] if known else None)))
        todo += [((*path, part(key)), value) for key, value in reversed(pairs)]
    return found


def _torch(path: str) -> list[tuple[Path, str, Any]]:
    import torch

    return tree_of(torch.load(path, weights_only=True, map_location="cpu"))


def _mapped(path: str) -> list[tuple[Path, str, Any]]:
    import torch

    return tree_of(torch.load(path, weights_only=True, map_location="cpu", mmap=True))


def _tolerant() -> Any:
    """Return torch's weights_only unpickler under another name, and open to persistent ids that are text.

    torch opens its old tar format with any other module than its own, and that format has such ids.
    """
    import inspect
    import types

    from torch import _weights_only_unpickler as safe

    module = types.ModuleType("tolerant")
    source = inspect.getsource(safe)
    changed = source.replace("type(pid) is not int", "type(pid) not in (int, str)")
    assert changed != source
    exec(compile(changed, "tolerant", "exec"), module.__dict__)
    return module


def _tar(path: str) -> list[tuple[Path, str, Any]]:
    from torch.serialization import _legacy_load

    with open(path, "rb") as file:
        return tree_of(_legacy_load(file, "cpu", _tolerant(), encoding="utf-8"))


def _script(path: str) -> list[tuple[Path, str, Any]]:
    import torch

    return tree_of(OrderedDict(torch.jit.load(path, map_location="cpu").state_dict(keep_vars=True)))


def _safetensors(path: str) -> list[tuple[Path, str, Any]]:
    """Load with both interfaces of the library, which must agree."""
    import safetensors.torch

    loaded = safetensors.torch.load_file(path)
    with safetensors.safe_open(path, framework="pt") as file:
        assert set(file.keys()) == set(loaded)
        for key, tensor in loaded.items():
            other = file.get_tensor(key)
            assert (other.shape, other.dtype) == (tensor.shape, tensor.dtype)
    return tree_of(loaded, str)  # the reader keeps the keys of this format as they are


def _pickle(path: str) -> tuple[int, object]:
    """Return where torch's unpickler stops, and what plain data it made."""
    import io

    from torch import _weights_only_unpickler as safe

    with open(path, "rb") as file:
        stream = io.BytesIO(file.read())
    unpickler = safe.Unpickler(stream, encoding="utf-8")
    unpickler.persistent_load = lambda pid: ("persistent", pid)
    value = unpickler.load()
    return stream.tell(), plain(value)


def plain(value: object, depth: int = 40) -> object:
    """Write a value as text-like data that both sides can write of theirs; calls are named, not compared."""
    if depth == 0:
        return "..."
    if value is None or isinstance(value, (bool, int, str, bytes, bytearray)):
        return (type(value).__name__, bytes(value) if isinstance(value, bytearray) else value)
    if isinstance(value, float):
        return ("float", struct.pack(">d", value))
    if isinstance(value, dict):
        kind = "dict" if type(value) is dict else type(value).__name__
        return (kind, [(plain(key, depth - 1), plain(item, depth - 1)) for key, item in value.items()])
    if type(value) in (list, tuple):
        return (type(value).__name__, [plain(item, depth - 1) for item in value])  # type: ignore[attr-defined]
    if isinstance(value, set):
        return ("set", sorted({repr(plain(item, depth - 1)) for item in value}))
    return ("other", type(value).__name__)


READERS: dict[str, Callable[[str], Any]] = {
    "torch": _torch,
    "mapped": _mapped,
    "tar": _tar,
    "script": _script,
    "safetensors": _safetensors,
    "pickle": _pickle,
}

if __name__ == "__main__":
    serve()
