"""The corners in which other converters are wrong, against what torch and the safetensors library load."""

from __future__ import annotations

import json
import struct
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, load_model, save_file
from torch import nn

from ckptaudit import CkptauditError, FormatError, UsageError, convert, open_checkpoint
from ckptaudit.formats.safetensors import NAMES

from .support import bits, random, same, shared, ties


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def loaded(path):
    """Load a .pth in both ways; they have to agree."""
    state = torch.load(path, weights_only=True)
    mapped = torch.load(path, weights_only=True, mmap=True)
    assert same(state, mapped) if isinstance(state, dict) and "state_dict" not in state else True
    return state


def there_and_back(state, **options):
    """Return what safetensors and then torch load of a state dict that was converted to the one and back."""
    torch.save(state, "in.pth")
    convert("in.pth", "x.safetensors", **options)
    convert("x.safetensors", "back.pth")
    return load_file("x.safetensors"), loaded("back.pth")


# -- dtypes -------------------------------------------------------------------------------------------------------


DTYPES = [getattr(torch, name) for name in NAMES if hasattr(torch, name) and not name.startswith("float4")]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(3, 5), (), (0,), (2, 0, 3), (64,)], ids=str)
def test_every_dtype_and_size(dtype, shape):
    state = {"before": random(3, dtype=torch.uint8), "x": random(*shape, dtype=dtype), "after": random(2)}
    plain, back = there_and_back(state)
    assert {key: bits(value) for key, value in plain.items()} == {key: bits(value) for key, value in state.items()}
    assert same(back, state)


@pytest.mark.parametrize("dtype", [torch.complex128, torch.complex32], ids=str)
@pytest.mark.filterwarnings("ignore:ComplexHalf")
def test_a_dtype_that_safetensors_lacks_is_refused_by_name(dtype):
    torch.save({"a": torch.zeros(2), "b.weight": torch.zeros(2, dtype=dtype)}, "in.pth")
    with pytest.raises(UsageError) as caught:
        convert("in.pth", "x.safetensors")
    name = str(dtype).removeprefix("torch.")
    assert caught.value.reason == (
        f"cannot be converted to safetensors: b.weight is {name}, which safetensors has no dtype for"
    )
    assert caught.value.hint == "leave it out: --drop b.weight"
    convert("in.pth", "y.pth")
    assert same(loaded("y.pth"), torch.load("in.pth"))
    assert convert("in.pth", "x.safetensors", drop="b.*").dropped == ("b.weight",)


def test_four_bit_floats():
    state = {"x": torch.randint(0, 256, (3, 4), dtype=torch.uint8).view(torch.float4_e2m1fn_x2)}
    torch.save(state, "in.pth")
    convert("in.pth", "x.safetensors")
    with safe_open("x.safetensors", "pt") as file:
        assert (file.get_slice("x").get_dtype(), file.get_slice("x").get_shape()) == ("F4", [3, 8])
    convert("x.safetensors", "back.pth")
    assert same(loaded("back.pth"), state)
    torch.save({"x": torch.zeros((), dtype=torch.uint8).view(torch.float4_e2m1fn_x2)}, "in.pth")
    with pytest.raises(UsageError, match="without a dimension"):
        convert("in.pth", "x.safetensors")


# -- memory -------------------------------------------------------------------------------------------------------


def test_tied_weights_are_kept_once_under_the_name_that_save_model_keeps():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.wte = nn.Embedding(7, 4)
            self.lm_head = nn.Linear(4, 7, bias=False)
            self.lm_head.weight = self.wte.weight

    from safetensors.torch import save_model

    model = Model()
    torch.save(model.state_dict(), "in.pth")
    result = convert("in.pth", "x.safetensors")
    save_model(model, "theirs.safetensors")
    assert result.aliases == {"wte.weight": "lm_head.weight"}
    assert list(load_file("x.safetensors")) == list(load_file("theirs.safetensors")) == ["lm_head.weight"]
    manifest = open_checkpoint("x.safetensors").manifest
    assert list(manifest) == ["wte.weight", "lm_head.weight"]
    assert manifest.ties() == [("wte.weight", "lm_head.weight")]
    other = Model()
    assert load_model(other, "x.safetensors") == (set(), [])
    assert same(other.state_dict(), model.state_dict())
    convert("x.safetensors", "back.pth")
    back = loaded("back.pth")
    assert same(back, model.state_dict())
    assert ties(back) == [["wte.weight", "lm_head.weight"]]
    Model().load_state_dict(back, strict=True)


def test_views_of_one_storage():
    base = random(6, 4)
    state = {
        "rows": base[1:3],
        "all": base,
        "transposed": base.t(),
        "element": base[2, 3],
        "tied": base[1:3],
        "loose": random(2),
    }
    torch.save(state, "in.pth")
    result = convert("in.pth", "x.safetensors")
    assert result.aliases == {"rows": "all", "tied": "all", "transposed": "all", "element": "all"}
    assert set(load_file("x.safetensors")) == {"all", "loose"}
    convert("x.safetensors", "back.pth")
    back = loaded("back.pth")
    assert same(back, state)
    assert shared(back) == shared(state)


def test_a_view_brings_no_more_than_its_own_bytes():
    torch.save({"x": random(1_000_000)[5:8]}, "in.pth")
    assert Path("in.pth").stat().st_size > 4_000_000
    result = convert("in.pth", "x.safetensors")
    assert result.nbytes == Path("x.safetensors").stat().st_size < 300
    assert bits(load_file("x.safetensors")["x"]) == bits(torch.load("in.pth")["x"])


def test_disjoint_parts_of_one_storage_are_tensors_of_their_own():
    lstm = nn.LSTM(3, 4, 2)
    torch.save(lstm.state_dict(), "in.pth")
    result = convert("in.pth", "x.safetensors")
    assert (result.aliases, result.copied) == ({}, ())
    nn.LSTM(3, 4, 2).load_state_dict(load_file("x.safetensors"), strict=True)


def test_what_overlaps_without_a_whole_is_written_apart_and_said():
    base = random(10)
    state = {"left": base[:6], "right": base[4:], "even": base[::2]}
    torch.save(state, "in.pth")
    result = convert("in.pth", "x.safetensors")
    assert sorted(result.copied) == ["even", "left", "right"]
    assert same({key: load_file("x.safetensors")[key] for key in state}, state)


STRIDED = {
    "channels_last": lambda: random(2, 3, 4, 5).to(memory_format=torch.channels_last),
    "transposed": lambda: random(4, 5).t(),
    "strided": lambda: random(40)[::3],
    "expanded": lambda: random(1, 5).expand(4, 5),
    "conj": lambda: torch.randn(4, dtype=torch.complex64).conj(),
    "imaginary part of a conj": lambda: torch.randn(4, dtype=torch.complex64).conj().imag,
    "neg": lambda: torch._neg_view(torch.randn(4)),
}


@pytest.mark.parametrize("name", STRIDED)
def test_what_is_not_dense(name):
    state = {"x": STRIDED[name]()}
    plain, back = there_and_back(state)
    assert same(plain, state)
    assert same(back, state)
    convert("in.pth", "y.pth")
    again = loaded("y.pth")
    assert same(again, state)
    x, y = state["x"], again["x"]
    assert (x.stride(), x.is_conj(), x.is_neg()) == (y.stride(), y.is_conj(), y.is_neg())


def test_a_negative_bit_on_integers_is_refused():
    torch.save({"x": torch._neg_view(torch.tensor([1, 2]))}, "in.pth")
    with pytest.raises(UsageError, match="x has its negative bit set, with values of int64"):
        convert("in.pth", "x.safetensors")


# -- what is refused ----------------------------------------------------------------------------------------------


REFUSED = {
    "is quantized (qint8)": lambda: torch.quantize_per_tensor(torch.randn(3), 0.1, 0, torch.qint8),
    "is sparse_coo, not dense": lambda: torch.eye(3).to_sparse(),
    "is sparse_csr, not dense": lambda: torch.eye(3).to_sparse_csr(),
    "is on the meta device and has no values": lambda: torch.zeros(3, device="meta"),
}


@pytest.mark.parametrize("target", ["x.safetensors", "x.pth"])
@pytest.mark.parametrize("fault", REFUSED)
@pytest.mark.filterwarnings("ignore:Sparse", "ignore:.*quantiz", "ignore:.*TypedStorage", "ignore:Validating")
def test_what_no_format_can_take_is_refused_by_name(fault, target):
    torch.save({"a": torch.zeros(1), "b.weight": REFUSED[fault]()}, "in.pth")
    with pytest.raises(UsageError) as caught:
        convert("in.pth", target)
    assert caught.value.reason.endswith(f": b.weight {fault}")
    assert not Path(target).exists()
    result = convert("in.pth", target, drop=["b.*"])
    assert [row.key for row in result.tensors] == ["a"]


def test_code_in_a_pickle_is_refused():
    torch.save({"w": torch.zeros(2), "fn": print}, "in.pth")
    with pytest.raises(FormatError) as caught:
        convert("in.pth", "x.safetensors", drop_non_tensors=True)
    assert caught.value.code in ("CKPT701", "CKPT702")


@pytest.mark.parametrize("state", [{}, {"epoch": 1}, [], {"optimizer": {"state": {}, "param_groups": []}}])
def test_nothing_is_never_converted(state):
    torch.save(state, "in.pth")
    with pytest.raises(CkptauditError):
        convert("in.pth", "x.safetensors", drop_non_tensors=True)
    assert not Path("x.safetensors").exists()


def test_a_mapping_that_leaves_nothing_is_an_error():
    torch.save({"a": torch.zeros(1)}, "in.pth")
    with pytest.raises(UsageError, match=r"would be left without a single tensor"):
        convert("in.pth", "x.safetensors", drop="*")


def test_the_state_of_an_optimizer_is_no_state_dict():
    model = nn.Linear(2, 2)
    adam = torch.optim.Adam(model.parameters())
    model(torch.zeros(1, 2)).sum().backward()
    adam.step()
    torch.save({"model": model.state_dict(), "optimizer": adam.state_dict()}, "in.pth")
    with pytest.raises(UsageError, match="has at 'optimizer' the state of an optimizer, and no state dict"):
        convert("in.pth#optimizer", "x.safetensors")
    with pytest.raises(UsageError) as caught:
        convert("in.pth", "x.safetensors")
    assert caught.value.reason.startswith("holds what the result cannot keep: optimizer (dict with ")
    assert caught.value.hint == "leave out everything that is no tensor: --drop-non-tensors"
    for result in (
        convert("in.pth", "x.safetensors", drop_non_tensors=True),
        convert("in.pth#model", "y.safetensors"),
    ):
        assert result.left_out == {"optimizer": "dict"} or list(result.left_out) == ["optimizer"]
        nn.Linear(2, 2).load_state_dict(load_file(result.destination), strict=True)


# -- what is no tensor --------------------------------------------------------------------------------------------


VALUES = {
    "epoch": 3,
    "huge": -(10**30),
    "loss": 0.1,
    "nan": float("inf"),
    "none": None,
    "flag": True,
    "name": "ключ\n\ud800",
    "list": [1, [2.5, "x"], ()],
    "tuple": (1, (2,), [None]),
    "dict": {"a": {"b": 1}, "$c": 2},
    "numbered": {0: "a", (1, 2): "b"},
    "ordered": OrderedDict(z=1, a=(2,)),
    "bytes": b"\x00\xff",
    "no bytes": b"",
    "set": {1, 2},
    "size": torch.Size([1, 2]),
    "device": torch.device("cuda", 1),
    "dtype": torch.bfloat16,
    "tag": {"$tuple": [1]},
}


def test_what_is_no_tensor_is_kept():
    model = nn.BatchNorm1d(2)
    whole = {**VALUES, "deep": {"state_dict": model.state_dict(), "step": 1}, "last": [1]}
    torch.save(whole, "in.pth")
    result = convert("in.pth", "x.safetensors")
    assert set(result.kept) == {*VALUES, "deep.step", "last"}
    result = convert("x.safetensors", "back.pth")
    assert set(result.kept) == {*VALUES, "deep.step", "last"}
    back = torch.load("back.pth", weights_only=True)
    assert list(back) == list(whole)
    assert {key: back[key] for key in VALUES} == VALUES
    assert {key: type(back[key]) for key in VALUES} == {key: type(VALUES[key]) for key in VALUES}
    assert back["deep"]["step"] == 1
    assert same(back["deep"]["state_dict"], model.state_dict())
    assert back["deep"]["state_dict"]._metadata == model.state_dict()._metadata


def test_values_in_the_state_dict_keep_their_places():
    state = {"_extra_state": {"scale": (1.5,)}, "a": torch.ones(2), "n": 3, "b": torch.zeros(1), "end": b"x"}
    _, back = there_and_back(state)
    assert same(back, state)
    assert open_checkpoint("x.safetensors").manifest.entries == {"_extra_state": "dict", "n": "int", "end": "bytes"}


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (complex(1, 2), "complex"),
        (bytearray(b"x"), "bytearray"),
        ([1, complex(1, 2)], "list with complex"),
        ({"a": torch.ones(1)}, "dict with torch.Tensor"),
    ],
)
def test_what_has_no_form_is_refused_by_name(value, kind):
    torch.save({"state_dict": {"a": torch.ones(2), "b": torch.ones(3)}, "it": value}, "in.pth")
    with pytest.raises(UsageError) as caught:
        convert("in.pth", "x.safetensors")
    assert caught.value.reason == f"holds what the result cannot keep: it ({kind})"
    assert not Path("x.safetensors").exists()
    assert "it" in convert("in.pth", "x.safetensors", drop_non_tensors=True).left_out


def test_parameters_and_buffers_stay_what_they_are():
    state = {"p": nn.Parameter(torch.ones(2)), "f": nn.Parameter(torch.ones(1), requires_grad=False)}
    state |= {"b": nn.Buffer(torch.ones(1)), "t": torch.ones(1, requires_grad=True), "u": torch.ones(1)}
    torch.save(state, "in.pth")
    convert("in.pth", "x.safetensors")
    convert("x.safetensors", "back.pth")
    convert("in.pth", "y.pth")
    for path in ("back.pth", "y.pth"):
        back = loaded(path)
        assert same(back, state)
        assert [type(value) for value in back.values()] == [type(value) for value in state.values()]
        assert [v.requires_grad for v in back.values()] == [v.requires_grad for v in state.values()]
        assert isinstance(back["b"], nn.Buffer)


def test_metadata_of_the_user_are_kept():
    metadata = {"format": "pt", "license": "MIT", "ключ": "x" * 100}
    save_file({"a": torch.ones(2), "b": torch.ones(1)}, "in.safetensors", metadata=metadata)
    convert("in.safetensors", "out.safetensors")
    convert("in.safetensors", "y.pth")
    assert loaded("y.pth")._safetensors_metadata == {"license": "MIT", "ключ": "x" * 100}
    convert("y.pth", "back.safetensors")
    convert("in.safetensors", "folder.safetensors", shard_size=4)
    convert("folder.safetensors.index.json", "joined.safetensors")
    for path in ("out.safetensors", "back.safetensors", "joined.safetensors"):
        with safe_open(path, "pt") as file:
            assert file.metadata() == metadata


def test_the_order_of_keys():
    state = {key: random(size) for key, size in {"z": 1, "a": 16, "m": 3, "b": 32}.items()}
    torch.save(state, "in.pth")
    convert("in.pth", "x.safetensors")
    assert list(open_checkpoint("x.safetensors").manifest) == ["z", "a", "m", "b"]
    assert list(load_file("x.safetensors")) == ["a", "b", "z", "m"]  # the library goes by places in the file
    convert("x.safetensors", "back.pth")
    assert list(loaded("back.pth")) == ["z", "a", "m", "b"]


def test_tensors_are_aligned_as_far_as_the_format_permits():
    sizes = [1, 16, 3, 32, 8, 5, 64, 2]
    state = {str(number): random(size, dtype=torch.int16) for number, size in enumerate(sizes)}
    state["wide"] = random(1, dtype=torch.float64)
    state["byte"] = random(1, dtype=torch.uint8)
    torch.save(state, "in.pth")
    convert("in.pth", "x.safetensors")
    checkpoint = open_checkpoint("x.safetensors")
    for key, spec in checkpoint.manifest.tensors.items():
        offset = checkpoint.tensor(key).offset
        assert offset % (64 if spec.nbytes % 64 == 0 else min(spec.nbytes & -spec.nbytes, 64)) == 0, key
    convert("in.pth", "y.pth")
    checkpoint = open_checkpoint("y.pth")
    assert all(checkpoint.tensor(key).offset % 64 == 0 for key in state)


# -- other sources ------------------------------------------------------------------------------------------------


STATE = {"a.weight": torch.arange(12.0).reshape(3, 4), "a.bias": torch.tensor([1, 2, 3], dtype=torch.int64)}


def test_the_older_stream():
    torch.save(STATE, "in.pth", _use_new_zipfile_serialization=False)
    assert convert("in.pth", "x.safetensors").source_format == "torch-legacy"
    assert {key: bits(value) for key, value in load_file("x.safetensors").items()} == {
        key: bits(value) for key, value in STATE.items()
    }


def test_a_big_endian_archive():
    state = {
        "f": torch.randn(5),
        "i": torch.arange(3),
        "c": torch.randn(2, dtype=torch.complex64),
        "b": random(3, dtype=torch.bool),
    }
    torch.save(state, "in.pth")
    big_endian("in.pth", state)
    assert open_checkpoint("in.pth").details["byteorder"] == "big"
    assert same(torch.load("in.pth"), state)
    convert("in.pth", "x.safetensors")
    convert("in.pth", "y.pth")
    plain = load_file("x.safetensors")
    assert same({key: plain[key] for key in state}, state)
    assert same(loaded("y.pth"), state)


def big_endian(path, state):
    """Write the archive anew with its numbers in the other byte order."""
    import zipfile

    with zipfile.ZipFile(path) as archive:
        records = {info.filename: archive.read(info) for info in archive.infolist()}
    for number, tensor in enumerate(state.values()):
        width = tensor.element_size() // (2 if tensor.is_complex() else 1)
        data = records[f"in/data/{number}"]
        records[f"in/data/{number}"] = b"".join(data[at : at + width][::-1] for at in range(0, len(data), width))
    records["in/byteorder"] = b"big"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in records.items():
            archive.writestr(name, data)


@pytest.mark.filterwarnings("ignore:.*torch.jit", "ignore::FutureWarning", "ignore::DeprecationWarning")
def test_a_script(folder):
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    torch.jit.script(model).save("in.pt")
    result = convert("in.pt", "x.safetensors")
    assert result.left_out == {"the program": "torchscript"}
    nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)).load_state_dict(load_file("x.safetensors"), strict=True)
    assert {key: bits(value) for key, value in load_file("x.safetensors").items()} == {
        key: bits(value) for key, value in model.state_dict().items()
    }


def test_an_exported_program():
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
    torch.export.save(torch.export.export(model, (torch.zeros(1, 2),)), "in.pt2")
    convert("in.pt2", "x.safetensors")
    assert {key: bits(value) for key, value in load_file("x.safetensors").items()} == {
        key: bits(value) for key, value in model.state_dict().items()
    }


@pytest.mark.filterwarnings("ignore")
def test_a_distributed_checkpoint():
    import torch.distributed.checkpoint as dcp

    dcp.save({"model": STATE}, checkpoint_id="folder", no_dist=True)
    result = convert("folder", "x.safetensors")
    assert result.source_format == "dcp"
    assert {key: bits(value) for key, value in load_file("x.safetensors").items()} == {
        key: bits(value) for key, value in STATE.items()
    }


def test_shards():
    state = {f"layer.{number}.weight": random(10, dtype=torch.float32) for number in range(7)}
    state["tied"] = state["layer.0.weight"]
    state["n"] = 3
    torch.save(state, "in.pth")
    result = convert("in.pth", "out", shard_size="100") if Path("out").mkdir() is None else None
    assert [Path(file).name for file in result.files] == [
        *(f"model-{number:05d}-of-00004.safetensors" for number in range(1, 5)),
        "model.safetensors.index.json",
    ]
    index = json.loads(Path("out/model.safetensors.index.json").read_text())
    assert list(index["weight_map"]) == list(state)[:7]
    assert index["metadata"]["total_size"] == 280
    merged = {}
    for name in sorted(set(index["weight_map"].values())):
        merged |= load_file(f"out/{name}")
    assert same(merged, {key: state[key] for key in list(state)[:7]})
    checkpoint = open_checkpoint("out")
    assert list(checkpoint.manifest.tensors) == [*list(state)[:7], "tied"]
    assert checkpoint.manifest.entries == {"n": "int"}
    convert("out", "back.pth")
    assert same(loaded("back.pth"), state)
    assert ties(loaded("back.pth")) == [["layer.0.weight", "tied"]]


def test_shards_of_torch(folder):
    torch.save({"a": torch.ones(2)}, "pytorch_model-00001-of-00002.bin")
    torch.save({"b": torch.zeros(3)}, "pytorch_model-00002-of-00002.bin")
    places = {"a": "pytorch_model-00001-of-00002.bin", "b": "pytorch_model-00002-of-00002.bin"}
    Path("pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    convert("pytorch_model.bin.index.json", "x.safetensors")
    assert same(load_file("x.safetensors"), {"b": torch.zeros(3), "a": torch.ones(2)}) or set(
        load_file("x.safetensors")
    ) == {"a", "b"}


# -- mapping ------------------------------------------------------------------------------------------------------


def test_rules_and_casts():
    state = {"module.qkv.weight": torch.randn(6, 2), "module.n": torch.tensor(3), "fc.weight": torch.randn(2)}
    torch.save(state, "in.pth")
    rules = ["module.* -> *", "split qkv.weight -> q.weight, k.weight, v.weight dim=0"]
    for target, load in (("x.safetensors", load_file), ("y.pth", loaded)):
        result = convert("in.pth", target, mapping=rules, drop="fc.*", dtype="float16")
        got = load(target)
        q, k, v = state["module.qkv.weight"].half().split(2)
        assert {key: bits(value) for key, value in got.items()} == {
            "q.weight": bits(q),
            "k.weight": bits(k),
            "v.weight": bits(v),
            "n": bits(torch.tensor(3)),
        }
    row = next(row for row in result.tensors if row.key == "k.weight")
    assert row.sources == ("module.qkv.weight",)
    assert row.operation == "split sizes=2,2,2, cast dtype=float16"


def test_ties_stay_tied_through_a_cast():
    weight = torch.randn(4, 2)
    torch.save({"a": weight, "b": weight, "c": weight.clone()}, "in.pth")
    assert convert("in.pth", "x.safetensors", dtype="bfloat16").aliases == {"b": "a"}
    convert("in.pth", "y.pth", dtype="bfloat16")
    assert ties(loaded("y.pth")) == [["a", "b"]]


def test_a_tie_rule():
    torch.save({"embed.weight": torch.randn(4, 2)}, "in.pth")
    convert("in.pth", "y.pth", mapping="tie head.weight = embed.weight")
    assert ties(loaded("y.pth")) == [["embed.weight", "head.weight"]]


@pytest.mark.parametrize(
    ("value", "dtype", "shown"),
    [
        (torch.tensor([1.0, 70000.0, -1e30]), "float16", "2 of 3 values, such as 70000.0"),
        (torch.tensor([1e39], dtype=torch.float64), "float32", "1 of 1 values, such as 1e+39"),
        (torch.tensor([1000.0]), "float8_e4m3fn", "1 of 1 values, such as 1000.0"),
        (torch.tensor([300, 1]), "int8", "1 of 2 values, such as 300"),
        (torch.tensor([-1]), "uint8", "1 of 1 values, such as -1"),
    ],
)
def test_a_cast_that_overflows_is_refused(value, dtype, shown):
    torch.save({"ok": torch.zeros(1, dtype=value.dtype), "big.weight": value}, "in.pth")
    Path("x.safetensors").write_bytes(b"old")
    with pytest.raises(UsageError) as caught:
        convert("in.pth", "x.safetensors", dtype=dtype)
    assert (caught.value.subject, caught.value.reason) == ("big.weight", f"does not fit {dtype}: {shown}")
    assert Path("x.safetensors").read_bytes() == b"old"
    assert sorted(path.name for path in Path().iterdir()) == ["in.pth", "x.safetensors"]


@pytest.mark.parametrize(
    ("dtype", "largest", "too_large"),
    [("float16", 65519.0, 65520.0), ("float8_e4m3fn", 464.0, 465.0), ("float8_e5m2", 61439.0, 61441.0)],
)
def test_a_cast_may_round_and_not_overflow(dtype, largest, too_large):
    torch.save({"x": torch.tensor([largest, -largest])}, "in.pth")
    assert convert("in.pth", "x.safetensors", dtype=dtype).written
    torch.save({"x": torch.tensor([-too_large])}, "in.pth")
    with pytest.raises(UsageError, match="does not fit"):
        convert("in.pth", "x.safetensors", dtype=dtype)


def test_infinities_and_nan_are_no_overflow():
    torch.save({"x": torch.tensor([float("inf"), float("nan"), 1e-30])}, "in.pth")
    convert("in.pth", "x.safetensors", dtype="float16")
    assert str(load_file("x.safetensors")["x"].tolist()) == "[inf, nan, 0.0]"


# -- names --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["in.pth", "./in.pth", "link.pth", "hard.pth"])
def test_the_source_is_not_overwritten(path, folder):
    torch.save(STATE, "in.pth")
    (folder / "link.pth").symlink_to("in.pth")
    (folder / "hard.pth").hardlink_to("in.pth")
    before = Path("in.pth").read_bytes()
    with pytest.raises(UsageError, match="is an input of this conversion and would be overwritten"):
        convert("in.pth", path)
    assert Path("in.pth").read_bytes() == before


def test_a_shard_of_the_source_is_not_overwritten():
    torch.save({"a": torch.ones(4), "b": torch.ones(4)}, "in.pth")
    convert("in.pth", "m.safetensors", shard_size=16)
    for path, options in (("m-00001-of-00002.safetensors", {}), ("m.safetensors", {"shard_size": 16})):
        with pytest.raises(UsageError, match="is an input of this conversion"):
            convert("m.safetensors.index.json", path, **options)
    assert list(open_checkpoint("m.safetensors.index.json").manifest) == ["a", "b"]


@pytest.mark.parametrize(
    ("name", "hint"),
    [("x", "name it x.safetensors"), ("x.safetensor", "name it x.safetensors"), ("x.onnx", "name it x.safetensors")],
)
def test_a_name_without_a_format(name, hint):
    torch.save(STATE, "in.pth")
    with pytest.raises(UsageError) as caught:
        convert("in.pth", name)
    assert caught.value.hint == hint


@pytest.mark.parametrize("size", ["0", "-1", "5 apples", "", "GB", 0])
def test_a_size_that_is_none(size):
    torch.save(STATE, "in.pth")
    with pytest.raises(UsageError, match="is no size"):
        convert("in.pth", "x.safetensors", shard_size=size)


def test_a_dry_run_writes_nothing():
    torch.save(STATE, "in.pth")
    result = convert("in.pth", "x.safetensors", dry_run=True)
    assert (result.written, result.verified, len(result.tensors)) == (False, False, 2)
    assert [path.name for path in Path().iterdir()] == ["in.pth"]


def test_the_same_source_gives_the_same_bytes():
    torch.save(STATE, "in.pth")
    for target in ("x.safetensors", "x.pth"):
        convert("in.pth", target)
        first = Path(target).read_bytes()
        convert("in.pth", target)
        assert Path(target).read_bytes() == first


def test_a_header_is_what_the_format_says():
    torch.save(STATE, "in.pth")
    convert("in.pth", "x.safetensors")
    data = Path("x.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    assert (8 + length) % 64 == 0
    header = json.loads(data[8 : 8 + length])
    assert list(header) == ["__metadata__", "a.weight", "a.bias"]
    assert header["__metadata__"] == {"format": "pt"}
