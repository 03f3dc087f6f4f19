from __future__ import annotations

import collections
import contextlib
import io
import pickle
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptaudit.errors import FormatError
from ckptaudit.formats.base import DEFAULT_LIMITS, Limits
from ckptaudit.formats.pickles.machine import PickleResult, run
from ckptaudit.formats.pickles.nodes import Call, GlobalRef, PDict, PersistentId, PSet, pairs_of, shown, type_name


def read(data: bytes, limits: Limits = DEFAULT_LIMITS, **options: object) -> PickleResult:
    return run(data, subject="x.pt", member="data.pkl", limits=limits, **options)  # type: ignore[arg-type]


def refusal(data: bytes, limits: Limits = DEFAULT_LIMITS) -> FormatError:
    with pytest.raises(FormatError) as caught:
        read(data, limits)
    assert caught.value.subject == "x.pt"
    assert caught.value.hint
    return caught.value


def plain(node: object) -> object:
    """Turn a tree without calls back into the Python values it stands for."""
    if isinstance(node, PDict):
        return {plain(k): plain(v) for k, v in node.pairs}
    if isinstance(node, PSet):
        return {plain(item) for item in node.items}
    if isinstance(node, tuple | list):
        return type(node)(plain(item) for item in node)
    return node


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(max_size=20),
    st.binary(max_size=20),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.tuples(inner, inner),
        st.dictionaries(st.one_of(st.text(max_size=5), st.integers(), st.tuples(st.integers(), st.text())), inner),
    ),
    max_leaves=15,
)


@settings(max_examples=150, deadline=None)
@given(VALUES, st.sampled_from([2, 3, 4, 5]))
def test_plain_values_come_back(value: object, protocol: int) -> None:
    data = pickle.dumps(value, protocol)
    result = read(data)
    assert plain(result.value) == value
    assert result.end == len(data)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_special_values_of_every_protocol(protocol: int) -> None:
    value = [bytearray(b"ab"), {1, 2}, frozenset({3}), 2**70, -(2**3000), "x" * 300, b"y" * 300, 1 + 2j]
    array, numbers, frozen, big, huge, text, raw, number = read(pickle.dumps(value, protocol)).value  # type: ignore[misc]
    assert type_name(array) == "bytearray"
    assert type_name(numbers) == "set"
    assert type_name(frozen) in ("set", "frozenset")
    assert (big, huge, text, raw) == (2**70, -(2**3000), "x" * 300, b"y" * 300)
    assert type_name(number) == "complex"


def test_protocol_4_frames_of_a_large_pickle() -> None:
    value = [f"key {i}" for i in range(50_000)]
    data = pickle.dumps(value, 4)
    assert data.count(b"\x95") > 1
    assert read(data).value == value


def test_python_2_strings_and_integers() -> None:
    # {'k': 'v', 'n': 3000000000} as Python 2.7 writes it with protocol 2
    data = b"\x80\x02}q\x00(U\x01kq\x01U\x01vU\x01nI3000000000\nU\x02\xff\xfeT\x02\x00\x00\x00abu."
    assert plain(read(data).value) == {"k": "v", "n": 3000000000, b"\xff\xfe": "ab"}


def test_ordered_dict_of_python_2_is_filled_by_its_argument() -> None:
    data = b"\x80\x02ccollections\nOrderedDict\n](](U\x01aK\x01e](U\x01bK\x02ee\x85R."
    assert pairs_of(read(data).value) == [("a", 1), ("b", 2)]


def test_calls_are_nodes_and_never_made() -> None:
    value = collections.OrderedDict(a=1)
    value._metadata = {"": {"version": 1}}  # type: ignore[attr-defined]
    node = read(pickle.dumps(value, 2)).value
    assert isinstance(node, Call)
    assert node.name == "collections.OrderedDict"
    assert pairs_of(node) == [("a", 1)]
    assert isinstance(node.state, PDict)
    assert [key for key, _ in node.state.pairs] == ["_metadata"]


class Payload:
    ran = False

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return explode, ("now",)


def explode(_: str) -> None:
    Payload.ran = True


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_payload_does_not_run_and_is_named(protocol: int) -> None:
    result = read(pickle.dumps([Payload()], protocol))
    assert not Payload.ran
    (named,) = result.globals
    assert (named.name, named.verdict, named.member) == (f"{__name__}.explode", "refused", "data.pkl")
    assert pickle.dumps([Payload()], protocol)[named.offset] in (ord("c"), 0x93)


def test_globals_are_listed_once_at_their_first_use() -> None:
    data = pickle.dumps([collections.OrderedDict(), collections.OrderedDict(), collections.Counter()], 2)
    assert [g.name for g in read(data).globals] == ["collections.OrderedDict", "collections.Counter"]


def test_references_of_a_dict_are_shared() -> None:
    inner: dict[str, int] = {"a": 1}
    first, second = read(pickle.dumps([inner, inner], 2)).value  # type: ignore[misc]
    assert first is second


def test_cycles_and_depth_are_no_recursion() -> None:
    assert isinstance(read(b"\x80\x02]q\x00h\x00a.").value, list)
    assert read(b"\x80\x02" + b"]" * 200_000 + b"a" * 199_999 + b".").end == 400_002


class StoragePickler(pickle.Pickler):
    def persistent_id(self, value: object) -> object:
        return ("storage", "0") if isinstance(value, complex) else None


def test_persistent_ids_are_listed() -> None:
    buffer = io.BytesIO()
    StoragePickler(buffer, 2).dump([1j, 1])
    result = read(buffer.getvalue())
    assert [pid.id for pid in result.persistent_ids] == [("storage", "0")]
    assert isinstance(result.value[0], PersistentId)  # type: ignore[index]


def test_module_ids_of_the_legacy_format_stand_for_their_class() -> None:
    data = b"\x80\x02(U\x06moduleca.b\nNet\nU\x04n.pyU\x00tQ)\x81."
    node = read(data, module_ids=True).value
    assert isinstance(node, Call)
    assert node.name == "a.b.Net"
    assert "calls something that it does not name" in refusal(data).reason


def test_several_pickles_in_a_row() -> None:
    stream = pickle.dumps(1, 2) + pickle.dumps([2], 2)
    first = read(stream)
    assert (first.value, read(stream, start=first.end).value) == (1, [2])


def test_bytes_of_protocol_2_are_decoded() -> None:
    assert read(pickle.dumps(b"\xff\x00", 2)).value == b"\xff\x00"


MALFORMED = {
    "no protocol": (b"K\x01.", "byte 0 does not begin with a protocol number"),
    "empty": (b"", "does not begin with a protocol number"),
    "protocol 6": (b"\x80\x06N.", "protocol 6; the newest is 5"),
    "protocol twice": (b"\x80\x02N\x80\x02.", "repeats the protocol number"),
    "pop": (b"\x80\x02N0.", "byte 3 is the opcode 0x30, which torch.save does not write"),
    "ext": (b"\x80\x02\x82\x01.", "opcode 0x82"),
    "persid": (b"\x80\x02P0\n.", "opcode 0x50"),
    "no stop": (b"\x80\x02N", "ends without STOP"),
    "cut int": (b"\x80\x02J\x01", "in the middle of an opcode"),
    "cut byte": (b"\x80\x02K", "in the middle of an opcode"),
    "cut string": (b"\x80\x02X\x09\x00\x00\x00a", "begins 9 bytes of data, more than are left"),
    "cut global": (b"\x80\x02cos\nsys", "names a global without an end"),
    "empty stack": (b"\x80\x02\x85.", "or its stack does"),
    "stack below a mark": (b"\x80\x02N(\x85.", "or its stack does"),
    "no mark": (b"\x80\x02Nt.", "or its stack does"),
    "memo": (b"\x80\x02h\x05.", "memo entry that was never stored"),
    "two values": (b"\x80\x02NN.", "STOP with 2 values and 0 open marks"),
    "open mark": (b"\x80\x02(N.", "STOP with 1 values and 1 open marks"),
    "utf-8": (b"\x80\x02X\x01\x00\x00\x00\xff.", "text that is not UTF-8"),
    "setitem on a list": (b"\x80\x02]NNs.", "stores an item in something that is no dict"),
    "odd setitems": (b"\x80\x02}(Nu.", "stores a key without a value"),
    "append to a dict": (b"\x80\x02}Na.", "appends to something that is no list"),
    "build on a dict": (b"\x80\x02}}b.", "sets the state of something that is no object"),
    "build twice": (b"\x80\x02ca\nB\n)\x81}b}b.", "sets the state of one a.B twice"),
    "list as key": (b"\x80\x02}]Ns.", "uses a list as a dict key"),
    "tuple too long as key": (pickle.dumps({tuple(range(5000)): 1}, 2), "uses a tuple as a dict key"),
    "duplicate": (
        b"\x80\x02}(X\x01\x00\x00\x00kNX\x01\x00\x00\x00kNu.",
        "stores the key 'k' twice in one dict",
    ),
    "duplicate int": (b"\x80\x02}(K\x01NK\x01Nu.", "twice in one dict"),
    "call of a number": (b"\x80\x02K\x01)R.", "calls something that it does not name"),
    "arguments": (b"\x80\x02ca\nB\n]R.", "calls a.B with arguments that are no tuple"),
    "int form": (b"\x80\x02I1_0\n.", "INT that is no plain decimal number"),
    "int hex": (b"\x80\x02I0x1\n.", "INT that is no plain decimal number"),
    "int bool": (b"\x80\x02I01\n.", "INT that is no plain decimal number"),
    "int without end": (b"\x80\x02I" + b"1" * 40, "INT that is no plain decimal number"),
    "global not ascii": ("\x02cä\nb\n.".encode().join([b"\x80", b""]), "other than printable ASCII"),
    "global escape": (b"\x80\x02ca\x1b\nb\n.", "other than printable ASCII"),
    "global of numbers": (b"\x80\x04K\x01K\x01\x93.", "by something that is no text"),
    "global nameless": (b"\x80\x02c\n\n.", "names a global without a name"),
    "codec": (b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x04\x00\x00\x00idna\x86R.", "plain codec"),
    "allocate": (b"\x80\x02c__builtin__\nbytearray\nJ\xff\xff\xff\x7f\x85R.", "calls builtins.bytearray"),
    "allocate tensor": (b"\x80\x02ctorch\nFloatTensor\nJ\xff\xff\xff\x7f\x85R.", "calls torch.FloatTensor"),
    "setitem on a tensor": (b"\x80\x02ctorch\nTensor\n)\x81K\x00K\x01s.", "something that is no dict"),
    "append to a size": (b"\x80\x02ctorch\nSize\n)RK\x01a.", "something that is no list"),
    "frame too long": (b"\x80\x04\x95" + struct.pack("<Q", 1 << 62) + b"N.", "longer than what holds it"),
    "frame cuts an opcode": (
        b"\x80\x04\x95" + struct.pack("<Q", 2) + b"J\x01\x00\x00\x00.",
        "middle of an opcode",
    ),
    "frame behind stop": (
        b"\x80\x04\x95" + struct.pack("<Q", 3) + b"N.N",
        "STOP inside a frame that goes on",
    ),
    "frame in frame": (
        b"\x80\x04\x95" + struct.pack("<Q", 11) + b"\x95" + struct.pack("<Q", 2) + b"N.",
        "longer than what holds it",
    ),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_pickles_are_refused(case: str) -> None:
    data, reason = MALFORMED[case]
    error = refusal(data)
    assert error.code == "CKPT002"
    assert error.reason.startswith("data.pkl is a malformed pickle: byte ")
    assert reason in error.reason


def test_a_broken_pickle_that_names_code_is_called_dangerous() -> None:
    error = refusal(b"\x80\x02cposix\nsystem\nX\x02\x00\x00\x00ls\x85R0")
    assert error.code == "CKPT702"
    assert error.reason.startswith("names posix.system (data.pkl, byte 2), which runs code, and is broken: ")
    assert error.hint == "do not load it"


@pytest.mark.parametrize(
    ("data", "position"),
    [
        (b"\x80\x02(S'id'\nios\nsystem\n.", 9),  # INST
        (b"cos\nsystem\n(S'id'\ntR.", 0),  # protocol 0
        (b"\x80\x02}0cos\nsystem\nN.", 4),
    ],
)
def test_code_that_the_unread_rest_names_is_named(data: bytes, position: int) -> None:
    """Where we stop other readers may go on; what they would find there is no less dangerous."""
    error = refusal(data)
    assert error.code == "CKPT702"
    assert error.reason.startswith(f"names os.system (data.pkl, byte {position}), which runs code, and is broken: ")


def test_a_call_that_is_refused_shows_its_arguments() -> None:
    result = read(b"\x80\x02cposix\nsystem\nX\x02\x00\x00\x00ls\x85R.")
    (found,) = result.globals
    assert (found.name, found.verdict, found.offset, found.call) == (
        "posix.system",
        "dangerous",
        2,
        "posix.system('ls')",
    )


@pytest.mark.parametrize(
    ("node", "text"),
    [
        ("a\x1b", r"'a\x1b'"),
        (b"\x00" * 100, f"{ascii(bytes(81))[:77]}..."),
        ([1, None, 2.5, True], "[1, None, 2.5, True]"),
        (tuple(range(30)), f"({', '.join(map(str, range(20)))}, ...)"),
        (1 << 70, "an int of 71 bits"),
        ([[[]]], "[[[]]]"),
        (GlobalRef("os.system"), "os.system"),
        (Call(GlobalRef("os.system"), ("id",)), "os.system('id')"),
        (PDict(), "dict"),
    ],
)
def test_nodes_are_shown_in_short(node: object, text: str) -> None:
    assert shown(node) == text


def test_a_list_in_itself_is_shown_in_short() -> None:
    node: list[object] = []
    node.append(node)
    assert shown(node) == "[" * 77 + "..."


@pytest.mark.parametrize(
    ("limits", "data", "reason"),
    [
        (Limits(pickle_opcodes=3), pickle.dumps([1, 2], 2), "more than 3 opcodes"),
        (Limits(memo_entries=1), pickle.dumps([[], []], 2), "more than 1 memo entries"),
        (Limits(open_marks=3), b"\x80\x02((((.", "more than 3 open marks"),
        (Limits(string_bytes=4), pickle.dumps("hello", 2), "a string of 5 bytes"),
        (Limits(key_bytes=4), pickle.dumps({"hello": 1}, 2), "a dict key of 5 characters"),
    ],
)
def test_limits(limits: Limits, data: bytes, reason: str) -> None:
    error = refusal(data, limits)
    assert error.code == "CKPT703"
    assert error.reason == f"data.pkl is not read to its end: it has {reason}"


def test_stack_limit_holds_while_it_runs() -> None:
    error = refusal(b"\x80\x02" + b"N" * 100_000 + b".", Limits(stack_depth=1000))
    assert "more than 1,000 stack entries" in error.reason


def test_every_truncation_is_a_format_error() -> None:
    value = {"a": [1, 2.5, "text", b"bytes", (1, 2), {3}], "b": collections.OrderedDict(x=2**80)}
    for protocol in (2, 4):
        data = pickle.dumps(value, protocol)
        for end in range(len(data)):
            with pytest.raises(FormatError):
                read(data[:end])


@settings(max_examples=400, deadline=None)
@given(st.binary(max_size=60))
def test_random_bytes_raise_nothing_but_format_errors(noise: bytes) -> None:
    with contextlib.suppress(FormatError):
        read(b"\x80\x02" + noise)


@settings(max_examples=300, deadline=None)
@given(st.integers(2, 400), st.integers(0, 255))
def test_flipped_bytes_raise_nothing_but_format_errors(index: int, byte: int) -> None:
    value = {
        "a": [1, 2.5, "text", b"bytes", (1, 2), {3}],
        "b": collections.OrderedDict(x=2**80),
        7: Payload(),
    }
    data = bytearray(pickle.dumps(value, 2))
    data[index % len(data)] = byte
    with contextlib.suppress(FormatError):
        read(bytes(data))


def test_global_reference_prints_its_name() -> None:
    assert repr(GlobalRef("torch.Size")) == "GlobalRef('torch.Size')"
