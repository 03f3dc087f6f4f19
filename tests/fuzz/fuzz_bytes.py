"""Changes that know nothing of a format: bits, blocks, numbers, tokens."""

from __future__ import annotations

from random import Random

WIDTHS = (1, 2, 4, 8)
NUMBERS = (
    *(0, 1, 2, 3, 4, 7, 8, 15, 16, 22, 42, 63, 64, 65, 127, 128, 255, 256, 511, 512, 1000, 4095, 4096, 65535, 65536),
    *(2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**63 - 1, 2**63, 2**64 - 1, 67_324_752),
    *(-1, -2, -128, -(2**31), -(2**63)),
)
# Where a file named here would be made, if a payload ran; the runner looks for it.
MARKER = "/tmp/ckptaudit-fuzz-marker"
PAYLOAD = b"cposix\nsystem\nX" + len(f"touch {MARKER}").to_bytes(4, "little") + f"touch {MARKER}".encode() + b"\x85R"
TOKENS = (
    PAYLOAD,
    *(b"cposix\nsystem\n", b"cbuiltins\neval\n", b"ios\nsystem\n", b"csubprocess\nPopen\n", b"ctorch\nos.system\n"),
    *(b"ccollections\nOrderedDict\n)R", b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch\nFloatStorage\n", b"\x80\x02"),
    *(
        b"\x80\x04\x95",
        b".",
        b"(",
        b"R",
        b"b",
        b"Q",
        b"\x93",
        b"\x81",
        b"\x92",
        b"(lp0\n",
        b"I01\n",
        b"L1L\n",
        b"F1e9\n",
    ),
    *(b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07"),
    *(b"PK\x07\x08", b"ustar\x0000", b"ustar  \0", b"{", b"}", b"[", b"]", b'"', b",", b":", b"null", b"true", b"NaN"),
    *(b"1e999", b"-1", b'"__metadata__":', b'"data_offsets":[0,0]', b'"dtype":"F4"', b'"shape":[]', b'"weight_map"'),
    *(
        b'"ckptaudit.manifest/1"',
        b"../",
        b"/",
        b"\\",
        b"\n",
        b"\r",
        b"\x1b[2J",
        b"\xc3\x28",
        b"\xed\xa0\x80",
        b"\\ud800",
    ),
    *(b"\xef\xbb\xbf", b"\xe2\x80\xae", b"data.pkl", b"DATA.PKL", b"constants.pkl", b"version", b"byteorder", b"big"),
    *(b"storage", b"cpu", b"cuda:0", b"meta", b"state_dict", b"_metadata", b"_modules", b"__class__", b"weight"),
    *(b"version https://git-lfs.github.com/spec/v1\n", b"<!doctype html>", b"\x1f\x8b", b"GGUF", b"\x93NUMPY", b"ET12"),
)


def number_bytes(rng: Random) -> bytes:
    """Return an odd number, as a file might hold it."""
    width = rng.choice(WIDTHS)
    number = rng.choice(NUMBERS) + rng.choice((0, 0, 0, 1, -1))
    return (number % 256**width).to_bytes(width, rng.choice(("little", "little", "big")))


def _block(rng: Random, data: bytes) -> tuple[int, int]:
    """Return a begin and an end inside the data; short blocks are likely."""
    start = rng.randrange(len(data) + 1)
    return start, min(len(data), start + 1 + int(rng.expovariate(1 / rng.choice((2, 16, 128)))))


def _flip(rng: Random, data: bytes, other: bytes) -> bytes:
    at = rng.randrange(len(data))
    return data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :]


def _byte(rng: Random, data: bytes, other: bytes) -> bytes:
    at = rng.randrange(len(data))
    return data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]


def _delete(rng: Random, data: bytes, other: bytes) -> bytes:
    start, end = _block(rng, data)
    return data[:start] + data[end:]


def _copy(rng: Random, data: bytes, other: bytes) -> bytes:
    start, end = _block(rng, rng.choice((data, other)))
    return _put(rng, data, (data if rng.random() < 0.5 else other)[start:end])


def _repeat(rng: Random, data: bytes, other: bytes) -> bytes:
    start, end = _block(rng, data)
    return data[:end] + data[start:end] * rng.choice((1, 1, 2, 9)) + data[end:]


def _swap(rng: Random, data: bytes, other: bytes) -> bytes:
    (a, b), (c, d) = sorted((_block(rng, data), _block(rng, data)))
    return data[:a] + data[c:d] + data[b:c] + data[a:b] + data[d:] if b <= c else data


def _cut(rng: Random, data: bytes, other: bytes) -> bytes:
    at = rng.randrange(len(data))
    return data[:at] if rng.random() < 0.7 else data[at:]


def _splice(rng: Random, data: bytes, other: bytes) -> bytes:
    return data[: rng.randrange(len(data) + 1)] + other[rng.randrange(len(other) + 1) :]


def _number(rng: Random, data: bytes, other: bytes) -> bytes:
    return _put(rng, data, number_bytes(rng))


def _token(rng: Random, data: bytes, other: bytes) -> bytes:
    return _put(rng, data, rng.choice(TOKENS))


def _fill(rng: Random, data: bytes, other: bytes) -> bytes:
    start, end = _block(rng, data)
    return data[:start] + rng.choice((b"\0", b"\xff", b" ", b"A")) * (end - start) + data[end:]


def _put(rng: Random, data: bytes, part: bytes) -> bytes:
    """Put bytes somewhere: over what is there, which keeps the length, or between."""
    at = rng.randrange(len(data) + 1)
    return data[:at] + part + data[at + (len(part) if rng.random() < 0.7 else 0) :]


_CHANGES = (_flip, _flip, _byte, _byte, _delete, _copy, _repeat, _swap, _cut, _splice, _number, _number, _token, _fill)


def mutate_bytes(rng: Random, data: bytes, other: bytes = b"") -> bytes:
    """Return the data with a few changes; ``other`` is what parts are taken from."""
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 5))):
        data = rng.choice(_CHANGES)(rng, data or b"\0", other or data or b"\0")
    return data
