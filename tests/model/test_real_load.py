"""really_load: what it reports is what torch did, and nothing of the caller's is changed by it."""

from __future__ import annotations

import copy
import sys
from collections import OrderedDict

import pytest
import torch
from safetensors.torch import save_file
from test_trial import CASES, MODULES, _same, _snapshot, ones
from torch import nn

from ckptaudit import KeyMapping
from ckptaudit.formats import DEFAULT_LIMITS, RawTensor, open_checkpoint
from ckptaudit.formats.base import ByteSource
from ckptaudit.manifest import TensorSpec
from ckptaudit.model import read_state
from ckptaudit.model.describe import manifest_of
from ckptaudit.model.real_load import really_load
from ckptaudit.model.trial import try_load
from ckptaudit.model.twin import UndecidedError, real_copy
from ckptaudit.model.witness import Testimony as Word

pytestmark = pytest.mark.filterwarnings("ignore")


def word_of(module, given, *mappings):
    return really_load(module, given, DEFAULT_LIMITS, mappings)


def loaded(module, given):
    """Return the one load of a testimony."""
    testimony = word_of(module, given)
    assert isinstance(testimony, Word), testimony
    (load,) = testimony.loads
    return load


# The like of no values can be copied for uint3, so that not even a state dict of them can.
@pytest.mark.parametrize("case", [case for case in CASES if case != "uint3"])
def test_it_says_what_the_trial_says(case):
    make, state = CASES[case]
    trial, load = try_load(make(), manifest_of(state())), loaded(make(), state())
    assert (load.outcome.missing_keys, load.outcome.unexpected_keys, load.outcome.errors) == (
        trial.missing_keys,
        trial.unexpected_keys,
        trial.errors,
    )
    assert load.outcome.loaded <= trial.loaded <= load.at_most
    assert (load.raised, bool(load.strict_raised)) == ("", not trial.strict)
    assert (load.altered, load.touched) == ((), ())


@pytest.mark.parametrize("name", MODULES)
def test_neither_module_nor_state_dict_are_changed(name):
    module, given = MODULES[name](), ones(MODULES[name]().state_dict())
    before, saved = _snapshot(module), copy.deepcopy(given)
    assert isinstance(word_of(module, given), Word)
    assert _same(before, _snapshot(module))
    assert _same(dict(saved), dict(given))


class Hooked(nn.Linear):
    """A layer whose load does one thing more."""

    def __init__(self, act):
        super().__init__(2, 2)
        self.act = act

    def _load_from_state_dict(self, state, prefix, *rest):
        self.act(self, state)
        super()._load_from_state_dict(state, prefix, *rest)


def test_values_that_do_not_arrive_are_named():
    load = loaded(Hooked(lambda _, state: state["weight"].mul_(2)), nn.Linear(2, 2).state_dict())
    assert (load.altered, load.touched, load.outcome.strict) == (("weight",), (), True)


def test_a_hook_that_writes_to_the_state_dict_writes_to_a_copy():
    state = nn.Linear(2, 2).state_dict()
    before = copy.deepcopy(state)
    loaded(Hooked(lambda _, state: state["weight"].mul_(2)), state)
    assert _same(dict(before), dict(state))


def test_keys_that_were_to_keep_their_values_and_do_not():
    load = loaded(Hooked(lambda layer, _: layer.bias.data.fill_(7)), {"weight": torch.ones(2, 2)})
    assert (load.altered, load.touched) == ((), ("bias",))
    assert load.outcome.missing_keys == ("bias",)


def test_what_a_refused_load_has_copied_until_then_is_looked_at_too():
    load = loaded(nn.Linear(2, 2), {"weight": torch.ones(3, 3), "bias": torch.ones(2)})
    assert (load.outcome.loaded, load.at_most, load.altered, load.touched) == (1, 1, (), ())
    assert load.strict_raised == "RuntimeError: Error(s) in loading state_dict for Linear:"


def refuse(_, state):
    if state["bias"].sum() > 1:
        raise KeyError("too much")


def test_a_hook_that_refuses_values():
    state = {"weight": torch.ones(2, 2), "bias": torch.ones(2)}
    load = loaded(Hooked(refuse), state)
    assert (load.raised, load.strict_raised) == ("KeyError: 'too much'", "KeyError: 'too much'")
    assert loaded(Hooked(refuse), {**state, "bias": torch.zeros(2)}).raised == ""


def test_a_cast_is_torchs_own_and_nan_equals_itself():
    state = {"weight": torch.tensor([[1e300, float("nan")], [1 / 3, -0.0]], dtype=torch.float64), "bias": torch.ones(2)}
    assert loaded(nn.Linear(2, 2), state).altered == ()


def test_ties_hold_one_of_two_values():
    model = nn.ModuleList([nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)])
    model[1].weight = model[0].weight
    load = loaded(model, {"0.weight": torch.ones(2, 2), "1.weight": torch.zeros(2, 2)})
    assert (load.outcome.loaded, load.altered) == (2, ())


def test_a_module_on_meta_is_loaded_into_zeros():
    with torch.device("meta"):
        model = nn.Linear(2, 2)
    load = loaded(model, {"weight": torch.ones(2, 2)})
    assert (load.outcome.loaded, load.altered, load.touched, model.weight.is_meta) == (1, (), (), True)


def test_a_load_state_dict_that_says_nothing():
    class Silent(nn.Module):
        def load_state_dict(self, _state, strict=True):
            """Say nothing."""

    assert loaded(Silent(), {}).raised == "AttributeError: 'NoneType' object has no attribute 'missing_keys'"


def test_why_there_was_no_load():
    class Singleton(nn.Linear):
        def __deepcopy__(self, memo):
            return self

    assert word_of(Singleton(1, 1), {}) == "Singleton copies itself in its own way, so no load can be tried on a copy"

    class Shy(nn.Linear):
        def state_dict(self, **_):
            raise LookupError("not now")

    assert word_of(Shy(1, 1), {}) == "LookupError: not now"
    assert word_of(nn.Linear(1, 1), "gone.pth") == "gone.pth no such file"


class TestCopies:
    def test_values_classes_and_ties(self):
        model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.BatchNorm1d(2))
        model[1].weight = model[0].weight
        model.scale = torch.ones(2)  # a plain attribute
        copied = real_copy(model)
        assert _same(dict(model.state_dict()), dict(copied.state_dict()))
        assert copied[1].weight is copied[0].weight
        assert copied[0].weight is not model[0].weight
        assert isinstance(copied[0].weight, nn.Parameter)
        copied[0].weight.data.zero_()
        copied.scale.zero_()
        assert model[0].weight.any()
        assert model.scale.all()

    def test_two_parameters_over_one_memory(self):
        model = nn.ParameterList([torch.arange(4.0)])
        model.append(nn.Parameter(model[0].data[2:]))
        copied = real_copy(model)
        copied[0].data.fill_(9)
        assert copied[1].tolist() == [9, 9]
        assert model[0].tolist() == [0, 1, 2, 3]
        # Loaded one after the other, the first one holds a part of the second.
        assert loaded(model, {"0": torch.zeros(4), "1": torch.ones(2)}).altered == ()

    def test_what_has_no_plain_storage(self):
        model = nn.Module()
        model.register_buffer("sparse", torch.eye(2).to_sparse())
        model.register_buffer("quantized", torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8))
        model.register_buffer("conj", torch.ones(2, dtype=torch.complex64).mul(1j).conj())
        copied = real_copy(model)
        assert torch.equal(copied.conj.resolve_conj(), model.conj.resolve_conj())
        assert torch.equal(copied.sparse.to_dense(), torch.eye(2))
        assert torch.equal(copied.quantized, model.quantized)
        assert loaded(model, model.state_dict()).altered == ()


class TestMappings:
    def test_each_load_has_its_mapping(self):
        state = {f"module.{key}": value for key, value in nn.Linear(2, 2).state_dict().items()}
        as_is, mapped = word_of(nn.Linear(2, 2), state, ["module.* -> *"]).loads
        assert (as_is.outcome.loaded, as_is.strict_raised != "") == (0, True)
        assert (mapped.outcome.loaded, mapped.strict_raised, mapped.altered) == (2, "", ())

    def test_mappings_act_one_after_the_other(self):
        state = OrderedDict(
            (f"module.{key}", value.T if value.dim() == 2 else value)
            for key, value in nn.Linear(3, 2).state_dict().items()
        )
        load = word_of(nn.Linear(3, 2), state, ["transpose *.weight"], ["module.* -> *"]).loads[1]
        assert (load.outcome.loaded, load.strict_raised, load.altered) == (2, "", ())

    def test_one_that_cannot_be_carried_out(self):
        said = word_of(nn.Linear(2, 2), nn.Linear(2, 2).state_dict(), ["modul.* -> *"])
        assert said == "modul.* -> * matches nothing"


STATE = {"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.tensor([1.0, 2.0])}


class TestReaders:
    def read(self, path):
        return read_state.read_state(open_checkpoint(path))

    def check(self, path, reader, note=""):
        state, by, why = self.read(path)
        assert (by, why) == (reader, note)
        assert _same({key: state[key] for key in STATE}, STATE)
        testimony = word_of(nn.Linear(3, 2), str(path))
        assert (testimony.reader, testimony.note, testimony.misread) == (reader, note, ())
        assert (testimony.loads[0].outcome.loaded, testimony.loads[0].altered) == (2, ())

    @pytest.mark.parametrize("zipped", [True, False])
    def test_what_torch_wrote(self, tmp_path, zipped):
        torch.save(STATE, tmp_path / "net.pth", _use_new_zipfile_serialization=zipped)
        self.check(tmp_path / "net.pth", "torch.load")

    def test_a_state_dict_inside(self, tmp_path):
        torch.save({"a.b": [{"x": 1}, {"net": STATE}], "epoch": 3}, tmp_path / "net.pth")
        self.check(f"{tmp_path}/net.pth#a.b.1.net", "torch.load")

    def test_one_of_two(self, tmp_path):
        other = {"weight": torch.zeros(1), "bias": torch.zeros(1)}
        torch.save({"g": other, "d": STATE}, tmp_path / "gan.pth")
        self.check(f"{tmp_path}/gan.pth#d", "torch.load")

    def test_safetensors(self, tmp_path):
        save_file(STATE, tmp_path / "net.safetensors")
        self.check(tmp_path / "net.safetensors", "safetensors")

    def test_without_safetensors(self, tmp_path, monkeypatch):
        save_file(STATE, tmp_path / "net.safetensors")
        monkeypatch.setitem(sys.modules, "safetensors.torch", None)
        self.check(tmp_path / "net.safetensors", "ckptaudit", "safetensors is not installed")

    @pytest.mark.parametrize(("suffix", "reader"), [("safetensors", "safetensors"), ("bin", "torch.load")])
    def test_shards(self, tmp_path, suffix, reader):
        stem = "model" if suffix == "safetensors" else "pytorch_model"
        names = {key: f"{stem}-{i + 1:05}-of-00002.{suffix}" for i, key in enumerate(STATE)}
        for key, name in names.items():
            (save_file if suffix == "safetensors" else torch.save)({key: STATE[key]}, tmp_path / name)
        text = str({"metadata": {}, "weight_map": names}).replace("'", '"')
        (tmp_path / f"{stem}.{suffix}.index.json").write_text(text)
        self.check(tmp_path / f"{stem}.{suffix}.index.json", reader)

    def test_a_program_is_not_run_for_its_weights(self, tmp_path):
        module = nn.Linear(3, 2)
        module.load_state_dict(STATE)
        torch.jit.save(torch.jit.script(module), tmp_path / "net.pt")
        self.check(tmp_path / "net.pt", "ckptaudit", "torch has no reader of torchscript that gives its tensors alone")

    def test_a_file_that_torch_refuses_is_never_unpickled(self, tmp_path):
        from argparse import Namespace

        torch.save({"state_dict": STATE, "args": Namespace(lr=1)}, tmp_path / "net.pth")
        state, by, why = self.read(tmp_path / "net.pth")
        assert (by, why.split(":")[0]) == ("ckptaudit", "torch's own reader refuses it")
        assert _same(dict(state), STATE)

    def test_versions_reach_the_load(self, tmp_path):
        model = nn.BatchNorm1d(2)
        state = model.state_dict()
        del state["num_batches_tracked"]
        torch.save(state, tmp_path / "new.pth")
        assert word_of(model, str(tmp_path / "new.pth")).loads[0].outcome.missing_keys == ("num_batches_tracked",)
        torch.save(dict(state), tmp_path / "old.pth")
        assert word_of(model, str(tmp_path / "old.pth")).loads[0].outcome.missing_keys == ()

    def test_a_reader_that_sees_something_else(self, tmp_path, monkeypatch):
        torch.save(STATE, tmp_path / "net.pth")
        other = {"weight": STATE["weight"].double(), "bias": STATE["bias"], "more": torch.ones(1)}
        monkeypatch.setattr(torch, "load", lambda *_, **__: other)
        assert word_of(nn.Linear(3, 2), str(tmp_path / "net.pth")).misread == ("weight", "more")


class TestOurReader:
    """What is built from the bytes is what torch.load gives."""

    def both(self, path, state):
        torch.save(state, path)
        checkpoint = open_checkpoint(path)
        return read_state._ours(checkpoint), torch.load(path, weights_only=True)

    def test_views_dtypes_and_entries(self, tmp_path):
        base = torch.arange(12.0).reshape(3, 4)
        dtypes = [
            torch.float16,
            torch.bfloat16,
            torch.int64,
            torch.bool,
            torch.uint8,
            torch.complex64,
            torch.float8_e5m2,
        ]
        state = {
            "base": base,
            "column": base[:, 1],
            "transposed": base.T,
            "empty": torch.ones(0, 3),
            "scalar": torch.tensor(3),
        }
        state |= {f"as {dtype}": base.to(dtype) for dtype in dtypes}
        state |= {"conj": torch.full((2,), 1 + 2j).conj(), "neg": torch.full((2,), 1 + 2j).conj().imag}
        ours, torchs = self.both(tmp_path / "net.pth", state)
        assert list(ours) == list(torchs)
        for key, tensor in torchs.items():
            assert (ours[key].dtype, ours[key].stride()) == (tensor.dtype, tensor.stride()), key
            assert ours[key].tolist() == tensor.tolist(), key
        ours["base"].zero_()
        assert not ours["transposed"].any()  # one storage

    @pytest.mark.parametrize("dtype", [torch.int16, torch.float64, torch.complex64])
    def test_the_byte_order_of_the_file(self, tmp_path, dtype):
        values = torch.tensor([1, 2, 515], dtype=dtype)
        width = values.element_size() // (2 if dtype.is_complex else 1)
        swapped = values.view(torch.uint8).reshape(-1, width).flip(1).numpy().tobytes()
        path = tmp_path / "bytes"
        path.write_bytes(swapped)
        spec = TensorSpec((3,), str(dtype).removeprefix("torch."), stride=(1,))
        other = "big" if sys.byteorder == "little" else "little"
        raw = RawTensor(spec, ByteSource(path), 0, len(swapped), other)
        assert torch.equal(read_state._tensor(raw, {}), values)

    def test_what_only_torch_can_rebuild(self, tmp_path):
        torch.save({"q": torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)}, tmp_path / "q.pth")
        with pytest.raises(UndecidedError, match="the values of q can be read by torch alone"):
            read_state._ours(open_checkpoint(tmp_path / "q.pth"))


def test_a_testimony_crosses_a_process_as_json():
    state = {f"module.{key}": value for key, value in nn.Linear(2, 2).state_dict().items()}
    testimony = word_of(nn.Linear(2, 2), state, KeyMapping.parse(["module.* -> *"]).to_json())
    assert Word.from_json(testimony.to_json()) == testimony
    assert len(testimony.loads) == 2
