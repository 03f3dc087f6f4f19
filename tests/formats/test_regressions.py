"""What fuzzing has found (tests/fuzz), smallest forms first: each says what happened before it was mended.

Where torch is asked as well, it is torch's weights_only unpickler, and the point is that both see one file.
"""

from __future__ import annotations

import io
import json
import struct
import tarfile
import time
import zlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import save as save_safetensors
from torch import nn
from torch_files import raw_bytes, read, save, storage_bytes, with_pickle
from zip_files import Entry, archive

from ckptaudit.errors import FormatError, UsageError
from ckptaudit.formats import open_checkpoint
from ckptaudit.formats.base import DEFAULT_LIMITS, ByteSource
from ckptaudit.formats.identify import identify
from ckptaudit.formats.pickles.machine import run
from ckptaudit.inspection import inspect
from ckptaudit.manifest import Manifest

pytestmark = pytest.mark.filterwarnings("ignore")

PROTO = b"\x80\x02"
ORDERED = b"ccollections\nOrderedDict\n"
COUNTER = b"ccollections\nCounter\n"
SIZE = b"ctorch\nSize\n"
RECORDS = {"data/0": bytes(range(8)), "data/1": bytes(range(8, 16)), "data/2": bytes(64)}


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def storage(key: str = "0", cls: str = "Float", count: int = 2) -> bytes:
    return b"(" + text("storage") + f"ctorch\n{cls}Storage\n".encode() + text(key) + text("cpu") + b"K%ctQ" % count


def tensor(
    key: str = "0",
    cls: str = "Float",
    size: bytes = b"K\x02\x85",
    grad: bytes = b"\x89",
    more: bytes = b"",
    count: int = 2,
) -> bytes:
    view = storage(key, cls, count) + b"K\0" + size + b"K\x01\x85"
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + view + grad + ORDERED + b")R" + more + b"tR"


def pair(name: str, value: bytes) -> bytes:
    return b"]" + text(name) + b"a" + value + b"a"


def loaded(path: Path) -> object:
    return torch.load(path, weights_only=True, map_location="cpu")


A, B = tensor("0"), tensor("1")
PAIRS = b"](" + pair("a", A) + b"e"


# Dicts that torch and the reader filled differently ----------------------------------------------------------


@pytest.mark.parametrize(
    ("pickle", "keys"),
    [
        # The items of the argument were forgotten as soon as one more was stored.
        (ORDERED + PAIRS + b"\x85R" + text("b") + B + b"s", ["a", "b"]),
        (COUNTER + b"}" + text("a") + A + b"s\x85R" + text("b") + B + b"s", ["a", "b"]),
        # A list that grew behind the call gave its later items to a dict that had been made from it before.
        (ORDERED + b"]q\x01(" + pair("a", A) + b"e\x85R" + text("l") + b"h\x01" + pair("b", B) + b"as", ["a", "l"]),
    ],
    ids=["ordered", "counter", "grown"],
)
def test_a_dict_has_the_items_it_was_made_from(pickle: bytes, keys: list[str], tmp_path: Path) -> None:
    path = with_pickle(tmp_path, PROTO + pickle + b".", **RECORDS)
    assert list(loaded(path)) == list(read(path).manifest.all_keys) == keys


@pytest.mark.parametrize(
    ("pickle", "reason"),
    [
        # __new__ of a dict does nothing with its arguments: torch loaded an empty dict where tensors were listed.
        (ORDERED + PAIRS + b"\x85\x81", "makes one collections.OrderedDict by NEWOBJ with arguments"),
        (b"c__builtin__\nset\n](K\x01K\x02e\x85\x81", "makes one builtins.set by NEWOBJ with arguments"),
        # Other forms of items were taken for none.
        (ORDERED + b"](" + text("ab") + b"e\x85R", "from something that is no dict and no list of pairs"),
        (ORDERED + text("a") + A + b"\x86\x85\x85R", "from something that is no dict and no list of pairs"),
        (ORDERED + ORDERED + b")R" + text("a") + A + b"s\x85R", "from something that is no dict and no list of pairs"),
        (COUNTER + PAIRS + b"\x85R", "from something that is no dict and no list of pairs"),  # it counts the pairs
        (ORDERED + b"](" + pair("a", A) + pair("a", B) + b"e\x85R", "stores the key 'a' twice in one dict"),
        # Versions of modules that came in another mapping than a dict were not seen.
        (ORDERED + b")R" + ORDERED + b")R" + text("_metadata") + b"}sb", "to something that is no dict"),
        # Keys that are one key to Python.
        (b"}(K\x01" + A + b"G?\xf0" + bytes(6) + B + b"u", "stores the key 1.0 twice in one dict"),
        (b"}(K\x01" + A + b"\x88" + B + b"u", "stores the key True twice in one dict"),
        (b"}(K\x01\x85" + A + b"G?\xf0" + bytes(6) + b"\x85" + B + b"u", "stores the key (1.0,) twice in one dict"),
        (b"}(" + SIZE + b"K\x01\x85\x85RNK\x01\x85Nu", "as a dict key"),
        # Keys that Python cannot hash: torch raises.
        (b"}" + ORDERED + b")RNs", "as a dict key"),
        (b"}\x8fNs", "as a dict key"),
        (b"c__builtin__\nset\n]]a\x85R", "as a dict key"),
        (b"c__builtin__\nset\n]\x85\x85R", "as a dict key"),
        (b"c__builtin__\nset\n}\x85R", "makes one builtins.set from something that is no list"),
        # Pickle knows APPENDS for lists and ADDITEMS for sets.
        (b"\x8f(K\x01e", "appends to something that is no list"),
        (b"](K\x01\x90", "adds items to something that is no set"),
    ],
)
def test_other_dicts_and_sets_are_refused(pickle: bytes, reason: str) -> None:
    with pytest.raises(FormatError, match=r"malformed pickle: byte [\d,]+ ") as caught:
        run(PROTO + pickle + b".", subject="x", member="data.pkl", limits=DEFAULT_LIMITS)
    assert caught.value.reason.endswith(reason)


def test_a_set_is_what_its_list_was(tmp_path: Path) -> None:
    """The set took later items of the list for its own."""
    value = b"]q\x01(K\x01ec__builtin__\nset\nh\x01\x85Rq\x02h\x01K\x02a\x87"
    result = run(PROTO + value + b".", subject="x", member="data.pkl", limits=DEFAULT_LIMITS)
    assert result.value[1].items == [1]  # type: ignore[index]


# Tensors that torch made differently --------------------------------------------------------------------------


def test_what_a_call_was_given_is_what_it_was_then(tmp_path: Path) -> None:
    """A shape or a conj bit that the pickle changes after the call was read as if it had been there before."""
    size = text("size") + b"]q\x01K\x02a" + text("a") + tensor(size=b"h\x01") + text("more") + b"h\x01K\x01a"
    bits = (
        text("bits")
        + b"}q\x02"
        + text("b")
        + tensor("1", more=b"h\x02")
        + text("neg")
        + b"h\x02"
        + text("neg")
        + b"\x88s"
    )
    path = with_pickle(tmp_path, PROTO + b"}(" + size + bits + b"u.", **RECORDS)
    manifest, state = read(path).manifest, loaded(path)
    assert manifest["a"].shape == state["a"].shape == (2,)  # type: ignore[index]
    assert manifest["b"].neg is state["b"].is_neg() is False  # type: ignore[index]


GRADIENT = "requires a gradient, which int32 cannot have"
QUANTIZED = b"ctorch._utils\n_rebuild_qtensor\n(" + storage("2", "QInt8", 64) + b"K\0K\x04K\x04\x86K\x04K\x01\x86"
LAYOUT = b"ctorch.serialization\n_get_layout\n"
INDICES = tensor("2", "Long", b"K\x01K\x02\x86", count=8).replace(b"K\x01\x85\x89", b"K\x02K\x01\x86\x89")
SPARSE = b"ctorch._utils\n_rebuild_sparse_tensor\n" + LAYOUT + text("torch.sparse_coo") + b"\x85R(" + INDICES
PARAMETER = b"ctorch._utils\n_rebuild_parameter\n("
FROM_TYPE = b"ctorch._tensor\n_rebuild_from_type_v2\n(ctorch._utils\n_rebuild_tensor\n"
VIEW = b"(" + storage() + b"K\0K\x02\x85K\x01\x85t"
END = b"\x89" + ORDERED + b")RtR"
META = b"ctorch._utils\n_rebuild_meta_tensor_no_storage\n("
WRAPPER = b"ctorch._utils\n_rebuild_wrapper_subclass\n(ctorch\nTensor\nctorch\nfloat32\nK\x01\x85K\x01\x85K\0"


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (tensor(cls="Int", grad=b"\x88"), GRADIENT),
        (PARAMETER + tensor(cls="Int") + b"\x88" + ORDERED + b")RtR", GRADIENT),
        (META + b"ctorch\nint32\nK\x01\x85K\x01\x85\x88tR", GRADIENT),
        (META + b"ctorch\nqint8\nK\x01\x85K\x01\x85\x89tR", "is on the meta device, which has no qint8"),
        (QUANTIZED + b"(ctorch\nper_channel_symmetric\n]]K\0t" + END, "is quantized by no known scheme"),
        (QUANTIZED + b"(ctorch\nper_tensor_affine\nNK\0t" + END, "with a scale and a zero point that are no numbers"),
        (QUANTIZED + b"(ctorch\nper_tensor_affine\nK\1\x8a\x09" + bytes(8) + b"\1t" + END, "that are no numbers"),
        (
            QUANTIZED + b"(ctorch\nper_tensor_affine\nK\1\x88t" + END,
            "with a scale and a zero point that are no numbers",
        ),
        (QUANTIZED + b"(ctorch\nper_channel_affine\n]]K\x02t" + END, "along a dimension that it does not have"),
        (QUANTIZED + b"(ctorch\nper_channel_affine\n]]K\x01t" + END, "with other scales or zero points"),
        (QUANTIZED + b"(ctorch\nper_channel_affine\n))K\x01t" + END, "with other scales or zero points"),
        (SPARSE + tensor(size=b"K\x02\x85") + SIZE + b"K\x03K\x03\x86\x85RNt\x86R", "that do not fit together"),
        (SPARSE + tensor(size=b"K\x01\x85") + SIZE + b"K\x03\x85\x85RNt\x86R", "that do not fit together"),
        (SPARSE + tensor() + SIZE + b"K\x03\x85\x85RK\x01t\x86R", "is sparse and coalesced in neither way"),
        (SPARSE + tensor() + SIZE + b"K\x03\x85\x85RNNt\x86R", "is sparse and has no indices, values and size"),
        (tensor(more=b"}" + text("conj") + b"\x88s"), "is conjugated, though it holds float32"),
        (FROM_TYPE + b"ctorch\nfloat32\n" + VIEW + b"}tR", "is made one torch.float32, which is no tensor"),
        (FROM_TYPE + b"ctorch\nTensor\n" + VIEW + b"NNN\x87tR", "has attributes that are no dict"),
        (WRAPPER + b"Nctorch\ndevice\n" + text("cpu") + b"\x85R\x89tR", "has no layout"),
    ],
)
def test_tensors_that_torch_cannot_make_are_refused(value: bytes, reason: str, tmp_path: Path) -> None:
    """All were described, and torch.load raised."""
    path = with_pickle(tmp_path, PROTO + b"}" + text("w") + value + b"s.", **RECORDS)
    with pytest.raises((TypeError, ValueError, RuntimeError, AttributeError)):
        loaded(path)
    with pytest.raises(FormatError) as caught:
        read(path)
    assert caught.value.reason.startswith("tensor 'w' ") and caught.value.reason.endswith(reason)


def test_a_conj_bit_that_is_false(tmp_path: Path) -> None:
    """torch sets the bits that are named, whatever is said of them; torch.save names none that is not set."""
    value = tensor(cls="ComplexFloat", size=b"K\x01\x85", more=b"}" + text("conj") + b"\x89s", count=1)
    path = with_pickle(tmp_path, PROTO + b"}" + text("w") + value + b"s.", **RECORDS)
    assert loaded(path)["w"].is_conj()  # type: ignore[index]
    with pytest.raises(FormatError, match="has metadata other than its conj and neg bits"):
        read(path)


def test_a_sparse_tensor_of_values_that_require_a_gradient(tmp_path: Path) -> None:
    """It requires one, too, in torch; torch.save writes parts without."""
    value = SPARSE + tensor(grad=b"\x88") + SIZE + b"K\x08\x85\x85RNt\x86R"
    records = {**RECORDS, "data/2": struct.pack("<2q", 0, 1) + bytes(48)}
    path = with_pickle(tmp_path, PROTO + b"}" + text("w") + value + b"s.", **records)
    assert loaded(path)["w"].requires_grad  # type: ignore[index]
    with pytest.raises(FormatError, match="is made of other than plain strided tensors"):
        read(path)


def test_a_buffer_is_marked_by_a_bool(tmp_path: Path) -> None:
    """``_is_buffer = '3'`` made a buffer in torch, and a plain tensor here."""
    state = b"}" + text("_is_buffer") + text("3") + b"s"
    value = FROM_TYPE + b"ctorch\nTensor\n" + VIEW + state + b"tR"
    path = with_pickle(tmp_path, PROTO + b"}" + text("w") + value + b"s.", **RECORDS)
    assert isinstance(loaded(path)["w"], nn.Buffer)  # type: ignore[index]
    with pytest.raises(FormatError, match="has an attribute _is_buffer that is no bool"):
        read(path)


BEYOND = tensor(size=b"M\xe8\x03\x85")  # 1,000 elements of a storage of two
ATTRIBUTE = FROM_TYPE + b"ctorch\nTensor\n" + VIEW + b"}" + text("note") + BEYOND + b"stR"


@pytest.mark.parametrize(
    "item", [BEYOND + b"N", b"K\x01" + BEYOND + b"\x86N", text("a") + ATTRIBUTE], ids=["key", "tuple", "attribute"]
)
def test_tensors_that_nothing_leads_to_are_checked(item: bytes, tmp_path: Path) -> None:
    """Those in keys and in attributes of tensors were made by torch, and never looked at here."""
    path = with_pickle(tmp_path, PROTO + b"}(" + text("w") + A + item + b"u.", **RECORDS)
    with pytest.raises(RuntimeError):
        loaded(path)
    with pytest.raises(FormatError, match="needs 4,000 bytes of storage '0', which holds 8"):
        read(path)


# Calls that make plain values ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "torch_raises"),
    [
        (b"ctorch\nfloat32\n)R", True),
        (b"ctorch\nper_tensor_affine\n)R", True),
        (b"ctorch\nFloatStorage\n)R", True),
        (SIZE + b"K\x05\x85R", True),
        (SIZE + text("ab") + b"\x85R", True),
        (SIZE + b"G" + bytes(8) + b"\x85\x85R", True),
        (SIZE + b"))\x86R", True),
        (b"ctorch\ndevice\n" + text("cuda:01") + b"\x85R", True),
        (b"ctorch\ndevice\n" + text("cuda") + b"J\xff\xff\xff\xff\x86R", True),
        (b"ctorch\ndevice\n)R", True),
        (LAYOUT + text("strided") + b"\x85R", True),
        (LAYOUT + b")R", True),
        (b"c__builtin__\ncomplex\nNN\x86R", True),
        (b"c__builtin__\nbytearray\nK\x05\x85R", False),
        (b"ctorch\nFloatTensor\nK\x05\x85R", False),
    ],
)
def test_calls_that_torch_would_raise_for_are_refused(call: bytes, torch_raises: bool, tmp_path: Path) -> None:
    """All were read as values; torch.load raised, or took as much memory as the file said."""
    path = with_pickle(tmp_path, PROTO + b"}" + text("w") + A + b"s" + call + b"\x86.", **RECORDS)
    with pytest.raises(FormatError, match=r"malformed pickle: byte [\d,]+ (calls|allocates)"):
        read(path)
    if torch_raises:
        with pytest.raises((TypeError, ValueError, RuntimeError, KeyError)):
            loaded(path)


# Archives ------------------------------------------------------------------------------------------------------


def test_a_record_that_is_marked_as_a_folder(tmp_path: Path) -> None:
    """torch.load gave memory that nobody had written to: its zip reader skips what is marked so."""
    path = save({"w": torch.arange(1, 5)}, tmp_path / "x.pt")
    data = bytearray(path.read_bytes())
    entry = data.rindex(b"PK\x01\x02", 0, data.rindex(b"x/data/0"))
    data[entry + 38] |= 0x10
    path.write_bytes(data)
    assert storage_bytes(loaded(path)["w"]) != storage_bytes(torch.arange(1, 5))  # type: ignore[index]
    with pytest.raises(FormatError, match="the record 'x/data/0' is marked as a folder, which torch would not read"):
        read(path)


@pytest.mark.parametrize(
    ("records", "reason"),
    [
        ({"byteorder": b"little\n"}, "its byte order is neither little nor big"),  # torch wants no blanks
        ({".data/version": b"99"}, "its version is '99'"),  # torch prefers it to version
    ],
)
def test_small_records_are_read_as_torch_reads_them(records: dict[str, bytes], reason: str, tmp_path: Path) -> None:
    path = with_pickle(tmp_path, PROTO + b"}" + text("w") + A + b"s.", **RECORDS, **records)
    with pytest.raises((ValueError, RuntimeError)):
        loaded(path)
    with pytest.raises(FormatError, match=reason):
        read(path)


def test_code_that_unpacks_to_more_than_the_limit_in_many_records(tmp_path: Path) -> None:
    """A hundred records of 15 kB took fifteen seconds."""
    pack = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    code = pack.compress(b"\n" * (15 << 20)) + pack.flush()
    names = b"".join(b"c__torch__.m%d\nNet\n" % number for number in range(100))
    entries = [Entry("x/data.pkl", PROTO + b"(" + names + b"t."), Entry("x/constants.pkl", PROTO + b").")]
    entries += [Entry(f"x/code/__torch__/m{n}.py", code, method=8, central={"plain": 15 << 20}) for n in range(100)]
    path = tmp_path / "x.pt"
    path.write_bytes(archive(*entries, Entry("x/version", b"3\n")))
    began = time.process_time()
    with pytest.raises(FormatError, match="its code takes more than"):
        read(path)
    assert time.process_time() - began < 5


def test_a_parameter_of_a_script_that_is_a_module(tmp_path: Path) -> None:
    """Its tensors were listed, under a name that the loaded module does not have."""
    code = b'class Net(Module):\n  __parameters__ = ["weight", ]\n  __buffers__ = []\n  weight : Tensor\n'
    inner = b"c__torch__\nNet\n)\x81}" + text("weight") + A + b"sb"
    outer = b"c__torch__\nNet\n)\x81}" + text("weight") + inner + b"sb."
    path = tmp_path / "x.pt"
    records = {"data.pkl": PROTO + outer, "constants.pkl": PROTO + b").", "code/__torch__.py": code, "version": b"3"}
    path.write_bytes(archive(*[Entry(f"x/{name}", data) for name, data in (RECORDS | records).items()]))
    assert list(read(path).manifest) == []


# Two formats in one file ---------------------------------------------------------------------------------------


def test_a_stream_inside_a_tar_header_is_a_tar(tmp_path: Path) -> None:
    """It was read as a stream of before torch 1.6; torch.load tries the tar first, whatever the first bytes are."""
    magic = PROTO + b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19." + PROTO + b"M\xe9\x03." + PROTO
    start = b"}" + text("little_endian") + b"\x88s" + text("x") + b"B" + struct.pack("<I", 512)
    head = bytearray((magic + start).ljust(512, b"\0"))
    head[124:136] = b"%011o\0" % 0
    head[148:156] = b"        "
    head[148:156] = b"%06o\0 " % sum(head)
    path = tmp_path / "x.pth"
    path.write_bytes(bytes(head) + bytes(1024) + b"s." + PROTO + b"}." + PROTO + b"].")
    with tarfile.open(path) as tar:
        assert len(tar.getnames()) == 1
    assert identify(ByteSource(path), DEFAULT_LIMITS) == "torch-tar"


def test_a_zip_inside_of_safetensors_is_refused(tmp_path: Path) -> None:
    """A header of 67,324,752 bytes begins as a zip does, and torch.load looks at nothing but that and the end."""
    path = tmp_path / "x.safetensors"
    with open(path, "wb") as file:
        file.write(b"PK\x03\x04" + bytes(4) + b"{}")
        file.seek(8 + 0x04034B50)
        file.write(archive(Entry("x/data.pkl", PROTO + b"}.")))
    with pytest.raises(FormatError, match="is a safetensors file and a zip archive at once"):
        open_checkpoint(path)


# Tars ----------------------------------------------------------------------------------------------------------


def tar(path: Path, value: bytes, key: int = 1, pax: bool = False) -> Path:
    """Write the tar of torch before 0.2 around an object, with a storage 11 and a tensor on it."""
    held = (
        PROTO
        + b"K\x01."
        + PROTO
        + b"K\x0b"
        + text("cpu")
        + b"ctorch\nFloatStorage\n\x87."
        + struct.pack("<q2f", 2, 1, 2)
    )
    view = PROTO + b"K\x01." + PROTO + b"K%cK\x0bctorch\nFloatTensor\n\x87." % key + struct.pack("<i4x3q", 1, 2, 1, 0)
    parts = {"pickle": PROTO + value + b".", "tensors": view, "storages": held + PROTO + b"]."}
    with tarfile.open(path, "w:") as target:
        for name, data in parts.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), 1.5 if pax else 1
            target.addfile(info, io.BytesIO(data))
    return path


def test_every_reference_of_a_tar_is_resolved(tmp_path: Path) -> None:
    """torch resolves them all as it unpickles, and raises; here those in keys were never looked at."""
    whole = tar(tmp_path / "x.tar", b"}" + text("w") + text("1") + b"Qs")
    assert list(open_checkpoint(whole).manifest) == ["w"]
    with pytest.raises(FormatError, match="refers to '7', which it does not hold"):
        open_checkpoint(tar(tmp_path / "y.tar", b"}(" + text("w") + text("1") + b"Q" + text("7") + b"QNu"))


def test_a_number_in_a_tar_that_begins_with_a_zero_byte(tmp_path: Path) -> None:
    """To tarfile, and so to torch, such a checksum is 0, and the members from there on are not in the archive."""
    path = tar(tmp_path / "x.tar", b"}" + text("w") + text("1") + b"Qs")
    data = bytearray(path.read_bytes())
    last = data.rindex(b"storages\0")
    data[last + 148 : last + 156] = b"\0" + data[last + 149 : last + 156]
    path.write_bytes(data)
    with tarfile.open(path) as archived:
        assert archived.getnames() == ["pickle", "tensors"]
    with pytest.raises(FormatError, match="has a tar header with a number that is not octal"):
        open_checkpoint(path)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        # The prefix was read behind one magic alone; tarfile reads it behind every one.
        ({257: b"ustar  \0", 345: b"far"}, "is a tar archive that torch.save did not write, not a checkpoint"),
        # Of two pax headers before one member, tarfile goes by the sizes of the first, this reader by the second's.
        ({156: b"x"}, "which is no plain file"),
    ],
)
def test_headers_that_tar_programs_read_differently(fields: dict[int, bytes], reason: str, tmp_path: Path) -> None:
    path = tar(tmp_path / "x.tar", b"}" + text("w") + text("1") + b"Qs", pax=True)
    data = bytearray(path.read_bytes())
    start = data.rindex(b"storages\0")
    for offset, value in fields.items():
        data[start + offset : start + offset + len(value)] = value
    data[start + 148 : start + 156] = b" " * 8
    data[start + 148 : start + 156] = b"%06o\0 " % sum(data[start : start + 512])
    path.write_bytes(data)
    with pytest.raises(FormatError) as caught:
        open_checkpoint(path)
    assert caught.value.reason.endswith(reason)


def test_a_tensor_of_a_tar_under_the_key_of_a_storage(tmp_path: Path) -> None:
    """torch keeps both in one dict, so that the tensor takes the place of the storage."""
    with pytest.raises(FormatError, match="under a key that another one has"):
        open_checkpoint(tar(tmp_path / "x.tar", b"}" + text("w") + text("1") + b"Qs", key=11))


# Time, depth and words -----------------------------------------------------------------------------------------


def test_a_key_that_is_a_call_inside_of_calls(tmp_path: Path) -> None:
    """Its type was found by recursion, one level for each call: RecursionError."""
    nested = b"ctorch._tensor\n_rebuild_from_type_v2\n(N" * 5000 + b"N" + b"NNtR" * 5000
    path = with_pickle(tmp_path, PROTO + b"}" + nested + b"Ns.", **RECORDS)
    with pytest.raises(FormatError):
        inspect(path)


@pytest.mark.parametrize(
    "content",
    [
        "{" + ",".join(f'"{number}":0' for number in range(50_000)) + ',"49999":0}',  # 17 seconds
        json.dumps(
            {"schema": "ckptaudit.manifest/1", "tensors": [{"key": "a", "dtype": "int8", "shape": [2**62] * 50_000}]}
        ),
    ],
    ids=["repeated", "dimensions"],
)
def test_a_manifest_is_refused_at_once(content: str, tmp_path: Path) -> None:
    """The search for the repeated name, and the product of the sizes, took the square of their number."""
    (tmp_path / "x.json").write_text(content)
    began = time.process_time()
    with pytest.raises(UsageError, match=r"twice|has more than 64 dimensions"):
        Manifest.load(tmp_path / "x.json")
    assert time.process_time() - began < 1


def test_an_index_that_states_its_size_by_a_broken_object(tmp_path: Path) -> None:
    """The address of an object in memory was shown as the size."""
    (tmp_path / "m.safetensors").write_bytes(save_safetensors({"a": torch.ones(1)}))
    path = tmp_path / "model.safetensors.index.json"
    path.write_text('{"metadata": {"total_size": {"a": 1, "a": 2}}, "weight_map": {"a": "m.safetensors"}}')
    with pytest.raises(FormatError, match="names 'a' twice"):
        open_checkpoint(path)
    path.write_text('{"metadata": {"total_size": 4}, "weight_map": {"a": "m.safetensors"}}')
    assert raw_bytes(open_checkpoint(path).tensor("a")) == struct.pack("<f", 1)
