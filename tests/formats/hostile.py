"""Files that ask for as much time and memory as the limits let them, or for more.

``CASES`` maps a name to a function that writes the file into a folder and returns its path, and to what is said of it:
the sentence of the refusal (empty where the file is read), its code, and the limit that it names. Sizes follow the
default limits.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from zlib import compressobj, crc32

from ckptaudit.formats.base import DEFAULT_LIMITS as LIMITS

MIB = 1 << 20
PROTO = b"\x80\x02"
DEEP = "a/data.pkl is not read to its end: it has "
OPCODES = (f"{DEEP}more than 4,500,000 opcodes", "pickle_opcodes")
MEMORY = (f"{DEEP}values of more than 117,440,512 bytes", "pickle_memory")
STACK = (f"{DEEP}more than 1,000,000 stack entries", "stack_depth")
PATHS = ("holds more than 200,000 paths to containers and tensors", "paths")
TEXT = ("holds paths of more than 16,777,216 characters together", "path_text")
READ = ("", "")
Refusal = tuple[str, str]  # sentence, limit


@dataclass(frozen=True)
class Case:
    make: Callable[[Path], Path]
    sentence: str = ""
    limit: str = ""
    code: str = "CKPT703"


CASES: dict[str, Case] = {}


Register = Callable[[Callable[[Path], Path]], Callable[[Path], Path]]


def case(sentence: str = "", limit: str = "", code: str = "CKPT703") -> Register:
    def register(make: Callable[[Path], Path]) -> Callable[[Path], Path]:
        CASES[make.__name__.replace("_", " ")] = Case(make, sentence, limit, code)
        return make

    return register


# -- writing ------------------------------------------------------------------------------------------------------


def text(value: str) -> bytes:
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def put(index: int) -> bytes:
    return b"r" + struct.pack("<I", index)


def get(index: int) -> bytes:
    return b"j" + struct.pack("<I", index)


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def zip_of(path: Path, records: Iterable[tuple[str, bytes]], gap: int = 0, packed: Iterable[str] = ()) -> Path:
    """Write an archive. Records without data get ``gap`` bytes of a sparse file; ``packed`` ones are deflated."""
    directory = []
    with path.open("wb") as file:
        for name, data in records:
            raw, method, offset, plain, stored = name.encode(), 0, file.tell(), len(data) or gap, data
            if name in packed:
                packer = compressobj(9, 8, -15)
                stored, method = packer.compress(data) + packer.flush(), 8
            fields = (0x800, method, 0, 0, crc32(data) if data else 0, len(stored) or gap, plain, len(raw), 0)
            file.write(struct.pack("<4s5H3I2H", b"PK\x03\x04", 20, *fields) + raw + stored)
            file.seek(0 if data else gap, 1)
            directory.append(struct.pack("<4s6H3I5H2I", b"PK\x01\x02", 20, 20, *fields, 0, 0, 0, 0, offset) + raw)
        start, listed, count = file.tell(), b"".join(directory), len(directory)
        end = start + len(listed)
        long = struct.pack("<4sQ2H2I4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, len(listed), start)
        short = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, *[min(0xFFFF, count)] * 2, len(listed), start, 0)
        file.write(listed + long + struct.pack("<4sIQI", b"PK\x06\x07", 0, end, 1) + short)
    return path


def saved(folder: Path, pickle: bytes, *more: tuple[str, bytes]) -> Path:
    """Write an archive of ``torch.save`` around a pickle."""
    records = [("a/data.pkl", pickle), ("a/version", b"3\n"), *((f"a/{name}", data) for name, data in more)]
    return zip_of(folder / "x.pth", records)


def filled(begin: bytes, unit: bytes, end: bytes = b"", most: int = LIMITS.pickle_bytes) -> bytes:
    """Repeat ``unit`` until the text is as long as it may be."""
    return begin + unit * ((most - len(begin) - len(end)) // len(unit)) + end


def endless(name: str, unit: bytes, refusal: Refusal, begin: bytes = b"", code: str = "CKPT703") -> None:
    """Register a pickle of one unit, over and over, as long as pickles may be."""
    CASES[name] = Case(lambda folder: saved(folder, filled(PROTO + begin, unit)), *refusal, code)


def numbered(
    name: str, unit: Callable[[int], bytes], count: int, refusal: Refusal, begin: bytes = b"", end: bytes = b"."
) -> None:
    """Register a pickle of ``count`` units that differ."""

    def make(folder: Path) -> Path:
        return saved(folder, PROTO + begin + b"".join(map(unit, range(count))) + end)

    CASES[name] = Case(make, *refusal)


def busy(name: str, unit: bytes, each: int, refusal: Refusal, begin: bytes = b"]") -> None:
    """Register a pickle of one unit that counts as ``each`` opcodes, with as many as a file may have; it is whole."""

    def make(folder: Path) -> Path:
        return saved(folder, PROTO + begin + unit * ((LIMITS.pickle_opcodes - 2000) // each) + b".")

    CASES[name] = Case(make, *refusal)


# -- one opcode, over and over ------------------------------------------------------------------------------------

for _name, _unit in {
    "lists": b"]", "nones": b"N", "numbers": b"M\xff\xff", "tuples": b")\x85", "marked tuples": b"(t",
    "wide texts": b"\x8c\x04" + "\U0001f600".encode(), "byte arrays": b"\x96\x02" + bytes(7) + b"ab",
    "put at one place": b"Nq\x00", "frames of one": b"\x95\x01" + bytes(7) + b"N",
}.items():  # fmt: skip
    endless(_name, _unit, STACK)
for _name, _unit in {
    "dicts": b"}", "sets": b"\x8f", "lists in lists": b"]]a", "number keys": b"}K\x01Ns", "none keys": b"}NNs",
    "float keys": b"}G?\xf1\x99\x99\x99\x99\x99\x9aNs",
}.items():  # fmt: skip
    endless(_name, _unit, MEMORY)
endless("tuples in tuples", b"\x85", MEMORY, b"N")
endless("marks", b"(", (f"{DEEP}more than 10,000 open marks", "open_marks"))
endless("globals", b"ca\nb\n", OPCODES)
endless("stack globals", b"h\x00h\x01\x93", OPCODES, text("a") + b"q\x00" + text("b") + b"q\x01")
endless("marks and frames", b"\x95" + bytes(8), ("byte 25,165,8", ""), b"(" * (LIMITS.open_marks - 1), "CKPT002")
endless("names behind a fault", b"ci", ("byte 2 is the opcode 0x30", ""), b"0", "CKPT002")
endless("lines behind a fault", b"c\n", ("byte 2 is the opcode 0x30", ""), b"0", "CKPT002")
endless("modules behind a fault", b"ios\nsystem\n", ("names os.system (a/data.pkl, byte 3)", ""), b"0", "CKPT702")

# -- what a pickle builds -----------------------------------------------------------------------------------------

WIDE = b"\x8c\x04" + "\U0001f600".encode()
NONES = b"a(" + b"N" * 500_000 + b"tq\x01a"
ORDERED = b"]ccollections\nOrderedDict\nq\x00a"
OBJECT = b"]ca\nB\nq\x00a"
TWO_KEYS = b"](" + text("a") + b"q\x00" + text("b") + b"q\x01"
busy("a list of numbers", b"M\xff\xffa", 2, READ)
busy("a list of lists", b"]a", 2, MEMORY)
busy("a list of tuples", b")\x85a", 3, PATHS)
busy("a list of wide texts", WIDE + b"a", 2, MEMORY)
busy("a list of aliases", b"h\x00a", 2, PATHS, b"]}q\x00a")
busy("calls", b"h\x00)Ra", 6, PATHS, ORDERED)
busy("calls of many arguments", b"h\x00h\x01Ra", 4, OPCODES, b"]ca\nB\nq\x00" + NONES)
busy("objects", b"h\x00)\x81a", 8, PATHS, OBJECT)
busy("objects of one state", b"h\x00)\x81h\x01ba", 12, PATHS, OBJECT + b"}q\x01(" + text("k") + b"Nua")
busy("sets of one list", b"h\x00h\x01Ra", 4, OPCODES, b"]c__builtin__\nset\nq\x00a](K\x01K\x02e\x85q\x01a")
busy("tuples as keys", b"}h\x00Nsa", 5, OPCODES, b"](" + b"N" * 1000 + b"tq\x00a")
busy("bytes as keys", b"}h\x00Nsa", 5, OPCODES, b"]B\xa0\x0f\x00\x00" + b"x" * 4000 + b"q\x00a")
busy("big numbers as keys", b"}h\x00Nsa", 5, OPCODES, b"]\x8b\x00\x0f\x00\x00" + b"x" * 0xF00 + b"q\x00a")
busy(
    "encoded text",
    b"h\x00h\x01Ra",
    4,
    MEMORY,
    b"]c_codecs\nencode\nq\x00a" + text("é" * 999) + text("latin1") + b"\x86q\x01a",
)
numbered("many keys", lambda i: text(f"{i:x}") + b"N", 190_000, READ, b"}(", b"u.")
numbered("many dicts of two", lambda i: b"}(h\x00Nh\x01Nu", 900_000, MEMORY, TWO_KEYS, b"e.")
numbered("new memo entries", put, 4_000_000, (f"{DEEP}more than 1,500,000 memo entries", "memo_entries"), b"N")
numbered("scattered memo entries", lambda i: put((i * 2654435761) & 0xFFFFFFFF), 4_000_000, MEMORY, b"N")
numbered(
    "new globals", lambda i: f"cm{i:x}\na\n".encode(), 50_000, (f"{DEEP}more than 10,000 names of globals", "globals")
)
numbered("long globals", lambda i: b"c" + b"m" * 400 + f"{i:06x}\na\na".encode(), LIMITS.globals - 1, READ, b"]")
numbered(
    "references",
    lambda i: b"h\x00Qa",
    300_000,
    (f"{DEEP}more than 120,000 references to storages", "storages"),
    b"]K\x01q\x00a",
)


@case()
def one_wide_text(folder: Path) -> Path:
    return saved(folder, PROTO + text("\U0001f600" + "x" * (LIMITS.string_bytes - 4)) + b".")


@case()
def many_wide_texts(folder: Path) -> Path:
    return saved(folder, filled(PROTO + b"](", text("\U0001f600" + "x" * 252), b"e."))


@case()
def one_huge_number(folder: Path) -> Path:
    return saved(folder, PROTO + b"\x8b" + struct.pack("<I", 16 * MIB) + b"\x7f" * (16 * MIB) + b".")


@case(f"{DEEP}a string of 16,777,217 bytes", "string_bytes")
def a_text_over_the_limit(folder: Path) -> Path:
    return saved(folder, PROTO + text("x" * (LIMITS.string_bytes + 1)) + b".")


@case("its record data.pkl of 25,165,825 bytes is not read", "pickle_bytes")
def a_pickle_over_the_limit(folder: Path) -> Path:
    return saved(folder, filled(PROTO, b"N", b".", LIMITS.pickle_bytes + 1))


@case()
def pickles_in_values(folder: Path) -> Path:
    inner = PROTO + b"]" + b"]a" * (LIMITS.pickle_bytes // 40) + b"."
    return saved(folder, PROTO + b"](" + (b"B" + struct.pack("<I", len(inner)) + inner) * 18 + b"e.")


# -- trees ---------------------------------------------------------------------------------------------------------


@case(*PATHS)
def doubled_lists(folder: Path) -> Path:
    parts = b"".join(b"](" + get(n) * 2 + b"e" + put(n + 1) for n in range(500))
    return saved(folder, PROTO + b"](]" + put(0) + parts + b"e.")


@case(*PATHS)
def doubled_dicts_and_tuples(folder: Path) -> Path:
    parts = b"".join(
        b"}(" + text("a") + get(n) * 2 + b"\x86" + text("b") + get(n) + b"u" + put(n + 1) for n in range(500)
    )
    return saved(folder, PROTO + b"](}" + put(0) + parts + b"e.")


def module(children: bytes, parameters: bytes = b"}") -> bytes:
    places = text("_parameters") + parameters + text("_buffers") + b"}" + text("_modules") + b"}(" + children + b"u"
    return b"ca\nNet\n)\x81}(" + places + b"ub"


@case(*PATHS)
def doubled_modules(folder: Path) -> Path:
    parts = [module(text("a") + get(n) + text("b") + get(n)) + put(n + 1) for n in range(400)]
    return saved(folder, PROTO + b"](" + module(b"") + put(0) + b"".join(parts) + b"e.")


@case(*PATHS)
def modules_of_many_empty_places(folder: Path) -> Path:
    nones = b"}(" + b"".join(text(f"{i:x}") + b"N" for i in range(100_000)) + b"u" + put(0)
    return saved(folder, PROTO + b"](" + nones + module(b"", get(0)) * 20_000 + b"e.")


@case("holds a list that holds itself", code="CKPT002")
def a_list_in_itself(folder: Path) -> Path:
    return saved(folder, PROTO + b"]q\x00h\x00a.")


@case("holds containers nested deeper than 512", "nesting")
def deep_lists(folder: Path) -> Path:
    return saved(folder, PROTO + b"]" * 900_000 + b"a" * 899_999 + b".")


@case(*TEXT)
def many_lists_at_depth(folder: Path) -> Path:
    depth = LIMITS.nesting - 2
    return saved(folder, PROTO + b"]" * depth + b"](" + b"]" * 190_000 + b"e" + b"a" * depth + b".")


@case(*TEXT)
def long_wide_paths(folder: Path) -> Path:
    return saved(folder, PROTO + b"}" + text("\U0001f600" + "k" * 4000) + b"](" + b"]" * 190_000 + b"es.")


@case()
def keys_that_look_alike(folder: Path) -> Path:
    return saved(folder, filled(PROTO + b"](}(ca\nB\nq\x00)R]", b"h\x00)R]", b"ue.", MIB * 3 // 4))
