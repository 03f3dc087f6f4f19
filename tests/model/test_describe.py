"""manifest_of against the module's own state_dict, named_parameters and named_buffers."""

from __future__ import annotations

import subprocess
import sys
from collections import OrderedDict

import pytest
import torch
from torch import nn

from ckptaudit.errors import UsageError
from ckptaudit.manifest import Manifest
from ckptaudit.model.describe import manifest_of


class Ragged(nn.Module):
    """Buffers of every sort, a tie, a None parameter, extra state."""

    def __init__(self, extra=None):
        super().__init__()
        self.extra = extra
        self.embed = nn.Embedding(5, 3)
        self.norm = nn.BatchNorm1d(3)
        self.head = nn.Linear(3, 5, bias=False)
        self.head.weight = self.embed.weight
        self.register_parameter("absent", None)
        self.register_buffer("kept", torch.arange(4))
        self.register_buffer("skipped", torch.zeros(2, 2, dtype=torch.float16), persistent=False)
        self.register_buffer("no_buffer", None)
        self.embed.weight.requires_grad_(False)

    def get_extra_state(self):
        return self.extra

    def set_extra_state(self, state):
        self.extra = state


MODULES = {
    "ragged": lambda: Ragged({"epoch": 1}),
    "extra tensor": lambda: Ragged(torch.zeros(7, dtype=torch.uint8)),
    "lstm": lambda: nn.LSTM(3, 4, num_layers=2, bidirectional=True),
    "attention": lambda: nn.TransformerEncoderLayer(8, 2, 16),
    "parametrized": lambda: nn.utils.parametrizations.weight_norm(nn.Linear(3, 4)),
    "shared module": lambda: nn.ModuleDict(dict.fromkeys("ab", nn.Linear(2, 2))),
    "half channels last": lambda: nn.Conv2d(3, 4, 3).half().to(memory_format=torch.channels_last),
    "empty": nn.Sequential,
    "float8": lambda: nn.ParameterList([nn.Parameter(torch.zeros(2).to(torch.float8_e4m3fn), requires_grad=False)]),
}


@pytest.fixture(params=MODULES)
def module(request):
    return MODULES[request.param]()


def test_keys_and_their_order_are_those_of_state_dict(module):
    state = module.state_dict()
    manifest = manifest_of(module)
    assert list(manifest.tensors) == [key for key, value in state.items() if isinstance(value, torch.Tensor)]
    assert list(manifest.entries) == [key for key, value in state.items() if not isinstance(value, torch.Tensor)]


def test_tensors_look_as_torch_says(module):
    state = module.state_dict()
    for key, spec in manifest_of(module).tensors.items():
        value = state[key]
        assert spec.shape == tuple(value.shape)
        assert spec.dtype == str(value.dtype).removeprefix("torch.")
        assert spec.stride == value.stride()
        assert spec.storage_offset == value.storage_offset()
        assert spec.storage_nbytes == value.untyped_storage().nbytes()
        assert spec.layout == "strided"
        assert spec.location is None


def test_kinds_and_requires_grad_are_the_modules(module):
    parameters = dict(module.named_parameters(remove_duplicate=False))
    buffers = dict(module.named_buffers(remove_duplicate=False))
    for key, spec in manifest_of(module).tensors.items():
        if key.endswith("_extra_state"):
            assert spec.kind == "extra_state"
        elif key in parameters:
            assert (spec.kind, spec.requires_grad) == ("parameter", parameters[key].requires_grad)
        else:
            assert (spec.kind, spec.requires_grad) == ("buffer", buffers[key].requires_grad)


def test_storages_are_shared_where_torch_shares_them(module):
    state = {key: value for key, value in module.state_dict().items() if isinstance(value, torch.Tensor)}
    manifest = manifest_of(module)
    for a, left in state.items():
        for b, right in state.items():
            same = left.untyped_storage()._cdata == right.untyped_storage()._cdata
            assert (manifest[a].storage == manifest[b].storage) is same


def test_versions_are_those_of_the_metadata(module):
    metadata = module.state_dict()._metadata
    assert manifest_of(module).versions == {path: entry.get("version") for path, entry in metadata.items()}


def test_the_json_form_survives_a_round_trip(module):
    manifest = manifest_of(module)
    assert Manifest.from_json(manifest.to_json(), "") == manifest


def test_storages_are_numbered_in_order_of_appearance():
    manifest = manifest_of(Ragged())
    assert [spec.storage for spec in manifest.tensors.values()] == ["0", "1", "2", "3", "4", "5", "6", "1"]
    assert manifest.ties() == [("embed.weight", "head.weight")]


def test_non_persistent_buffers_are_listed_apart():
    manifest = manifest_of(nn.Sequential(Ragged()))
    assert list(manifest.non_persistent) == ["0.skipped"]
    spec = manifest.non_persistent["0.skipped"]
    assert (spec.shape, spec.dtype, spec.kind) == ((2, 2), "float16", "buffer")
    assert "0.skipped" not in manifest


def test_extra_state_that_is_no_tensor_is_an_entry():
    assert manifest_of(Ragged({"epoch": 1})).entries == {"_extra_state": "dict"}
    assert manifest_of(Ragged(OrderedDict())).entries == {"_extra_state": "collections.OrderedDict"}


def test_the_modules_own_hooks_are_heard():
    model = nn.Linear(2, 3)
    model.register_state_dict_post_hook(
        lambda _module, state, prefix, _meta: state.update(renamed=state.pop(prefix + "weight"))
    )
    manifest = manifest_of(model)
    assert list(manifest.tensors) == ["bias", "renamed"]
    assert manifest["renamed"].kind == "parameter"
    assert manifest["renamed"].requires_grad is True


def test_what_a_hook_makes_up_is_a_plain_tensor():
    model = nn.Linear(2, 3)
    model.register_state_dict_post_hook(lambda _module, state, _prefix, _meta: state.update(made=torch.ones(1)))
    assert manifest_of(model)["made"].kind == "tensor"


def test_lazy_parameters_have_no_shape_yet():
    manifest = manifest_of(nn.LazyBatchNorm1d())
    assert {key: spec.layout for key, spec in manifest.tensors.items()} == {
        "weight": "uninitialized",
        "bias": "uninitialized",
        "running_mean": "uninitialized",
        "running_var": "uninitialized",
        "num_batches_tracked": "strided",
    }
    assert (manifest["weight"].shape, manifest["weight"].storage, manifest["weight"].stride) == (
        (),
        None,
        None,
    )
    assert (manifest["weight"].kind, manifest["running_mean"].kind) == ("parameter", "buffer")
    assert manifest["weight"].requires_grad is True


@pytest.mark.filterwarnings("ignore:Sparse CSR")
def test_sparse_tensors_have_a_layout_and_no_storage():
    manifest = manifest_of({"coo": torch.eye(3).to_sparse(), "csr": torch.eye(3).to_sparse_csr()})
    assert [(s.layout, s.stride, s.storage, s.shape) for s in manifest.tensors.values()] == [
        ("sparse_coo", None, None, (3, 3)),
        ("sparse_csr", None, None, (3, 3)),
    ]


@pytest.mark.filterwarnings("ignore:.*quantiz")
def test_quantized_tensors():
    tensor = torch.quantize_per_tensor(torch.zeros(2, 3), 0.1, 0, torch.qint8)
    assert manifest_of({"q": tensor})["q"].dtype == "qint8"


def test_conjugate_and_negative_views():
    tensor = torch.zeros(2, dtype=torch.complex64)
    manifest = manifest_of({"conj": tensor.conj(), "neg": tensor.conj().imag})
    assert (manifest["conj"].conj, manifest["conj"].neg) == (True, False)
    assert (manifest["neg"].conj, manifest["neg"].neg) == (False, True)


def test_tensor_subclasses_are_described_by_their_dtype():
    class Tagged(torch.Tensor):
        pass

    spec = manifest_of({"t": torch.zeros(2, 3, dtype=torch.bfloat16).as_subclass(Tagged)})["t"]
    assert (spec.shape, spec.dtype) == ((2, 3), "bfloat16")


def test_a_module_on_the_meta_device():
    with torch.device("meta"):
        on_meta = Ragged()
    assert manifest_of(on_meta) == manifest_of(Ragged())


def test_a_state_dict_with_metadata():
    model = Ragged({"epoch": 1})
    manifest = manifest_of(model.state_dict())
    assert manifest.versions == manifest_of(model).versions
    assert manifest.entries == {"_extra_state": "dict"}
    assert {spec.kind for spec in manifest.tensors.values()} == {"tensor"}
    assert manifest.non_persistent == {}


def test_a_plain_dict_has_no_versions():
    manifest = manifest_of(
        {"w": torch.zeros(2), "p": nn.Parameter(torch.zeros(1)), "_extra_state": torch.zeros(1), "n": 3}
    )
    assert manifest.versions is None
    assert manifest.entries == {"n": "int"}
    assert [spec.kind for spec in manifest.tensors.values()] == ["tensor", "parameter", "extra_state"]
    assert [spec.requires_grad for spec in manifest.tensors.values()] == [False, True, False]


def test_a_view_of_a_bigger_storage():
    big = torch.zeros(100)
    spec = manifest_of({"w": big[10:16].view(2, 3).t()})["w"]
    assert (spec.shape, spec.stride, spec.storage_offset, spec.storage_nbytes) == ((3, 2), (1, 3), 10, 400)


def test_unusual_metadata_is_not_trusted():
    state = OrderedDict(w=torch.zeros(1))
    state._metadata = {"": {"version": 2}, "a": {}, "b": "text", "c": {"version": "new"}}
    assert manifest_of(state).versions == {"": 2, "a": None, "b": None, "c": None}


@pytest.mark.parametrize(
    ("given", "subject", "reason"),
    [
        (3, "int", "is neither a torch.nn.Module nor a mapping of names to tensors"),
        ({1: torch.zeros(1)}, "state dict", "has a key that is no text: 1"),
    ],
)
def test_what_has_no_manifest(given, subject, reason):
    with pytest.raises(UsageError) as caught:
        manifest_of(given)
    assert (caught.value.subject, caught.value.reason) == (subject, reason)


def test_manifest_of_is_reached_from_the_manifest():
    assert Manifest.of(nn.Linear(1, 1)) == manifest_of(nn.Linear(1, 1))


def test_the_torch_free_parts_import_no_torch():
    code = (
        "import sys\n"
        "for name in ('torch', 'numpy'): sys.modules[name] = None\n"
        "import ckptaudit.model, ckptaudit.model.spec, ckptaudit.model.process, ckptaudit.model.witness\n"
        "from ckptaudit.model import open_model, parse_model_spec, LoadWitness, ModelFacts\n"
        "parse_model_spec('model.py:Net', ['n=1'])\n"
        "heavy = {'zipfile', 'pickle', 'logging', 'shlex', 'difflib'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
