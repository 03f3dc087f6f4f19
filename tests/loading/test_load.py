"""ckptaudit.load against torch's own torch.load and load_state_dict."""

import copy

import pytest
import torch
from torch import nn
from torchvision.models import resnet18

import ckptaudit
from ckptaudit import LoadError, UsageError


def bits(model):
    return {
        key: value.clone() if isinstance(value, torch.Tensor) else value for key, value in model.state_dict().items()
    }


def assert_same(one, other):
    assert one.keys() == other.keys()
    for key, value in one.items():
        if isinstance(value, torch.Tensor):
            assert value.dtype == other[key].dtype, key
            assert torch.equal(
                value.contiguous().view(-1).view(torch.uint8), other[key].contiguous().view(-1).view(torch.uint8)
            ), key
        else:
            assert value == other[key], key


def saved(tmp_path, module, name="c.pth"):
    torch.save(module.state_dict(), tmp_path / name)
    return tmp_path / name


def test_a_strict_load_is_torchs_own(tmp_path):
    path = saved(tmp_path, resnet18())
    ours, theirs = resnet18(), resnet18()
    result = ckptaudit.load(ours, path)
    theirs.load_state_dict(torch.load(path, weights_only=True))
    assert_same(ours.state_dict(), theirs.state_dict())
    assert result.loaded_keys == tuple(theirs.state_dict())
    assert (result.share, result.missing_keys, result.on_meta) == (1.0, (), ())


def test_what_is_not_strict_raises_and_loads_nothing(tmp_path):
    path = saved(tmp_path, resnet18())
    model = resnet18(num_classes=10)
    before = bits(model)
    with pytest.raises(LoadError, match="does not load strictly into ResNet: 2 of another shape") as caught:
        ckptaudit.load(model, path)
    assert_same(model.state_dict(), before)
    assert caught.value.result.mismatched_keys["fc.bias"] == ((1000,), (10,))


def test_a_partial_load_says_its_share(tmp_path):
    path = saved(tmp_path, resnet18())
    model = resnet18(num_classes=10)
    result = ckptaudit.load(model, path, contract="partial", min_share=0.9)
    assert tuple(result.mismatched_keys) == ("fc.weight", "fc.bias")
    assert torch.equal(model.conv1.weight, torch.load(path)["conv1.weight"])
    assert 0.99 < result.share < 1
    before = bits(model)
    with pytest.raises(LoadError, match=r"would load 100\.0% of ResNet, less than 100\.0%|less than 100"):
        ckptaudit.load(model, path, contract="partial", min_share=1)
    assert_same(model.state_dict(), before)


def test_partial_has_to_say_how_much():
    with pytest.raises(UsageError, match="does not say how much is enough"):
        ckptaudit.load(nn.Linear(1, 1), {}, contract="partial")


def test_a_lost_prefix_loads_nothing_and_says_so(tmp_path):
    torch.save({f"module.{k}": v for k, v in resnet18().state_dict().items()}, tmp_path / "c.pth")
    model = resnet18()
    before = bits(model)
    with pytest.raises(LoadError, match="loads nothing into ResNet"):
        ckptaudit.load(model, tmp_path / "c.pth", contract="partial", min_share=0)
    assert_same(model.state_dict(), before)
    ckptaudit.load(model, tmp_path / "c.pth", mapping="module.* -> *")
    assert_same(model.state_dict(), {k[7:]: v for k, v in torch.load(tmp_path / "c.pth").items()})


def test_a_mapping_with_operations(tmp_path):
    path = saved(tmp_path, nn.Linear(3, 6))
    model = nn.ModuleDict({"q": nn.Linear(3, 2), "k": nn.Linear(3, 2), "v": nn.Linear(3, 2)})
    ckptaudit.load(
        model, path, mapping=["split weight -> q.weight, k.weight, v.weight", "split bias -> q.bias, k.bias, v.bias"]
    )
    assert torch.equal(torch.cat([model[name].weight for name in "qkv"]), torch.load(path)["weight"])


def test_assign_takes_the_tensors_and_keeps_ties_and_flags(tmp_path):
    def tied():
        model = nn.ModuleDict({"e": nn.Embedding(5, 3), "h": nn.Linear(3, 5, bias=False)})
        model["h"].weight = model["e"].weight
        return model

    path = saved(tmp_path, tied())
    with torch.device("meta"):
        model = tied()
    model["e"].weight.requires_grad_(False)
    result = ckptaudit.load(model, path, assign=True)
    assert model["h"].weight is model["e"].weight
    assert model["e"].weight.requires_grad is False
    assert result.on_meta == ()
    assert torch.equal(model["e"].weight, torch.load(path)["e.weight"])


def test_assigned_memory_is_neither_the_files_nor_the_callers():
    source = nn.Linear(2, 2)
    state = source.state_dict()
    model = nn.Linear(2, 2)
    ckptaudit.load(model, state, assign=True)
    assert model.weight.data_ptr() != source.weight.data_ptr()


def test_the_dtype_of_the_checkpoint_is_taken_on_request(tmp_path):
    path = saved(tmp_path, nn.Linear(2, 2).half())
    model = nn.Linear(2, 2)
    assert ckptaudit.load(model, path).casts["weight"] == ("float16", "float32")
    assert model.weight.dtype == torch.float32
    ckptaudit.load(model, path, assign=True, dtype="checkpoint")
    assert model.weight.dtype == torch.float16
    with pytest.raises(UsageError, match="needs assign=True"):
        ckptaudit.load(model, path, dtype="checkpoint")


def test_exact_refuses_a_cast(tmp_path):
    path = saved(tmp_path, nn.Linear(2, 2).half())
    with pytest.raises(LoadError, match="holds weight as float16, the model as float32"):
        ckptaudit.load(nn.Linear(2, 2), path, contract="exact")


class Stateful(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.randn(2))
        self.memory = {"steps": 0}

    def get_extra_state(self):
        return {"steps": self.memory["steps"], "names": ("a", "b")}

    def set_extra_state(self, state):
        self.memory.update(state)


def test_extra_state_is_loaded(tmp_path):
    source = Stateful()
    source.memory["steps"] = 7
    model = Stateful()
    ckptaudit.load(model, saved(tmp_path, source))
    assert model.memory == {"steps": 7, "names": ("a", "b")}


@pytest.mark.parametrize("place", ["cpu", torch.device("cpu"), {"cpu": "cpu"}, None, lambda storage, _: storage])
def test_map_location(tmp_path, place):
    path = saved(tmp_path, nn.Linear(2, 2))
    model = nn.Linear(2, 2)
    ckptaudit.load(model, path, map_location=place)
    assert torch.equal(model.weight, torch.load(path)["weight"])


def test_map_location_to_meta_takes_no_values(tmp_path):
    path = saved(tmp_path, nn.Linear(2, 2))
    model = nn.Linear(2, 2)
    ckptaudit.load(model, path, map_location="meta", assign=True)
    assert model.weight.is_meta


@pytest.mark.parametrize("place", ["cuda:77", "nonsense", 3])
def test_a_place_that_is_none(tmp_path, place):
    with pytest.raises(UsageError, match=r"^map_location: "):
        ckptaudit.load(nn.Linear(2, 2), saved(tmp_path, nn.Linear(2, 2)), map_location=place)


def test_odd_tensors(tmp_path):
    base = (torch.arange(24.0) * (1 + 2j)).reshape(4, 6)
    state = {
        "t": base.t(),
        "part": base[1:3, 2:],
        "conj": base.conj(),
        "neg": (torch.ones(3, 3) * 1j).conj().imag,
        "empty": torch.empty(0, 3),
        "one": torch.tensor(3.5),
        "expanded": torch.ones(1).expand(5),
        "channels": torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
        "f8": torch.randn(4).to(torch.float8_e4m3fn),
        "b": torch.tensor([True, False]),
    }
    torch.save(state, tmp_path / "c.pth")

    def holder():
        module = nn.Module()
        for key, value in state.items():
            module.register_buffer(key, torch.zeros(value.shape, dtype=value.dtype))
        return module

    ours, theirs = holder(), holder()
    ckptaudit.load(ours, tmp_path / "c.pth")
    theirs.load_state_dict(torch.load(tmp_path / "c.pth", weights_only=True))
    assert_same(ours.state_dict(), theirs.state_dict())


def test_tied_names_with_other_values(tmp_path):
    """Trap 14: torch lets the last one win."""
    model = nn.ModuleDict({"e": nn.Embedding(5, 3), "h": nn.Linear(3, 5, bias=False)})
    path = saved(tmp_path, model)
    model["h"].weight = model["e"].weight
    with pytest.raises(
        LoadError, match=r"has other values under h.weight than under e.weight, which ModuleDict has tied"
    ):
        ckptaudit.load(model, path)


@pytest.mark.parametrize(
    ("saved_as", "held_as", "reason"),
    [
        (torch.tensor([1e6]), torch.float16, "whose range 1 of 1 values are out of"),
        (torch.tensor([2.87]), torch.int64, "a cast would change what the values are"),
        (torch.tensor([1 + 2j]), torch.float32, "a cast would change what the values are"),
    ],
)
def test_a_cast_that_loses_values(saved_as, held_as, reason):
    """Trap 7: torch casts in silence."""
    model = nn.Module()
    model.register_buffer("x", torch.zeros(1, dtype=held_as))
    with pytest.raises(LoadError, match=reason):
        ckptaudit.load(model, {"x": saved_as})


def test_the_callers_metadata_is_left_alone():
    """Trap 6: torch writes assign_to_params_buffers into it, and the next load assigns."""
    state = nn.BatchNorm1d(2).state_dict()
    metadata = copy.deepcopy(state._metadata)
    ckptaudit.load(nn.BatchNorm1d(2), state, assign=True)
    assert state._metadata == metadata


def test_a_model_on_meta_needs_assign(tmp_path):
    """Trap 4: torch says that all keys matched, and loads nothing."""
    path = saved(tmp_path, nn.Linear(2, 2))
    with torch.device("meta"):
        model = nn.Linear(2, 2)
    with pytest.raises(LoadError, match="which is on the meta device"):
        ckptaudit.load(model, path)


def test_what_stays_on_meta_is_said(tmp_path):
    """Trap 11: non-persistent buffers are in no state dict."""

    def build():
        model = nn.Linear(2, 2)
        model.register_buffer("mask", torch.ones(2), persistent=False)
        return model

    path = saved(tmp_path, build())
    with torch.device("meta"):
        model = build()
    assert ckptaudit.load(model, path, assign=True).on_meta == ("mask",)


def test_what_is_not_read_is_refused_by_name(tmp_path):
    torch.save({"w": torch.eye(3).to_sparse(), "b": torch.ones(2)}, tmp_path / "c.pth")
    model = nn.Module()
    model.register_buffer("w", torch.zeros(3, 3))
    model.register_buffer("b", torch.zeros(2))
    with pytest.raises(LoadError, match=r"w is sparse_coo, which is not read yet|does not load strictly"):
        ckptaudit.load(model, tmp_path / "c.pth")
    assert model.b.tolist() == [0, 0]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_quantized_values_are_not_taken_for_integers(tmp_path):
    state = {"w": torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)}
    torch.save(state, tmp_path / "c.pth")
    model = nn.Module()
    model.register_buffer("w", torch.quantize_per_tensor(torch.zeros(3), 0.5, 0, torch.qint8))
    with pytest.raises(LoadError, match=r"w is quantized, which is not read yet|does not load"):
        ckptaudit.load(model, tmp_path / "c.pth")


def test_a_rule_that_expects_what_is_there_is_an_error(tmp_path):
    path = saved(tmp_path, nn.Linear(2, 2))
    with pytest.raises(UsageError, match="matches nothing"):
        ckptaudit.load(nn.Linear(2, 2), path, mapping="expect_missing other.*")


def test_a_way_to_load_of_the_objects_own_is_code_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr("ckptaudit.loading.atomic.IN_MEMORY", 0)
    path = saved(tmp_path, nn.Linear(2, 2))
    model, seen = nn.Linear(2, 2), []
    torchs = model.load_state_dict

    def own(state, strict=True):
        seen.append(float(state["weight"].sum()))
        return torchs(state, strict=strict)

    model.load_state_dict = own
    ckptaudit.load(model, path)
    assert seen[-1] == pytest.approx(float(torch.load(path)["weight"].sum()))
