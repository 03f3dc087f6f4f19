"""Pickles made opcode by opcode: values that torch.save might write, and values that it never would."""

from __future__ import annotations

import struct
from random import Random

from fuzz_bytes import NUMBERS, TOKENS

from ckptaudit.formats.pickles.globals import ALLOWED, INERT

_DANGEROUS = ("posix.system", "builtins.eval", "os.system", "subprocess.Popen", "torch.load", "torch.os.system")
_ODD = (
    *("my.Config", "numpy.core.multiarray.scalar", "__builtin__.set", "copy_reg._reconstructor", "a.b.c", ".", "a."),
    *("torch._utils._rebuild_nested_tensor", "torch.storage.TypedStorage", "__torch__.Net", "é.é", "x.\x1b[2J"),
    *("torch.float", "torch.int1", "collections.deque", "torch.sparse.FloatTensor", "torch.cuda.FloatStorage"),
)
_REBUILDERS = sorted(name for name in ALLOWED if "_rebuild_" in name)
_STORAGES = sorted(name for name in ALLOWED if name.endswith("Storage"))
_DTYPES = sorted(name for name in ALLOWED if name.startswith("torch.") and name[6:7].islower() and name.count(".") == 1)
_OTHER = sorted(ALLOWED - {*_REBUILDERS, *_STORAGES, *_DTYPES})
KINDS = (_REBUILDERS, _STORAGES, _DTYPES, _OTHER, sorted(INERT))  # globals that may stand in for each other
_CONTAINERS = ("collections.OrderedDict", "collections.Counter", "builtins.set", "torch.Size", "builtins.bytearray")
TEXTS = (
    *("weight", "bias", "0", "1", "2", "7", "state_dict", "state", "param_groups", "_metadata", "_modules", "_buffers"),
    *("_parameters", "_non_persistent_buffers_set", "version", "cpu", "cuda:0", "meta", "storage", "module", "latin1"),
    *(
        "torch.sparse_coo",
        "torch.sparse_csr",
        "conj",
        "neg",
        "",
        ".",
        "a.b",
        "é",
        "\x1b[2J",
        "~2",
        "-1",
        "\u0661",
        "k" * 300,
    ),
    *("little_endian", "_is_buffer", "__class__", "data", "items", "numel", "utf-8", "punycode", "00", "_extra_state"),
)


def integer(number: int, rng: Random) -> bytes:
    """Write an int in one of the forms there are, often the shortest."""
    if 0 <= number < 256 and rng.random() < 0.8:
        return b"K" + bytes([number])
    if 0 <= number < 65536 and rng.random() < 0.8:
        return b"M" + struct.pack("<H", number)
    if -(2**31) <= number < 2**31 and rng.random() < 0.9:
        return b"J" + struct.pack("<i", number)
    raw = number.to_bytes(number.bit_length() // 8 + 1, "little", signed=True)
    if rng.random() < 0.1:
        return f"I{number}\n".encode()
    return b"\x8a" + bytes([len(raw)]) + raw if rng.random() < 0.9 else b"\x8b" + struct.pack("<I", len(raw)) + raw


def text(value: str) -> bytes:
    """Write a str as protocol 2 does."""
    raw = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(raw)) + raw


def name(full: str, rng: Random) -> bytes:
    """Write a global, at times as protocol 4 does."""
    module, _, attribute = full.rpartition(".")
    if rng.random() < 0.95:
        return f"c{module}\n{attribute}\n".encode()
    return text(module) + text(attribute) + b"\x93"


def tuple_of(*items: bytes) -> bytes:
    """Write a tuple."""
    if len(items) <= 3:
        return b"".join(items) + (b")", b"\x85", b"\x86", b"\x87")[len(items)]
    return b"(" + b"".join(items) + b"t"


def call(full: str, *arguments: bytes, rng: Random) -> bytes:
    """Write a call, at times by NEWOBJ."""
    return name(full, rng) + tuple_of(*arguments) + (b"R" if rng.random() < 0.93 else b"\x81")


def random_name(rng: Random) -> str:
    """Return a global: one that torch allows, mostly."""
    kinds = (_REBUILDERS, _STORAGES, _DTYPES, _OTHER, _OTHER, sorted(INERT), _ODD, _DANGEROUS)
    return rng.choice(rng.choice(kinds))


def count(rng: Random) -> int:
    """Return a size, mostly a small one."""
    return rng.choice((0, 1, 1, 2, 2, 3, 4, 6, 12, 24)) if rng.random() < 0.9 else rng.choice(NUMBERS)


def storage(rng: Random) -> bytes:
    """Write a persistent id."""
    key = rng.choice(("0", "1", "2", "3", "4")) if rng.random() < 0.9 else rng.choice(TEXTS)
    fields = [text("storage"), name(rng.choice(_STORAGES), rng), text(key), text("cpu"), integer(count(rng), rng)]
    fields += [b"N"] if rng.random() < 0.1 else []
    return tuple_of(*_loosely(rng, fields)) + b"Q"


def _loosely(rng: Random, fields: list[bytes]) -> list[bytes]:
    """Leave arguments as they are, mostly."""
    if rng.random() < 0.1:
        fields[rng.randrange(len(fields))] = value(rng, 2)
    if rng.random() < 0.03:
        fields.pop()
    return fields


def sizes(rng: Random) -> tuple[bytes, bytes]:
    """Write a shape and a stride, as tuples mostly."""
    shape = [count(rng) for _ in range(rng.choice((0, 1, 1, 2, 2, 3, 3, 66)))]
    stride, step = [], 1
    for size in reversed(shape):
        stride.insert(0, step if rng.random() < 0.9 else count(rng))
        step = min(step * max(size, 1), 2**63)
    if rng.random() < 0.05:
        stride.append(1)
    listed = rng.random() < 0.05
    written = [[integer(number, rng) for number in numbers] for numbers in (shape, stride)]
    first, second = (b"](" + b"".join(numbers) + b"e" if listed else tuple_of(*numbers) for numbers in written)
    return first, second


def tensor(rng: Random, depth: int = 3) -> bytes:
    """Write a call that rebuilds a tensor."""
    shape, stride = sizes(rng)
    view = [rng.choice((storage(rng), b"h\x00")), integer(rng.choice((0, 0, 0, 1, count(rng))), rng), shape, stride]
    wants_grad = rng.choice((b"\x88", b"\x89", b"\x89"))
    hooks = rng.choice((call("collections.OrderedDict", rng=rng), call("collections.OrderedDict", rng=rng), b"N", b"}"))
    dtype = name(rng.choice(_DTYPES), rng)
    metadata = [b"}" + text(rng.choice(("conj", "neg"))) + b"\x88s"] if rng.random() < 0.1 else []
    inner = tensor(rng, depth - 1) if depth > 1 and rng.random() < 0.5 else value(rng, 1)
    made = {
        "tensor": view,
        "tensor_v2": [*view, wants_grad, hooks, *metadata],
        "tensor_v3": [*view, wants_grad, hooks, dtype, *metadata],
        "parameter": [inner, wants_grad, hooks],
        "parameter_with_state": [inner, wants_grad, hooks, value(rng, 1)],
        "meta_tensor_no_storage": [dtype, shape, stride, wants_grad],
        "qtensor": [
            *view,
            tuple_of(name("torch.per_tensor_affine", rng), b"G?\xf0" + bytes(6), b"K\0"),
            b"\x89",
            hooks,
        ],
        "sparse_tensor": [call("torch.serialization._get_layout", text("torch.sparse_coo"), rng=rng)],
        "device_tensor_from_cpu_tensor": [inner, dtype, text("cpu"), wants_grad],
        "wrapper_subclass": [name("torch.Tensor", rng), dtype, shape, stride, b"K\0", b"N", text("cpu"), wants_grad],
    }
    made["sparse_tensor"].append(tuple_of(inner, inner, shape, b"\x88"))
    which = "tensor_v2" if rng.random() < 0.5 else rng.choice(sorted(made))
    if rng.random() < 0.1:
        function = name(f"torch._utils._rebuild_{which}", rng)
        wrapped = [function, name("torch.nn.parameter.Parameter", rng), tuple_of(*_loosely(rng, made[which])), b"}"]
        return call("torch._tensor._rebuild_from_type_v2", *wrapped, rng=rng)
    return call(f"torch._utils._rebuild_{which}", *_loosely(rng, made[which]), rng=rng)


def value(rng: Random, depth: int = 3) -> bytes:
    """Write any value; containers nest at most ``depth`` deep."""
    drawn = rng.random()
    if depth and drawn < 0.45:
        return _container(rng, depth - 1)
    if depth and drawn < 0.55:
        return tensor(rng, min(depth, 2))
    if drawn < 0.7:
        return integer(rng.choice(NUMBERS), rng)
    if drawn < 0.82:
        return text(rng.choice(TEXTS))
    if drawn < 0.9:
        return name(random_name(rng), rng)
    huge = b"\x8b" + struct.pack("<I", 2000) + bytes(1999) + b"\x01"
    flat = (
        b"N",
        b"\x88",
        b"\x89",
        b")",
        b"]",
        b"}",
        b"G\x7f\xf8" + bytes(6),
        b"U\x02\xff\x00",
        b"h\x00",
        b"h\x01",
        huge,
    )
    return rng.choice((*flat, b"\x8f", b"C\x03\x80\x02.", rng.choice(TOKENS)))


def _container(rng: Random, depth: int) -> bytes:
    items = [value(rng, depth) for _ in range(rng.choice((0, 1, 1, 2, 3)))]
    pairs = b"".join(key(rng) + item for item in items)
    kind = rng.randrange(8)
    if kind == 0:
        return b"](" + b"".join(items) + b"e"
    if kind == 1:
        return tuple_of(*items)
    if kind == 2:
        return b"}(" + pairs + b"u"
    if kind == 3:
        return call("collections.OrderedDict", rng=rng) + b"(" + pairs + b"u"
    if kind == 4:
        listed = b"".join(tuple_of(key(rng), item) for item in items)
        return call(rng.choice(_CONTAINERS), b"](" + listed + b"e", rng=rng)
    if kind == 5:
        return (
            call("collections.OrderedDict", rng=rng) + b"(" + pairs + b"u}" + text("_metadata") + value(rng, 1) + b"sb"
        )
    if kind == 6:
        return call(random_name(rng), *items, rng=rng) + (value(rng, depth) + b"b" if rng.random() < 0.3 else b"")
    return rng.choice((b"\x8f(", b"(")) + b"".join(items) + rng.choice((b"\x90", b"\x91", b"d", b"l"))


def key(rng: Random) -> bytes:
    """Write a key of a dict: text, mostly."""
    return text(rng.choice(TEXTS)) if rng.random() < 0.9 else value(rng, 1)


def program(rng: Random) -> bytes:
    """Write a whole pickle, a state dict more often than not."""
    proto = b"\x80" + bytes([rng.choice((2, 2, 2, 2, 3, 4, 5, 6, 0))])
    if rng.random() < 0.3:  # what follows may refer to the storage by its place in the memo
        return proto + storage(rng) + b"q\x00" + value(rng) + b"\x86."
    if rng.random() < 0.3:
        return proto + value(rng) + b"."
    pairs = b"".join(key(rng) + tensor(rng) for _ in range(rng.choice((1, 2, 3))))
    return proto + rng.choice((b"}(", b"ccollections\nOrderedDict\n)R(")) + pairs + b"u."
