"""What picklers write of plain data is read; calls of the same classes that no pickler writes are refused."""

from __future__ import annotations

import argparse
import collections
import datetime
import pathlib
import pickle
import types

import numpy as np
import pytest

from ckptaudit.errors import FormatError
from ckptaudit.formats.base import DEFAULT_LIMITS
from ckptaudit.formats.pickles.globals import INERT
from ckptaudit.formats.pickles.inert_calls import FORMS, odd_call
from ckptaudit.formats.pickles.machine import run

VALUES = {
    "namespace": argparse.Namespace(lr=1, names=["a"]),
    "simple": types.SimpleNamespace(a=1),
    "range": range(3, 9, 2),
    "slice": slice(None, 3),
    "bytes": [b"", b"abc"],
    "bytearray": [bytearray(), bytearray(b"abc")],
    "complex": 1 + 2j,
    "sets": [set(), {1, 2}, frozenset(), frozenset({3})],
    "deque": [collections.deque(), collections.deque([1, 2]), collections.deque([1], maxlen=3)],
    "dicts": [collections.OrderedDict(a=1), collections.Counter("aab"), collections.defaultdict(list, a=[1])],
    "dates": [
        datetime.date(2020, 1, 2),
        datetime.datetime(2020, 1, 2, 3, 4, tzinfo=datetime.timezone.utc),
        datetime.time(1, 2),
        datetime.timedelta(days=1, seconds=2),
        datetime.timezone(datetime.timedelta(hours=1), "x"),
    ],
    "paths": [pathlib.Path("/a/b"), pathlib.PurePosixPath("a"), pathlib.PureWindowsPath("c:/a")],
    "numpy": [
        np.float64(1.5),
        np.int64(3),
        np.bool_(True),
        np.str_("text"),
        np.dtype("f4"),
        np.dtype([("a", "i4"), ("b", "f8")]),
        np.ones((2, 3)),
        np.zeros((0, 2)),
        np.array(3),
        np.asfortranarray(np.ones((2, 3))),
        np.array(["a", "bc"]),
        np.array([1, "x", None], dtype=object),
        np.datetime64("2020-01-01"),
        np.arange(100)[::2],
    ],
}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("name", VALUES)
def test_what_picklers_write_is_read(name: str, protocol: int) -> None:
    result = run(pickle.dumps(VALUES[name], protocol), subject="x", member="data.pkl", limits=DEFAULT_LIMITS)
    assert {found.verdict for found in result.globals} <= {"allowed", "inert"}


class Call:
    """Pickles as a call of a function with these arguments."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[object, ...]:
        return self.call  # type: ignore[return-value]


ODD = {
    "bytes of a size": Call(bytes, 1 << 40),
    "list of a range": Call(list, range(1 << 40)),
    "tuple of a range": Call(tuple, range(1 << 40)),
    "set of a range": Call(set, range(1 << 40)),
    "frozenset of a range": Call(frozenset, range(1 << 40)),
    "dict of a range": Call(dict, range(1 << 40)),
    "deque of a range": Call(collections.deque, range(1 << 40)),
    "number of many digits": Call(int, "9" * 5000),
    "text of a list": Call(str, [[1]]),
    "array of a size": Call(np.ndarray, (1 << 40,)),
    "array that is made large": Call(np._core.multiarray._reconstruct, np.ndarray, (1 << 40,), b"b"),
    "array of a subclass": Call(np._core.multiarray._reconstruct, list, (0,), b"b"),
    "dtype of no text": Call(np.dtype, ["f4"]),
    "path of a number": Call(pathlib.PosixPath, 3),
    "namespace with arguments": Call(argparse.Namespace, 1),
}


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("name", ODD)
def test_what_no_pickler_writes_is_refused(name: str, protocol: int) -> None:
    data = pickle.dumps(ODD[name], protocol)
    with pytest.raises(FormatError, match=r"calls .* as no pickler does|no dict and no list of pairs") as caught:
        run(data, subject="x", member="data.pkl", limits=DEFAULT_LIMITS)
    assert caught.value.code == "CKPT002"


def test_every_form_is_of_a_name_that_is_read() -> None:
    assert set(FORMS) - INERT <= {"builtins.set", "builtins.complex"}
    assert not odd_call("my.Config", (1, 2))


@pytest.mark.parametrize("name", ["__class__", "__dict__", "__setstate__", "__reduce__"])
def test_the_state_of_plain_data_sets_nothing_special(name: str) -> None:
    text = b"X" + len(name).to_bytes(4, "little") + name.encode()
    data = b"\x80\x02cargparse\nNamespace\n)\x81}" + text + b"K\x01sb."
    with pytest.raises(FormatError, match=f"sets the attribute '{name}' of one argparse.Namespace"):
        run(data, subject="x", member="data.pkl", limits=DEFAULT_LIMITS)
