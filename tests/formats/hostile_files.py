"""More files that ask for as much as the limits let them: tensors, archives, streams and JSON. See hostile.py."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path

from hostile import (
    CASES,
    LIMITS,
    MIB,
    PROTO,
    READ,
    Case,
    Refusal,
    case,
    filled,
    get,
    put,
    saved,
    text,
    write,
    zip_of,
)

# -- tensors -------------------------------------------------------------------------------------------------------

HOOKS = b"ccollections\nOrderedDict\n"
REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"
STORAGE = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + b"K\x04tQ"
FOUR = ("data/0", bytes(16))
HUGE = b"\x8a\x08" + b"\xff" * 7 + b"\x3f"


def tensors(
    count: int, key: str, shape: bytes = b"K\x04\x85", stride: bytes = b"K\x01\x85", end: bytes = b"ue."
) -> bytes:
    """Return the pickle of a list of a call's parts and a dict of tensors, each made by a call of its own."""
    args = b"(" + STORAGE + b"K\x00" + shape + stride + b"\x89" + HOOKS + b")Rt"
    begin = PROTO + b"](" + REBUILD + put(0) + args + put(1) + b"}("
    return begin + b"".join(text(key.format(i)) + get(0) + get(1) + b"R" for i in range(count)) + end


def made(
    name: str, refusal: Refusal = READ, *, count: int = LIMITS.tensors, key: str = "k{}", **options: bytes
) -> None:
    """Register an archive of tensors on one storage."""
    CASES[name] = Case(lambda folder: saved(folder, tensors(count, key, **options), FOUR), *refusal)


made("tensors on one storage")
made("too many tensors", ("holds more than 105,000 tensors", "tensors"), count=150_000)
made("far too many tensors", ("holds 400,000 tensors in 3 records among 3,", "work"), count=400_000)
made("tensors with long keys", key="{:0130}")
made("tensors with wide keys", key="\U00010400{:0126}")
made(
    "tensors of 64 dimensions",
    ("holds more than 1,000,000 dimensions", "sizes"),
    shape=b"(" + b"K\x01" * 64 + b"t",
    stride=b"(" + HUGE * 64 + b"t",
)
made("tensors of 8 dimensions", shape=b"(" + b"K\x01" * 8 + b"t", stride=b"(" + HUGE * 8 + b"t")
made("views that show a part", shape=b"K\x01\x85")


@case("holds 315,001 tensors in 3 records among 3,", "work")
def parameters_in_parameters(folder: Path) -> Path:
    args = b"(" + STORAGE + b"K\x00K\x04\x85K\x01\x85\x89" + HOOKS + put(4) + b")RtR"
    wrap = b"ctorch._utils\n_rebuild_parameter\n" + put(0) + REBUILD + args + put(1)
    one = get(0) * 3 + get(1) + (b"\x88" + get(4) + b")R\x87R") * 3
    return saved(folder, PROTO + b"](" + wrap + one * LIMITS.tensors + b"e.", FOUR)


@case("holds more than 1,000 state dicts", "candidates")
def too_many_state_dicts(folder: Path) -> Path:
    one = b"}" + text("w") + get(0) + get(1) + b"Rs"
    return saved(folder, tensors(1, "w", end=b"u") + one * 100_000 + b"e.", FOUR)


@case()
def as_many_state_dicts_as_there_may_be(folder: Path) -> Path:
    one = b"}" + text("w") + get(0) + get(1) + b"Rs"
    return saved(folder, tensors(1, "w", end=b"u") + one * (LIMITS.candidates - 1) + b"e.", FOUR)


@case()
def a_state_dict_of_entries(folder: Path) -> Path:
    name = b"c" + b"m" * 400 + b"\nB\n" + put(9) + b")R"
    entries = b"".join(text(f"e{i}") + get(9) + b")R" for i in range(90_000))
    return saved(folder, tensors(1, "w", end=text("b")) + name + entries + b"ue.", FOUR)


def honest(folder: Path, count: int, more: bytes = b"") -> Path:
    """Write tensors as torch.save does; only that the pickle does not note what it refers to once."""
    begin = PROTO + b"](" + REBUILD + put(0) + HOOKS + put(1) + b"ctorch\nFloatStorage\n" + put(2) + b"}("
    head, tail = b"(" + text("storage") + get(2), text("cpu") + b"K\x04tQK\x00K\x04\x85K\x01\x85\x89" + get(1) + b")RtR"
    parts = (text(f"layers.{i:024}.weight") + get(0) + b"(" + head + text(str(i)) + tail for i in range(count))
    pickle = begin + b"".join(parts) + b"u" + more + b"e."
    return saved(folder, pickle, *((f"data/{i}", bytes(16)) for i in range(count)))


@case()
def a_hundred_thousand_honest_tensors(folder: Path) -> Path:
    return honest(folder, 100_000)


@case()
def everything_near_its_limit(folder: Path) -> Path:
    return honest(folder, 98_000, b"](" + b"]" * 60_000 + b"q\x03" * 1_400_000 + b"e")


@case("holds 104,000 tensors in 104,002 records among 4,", "work")
def everything_over_the_limit_together(folder: Path) -> Path:
    return honest(folder, 104_000, b"q\x03" * 1_460_000)


@case()
def references_to_storages(folder: Path) -> Path:
    return saved(folder, PROTO + b"](" + STORAGE[:-1] + put(0) + (get(0) + b"Q") * LIMITS.storages + b"e.", FOUR)


# -- archives ------------------------------------------------------------------------------------------------------


def records(count: int, name: str = "a/data/{}") -> Iterator[tuple[str, bytes]]:
    yield from (("a/data.pkl", PROTO + b"N."), ("a/version", b"3\n"))
    yield from ((name.format(number), b"") for number in range(count - 2))


@case("is not read: it has 105,001 records in a directory of ", "zip_entries")
def too_many_records(folder: Path) -> Path:
    return zip_of(folder / "x.pth", records(LIMITS.zip_entries + 1))


@case()
def spread_records(folder: Path) -> Path:
    return zip_of(folder / "x.pth", records(LIMITS.zip_entries), gap=4000)


@case()
def scattered_records(folder: Path) -> Path:
    return zip_of(folder / "x.pth", records(LIMITS.zip_entries), gap=5000)


@case()
def records_with_wide_names(folder: Path) -> Path:
    return zip_of(folder / "x.pth", records(LIMITS.zip_entries, "a/\U00010400{:070}"))


@case("is not read: it has 20,000 records in a directory of 21,", "zip_directory_bytes")
def a_directory_over_the_limit(folder: Path) -> Path:
    return zip_of(folder / "x.pth", records(20_000, "a/data/{:01000}"))


def script(folder: Path, named: bytes, code: dict[str, bytes], packed: bool = True) -> Path:
    pickles = {"a/data.pkl": PROTO + b"]" + named + b".", "a/version": b"3\n", "a/constants.pkl": PROTO + b")."}
    return zip_of(folder / "x.pt", (pickles | code).items(), packed=code if packed else ())


@case("its code takes more than 16,777,216 bytes", "string_bytes")
def code_that_unpacks_to_much(folder: Path) -> Path:
    named = b"".join(f"c__torch__.m{i}\nNet\na".encode() for i in range(400))
    code = b"class Net(Module):\n  __parameters__ = []\n  __buffers__ = []\n".ljust(MIB, b"x")
    return script(folder, named, {f"a/code/__torch__/m{i}.py": code for i in range(400)})


@case()
def code_of_many_classes(folder: Path) -> Path:
    unit = b"class Net(Module):\n  __parameters__ = [\n"
    return script(
        folder, b"c__torch__.m\nNet\na", {"a/code/__torch__/m.py": filled(b"", unit, most=LIMITS.string_bytes)}
    )


@case()
def code_of_quotes(folder: Path) -> Path:
    half = b'"' * (LIMITS.string_bytes // 2 - 100)
    code = b"class Net(Module):\n  __parameters__ = [" + half + b"]\n  __buffers__ = [" + half + b"]\n"
    return script(folder, b"c__torch__.m\nNet\na", {"a/code/__torch__/m.py": code}, packed=False)


@case(".debug_pkl is not read to its end: it has more than 4,500,000 opcodes", "pickle_opcodes")
def many_small_pickles(folder: Path) -> Path:
    return script(
        folder, b"", {f"a/code/{i}.debug_pkl": PROTO + b"N." for i in range(LIMITS.zip_entries - 3)}, packed=False
    )


# -- streams and tars ----------------------------------------------------------------------------------------------

MAGIC = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
PROLOGUE = MAGIC + b"\x80\x02M\xe9\x03.\x80\x02}" + text("little_endian") + b"\x88s."


@case("the object is not read to its end: it has more than 1,000,000 stack entries", "stack_depth")
def a_stream_of_lists(folder: Path) -> Path:
    return write(folder / "x.pth", PROLOGUE + filled(PROTO, b"]", b".", 64 * MIB))


@case("the list of storage keys is a malformed pickle: byte 0 ", code="CKPT002")
def a_stream_of_much_and_zeros(folder: Path) -> Path:
    pickle = PROTO + b"]" + b"Na" * (LIMITS.pickle_opcodes // 2 - 9000) + b"."
    return write(folder / "x.pth", PROLOGUE + pickle + bytes(MIB))


@case("has the protocol version ((0", code="CKPT002")
def a_stream_of_a_doubled_version(folder: Path) -> Path:
    parts = b"".join(b"(" + get(n) * 2 + b"t" + put(n + 1) for n in range(60))
    return write(folder / "x.pth", MAGIC + PROTO + b"(K\x00\x85" + put(0) + parts + b"t.")


def tar_of(path: Path, members: dict[str, bytes]) -> Path:
    blocks = []
    for name, data in members.items():
        header = bytearray(512)
        header[: len(name)] = name.encode()
        header[100:108], header[124:136], header[156:157] = b"0000644\0", b"%011o\0" % len(data), b"0"
        header[257:265], header[148:156] = b"ustar\x0000", b" " * 8
        header[148:155] = b"%06o\0" % sum(header)
        blocks += [bytes(header), data, bytes(-len(data) % 512)]
    return write(path, b"".join([*blocks, bytes(1024)]))


@case("of the tar is not read to its end: it has more than 4,500,000 opcodes", "pickle_opcodes")
def a_tar_of_many_tensors(folder: Path) -> Path:
    count = 50_000
    memory = PROTO + b"(K\x01" + text("cpu") + b"ctorch\nFloatStorage\nt." + struct.pack("<q", 1) + bytes(4)
    view = struct.pack("<iiqqq", 1, 0, 1, 1, 0)
    listed = (PROTO + b"(J" + struct.pack("<i", i + 2) + b"K\x01ctorch\nFloatTensor\nt." + view for i in range(count))
    return tar_of(
        folder / "x.pth",
        {
            "storages": PROTO + b"K\x01." + memory + PROTO + b"].",
            "tensors": PROTO + b"J" + struct.pack("<i", count) + b"." + b"".join(listed),
            "pickle": PROTO + b"}" + text("w") + text("2") + b"Qs.",
        },
    )


@case("is a pickle that torch.save did not write, not a checkpoint", code="CKPT001")
def many_bare_pickles(folder: Path) -> Path:
    return write(folder / "x.pkl", (PROTO + b"N.") * (LIMITS.pickle_bytes // 4))


# -- JSON ----------------------------------------------------------------------------------------------------------

TOKENS = "has a safetensors header of more than 2,100,000 JSON tokens"


def tensors_file(folder: Path, header: bytes, tail: int = 0) -> Path:
    return write(folder / "x.safetensors", struct.pack("<Q", len(header)) + header + bytes(tail))


def listed(name: str, unit: bytes, tokens: int) -> None:
    """Register two headers of one unit: as long as headers may be, and with as many tokens as they may have."""
    longest = LIMITS.safetensors_header_bytes
    times = min((LIMITS.json_tokens - 100) // tokens, (longest - 100) // len(unit))
    within, beyond = b'{"a":[' + unit * times + b"1]}", filled(b'{"a":[', unit, b"1]}", longest)
    sentence = "describes the tensor 'a' by something else"
    CASES[f"a header of {name}"] = Case(lambda folder: tensors_file(folder, within), sentence, code="CKPT003")
    CASES[f"a long header of {name}"] = Case(lambda folder: tensors_file(folder, beyond), TOKENS, "json_tokens")


listed("lists", b"[],", 2)
listed("objects", b'{"a":{}},', 5)
listed("texts", b'"ab",', 3)
listed("numbers", b"12345,", 1)


@case("has a safetensors header that is nested too deeply", code="CKPT003")
def a_nested_header(folder: Path) -> Path:
    return tensors_file(folder, b'{"a":' * (LIMITS.json_tokens // 3 - 100))


@case()
def a_header_of_blanks(folder: Path) -> Path:
    return tensors_file(folder, b"{" + b" " * (LIMITS.safetensors_header_bytes - 2) + b"}")


@case("has a safetensors header of 20,971,522 bytes", "safetensors_header_bytes")
def a_header_over_the_limit(folder: Path) -> Path:
    return tensors_file(folder, b"{" + b" " * LIMITS.safetensors_header_bytes + b"}")


@case("has a safetensors header of 100,000,001 bytes, the limit of the format is 100,000,000", code="CKPT003")
def a_header_over_the_limit_of_the_format(folder: Path) -> Path:
    return write(folder / "x.safetensors", struct.pack("<Q", 100_000_001) + b"{")


@case()
def wide_metadata(folder: Path) -> Path:
    wide = "\U0001f600" + "x" * (LIMITS.safetensors_header_bytes - 100)
    return tensors_file(folder, json.dumps({"__metadata__": {"a": wide}}, ensure_ascii=False).encode())


@case()
def metadata_of_two_bytes(folder: Path) -> Path:
    wide = "é" * (LIMITS.safetensors_header_bytes // 2 - 100)
    return tensors_file(folder, json.dumps({"__metadata__": {"a": wide}}, ensure_ascii=False).encode())


@case()
def many_metadata(folder: Path) -> Path:
    items = ",".join(f'"{i:x}":"v"' for i in range(LIMITS.json_tokens // 5 - 100))
    return tensors_file(folder, f'{{"__metadata__":{{{items}}}}}'.encode())


def header_of(count: int, key: str, shape: str = "1") -> bytes:
    entry = '"%s":{"dtype":"F32","shape":[%s],"data_offsets":[%d,%d]}'
    return f"{{{','.join(entry % (key.format(i), shape, 4 * i, 4 * i + 4) for i in range(count))}}}".encode()


@case()
def many_tensors_in_a_header(folder: Path) -> Path:
    return tensors_file(folder, header_of(LIMITS.tensors, "layer.{:030}.weight"), 4 * LIMITS.tensors)


@case()
def many_wide_tensors_in_a_header(folder: Path) -> Path:
    return tensors_file(folder, header_of(LIMITS.tensors, "\U00010400{:080}"), 4 * LIMITS.tensors)


@case()
def tensors_of_64_dimensions_in_a_header(folder: Path) -> Path:
    count = LIMITS.sizes // 64
    return tensors_file(folder, header_of(count, "{}", ",".join(["1"] * 64)), 4 * count)


@case("names the shard 'a-0.safetensors', which is not there", code="CKPT501")
def an_index_of_many_keys(folder: Path) -> Path:
    items = ",".join(f'"layer.{i:030}.weight":"a-{i % 900}.safetensors"' for i in range(LIMITS.tensors))
    return write(folder / "x.index.json", f'{{"weight_map":{{{items}}}}}'.encode())


@case()
def an_index_of_many_small_shards(folder: Path) -> Path:
    count = LIMITS.shards // 2  # all of them are open at once
    for number in range(count):
        header = header_of(LIMITS.tensors // count, f"{number}.{{}}")
        tensors_file(folder, header, 4 * (LIMITS.tensors // count)).rename(folder / f"a-{number}.safetensors")
    items = ",".join(f'"{n}.{i}":"a-{n}.safetensors"' for n in range(count) for i in range(LIMITS.tensors // count))
    return write(folder / "x.index.json", f'{{"weight_map":{{{items}}}}}'.encode())


@case("is not read: it names 105,000 shards", "shards")
def an_index_of_too_many_shards(folder: Path) -> Path:
    items = ",".join(f'"k{i}":"a-{i}.safetensors"' for i in range(LIMITS.tensors))
    return write(folder / "x.index.json", f'{{"weight_map":{{{items}}}}}'.encode())


@case("is not read: it has more than 2,100,000 JSON tokens", "json_tokens")
def an_index_of_lists(folder: Path) -> Path:
    return write(folder / "x.index.json", filled(b'{"weight_map":[', b"[],", b"1]}", LIMITS.index_bytes))


@case("is no index of shards: it is nested too deeply", code="CKPT001")
def a_deep_index(folder: Path) -> Path:
    return write(folder / "x.index.json", b'{"weight_map":' + b"[" * (LIMITS.json_tokens - 100))


@case("is an index without a single key", code="CKPT001")
def an_index_of_wide_blanks(folder: Path) -> Path:
    begin = '{"weight_map":{}, "\U0001f600":1'.encode()
    return write(folder / "x.index.json", begin.ljust(LIMITS.index_bytes - 1) + b"}")


@case("is a JSON file without a weight_map, not a checkpoint", code="CKPT001")
def a_huge_json_error(folder: Path) -> Path:
    return write(folder / "x.json", filled(b'{"error":[', b"[],", b"1]}", LIMITS.index_bytes))


@case("is not read: it is a JSON file of 16,777,218 bytes", "index_bytes")
def json_over_the_limit(folder: Path) -> Path:
    return write(folder / "x.json", b"{" + b" " * LIMITS.index_bytes + b"}")
