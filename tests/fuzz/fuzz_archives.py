"""Changes to containers that keep them whole: records of a zip, members of a tar, pickles and numbers in a stream.

Sizes and checksums are right again afterwards, mostly, so that what was changed inside is read at all.
"""

from __future__ import annotations

import io
import re
import sys
import tarfile
import zipfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from random import Random

from fuzz_bytes import NUMBERS, TOKENS, mutate_bytes
from fuzz_json import mutate_json
from fuzz_opcodes import mutate_pickle, split
from fuzz_pickles import integer

sys.path.append(str(Path(__file__).parents[1] / "formats"))  # the helpers of its tests
from zip_files import Entry, archive

Records = list[tuple[str, bytes]]
Mutate = Callable[[Random, bytes, list[bytes]], bytes]

_WORDS = {
    "version": (
        b"3\n",
        b"1",
        b"2",
        b"10",
        b"11",
        b"0",
        b"-1",
        b" 3",
        b"3.0",
        b"",
        b"\xd9\xa3",
        b"9" * 5000,
        b"03\n",
        b"+3",
    ),
    "byteorder": (b"little", b"big", b"big", b"little\n", b" little", b"", b"LITTLE", b"middle", b"\xff"),
    ".storage_alignment": (b"64", b"0", b"-1", b"4096", b"x", b"1" * 5000, b" 64 ", b"64\n", b"6_4", b""),
    ".format_version": (b"1", b"0", b"2", b"", b"\xff"),
}
_NAMES = (
    *(
        "data.pkl",
        "DATA.PKL",
        "data/0",
        "data/1",
        "DATA/0",
        "data/00",
        "constants.pkl",
        "version",
        ".data/version",
        "byteorder",
    ),
    *(
        "BYTEORDER",
        "code/__torch__.py",
        "a/../b",
        "é",
        "a\\b",
        "",
        "/",
        "a:b",
        "\x1b",
        "x" * 2000,
        ".data/extern_modules",
    ),
)
_FIELDS = ("crc", "size", "plain", "flags", "method", "name", "magic")


def unzip(data: bytes) -> Records | None:
    """Return names and contents of the records, or None where Python's reader fails."""
    found = _unzip(data)
    return list(found) if found else None


@lru_cache(maxsize=3000)
def _unzip(data: bytes) -> tuple[tuple[str, bytes], ...] | None:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as source:
            infos = source.infolist()
            return tuple((info.filename, source.read(info)) for info in infos if info.file_size < 1 << 20)
    except Exception:  # a broken archive breaks it in many ways
        return None


def mutate_record(rng: Random, name: str, data: bytes, others: list[bytes]) -> bytes:
    """Change one record by what it holds."""
    short = name.partition("/")[2]
    if short in _WORDS and rng.random() < 0.8:
        return rng.choice(_WORDS[short])
    if name.endswith(".pkl"):
        return mutate_pickle(rng, data, others)
    if name.endswith(".json"):
        return mutate_json(rng, data, rng.choice(others) if others else b"{}")
    if data.startswith(b"PK\x03\x04"):
        return mutate_zip(rng, data, others)
    if "/data/" in name and rng.random() < 0.7:
        return rng.choice((data + bytes(4), data[:-4], bytes(len(data)), bytes(rng.choice((4, 8, 16, 24, 96)))))
    return mutate_bytes(rng, data, rng.choice(others) if others else b"")


def _structure(rng: Random, records: Records, others: list[Records]) -> Records:
    """Drop, repeat, rename, swap or add records."""
    at, there = rng.randrange(len(records)), rng.randrange(len(records))
    top = records[0][0].partition("/")[0]
    (name, data), kind = records[at], rng.randrange(7)
    if kind == 0:
        return records[:at] + records[at + 1 :]
    if kind == 1:
        return [*records, records[at]]
    if kind == 2:
        records[at] = (
            rng.choice((name.upper(), name.swapcase(), f"{top}/{rng.choice(_NAMES)}", rng.choice(_NAMES))),
            data,
        )
    elif kind == 3:
        records[at], records[there] = (name, records[there][1]), (records[there][0], data)
    elif kind == 4:
        records[at], records[there] = records[there], records[at]
    elif kind == 5:
        records.insert(there, (f"{top}/{rng.choice(_NAMES)}", rng.choice((b"", b"1", data))))
    elif others:
        name, data = rng.choice(rng.choice(others) or records)
        records.append((f"{top}/{name.partition('/')[2]}", data))
    return records


def zip_of(records: Records, rng: Random, lies: float = 0.1) -> bytes:
    """Write an archive, where a header may lie."""
    entries = [Entry(name, data, rng.choice((0x808, 0x808, 0x800, 0))) for name, data in records]
    if entries and rng.random() < lies:
        entry = rng.choice(entries)
        field = rng.choice(_FIELDS)
        odd: object = rng.choice(NUMBERS) % (1 << 16)
        if field in ("name", "magic"):
            odd = rng.choice((entry.name.upper().encode(), *TOKENS))[: 4 if field == "magic" else None].ljust(4, b"\0")
        elif field in ("crc", "size", "plain"):
            odd = rng.choice(NUMBERS) % (1 << 32)
        rng.choice((entry.local, entry.central))[field] = odd
    if entries and rng.random() < lies:
        entry = rng.choice(entries)
        extra = rng.choice(
            (b"FB\x04\0ZZZZ", b"\x01\0\x08\0" + bytes(8), b"\x01\0\x10\0" + b"\xff" * 16, b"\x07", b"FB\xff\xff")
        )
        if rng.random() < 0.5:
            entry.local_extra = extra
        else:
            entry.extra = extra
        entry.gap = rng.choice((b"", b"", bytes(8), bytes(25)))
    where = rng.choice(("disk", "first", "here", "count", "length", "start"))
    lie = {where: rng.choice((0, 1, len(entries), 2**16 - 1))} if rng.random() < lies / 2 else None
    zip64 = rng.random() < 0.8
    return archive(*entries, zip64=zip64, end=lie, end64=lie if zip64 and rng.random() < 0.3 else None)


_CENTRAL_WIDTHS = (2, 2, 2, 2, 2, 2, 4, 4, 4, 2, 2, 2, 2, 2, 4, 4)  # of the fields behind PK\1\2
_ODD = (0, 1, 2, 8, 0x10, 0x20, 64, 0x800, 0x808, 0x8000, 2**16 - 1, 2**31, 2**32 - 1)


def _lie_in_the_directory(rng: Random, data: bytes) -> bytes:
    """Change one field of one entry, each as likely as the others."""
    starts = [match.start() for match in re.finditer(b"PK\x01\x02", data)]
    if not starts:
        return mutate_bytes(rng, data)
    field = rng.randrange(len(_CENTRAL_WIDTHS))
    at, width = rng.choice(starts) + 4 + sum(_CENTRAL_WIDTHS[:field]), _CENTRAL_WIDTHS[field]
    old = int.from_bytes(data[at : at + width], "little")
    new = rng.choice((*_ODD, old + 1, old - 1, old ^ (1 << rng.randrange(8 * width)))) % 256**width
    return data[:at] + new.to_bytes(width, "little") + data[at + width :]


def mutate_zip(rng: Random, data: bytes, others: list[bytes]) -> bytes:
    """Change an archive: what a record holds, mostly."""
    records = unzip(data)
    drawn = rng.random()
    if not records or drawn < 0.06:
        return mutate_bytes(rng, data, rng.choice(others) if others else b"")
    if drawn < 0.12:
        return _lie_in_the_directory(rng, data)
    donors = [found for found in map(unzip, rng.sample(others, min(1, len(others)))) if found]
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        if drawn < 0.25:
            records = _structure(rng, records, donors) or [("x/data.pkl", b"")]
        elif drawn < 0.93:
            pickles = [index for index, (name, _) in enumerate(records) if name.endswith(".pkl")]
            at = rng.choice(pickles) if pickles and rng.random() < 0.75 else rng.randrange(len(records))
            name = records[at][0]
            akin = [content for donor in donors for other, content in donor if other[-4:] == name[-4:]]
            records[at] = (name, mutate_record(rng, name, records[at][1], akin))
    try:
        return zip_of(records, rng, 0.6 if drawn > 0.93 else 0.02)
    except Exception:  # a name or a number that no header can hold
        return mutate_bytes(rng, data)


def pieces(data: bytes) -> list[tuple[bool, bytes]]:
    """Cut a stream into pickles (True) and what lies between them."""
    return list(_pieces(data))


@lru_cache(maxsize=3000)
def _pieces(data: bytes) -> tuple[tuple[bool, bytes], ...]:
    found: list[tuple[bool, bytes]] = []
    start = position = 0
    while position < len(data):
        parts = (
            split(data, position)
            if data[position] == 0x80 and data[position + 1 : position + 2] in b"\2\3\4\5"
            else None
        )
        if parts is None:
            position += 1
            continue
        if start < position:
            found.append((False, data[start:position]))
        found.append((True, data[position : parts[1]]))
        start = position = parts[1]
    return (*found, (False, data[start:])) if start < len(data) else tuple(found)


def mutate_stream(rng: Random, data: bytes, others: list[bytes]) -> bytes:
    """Change one pickle of a stream, or a number between them; at times whole pieces move."""
    cut = pieces(data)
    if not cut or rng.random() < 0.1:
        return mutate_bytes(rng, data, rng.choice(others) if others else b"")
    for _ in range(rng.choice((1, 1, 1, 2))):
        at, there = rng.randrange(len(cut)), rng.randrange(len(cut))
        pickled, part = max((cut[at], cut[there]), key=lambda piece: len(piece[1]) if piece[0] else 0)
        at = cut.index((pickled, part))
        if rng.random() < 0.06:
            cut[at], cut[there] = cut[there], cut[at]
        elif pickled:
            donors = [piece for is_pickle, piece in pieces(rng.choice(others)) if is_pickle] if others else []
            cut[at] = (True, mutate_pickle(rng, part, donors))
        else:
            cut[at] = (False, mutate_bytes(rng, part))
    return b"".join(part for _, part in cut)


def untar(data: bytes) -> Records | None:
    """Return the members of a tar, or None where Python's reader fails."""
    try:
        with tarfile.open(fileobj=io.BytesIO(data)) as source:
            members = [member for member in source.getmembers() if member.isfile() and member.size < 1 << 20]
            return [(member.name, source.extractfile(member).read()) for member in members]  # type: ignore[union-attr]
    except Exception:  # a broken archive breaks it in many ways
        return None


def tar_of(records: Records, rng: Random) -> bytes:
    """Write a tar, where a member may be a link or come with a pax record."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w:", format=rng.choice((tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT))) as tar:
        for name, data in records:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            if rng.random() < 0.02:
                info.type = rng.choice((b"2", b"1", b"5", b"L", b"\0", b"7"))
            if rng.random() < 0.03:
                info.pax_headers = {
                    rng.choice(("path", "size", "mtime", "comment", "hdrcharset")): rng.choice(
                        ("0", "pickle", "x" * 9000)
                    )
                }
            tar.addfile(info, io.BytesIO(data))
    return target.getvalue()


_TAR_FIELDS = {
    0: (b"storages\0", b"tensors\0", b"pickle\0", b"././@PaxHeader\0", b"\0", b"storages/\0", b"\xff"),
    124: (
        b"%011o\0" % 0,
        b"%011o\0" % 512,
        b"%011o\0" % 2**32,
        b"\0%010o\0" % 512,
        b" %o \0" % 88,
        b"\x80",
        b"0o1",
        b"-1",
    ),
    156: (b"x", b"x", b"0", b"\0", b"g", b"L", b"K", b"1", b"2", b"5", b"7", b"S"),
    257: (b"ustar\x0000", b"ustar  \0", b"\0" * 8),
    345: (b"far\0", b"\0", b"1" * 12),
}


def _lie_in_a_header(rng: Random, data: bytes) -> bytes:
    """Change fields of one header of a tar, or which blocks there are; checksums are right again, mostly."""
    starts = [at for at in range(0, len(data), 512) if data[at + 257 : at + 262] == b"ustar"]
    if not starts:
        return mutate_bytes(rng, data)
    at = rng.choice(starts)
    if rng.random() < 0.2:
        there = rng.choice(starts)
        return data[:at] + data[there : there + rng.choice((512, 1024, 1536))] + data[at:]
    block = bytearray(data[at : at + 512])
    for _ in range(rng.choice((1, 1, 2))):
        offset = rng.choice(sorted(_TAR_FIELDS))
        value = rng.choice(_TAR_FIELDS[offset])
        block[offset : offset + len(value)] = value
    block[148:156] = b" " * 8
    block[148:156] = rng.choice((b"%06o\0 ", b"%06o\0 ", b"%07o\0", b" %06o\0", b"\0%06o\0")) % sum(block)
    return data[:at] + bytes(block) + data[at + 512 :]


def mutate_tar(rng: Random, data: bytes, others: list[bytes]) -> bytes:
    """Change a tar: what a member holds, mostly."""
    records = untar(data)
    drawn = rng.random()
    if not records or drawn < 0.1:
        return mutate_bytes(rng, data, rng.choice(others) if others else b"")
    donors = [found for found in map(untar, rng.sample(others, min(1, len(others)))) if found]
    if drawn < 0.25:
        return _lie_in_a_header(rng, data)
    if drawn < 0.35:
        records = _structure(rng, records, donors) or [("pickle", b"")]
    else:
        at = rng.randrange(len(records))
        name, content = records[at]
        akin = [other for donor in donors for donated, other in donor if donated == name]
        records[at] = (name, mutate_stream(rng, content, akin))
    try:
        return tar_of(records, rng)
    except Exception:  # a name or a number that no header can hold
        return mutate_bytes(rng, data)


def _archives(data: bytes) -> list[tuple[int, int]]:
    """Return where the archives begin and end that lie in a file one behind the other."""
    bounds, start = [], 0
    while (end := data.find(b"PK\x05\x06", start)) >= 0:
        bounds.append((start, min(len(data), end + 22)))
        start = bounds[-1][1]
    return bounds or [(0, len(data))]


def mutate_distributed(rng: Random, files: dict[str, bytes], others: list[dict[str, bytes]]) -> dict[str, bytes]:
    """Change a folder of torch.distributed.checkpoint: its .metadata, or an archive, whose place is kept up to date."""
    changed = dict(files)
    if ".metadata" not in files or rng.random() < 0.5:
        donors = [other[".metadata"] for other in others if ".metadata" in other]
        changed[".metadata"] = mutate_pickle(rng, files.get(".metadata", b""), rng.sample(donors, min(1, len(donors))))
        return changed
    name = rng.choice(sorted(files))
    data = files[name]
    if rng.random() < 0.1 and name != ".metadata":
        del changed[name]
        return changed
    bounds = _archives(data)
    at = rng.randrange(len(bounds))
    start, end = bounds[at]
    donors = [part for other in others for key, part in other.items() if key != ".metadata"]
    part = mutate_zip(rng, data[start:end], rng.sample(donors, min(1, len(donors))))
    changed[name] = data[:start] + part + data[end:]
    grown = len(part) - (end - start)
    moved = {end - start: len(part), **{first: first + grown for first, _ in bounds[at + 1 :] if first}}
    changed[".metadata"] = _with_numbers(files[".metadata"], moved, rng)
    return changed


def _with_numbers(data: bytes, moved: dict[int, int], rng: Random) -> bytes:
    """Return a pickle with some of its integers replaced."""
    parts = split(data)
    if parts is None:
        return data
    written = {integer(old, rng): integer(new, rng) for old, new in moved.items() for _ in range(4)}
    return b"".join(written.get(op, op) for op in parts[0]) + data[parts[1] :]
