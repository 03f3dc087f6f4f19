"""Changes to JSON text that keep it JSON, mostly: values, names, repeats. Objects are lists of pairs here."""

from __future__ import annotations

import json
from random import Random
from typing import Any

from fuzz_bytes import NUMBERS, mutate_bytes


class Pairs(list[tuple[str, Any]]):
    """A JSON object in the order of the file, where a name may occur twice."""


TEXTS = (
    *("", "weight", "__metadata__", "dtype", "shape", "data_offsets", "weight_map", "metadata", "total_size", "schema"),
    *(
        "F32",
        "F16",
        "BF16",
        "I64",
        "I32",
        "U32",
        "F64",
        "U64",
        "U16",
        "I16",
        "I8",
        "U8",
        "BOOL",
        "F4",
        "F6_E2M3",
        "F6_E3M2",
    ),
    *("F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E5M2FNUZ", "C64", "C128", "f32", "float32", "quint4x2", "int4", "float16"),
    *("ckptaudit.manifest/1", "ckptaudit.manifest/2", "a.safetensors", "../a.safetensors", "/etc/passwd", "..", "a/b"),
    *("a.bin", "A.bin", "a\0.bin", "\x1b[2J", "\u202e", "\ud800", "\udfff", "é", "k" * 5000, "parameter", "strided"),
    *(
        "tensors",
        "entries",
        "versions",
        "non_persistent",
        "source",
        "stride",
        "storage",
        "storage_offset",
        "key",
        "type",
    ),
)
_RAW = (
    "NaN",
    "-Infinity",
    "1e999",
    "1.5",
    "-0",
    "01",
    "9" * 20,
    "9" * 5000,
    "1e5",
    "'a'",
    "tru",
    "[" * 1200 + "]" * 1200,
)


class Raw:
    """Text that is written as it is."""

    def __init__(self, text: str) -> None:
        self.text = text


_MOST_PLACES = 2000


def odd_value(rng: Random) -> Any:
    """Return a value that a field may not expect."""
    simple = (None, True, False, [], Pairs(), 0.5, [0, 0], [1, -1], [[0]])
    drawn = rng.random()
    if drawn < 0.4:
        return rng.choice(NUMBERS) + rng.choice((0, 1, -1))
    if drawn < 0.6:
        return rng.choice(TEXTS)
    if drawn < 0.7:
        return Raw(rng.choice(_RAW))
    if drawn < 0.8:
        return [rng.choice(NUMBERS) for _ in range(rng.choice((1, 2, 3, 70)))]
    return rng.choice(simple)


def dumps(value: Any, rng: Random) -> str:
    """Write the value, at times with more blanks or escapes than needed."""
    if isinstance(value, Raw):
        return value.text
    if isinstance(value, Pairs):
        inner = ",".join(f"{json.dumps(name)}:{dumps(item, rng)}" for name, item in value)
        return "{" + inner + "}"
    if isinstance(value, list):
        return "[" + ",".join(dumps(item, rng) for item in value) + "]"
    text = json.dumps(value, ensure_ascii=rng.random() < 0.8)
    return f" {text}\n" if rng.random() < 0.002 else text


def _places(value: Any) -> list[tuple[Any, int]]:
    """Return every container and index of a value inside the value."""
    found: list[tuple[Any, int]] = []
    todo = [value]
    while todo and len(found) < _MOST_PLACES:  # a container may have been put into itself
        node = todo.pop()
        if isinstance(node, list):
            found += [(node, index) for index in range(len(node))]
            todo += [item[1] for item in node] if isinstance(node, Pairs) else node
    return found


def _change(rng: Random, value: Any, other: Any) -> Any:
    places = _places(value)
    if not places or rng.random() < 0.02:
        return odd_value(rng)
    node, index = rng.choice(places)
    named = isinstance(node, Pairs)
    name, item = node[index] if named else ("", node[index])
    drawn = rng.random()
    if drawn < 0.1:
        del node[index]
    elif drawn < 0.2:
        node.insert(rng.randrange(len(node) + 1), node[index])
    elif drawn < 0.3:
        there = rng.randrange(len(node))
        node[index], node[there] = node[there], node[index]
    elif drawn < 0.4 and named:
        node[index] = (rng.choice((*TEXTS, *[pair[0] for pair in node])), item)
    elif drawn < 0.6 and type(item) is int:
        tweaked = item + rng.choice((1, -1, 2, 4, 8, -8, item, 1 << 32))
        node[index] = (name, tweaked) if named else tweaked
    elif drawn < 0.7:
        donor, there = rng.choice(_places(other) or [(node, index)])
        taken = donor[there][1] if isinstance(donor, Pairs) else donor[there]
        node[index] = (name, taken) if named else taken
    else:
        odd = odd_value(rng)
        node[index] = (name, odd) if named else odd
    return value


def parse(text: bytes) -> Any:
    """Return the value, or None where the text is no JSON that fits here."""
    try:
        return json.loads(text, object_pairs_hook=Pairs)
    except (ValueError, RecursionError):
        return None


def mutate_json(rng: Random, text: bytes, other: bytes) -> bytes:
    """Return JSON with a few changes; at times the text is changed without a look at what it is."""
    value = parse(text)
    if value is None or rng.random() < 0.1:
        return mutate_bytes(rng, text, other)
    donor = parse(other)
    for _ in range(rng.choice((1, 1, 1, 2, 2, 4))):
        value = _change(rng, value, donor)
    try:
        return dumps(value, rng).encode("utf-8", "surrogatepass")
    except RecursionError:  # a container was put into itself
        return mutate_bytes(rng, text, other)


def mutate_safetensors(rng: Random, data: bytes, other: bytes) -> bytes:
    """Change the header, or the bytes behind it, and write the right length in front, mostly."""
    length = int.from_bytes(data[:8], "little")
    if length > len(data) - 8 or rng.random() < 0.15:
        return mutate_bytes(rng, data, other)
    header, body = data[8 : 8 + length], data[8 + length :]
    donor = other[8 : 8 + int.from_bytes(other[:8], "little")]
    if rng.random() < 0.85:
        header = mutate_json(rng, header, donor)
    if rng.random() < 0.2:
        body += bytes(rng.choice((1, 2, 4, 8, 16)))
    elif rng.random() < 0.2:
        body = body[: -rng.choice((1, 2, 4, 8, 16))]
    stated = len(header) + (rng.choice((1, -1, 8, 1 << 32, 1 << 63)) if rng.random() < 0.05 else 0)
    return (stated % (1 << 64)).to_bytes(8, "little") + header + body
